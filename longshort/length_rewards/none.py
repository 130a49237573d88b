"""No length reward."""

from __future__ import annotations

from dataclasses import dataclass

from longshort.length_rewards.base import GroupReward
from longshort.length_rewards.group import Group
from longshort.length_rewards.registry import register


@register("none")
@dataclass(frozen=True)
class NoLengthReward(GroupReward):
    """0 for every answer: the reward is eta * correct + lambda * format, whatever mu is."""

    def of_group(self, group: Group) -> list[float]:
        return [0.0] * len(group.lengths)
