"""The reward of L1-Max: right, and rather below a target than above it."""

from __future__ import annotations

from dataclasses import dataclass

from longshort.length_rewards.base import GroupReward
from longshort.length_rewards.checks import check_number, check_whole
from longshort.length_rewards.group import Group
from longshort.length_rewards.registry import register


@register("l1_max")
@dataclass(frozen=True)
class L1Max(GroupReward):
    """L1-Max (arXiv 2503.04697, equation 2): 1(right) * clip(alpha * (target - length) + delta, 0, 1).

    This is the paper's whole reward: eta = 0, mu = 1. The paper goes on from L1-Exact, trains on both equations,
    and states the target in the prompt; here all answers share one, and no prompt names it.

    Attributes:
        target: in tokens; None takes the group's limit.
        alpha: slope per token; the paper's, for targets of 100 to 4000 tokens.
        delta: what a right answer on the target gets, so that one slightly above it still beats a wrong one.
    """

    target: int | None = None
    alpha: float = 0.0003
    delta: float = 0.5

    def __post_init__(self) -> None:
        check_whole(self, "target", may_be_none=True)
        check_number(self, "alpha")
        check_number(self, "delta", most=1.0)

    def of_group(self, group: Group) -> list[float]:
        target = group.limit if self.target is None else self.target
        scores = [min(1.0, max(0.0, self.alpha * (target - length) + self.delta)) for length in group.lengths]
        return [score if right else 0.0 for score, right in zip(scores, group.correct, strict=True)]
