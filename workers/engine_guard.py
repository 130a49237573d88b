"""Engines that die or hang while a policy trains: found, and started again with its weights, or the run ends.

Concurrency: one task looks at all engines of a policy. A restart is a task of its own: turns of other engines go on
beside it, those of the lost one are played again elsewhere, or wait for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from workers.errors import EngineDiedError

log = logging.getLogger(__name__)

Result = TypeVar("Result")
# Looks within the time that an engine has for its answer.
LOOKS = 4


@dataclass(frozen=True)
class FaultLimits:
    """``faults`` of a recipe: seconds that an engine may take, and how often a policy's are started again."""

    engine_timeout_s: float = 20.0
    progress_timeout_s: float = 3600.0
    transition_timeout_s: float = 1800.0
    max_engine_restarts: int = 3


class GuardedEngine(Protocol):
    """One engine, as its guard sees it."""

    async def ping(self, deep: bool, timeout_s: float) -> None:
        """Return while it lives; ``deep``: once its core has answered.

        Raises:
            EngineDiedError: it is gone, or did not answer in time.
        """
        ...


class EngineGuard:
    """Which engines of a policy can serve, and what becomes of one that cannot.

    Args:
        restart: starts the engine of this number again, with the policy's weights.
        beat: called at the end of every turn and restart.
    """

    def __init__(
        self,
        policy: str,
        engines: Sequence[GuardedEngine],
        limits: FaultLimits,
        restart: Callable[[int], Awaitable[None]],
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self.policy = policy
        self.limits = limits
        self.restarts = 0
        self._engines = engines
        self._restart = restart
        self._beat = beat
        self._lives = [0] * len(engines)
        self._turns = [0] * len(engines)
        self._last_end = [0.0] * len(engines)
        self._restarting: dict[int, asyncio.Task[None]] = {}
        self._together = 0
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watch = asyncio.create_task(self._look_again_and_again())

    def alive(self) -> list[int]:
        """Numbers of the engines that can serve."""
        return [number for number in range(len(self._engines)) if number not in self._restarting]

    async def available(self) -> None:
        """Wait until an engine can serve.

        Raises:
            EngineDiedError: one is gone for good.
        """
        await self._wait(lambda: bool(self.alive()))

    async def settled(self) -> None:
        """Look at every engine, and wait until all can serve.

        Raises:
            EngineDiedError: one is gone for good.
        """
        await self._look_at_all()
        await self._wait(lambda: not self._restarting)

    @contextmanager
    def turn(self, number: int) -> Iterator[None]:
        """A turn that an engine plays within; an ``EngineDiedError`` counts it as lost and ends here."""
        life = self._lives[number]
        if not self._turns[number]:
            self._last_end[number] = time.monotonic()
        self._turns[number] += 1
        try:
            yield
        except EngineDiedError as error:
            self._lose(number, life, error.cause)
        finally:
            self._turns[number] -= 1
            self._last_end[number] = time.monotonic()
            self._beat()

    async def together(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Do what all engines have a part in, as taking new weights.

        They may take ``transition_timeout_s`` for it, and none is started again meanwhile.

        Raises:
            EngineDiedError: an engine died or hangs over it.
        """
        await self.settled()
        self._together += 1
        task = asyncio.ensure_future(work())
        try:
            either: list[asyncio.Future[Any]] = [task, self._failed]
            limit = self.limits.transition_timeout_s
            done, _ = await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED, timeout=limit)
            if not done:
                self._fail(f"new weights, sleep or waking took longer than faults.transition_timeout_s={limit:g}")
            if task.done() and task.exception() is not None:
                # Who works with an engine that dies fails of it; the engine is to be named.
                await self._look_at_all()
            self._check()
            return task.result()
        finally:
            self._together -= 1
            task.cancel()

    @property
    def lost(self) -> bool:
        """Whether an engine is gone for good, or on its way back."""
        return self._failed.done() or bool(self._restarting)

    def close(self) -> None:
        """Look no more, and start nothing again: what ends from now on is meant to."""
        for task in (self._watch, *self._restarting.values()):
            task.cancel()

    async def _wait(self, reached: Callable[[], bool]) -> None:
        while not self._failed.done() and not reached():
            await asyncio.wait([*self._restarting.values(), self._failed], return_when=asyncio.FIRST_COMPLETED)
        self._check()

    def _check(self) -> None:
        if self._failed.done():
            self._failed.result()

    async def _look_again_and_again(self) -> None:
        while not self._failed.done():
            await asyncio.sleep(self.limits.engine_timeout_s / LOOKS)
            try:
                await self._look_at_all()
            except Exception as error:  # nobody else would see what it is
                self._fail(f"it could not be looked after ({type(error).__name__}: {error})")

    async def _look_at_all(self) -> None:
        await asyncio.gather(*[self._look(number) for number in self.alive()])

    async def _look(self, number: int) -> None:
        life, busy = self._lives[number], self._together > 0
        try:
            await self._engines[number].ping(not busy, self.limits.engine_timeout_s)
        except EngineDiedError as error:
            # An engine that was asked just before it began to take weights answers after it.
            if busy or not self._together:
                self._lose(number, life, error.cause)
            return
        waited = time.monotonic() - self._last_end[number]
        if self._turns[number] and waited > self.limits.progress_timeout_s:
            self._lose(number, life, f"it ended none of {self._turns[number]} turns for {waited:.0f} s")

    def _lose(self, number: int, life: int, cause: str) -> None:
        if life != self._lives[number] or self._failed.done():
            return
        self._lives[number] += 1
        if self._together:
            self._fail(cause)
        elif self.restarts == self.limits.max_engine_restarts:
            self._fail(f"{cause}, after faults.max_engine_restarts={self.restarts} restarts")
        else:
            self.restarts += 1
            log.warning("engine %d of policy %r is lost (%s); it is started again", number, self.policy, cause)
            self._restarting[number] = asyncio.create_task(self._start_again(number, cause))

    async def _start_again(self, number: int, cause: str) -> None:
        began = time.monotonic()
        try:
            await asyncio.wait_for(self._restart(number), self.limits.transition_timeout_s)
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            self._fail(f"{cause}; it could not be started again: {reason}")
        else:
            log.warning("engine %d of policy %r is back after %.0f s", number, self.policy, time.monotonic() - began)
        del self._restarting[number]
        self._beat()

    def _fail(self, cause: str) -> None:
        if not self._failed.done():
            self._failed.set_exception(EngineDiedError(self.policy, cause))
            # Whether anybody asks again or not.
            self._failed.exception()
