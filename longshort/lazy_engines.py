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
        start: starts Ray and the engines, and gives their generators.
        stop: takes down what was started, whole or in part.
    """

    def __init__(self, start: Callable[[], Awaitable[Mapping[str, Generator]]], stop: Callable[[], None]) -> None:
        self._start, self._stop = start, stop
        self._starting = asyncio.Lock()
        self._generators: Mapping[str, Generator] | None = None
        self._began = False

    def __getitem__(self, name: str) -> Generator:
        return _Lazy(self, name)

    async def generators(self) -> Mapping[str, Generator]:
        """All of them, once they are there."""
        async with self._starting:
            if self._generators is None:
                self._began = True
                self._generators = await self._start()
        return self._generators

    def stop(self) -> None:
        """Take down what was started; nothing where nothing was asked."""
        if self._began:
            self._stop()


@dataclass(frozen=True)
class _Lazy:
    engines: LazyEngines
    name: str

    async def generate(self, prompt: Prompt, params: SamplingParams, session: str) -> Completion:
        return await (await self.engines.generators())[self.name].generate(prompt, params, session)
