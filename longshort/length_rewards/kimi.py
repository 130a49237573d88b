"""The length reward of Kimi k1.5: shorter than the others of the same group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from longshort.length_rewards.base import GroupReward
from longshort.length_rewards.group import Group
from longshort.length_rewards.registry import register


def kimi_length_rewards(lengths: Sequence[int], correct: Sequence[bool]) -> list[float]:
    """Length reward of Kimi k1.5 (arXiv 2501.12599, section 2.3.3) for one group of answers to the same problem.

    With lengths l in tokens, lambda_i = 0.5 - (l_i - min l) / (max l - min l); a correct answer gets lambda_i, a wrong
    one min(0, lambda_i). All get 0 where every length is the same.

    Raises:
        ValueError: the two sequences differ in length.
    """
    if len(lengths) != len(correct):
        raise ValueError(f"{len(lengths)} lengths but {len(correct)} verdicts; give one of each per answer")
    if not lengths or max(lengths) == min(lengths):
        return [0.0] * len(lengths)
    shortest, span = min(lengths), max(lengths) - min(lengths)
    scaled = [0.5 - (length - shortest) / span for length in lengths]
    return [value if right else min(0.0, value) for value, right in zip(scaled, correct, strict=True)]


@register("kimi")
@dataclass(frozen=True)
class Kimi(GroupReward):
    """:func:`kimi_length_rewards`, the LM of Long⊗Short (arXiv 2505.11827, equation 9).

    Kimi k1.5 adds it to the reward of correctness with a weight that the paper does not publish, and begins training
    without it: eta = 1, and mu is that weight, after steps with 0.
    """

    def of_group(self, group: Group) -> list[float]:
        return kimi_length_rewards(group.lengths, group.correct)
