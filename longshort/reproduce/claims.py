"""What the papers claim, and whether it holds of what was run; their tables in miniature.

Claims of Long⊗Short (arXiv 2505.11827): a pair after the last round against the distilled reasoner, and its cold start
against one with random scores; of ThinkPrune (arXiv 2504.01296): the selected model against the one it began with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from longshort.evaluation.baselines import BUDGET_FORCING
from longshort.evaluation.metrics import accuracy_efficiency_score
from longshort.evaluation.records import read_summary
from longshort.report.tables import Cell, Column, Table
from longshort.reproduce.steps import ABLATIONS, EVALUATION, EVOLUTION, THINKPRUNE
from longshort.rounds.summary import SUMMARY

FEWER_TOKENS, LOST_ACCURACY = 0.8, 0.02
SHORTER, LOST_RELATIVELY = 0.5, 0.1
# 1.0 - 0.98 is a little above 0.02 in floating point.
ROUNDING = 1e-9

TWO_WAYS = (
    "base was measured by `longshort evaluate`, and its AES is against the reasoner as measured there. Reasoner and "
    "pairs were measured by the run itself on its test problems, with its own number of samples, and their AES is "
    "against the reasoner of this table."
)

_COLUMNS = (Column("model"), Column("accuracy", "share"), Column("tokens", "tokens"), Column("AES", "signed"))


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence, the figures that were found, and whether it holds."""

    claim: str
    found: str
    holds: bool

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def check_claims(root: Path) -> list[Claim]:
    """All claims, by the summaries below ``root``."""
    evolution, thinkprune = _json(root / EVOLUTION / SUMMARY), _json(root / THINKPRUNE / SUMMARY)
    reasoner, pair = evolution["reasoner"], evolution["rounds"][-1]
    start, final = thinkprune["start"], thinkprune["final"]
    scored, random = (_average(root, name)["pass@1"] for name in ("r0", "random_scores"))
    fewer = _share_less(pair["tokens"], reasoner["tokens"])
    lost = reasoner["accuracy"] - pair["accuracy"]
    shorter = _share_less(final["length"], start["length"])
    relatively = _share_less(final["accuracy"], start["accuracy"])
    return [
        Claim(
            f"the pair uses at least {FEWER_TOKENS:.0%} fewer tokens than the reasoner",
            _found(fewer, "fewer", f"{pair['tokens']:.1f} for {reasoner['tokens']:.1f}"),
            fewer is not None and fewer >= FEWER_TOKENS,
        ),
        Claim(
            f"its accuracy is at most {100 * LOST_ACCURACY:.0f} points lower",
            f"{100 * lost:.1f} points, {pair['accuracy']:.3f} for {reasoner['accuracy']:.3f}",
            lost <= LOST_ACCURACY + ROUNDING,
        ),
        Claim(
            f"ThinkPrune's model is at least {SHORTER:.0%} shorter than its start",
            _found(shorter, "shorter", f"{final['length']:.1f} for {start['length']:.1f} tokens"),
            shorter is not None and shorter >= SHORTER,
        ),
        Claim(
            f"its accuracy is within {LOST_RELATIVELY:.0%} of the start's",
            _found(relatively, "lower", f"{final['accuracy']:.3f} for {start['accuracy']:.3f}"),
            relatively is not None and relatively <= LOST_RELATIVELY + ROUNDING,
        ),
        Claim(
            "a cold start by scores is more accurate than one by random scores",
            f"{scored:.3f} and {random:.3f}",
            scored > random,
        ),
    ]


def _share_less(after: float, before: float) -> float | None:
    """1 - after / before; None where there is nothing that it could be less than."""
    return 1 - after / before if before > 0 else None


def _found(less: float | None, word: str, figures: str) -> str:
    return f"nothing to compare with, {figures}" if less is None else f"{less:.1%} {word}, {figures}"


def claims_table(claims: list[Claim]) -> Table:
    """What holds, and what does not."""
    rows = tuple((each.claim, each.found, "yes" if each.holds else "no") for each in claims)
    return Table(
        "claims", "Claims of the papers, in miniature", (Column("claim"), Column("found"), Column("holds")), rows
    )


def paper_tables(root: Path) -> list[Table]:
    """The pair round by round, the cold start's ablations, other ways to save, ThinkPrune's rounds."""
    evolution, thinkprune = _json(root / EVOLUTION / SUMMARY), _json(root / THINKPRUNE / SUMMARY)
    base = evolution["reasoner"]
    pairs = [("reasoner", base), ("Long-r0⊗Short-r0", evolution["start"])]
    pairs += [(each["pair"], each) for each in evolution["rounds"]]
    rounds = [_row(name, each, base) for name, each in pairs]
    evaluated = _average(root, "reasoner")
    note = "AES is against the reasoner of the same table."
    rows = (_evaluated(root, "base", "base", _figures(evaluated)), *rounds)
    return [
        Table("pair", "The pair, round by round", _COLUMNS, rows, TWO_WAYS),
        Table(
            "cold_start",
            "The cold start: by what thoughts stay long",
            _COLUMNS,
            tuple(
                _evaluated(root, name, label, _figures(evaluated))
                for name, label in (
                    ("reasoner", "reasoner"),
                    ("prompting", "prompting alone"),
                    ("r0", "scores, scanned"),
                    *[(name, name.replace("_", " ")) for name in ABLATIONS if (root / EVALUATION / name).is_dir()],
                )
            ),
            note,
        ),
        Table("savings", "Other ways to save, beside the pair", _COLUMNS, tuple(_savings(root, evaluated)), note),
        Table(
            "thinkprune",
            "ThinkPrune, round by round",
            (Column("limit"), Column("accuracy", "share"), Column("tokens", "tokens")),
            (
                ("start", thinkprune["start"]["accuracy"], thinkprune["start"]["length"]),
                *[(str(each["limit"]), each["accuracy"], each["length"]) for each in thinkprune["rounds"]],
            ),
        ),
    ]


def _savings(root: Path, reasoner: Mapping[str, Any]) -> list[tuple[Cell, ...]]:
    folder, base = root / EVALUATION, _figures(reasoner)
    names = ["reasoner", "pair", "first_thought"]
    budgets = [file.parent for file in folder.glob(f"{BUDGET_FORCING}/budget-*/summary.json")]
    names += [str(each.relative_to(folder)) for each in sorted(budgets, key=lambda each: int(each.name.split("-")[-1]))]
    return [_evaluated(root, name, name.replace("_", " "), base) for name in names]


def _evaluated(root: Path, name: str, label: str, base: Mapping[str, float]) -> tuple[Cell, ...]:
    return _row(label, _figures(_average(root, name)), base)


def _row(label: str, figures: Mapping[str, float], base: Mapping[str, float]) -> tuple[Cell, ...]:
    accuracy, tokens = figures["accuracy"], figures["tokens"]
    if not (base["accuracy"] > 0 and base["tokens"] > 0):
        return label, accuracy, tokens, None
    return label, accuracy, tokens, accuracy_efficiency_score(accuracy, tokens, base["accuracy"], base["tokens"])


def _average(root: Path, name: str) -> Mapping[str, Any]:
    average: Mapping[str, Any] = read_summary(root / EVALUATION / name)["average"]
    return average


def _figures(average: Mapping[str, Any]) -> dict[str, float]:
    return {"accuracy": average["pass@1"], "tokens": average["tokens"]}


def _json(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    return found
