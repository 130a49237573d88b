"""Fewer turns among right answers."""

from __future__ import annotations

from dataclasses import dataclass

from longshort.length_rewards.base import GroupReward
from longshort.length_rewards.group import Group
from longshort.length_rewards.kimi import kimi_length_rewards
from longshort.length_rewards.registry import register


@register("turn_count")
@dataclass(frozen=True)
class TurnCount(GroupReward):
    """Ours, from no paper: the scale of Kimi k1.5 on the turns t of the right answers.

    A right answer gets 0.5 - (t - min t) / (max t - min t), with the extremes of the right answers, or 0 where these
    have equally many turns. A wrong answer gets 0: what it saved by giving up early is nothing to compare with.
    Tokens do not count. Use eta = 1 and mu below 1, so that a right answer always beats a wrong one.
    """

    def of_group(self, group: Group) -> list[float]:
        right = [turns for turns, correct in zip(group.turns, group.correct, strict=True) if correct]
        values = iter(kimi_length_rewards(right, [True] * len(right)))
        return [next(values) if correct else 0.0 for correct in group.correct]
