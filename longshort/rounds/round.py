"""A round of a run, and where a run stands between and within its rounds."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import DictConfig

from longshort.episode import Problem
from longshort.rounds.collapse import CollapseWatch
from longshort.rounds.record import Record, Weights
from longshort.rounds.selection import Candidate
from longshort.trainer import Trainer


@dataclass(frozen=True)
class Round:
    """One stage of a run.

    Attributes:
        name: from the recipe; empty where it lists no rounds.
        config: the complete configuration that holds in the round.
        trainer: trains the policies that learn in it.
        validation: problems that its checkpoints are compared on.
        first: steps of the run that its schedule puts before it.
        guard: watches for collapse.
    """

    name: str
    config: DictConfig
    trainer: Trainer
    validation: tuple[Problem, ...]
    first: int
    guard: CollapseWatch

    @property
    def last(self) -> int:
        """Step of the run that ends the round."""
        return self.first + int(self.config.trainer.total_training_steps)

    def is_due(self, frequency: int, step: int) -> bool:
        """Whether something that comes every ``frequency`` steps, and at the end, comes after ``step``."""
        return frequency > 0 and ((step - self.first) % frequency == 0 or step == self.last)


@dataclass
class State:
    """Where a run stands: what is over and whose weights are where; candidates of the round under way.

    ``stopped``: why the guard ended that round, until it is finished.
    """

    record: Record
    weights: Weights
    candidates: list[Candidate] = field(default_factory=list)
    stopped: str | None = None
    step: int = 0
