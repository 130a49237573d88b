"""Checks of settings; each error names the setting, its value and what to give instead."""

from __future__ import annotations

import math

from longshort.length_rewards.base import LengthReward


def check_whole(reward: LengthReward, setting: str, may_be_none: bool = False) -> None:
    """Raises ``ValueError`` unless the setting is a whole number of at least 1, or None where that is allowed."""
    value = getattr(reward, setting)
    if value is None and may_be_none:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        remedy = "give a whole number of at least 1" + (", or null for the default" if may_be_none else "")
        raise ValueError(f"length reward {reward.name}: {setting} is {value!r}; {remedy}")


def check_number(reward: LengthReward, setting: str, most: float = math.inf, zero: bool = True) -> None:
    """Raises ``ValueError`` unless the setting is a finite number from 0 to ``most``, 0 itself if ``zero``."""
    value = getattr(reward, setting)
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or value > most or (value == 0 and not zero):
        low = "of at least 0" if zero else "above 0"
        high = "" if math.isinf(most) else f" and of at most {most:g}"
        raise ValueError(f"length reward {reward.name}: {setting} is {value!r}; give a number {low}{high}")
