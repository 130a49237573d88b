"""A chain of thought with its rollouts: what scores, splits and figures are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from longshort.episode import Problem
from longshort.thoughts.metric import DECAY, joint_scores
from longshort.thoughts.thought import Thought


@dataclass(frozen=True, slots=True)
class Rollout:
    """One completion of a problem from a prefix of a chain: whether it was right, and its sampled tokens."""

    correct: bool
    tokens: int


@dataclass(frozen=True, slots=True)
class ScoredChain:
    """A chain of n thoughts, and what the base model made of each of its n + 1 prefixes.

    Attributes:
        problem: its id is the chain's.
        thoughts: in order.
        lengths: tokens of each thought, at least 1.
        rollouts: for each prefix of 0 to n thoughts, its samples in the order of their stream; at least one each.
    """

    problem: Problem
    thoughts: tuple[Thought, ...]
    lengths: tuple[int, ...]
    rollouts: tuple[tuple[Rollout, ...], ...]

    def accuracies(self, most: int | None = None) -> list[float]:
        """P̂_0 … P̂_n, from the first ``most`` samples of each prefix, or from all."""
        return [_share(samples[:most]) for samples in self.rollouts]

    def scores(self, decay: float = DECAY, most: int | None = None) -> list[float]:
        """M(y_1) … M(y_n); see :func:`longshort.thoughts.metric.joint_scores`."""
        return joint_scores(self.lengths, self.accuracies(most), decay)


def _share(samples: Sequence[Rollout]) -> float:
    return sum(rollout.correct for rollout in samples) / len(samples)
