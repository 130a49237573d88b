"""An asyncio loop whose clock jumps: simulated engines sleep for hours of their time in none of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Runs everything that is ready, then moves the clock to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:
            self._now = max(self._now, self._scheduled[0].when())
        super()._run_once()


def run(main: Coroutine[Any, Any, T]) -> tuple[T, float]:
    """Result of ``main`` and the virtual seconds it took."""
    loop = VirtualTimeLoop()
    try:
        return loop.run_until_complete(main), loop.time()
    finally:
        loop.close()
