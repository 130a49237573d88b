"""The length part of GRPO-lambda: pressure only where the policy is right already."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from longshort.length_rewards.base import LengthReward
from longshort.length_rewards.checks import check_number
from longshort.length_rewards.group import Group
from longshort.length_rewards.registry import register


@register("grpo_lambda")
@dataclass(frozen=True)
class GrpoLambda(LengthReward):
    """GRPO-lambda (arXiv 2505.18086), the guard to choose where accuracy collapses as answers get shorter.

    The ``share`` of the batch's groups with the highest pass rate feels length: a right answer there gets
    -sigmoid((length - mean) / std), with mean and standard deviation (of the population) of the group's right answers.
    Every other answer gets 0. Where the right answers are equally long, each gets -0.5, the value at their mean.

    The paper's reward is 1 - alpha * sigmoid(...) for such an answer, 1 for another right one and 0 for a wrong one:
    eta = 1, mu = alpha. With mu below eta a right answer always beats a wrong one.

    Our choices: the number of groups is rounded up, and of groups with the same pass rate the earlier in the batch goes
    first.

    Attributes:
        share: the paper's lambda, above 0 and up to 1; its example is 0.2.
    """

    share: float = 0.2

    def __post_init__(self) -> None:
        check_number(self, "share", most=1.0, zero=False)

    def __call__(self, groups: Sequence[Group]) -> list[list[float]]:
        rates = {place: fmean(group.correct) for place, group in enumerate(groups) if group.correct}
        # 0.07 * 100 is a little above 7 in floating point.
        pressed = math.ceil(self.share * len(rates) - 1e-9)
        chosen = set(sorted(rates, key=lambda place: -rates[place])[:pressed])
        return [_pressure(group) if i in chosen else [0.0] * len(group.lengths) for i, group in enumerate(groups)]


def _pressure(group: Group) -> list[float]:
    right = [length for length, correct in zip(group.lengths, group.correct, strict=True) if correct]
    if not right:
        return [0.0] * len(group.lengths)
    mean, deviation = fmean(right), pstdev(right)

    def value(length: int) -> float:
        # Of n numbers none is further than sqrt(n - 1) deviations from the mean, so exp cannot overflow.
        return -1.0 / (1.0 + math.exp((mean - length) / deviation)) if deviation else -0.5

    return [value(length) if correct else 0.0 for length, correct in zip(group.lengths, group.correct, strict=True)]
