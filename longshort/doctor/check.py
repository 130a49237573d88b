"""One thing that was looked at, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """``found`` is what there is, ``remedy`` what to do where that will not do."""

    name: str
    level: Level
    found: str
    remedy: str = ""
