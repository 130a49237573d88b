"""``summary.json`` of a run with rounds: what each of them did to accuracy and length."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from longshort.display import Display
from longshort.evaluation.metrics import accuracy_efficiency_score
from longshort.rounds.record import FinishedRound, Metrics, Record
from longshort.solo import SOLO

if TYPE_CHECKING:
    from longshort.rounds.round import Round

SUMMARY = "summary.json"


def write_summary(
    folder: Path, config: DictConfig, rounds: Sequence[Round], record: Record, problems: int, display: Display
) -> None:
    """Write and show it, where there are test problems."""
    if not problems or not record.start:
        return
    make = _of_one if config.team.protocol == SOLO else _of_pair
    summary = {"problems": problems, **make(rounds, record)}
    (folder / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n")
    measured = [("reasoner", record.reasoner), ("start", record.start)] + [(r.name, r.test) for r in record.rounds]
    rows = [(name, m["accuracy"], m["tokens_per_episode"]) for name, m in measured if m]
    display.table(f"{problems} test problems", ("after", "accuracy", "tokens per episode"), rows)


def _of_one(rounds: Sequence[Round], record: Record) -> dict[str, Any]:
    """ThinkPrune's rounds."""
    return {
        "start": _figures(record.start, "length"),
        "rounds": [
            {
                "limit": each.config.team.max_episode_tokens,
                "candidates": [{"step": c.step, "accuracy": c.accuracy, "length": c.length} for c in over.candidates],
                "selected": over.selected,
                **_figures(over.test, "length"),
            }
            for each, over in zip(rounds, record.rounds, strict=True)
        ],
        "final": _figures(record.rounds[-1].test, "length"),
    }


def _of_pair(rounds: Sequence[Round], record: Record) -> dict[str, Any]:
    """The evolution of a pair, named as in the paper: Long-rA⊗Short-rB after A rounds of the one and B of the other."""
    base = record.reasoner or record.start
    trained: dict[str, int] = {str(name): 0 for name in rounds[0].config.policies}
    found = []
    for each, over in zip(rounds, record.rounds, strict=True):
        learners = [policy.name for policy in each.trainer.learners]
        for name in learners:
            trained[name] += 1
        found.append(
            {
                "pair": "⊗".join(f"{name.capitalize()}-r{count}" for name, count in trained.items()),
                "trained": "+".join(learners),
                **_figures(over.test, "tokens"),
                "aes": _aes(over, base),
            }
        )
    start = _figures(record.start, "tokens")
    reasoner = {"reasoner": _figures(record.reasoner, "tokens")} if record.reasoner else {}
    return {**reasoner, "start": start, "rounds": found}


def _aes(over: FinishedRound, base: Metrics) -> float:
    return accuracy_efficiency_score(
        over.test["accuracy"], over.test["tokens_per_episode"], base["accuracy"], base["tokens_per_episode"]
    )


def _figures(metrics: Metrics, length: str) -> dict[str, float]:
    return {"accuracy": metrics["accuracy"], length: metrics["tokens_per_episode"]}
