"""The length part of LASER: a bonus for right answers within a target."""

from __future__ import annotations

from dataclasses import dataclass

from longshort.length_rewards.base import GroupReward
from longshort.length_rewards.checks import check_whole
from longshort.length_rewards.group import Group
from longshort.length_rewards.registry import register


def within(group: Group, target: int) -> list[float]:
    """1(right) * 1(length <= target) per answer: a long right answer loses nothing but the bonus."""
    return [float(right and n <= target) for n, right in zip(group.lengths, group.correct, strict=True)]


@register("laser")
@dataclass(frozen=True)
class Laser(GroupReward):
    """LASER (arXiv 2505.15612, the form C + lambda * S of section 4): 1(right) * 1(length <= target).

    The paper adds it with weight alpha = 0.5 to the correctness: eta = 1, mu = 0.5. The released code scores a wrong
    answer -0.5 and a right one 1, which is eta = 1.5, mu = 0.5 up to a constant.

    Attributes:
        target: in tokens; None takes half the group's limit, like the paper's 8192 of 16384. A target near the limit
            leaves nothing to gain.
    """

    target: int | None = None

    def __post_init__(self) -> None:
        check_whole(self, "target", may_be_none=True)

    def of_group(self, group: Group) -> list[float]:
        return within(group, group.limit // 2 if self.target is None else self.target)
