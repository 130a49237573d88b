"""The length part of LASER-D: a bonus within a target that follows the policy, one for each difficulty."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from longshort.length_rewards.base import LengthReward
from longshort.length_rewards.checks import check_whole
from longshort.length_rewards.group import Group
from longshort.length_rewards.laser import within
from longshort.length_rewards.registry import register

LEVELS = ("easy", "medium", "hard")


def difficulty(group: Group) -> str:
    """``easy`` from two thirds right answers on, ``medium`` from one third on, else ``hard``."""
    thirds = 3 * sum(group.correct)
    return "easy" if thirds >= 2 * len(group.correct) else "medium" if thirds >= len(group.correct) else "hard"


@register("laser_d")
@dataclass
class LaserD(LengthReward):
    """LASER-D (arXiv 2505.15612): LASER's bonus, 1(right) * 1(length <= target of the group's difficulty).

    Of the candidates ``lowest``, ``lowest + interval``, ... up to the limit, the target of difficulty d is the smallest
    l with P(l, d) * C_d >= 1: one right answer is to be expected within it. P(l, d) is the share of all answers to
    problems of d that have at most l tokens. C_d is the least number of right answers among k: floor(2k/3) for easy,
    floor(k/3) for medium, 1 for hard, as the released code rounds it, and never below 1. Weights as for LASER:
    eta = 1, mu = 0.5.

    The paper plays about 500 problems apart for P, every 20 steps. Here P comes from the training answers since the
    last search, which costs nothing but mixes the policies of those steps; the first batch gives the first targets. An
    answer that was cut counts as one of ``limit`` tokens in P, as in the paper, where only the limit cuts. A difficulty
    that was never seen has the limit as its target. k is the smallest group since the last search.

    Attributes:
        lowest: smallest target in tokens; None takes a quarter of the group's limit, like the paper's 4096 of 16384.
        interval: tokens between targets; None takes a sixteenth of the limit, like the paper's 1024.
        every: batches between two searches.
    """

    lowest: int | None = None
    interval: int | None = None
    every: int = 20
    _batches: int = field(default=0, init=False)
    _smallest_group: int = field(default=0, init=False)
    _targets: dict[str, int] = field(default_factory=dict, init=False)
    # Per difficulty, answers by the smallest candidate that holds them.
    _seen: dict[str, Counter[int]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        check_whole(self, "lowest", may_be_none=True)
        check_whole(self, "interval", may_be_none=True)
        check_whole(self, "every")
        self._forget()

    def __call__(self, groups: Sequence[Group]) -> list[list[float]]:
        for group in groups:
            self._observe(group)
        if not self._targets or self._batches % self.every == 0:
            self._search()
        self._batches += 1
        return [within(group, self._targets.get(difficulty(group), group.limit)) for group in groups]

    @property
    def targets(self) -> dict[str, int]:
        """Target in tokens of every difficulty that was seen."""
        return dict(self._targets)

    def state_dict(self) -> dict[str, Any]:
        return {
            "batches": self._batches,
            "smallest_group": self._smallest_group,
            "targets": self.targets,
            "seen": {level: sorted([n, count] for n, count in self._seen[level].items()) for level in LEVELS},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if missing := sorted(self.state_dict().keys() - state.keys()):
            raise ValueError(
                f"the state of length reward {self.name} lacks {missing}; resume with the length reward that the "
                "checkpoint was made with"
            )
        self._batches, self._smallest_group = state["batches"], state["smallest_group"]
        self._targets = dict(state["targets"])
        self._seen = {level: Counter(dict(state["seen"][level])) for level in LEVELS}

    def _observe(self, group: Group) -> None:
        if not group.lengths:
            return
        self._smallest_group = min(self._smallest_group or len(group.lengths), len(group.lengths))
        lengths = [n if ended else group.limit for n, ended in zip(group.lengths, group.finished, strict=True)]
        self._seen[difficulty(group)].update(self._candidate(n, group.limit) for n in lengths)

    def _candidate(self, length: int, limit: int) -> int:
        lowest = max(1, limit // 4) if self.lowest is None else self.lowest
        interval = max(1, limit // 16) if self.interval is None else self.interval
        steps = max(0, -(-(length - lowest) // interval))  # rounded up
        return min(limit, lowest + steps * interval)

    def _search(self) -> None:
        least_right = {"easy": 2 * self._smallest_group // 3, "medium": self._smallest_group // 3, "hard": 1}
        for level, counts in self._seen.items():
            held = 0
            for candidate in sorted(counts):
                held += counts[candidate]
                if held * max(1, least_right[level]) >= counts.total():
                    self._targets[level] = candidate
                    break
        self._forget()

    def _forget(self) -> None:
        self._smallest_group = 0
        self._seen = {level: Counter() for level in LEVELS}
