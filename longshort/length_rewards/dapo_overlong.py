"""The soft overlong punishment of DAPO: a loss only near the limit."""

from __future__ import annotations

from dataclasses import dataclass

from longshort.length_rewards.base import GroupReward
from longshort.length_rewards.checks import check_whole
from longshort.length_rewards.group import Group
from longshort.length_rewards.registry import register


@register("dapo_overlong")
@dataclass(frozen=True)
class DapoOverlong(GroupReward):
    """DAPO (arXiv 2503.14476, equation 13), for right and wrong answers alike.

    With the group's limit L and a cache c: 0 up to L - c tokens, then (L - c - length) / c, and -1 from L on.

    The paper adds it to a correctness of 1 or -1: eta = 2, mu = 1 gives that reward plus 1, and a constant leaves every
    advantage within a group as it is.

    Attributes:
        cache: tokens before the limit over which the loss grows; None takes a fifth of the limit, the paper's 4096 of
            20480.

    Raises:
        ValueError: when called, the cache is larger than a group's limit.
    """

    cache: int | None = None

    def __post_init__(self) -> None:
        check_whole(self, "cache", may_be_none=True)

    def of_group(self, group: Group) -> list[float]:
        cache = max(1, group.limit // 5) if self.cache is None else self.cache
        if cache > group.limit:
            raise ValueError(
                f"length reward {self.name}: cache is {cache} but answers have at most {group.limit} tokens; lower it"
            )
        start = group.limit - cache
        return [min(0.0, max(-1.0, (start - length) / cache)) for length in group.lengths]
