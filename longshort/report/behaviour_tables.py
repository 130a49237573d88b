"""The tables of how a model thinks: words of reflection, "aha moments", perplexity, phases and how their judge did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from longshort.evaluation.behaviour.phases import PHASES
from longshort.report.records import Run
from longshort.report.tables import Cell, Column, Table


def behaviour_tables(runs: Sequence[Run]) -> tuple[Table, ...]:
    """All of them, empty ones included."""
    return words_table(runs), aha_table(runs), phases_table(runs), judge_table(runs)


def words_table(runs: Sequence[Run]) -> Table:
    """Words of reflection and "aha moments" in the episodes that are here; perplexity under a reference model."""
    rows: list[tuple[Cell, ...]] = []
    for run in runs:
        for name, words in run.words.items():
            perplexity = run.behaviour.get(name, {}).get("perplexity", {})
            shares = [words[key] for key in ("reflection_per_1000_tokens", "reflection_share", "aha_share")]
            scored = [perplexity.get(key) for key in ("perplexity", "median", "conversations", "cut")]
            rows.append((run.name, name or None, words["conversations"], *shares, *scored))
    columns = (
        *(Column("run"), Column("round, or benchmark"), Column("conversations", "count")),
        *(Column("reflection words per 1,000 tokens", "turns"), Column("conversations with any", "share")),
        *(Column("with an aha moment", "share"), Column("perplexity", "turns"), Column("its median", "turns")),
        *(Column("scored for it", "count"), Column("of these cut", "count")),
    )
    note = (
        "Perplexity, where it was measured, is over all tokens of the conversations that were scored, its median over "
        "conversations. Of a cut one, only what fits into the reference's context was scored."
    )
    return Table("words", "Words of reflection", columns, tuple(rows), note)


def aha_table(runs: Sequence[Run]) -> Table:
    """Which phrases make the "aha moments"."""
    rows = tuple(
        (run.name, name or None, phrase, share)
        for run in runs
        for name, words in run.words.items()
        for phrase, share in words["aha"].items()
    )
    columns = (Column("run"), Column("round, or benchmark"), Column("phrase"), Column("conversations with it", "share"))
    return Table("aha", "Phrases of aha moments", columns, rows)


def phases_table(runs: Sequence[Run]) -> Table:
    """Phases of reasoning as a judge labelled them."""
    rows: list[tuple[Cell, ...]] = []
    for name, run, phases in _judged(runs):
        shares = phases.get("shares") or {}
        rows.append((name, run.name, *[shares.get(phase) for phase in PHASES]))
    columns = (Column("benchmark"), Column("run"), *[Column(phase, "share") for phase in PHASES])
    return Table("phases", "Phases of reasoning", columns, tuple(rows), "Shares of characters.")


def judge_table(runs: Sequence[Run]) -> Table:
    """How the judge of phases did: a row for each of its most frequent faults, or one without."""
    rows: list[tuple[Cell, ...]] = []
    for name, run, phases in _judged(runs):
        counts = [phases.get(key) for key in ("judged", "refused", "skipped", "refused_answers")]
        faults = list(phases.get("faults", {}).items()) or [(None, None)]
        rows.append((name, run.name, *counts, *faults[0]))
        rows += [(name, run.name, None, None, None, None, *fault) for fault in faults[1:]]
    columns = (
        *(Column("benchmark"), Column("run"), Column("judged", "count"), Column("refused", "count")),
        *(Column("skipped", "count"), Column("refused answers", "count"), Column("most frequent faults")),
        Column("times", "count"),
    )
    note = (
        "Conversations: judged have labels; for refused ones the judge gave no answer that could be read, after all "
        "attempts; skipped ones were not shown to it. Refused answers are those of all attempts."
    )
    return Table("judge", "The judge of phases", columns, tuple(rows), note)


def _judged(runs: Sequence[Run]) -> list[tuple[str, Run, dict[str, Any]]]:
    """Rows that are compared stand below each other."""
    return [
        (name, run, dict(phases))
        for name in dict.fromkeys(name for run in runs for name in run.behaviour)
        for run in runs
        if (phases := run.behaviour.get(name, {}).get("phases"))
    ]
