"""The reward of ThinkPrune: right, and within the limit."""

from __future__ import annotations

from dataclasses import dataclass

from longshort.length_rewards.base import GroupReward
from longshort.length_rewards.checks import check_whole
from longshort.length_rewards.group import Group
from longshort.length_rewards.registry import register


@register("clip")
@dataclass(frozen=True)
class Clip(GroupReward):
    """ThinkPrune (arXiv 2504.01296): 1 for an answer that is right, ended by itself and has at most ``limit`` tokens.

    Every other answer gets 0, whatever its length, so among the answers within the limit nothing favours the shorter.
    This is the paper's whole reward: eta = 0, mu = 1. The paper also lowers the limit from one round of training to the
    next; here a round is a run with a lower limit.

    Attributes:
        limit: in tokens; None takes the group's.
    """

    limit: int | None = None

    def __post_init__(self) -> None:
        check_whole(self, "limit", may_be_none=True)

    def of_group(self, group: Group) -> list[float]:
        limit = group.limit if self.limit is None else self.limit
        answers = zip(group.lengths, group.correct, group.finished, strict=True)
        return [float(right and ended and length <= limit) for length, right, ended in answers]
