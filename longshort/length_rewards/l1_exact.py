"""The length part of L1-Exact: close to a target."""

from __future__ import annotations

from dataclasses import dataclass

from longshort.length_rewards.base import GroupReward
from longshort.length_rewards.checks import check_number, check_whole
from longshort.length_rewards.group import Group
from longshort.length_rewards.registry import register


@register("l1_exact")
@dataclass(frozen=True)
class L1Exact(GroupReward):
    """L1-Exact (arXiv 2503.04697, equation 1): -alpha * abs(target - length), for right and wrong answers alike.

    The paper's reward is 1(right) minus this distance: eta = 1, mu = 1. The paper draws a target per problem and states
    it in the prompt; here all answers share one, and no prompt names it.

    A short answer is not favoured as such: one below the target gains by growing.

    Attributes:
        target: in tokens; None takes the group's limit.
        alpha: loss per token off the target; the paper's, for targets of 100 to 4000 tokens.
    """

    target: int | None = None
    alpha: float = 0.0003

    def __post_init__(self) -> None:
        check_whole(self, "target", may_be_none=True)
        check_number(self, "alpha")

    def of_group(self, group: Group) -> list[float]:
        target = group.limit if self.target is None else self.target
        return [0.0 - self.alpha * abs(target - length) for length in group.lengths]
