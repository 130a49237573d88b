"""Engines that start when the first of them is asked: what has all its records already needs none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from longshort.generation import Completion, Generator, Prompt, SamplingParams


class LazyEngines:
    """Generators by name, all started by the first request to any of them.

    Concurrency: requests wait for the start, which happens once.

    Args:
        device: ``trainer.device``.
        start: starts Ray and the engines, and gives their generators.
    """

    def __init__(self, device: str, start: Callable[[], Awaitable[Mapping[str, Generator]]]) -> None:
        self._device, self._start = device, start
        self._starting = asyncio.Lock()
        self._started: Mapping[str, Generator] | None = None
        self._began = False

    def __getitem__(self, name: str) -> Generator:
        return _Lazy(self, name)

    async def started(self) -> Mapping[str, Generator]:
        """The generators, once they are there."""
        async with self._starting:
            if self._started is None:
                from workers import team

                team.configure_environment(self._device)
                self._began = True
                self._started = await self._start()
        return self._started

    def stop(self) -> None:
        """Take down what was started."""
        if self._began:
            from workers import team

            team.stop()


@dataclass(frozen=True)
class _Lazy:
    engines: LazyEngines
    name: str

    async def generate(self, prompt: Prompt, params: SamplingParams, session: str) -> Completion:
        return await (await self.engines.started())[self.name].generate(prompt, params, session)
