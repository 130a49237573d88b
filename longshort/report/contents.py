"""The tables of a report: every run side by side, rounds, benchmarks, turns, and what else its runs have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from longshort.evaluation.metrics import accuracy_efficiency_score
from longshort.report.behaviour_tables import behaviour_tables
from longshort.report.records import Measure, Run
from longshort.report.tables import Cell, Column, Table

_MEASURED = (
    Column("accuracy", "share"),
    Column("± standard error", "share"),
    Column("tokens", "tokens"),
    Column("turns", "turns"),
)
_AES = Column("AES", "signed")
_AES_NOTE = "AES and fewer tokens are against the base: the reasoner where it was measured, else the start."


def tables_of(runs: Sequence[Run]) -> list[Table]:
    """Those that have a row, without columns that are empty throughout."""
    found = (
        runs_table(runs),
        rounds_table(runs),
        checkpoints_table(runs),
        benchmarks_table(runs),
        turns_table(runs),
        lengths_table(runs),
        context_table(runs),
        *behaviour_tables(runs),
        chains_table(runs),
        settings_table(runs),
    )
    return [table.without_empty_columns() for table in found if table.rows]


def runs_table(runs: Sequence[Run]) -> Table:
    """One row for each run: first and last measure."""
    columns = (
        *(
            Column("run"),
            Column("kind"),
            Column("on"),
            Column("base accuracy", "share"),
            Column("base tokens", "tokens"),
        ),
        *(Column("accuracy", "share"), Column("tokens", "tokens"), Column("fewer tokens", "share"), _AES),
        *(Column("steps", "count"), Column("episodes here", "count")),
    )
    return Table("runs", "All runs", columns, tuple(_run_row(run) for run in runs), _AES_NOTE)


def rounds_table(runs: Sequence[Run]) -> Table:
    """Rounds of training on the test problems, the start and the reasoner first."""
    rows: list[tuple[Cell, ...]] = []
    for run in runs:
        rounds = {each.name or "end": each for each in run.record.rounds}
        for measure in run.measures if run.kind == "training" else ():
            each = rounds.get(measure.stage)
            selected = None if each is None else "its start" if each.selected is None else f"step {each.selected}"
            rows.append(
                (
                    run.name,
                    measure.stage,
                    selected,
                    *_measured(measure),
                    _aes(measure, run.base),
                    each.stopped if each else None,
                )
            )
    columns = (Column("run"), Column("after"), Column("selected"), *_MEASURED, _AES, Column("stopped"))
    return Table("rounds", "Rounds", columns, tuple(rows), _AES_NOTE)


def checkpoints_table(runs: Sequence[Run]) -> Table:
    """The checkpoints that each round chose from, on the validation problems."""
    rows = [
        (
            run.name,
            each.name,
            c.step,
            c.accuracy,
            c.standard_error,
            c.length,
            "selected" if c.step == each.selected else None,
        )
        for run in runs
        for each in run.record.rounds
        for c in each.candidates
    ]
    columns = (
        *(Column("run"), Column("round"), Column("step", "count"), Column("accuracy", "share")),
        *(Column("± standard error", "share"), Column("tokens", "tokens"), Column("selected")),
    )
    return Table("checkpoints", "Checkpoints that rounds chose from", columns, tuple(rows))


def benchmarks_table(runs: Sequence[Run]) -> Table:
    """Evaluations, benchmark by benchmark."""
    columns = (
        *(Column("benchmark"), Column("run"), Column("problems", "count"), Column("samples", "count")),
        *(Column("pass@1", "share"), Column("from", "share"), Column("to", "share"), Column("pass@k", "share")),
        *(Column("k", "count"), Column("tokens", "tokens"), Column("tokens per right answer", "tokens")),
        *(Column("turns", "turns"), Column("most turns", "count"), Column("truncated", "share")),
        *(Column("malformed", "share"), _AES, Column("left out: unreadable", "count")),
        Column("left out: ungradable", "count"),
    )
    rows = [_benchmark_row(name, run.name, run.benchmarks[name]) for name, run in _by_benchmark(runs)]
    note = (
        "From and to are the 95% interval of pass@1, clustered by problem. Rows of one benchmark are of the same "
        "problems. Left out are rows that are no problems, and gold answers that cannot be graded."
    )
    return Table("benchmarks", "Benchmarks", columns, tuple(rows), note)


def turns_table(runs: Sequence[Run]) -> Table:
    """Turn statistics (Long⊗Short, arXiv 2505.11827, table 10): of each role, per conversation."""
    rows: list[tuple[Cell, ...]] = []
    for run in runs:
        for measure in run.measures:
            for role, each in measure.roles.items():
                per_turn = each.tokens / each.turns if each.turns else None
                rows.append(
                    (
                        *(run.name, measure.stage or measure.problems, role, each.turns, each.tokens, per_turn),
                        *(each.cut_turns, each.well_formed_turns, measure.outcomes.get("answered")),
                    )
                )
    columns = (
        *(Column("run"), Column("after, or on"), Column("role"), Column("turns", "turns"), Column("tokens", "tokens")),
        *(Column("tokens per turn", "tokens"), Column("cut turns", "share"), Column("well-formed turns", "share")),
        Column("answered", "share"),
    )
    return Table("turns", "Turns", columns, tuple(rows), "Turns and tokens are means per conversation.")


def lengths_table(runs: Sequence[Run]) -> Table:
    """Percentiles of length of right and of wrong answers."""
    found: list[tuple[str, str, str, Mapping[str, float]]] = []
    for name, run in _by_benchmark(runs):
        for answers in ("right", "wrong"):
            values = run.benchmarks[name].get("length_percentiles", {}).get(answers)
            if values:
                found.append((name, run.name, answers, values))
    # Runs of different versions may have different ones.
    shares = sorted({share for *_, values in found for share in values}, key=float)
    rows = [(*facts, *[values.get(share) for share in shares]) for *facts, values in found]
    columns = (Column("benchmark"), Column("run"), Column("answers"), *[Column(f"{s}%", "count") for s in shares])
    return Table("lengths", "Lengths: tokens that so many answers do not exceed", columns, tuple(rows))


def context_table(runs: Sequence[Run]) -> Table:
    """What conversations cost to read as well as to write."""
    rows: list[tuple[Cell, ...]] = []
    for name, run in _by_benchmark(runs):
        for role, each in run.benchmarks[name].get("roles", {}).items():
            cost = each.get("context", {})
            rows.append(
                (name, run.name, role, *(cost.get(key) for key in ("prompt", "cached", "computed", "generated")))
            )
    columns = (
        *(Column("benchmark"), Column("run"), Column("role"), Column("prompt", "tokens"), Column("cached", "tokens")),
        *(Column("computed", "tokens"), Column("generated", "tokens")),
    )
    note = "Tokens per conversation, in the role's own tokens. What is cached depends on the machine."
    return Table("context", "Cost of the context", columns, tuple(rows), note)


def chains_table(runs: Sequence[Run]) -> Table:
    """What became of the chains of a cold start."""
    columns = (
        *(Column("run"), Column("chains", "count"), Column("chunked", "count"), Column("by rules", "count")),
        *(Column("scored", "count"), Column("kept", "count"), Column("rollouts", "count"), Column("dropped")),
        *(Column("accuracy", "share"), Column("tokens", "tokens"), Column("turns", "turns")),
    )
    rows: list[tuple[Cell, ...]] = []
    for run in runs:
        if chains := run.chains:
            dropped = ", ".join(f"{reason} {count}" for reason, count in chains.get("dropped", {}).items())
            counts = [chains.get(key) for key in ("chains", "chunked", "fallback", "scored", "kept", "rollouts")]
            figures = [chains.get(key) for key in ("accuracy", "tokens_per_episode", "turns")]
            rows.append((run.name, *counts, dropped or None, *figures))
    return Table("chains", "Cold start: chains, and the pair that was made of them", columns, tuple(rows))


def settings_table(runs: Sequence[Run]) -> Table:
    """Settings that may be shown, by run."""
    keys = list(dict.fromkeys(key for run in runs for key in run.settings))
    rows = [(key, *[run.settings.get(key) for run in runs]) for key in keys]
    return Table("settings", "Settings", (Column("setting"), *[Column(run.name) for run in runs]), tuple(rows))


def _run_row(run: Run) -> tuple[Cell, ...]:
    steps = sum("reward/mu" in line for line in run.steps) or None
    tail = (steps, len(run.samples))
    after = next((m for m in reversed(run.measures) if m.stage not in ("start", "reasoner")), None)
    if after is None:
        pair = run.chains.get("accuracy"), run.chains.get("tokens_per_episode")
        return (run.name, run.kind, None, None, None, *pair, None, None, *tail)
    before = run.base if run.base and run.base.problems == after.problems else None
    fewer = 1 - after.tokens / before.tokens if before and before.tokens else None
    return (
        *(run.name, run.kind, after.problems, before.accuracy if before else None),
        *(before.tokens if before else None, after.accuracy, after.tokens, fewer, _aes(after, before), *tail),
    )


def _by_benchmark(runs: Sequence[Run]) -> Iterator[tuple[str, Run]]:
    """Rows that are compared stand below each other."""
    for name in dict.fromkeys(name for run in runs for name in run.benchmarks):
        for run in runs:
            if name in run.benchmarks:
                yield name, run


def _benchmark_row(name: str, run: str, numbers: Any) -> tuple[Cell, ...]:
    low, high = numbers.get("interval") or (None, None)
    best = list(numbers.get("pass@k", {}).items())[-1:] or [(None, None)]
    ((k, share),) = best
    turns, left_out = numbers.get("turns", {}), numbers.get("left_out", {})
    return (
        *(name, run, numbers.get("problems"), numbers.get("samples"), numbers.get("pass@1"), low, high, share),
        *(None if k is None else int(k), numbers.get("tokens"), numbers.get("tokens_per_right_answer")),
        *(turns.get("mean"), turns.get("max"), numbers.get("truncated"), numbers.get("malformed"), numbers.get("aes")),
        *(left_out.get("unreadable"), left_out.get("ungradable")),
    )


def _measured(measure: Measure) -> tuple[Cell, ...]:
    return measure.accuracy, measure.error, measure.tokens, measure.turns


def _aes(measure: Measure, base: Measure | None) -> float | None:
    if measure.aes is not None:
        return measure.aes
    if base is None or measure is base or base.problems != measure.problems or not (base.accuracy and base.tokens):
        return None
    return accuracy_efficiency_score(measure.accuracy, measure.tokens, base.accuracy, base.tokens)
