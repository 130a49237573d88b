"""``rounds.json``: what became of the rounds of a run, so that it can be resumed and its summary written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from longshort.folders import write_whole
from longshort.rounds.selection import Candidate

FILE = "rounds.json"
Metrics = Mapping[str, float]
# By policy, the step whose checkpoint holds its weights; None: the model that the run began with.
Weights = Mapping[str, int | None]


@dataclass(frozen=True, slots=True)
class FinishedRound:
    """A round that is over.

    Attributes:
        name: from the recipe.
        last_step: of the run, the last one that was taken.
        stopped: why it ended early, or None.
        candidates: checkpoints that were validated.
        selected: step of the checkpoint that the next round starts from; None: what this round started from.
        reason: why that one.
        weights: of every policy that learns in the run, after the selection.
        test: metrics on ``data.test_files``, where there are any.
    """

    name: str
    last_step: int
    stopped: str | None
    candidates: tuple[Candidate, ...]
    selected: int | None
    reason: str
    weights: Weights
    test: Metrics = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """All rounds that are over, and what the run began with.

    Attributes:
        began: whether the start was measured, where that was asked for.
        start: metrics on ``data.test_files`` before the first round.
        baselines: by the round whose validation problems they were measured on, the start as a candidate.
        reasoner: metrics of ``models.reasoner`` on ``data.test_files``, where the recipe has that model.
    """

    began: bool = False
    start: Metrics = field(default_factory=dict)
    baselines: Mapping[str, Candidate] = field(default_factory=dict)
    reasoner: Metrics = field(default_factory=dict)
    rounds: tuple[FinishedRound, ...] = ()

    def save(self, folder: Path) -> None:
        """Write it at once: a reader finds the former one or this."""
        write_whole(folder / FILE, json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, folder: Path) -> Record:
        """That of a run, empty where there is none yet."""
        if not (folder / FILE).is_file():
            return cls()
        data: dict[str, Any] = json.loads((folder / FILE).read_text())
        return cls(
            began=data["began"],
            start=data["start"],
            baselines={name: Candidate(**each) for name, each in data["baselines"].items()},
            reasoner=data["reasoner"],
            rounds=tuple(
                FinishedRound(**{**each, "candidates": tuple(Candidate(**c) for c in each["candidates"])})
                for each in data["rounds"]
            ),
        )
