"""Engines that are lost while a policy trains, by engines written by hand, in milliseconds.

Not proved here: that a vLLM server is found dead or hung and comes back (``tests/integration/test_stack.py``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from workers.engine_guard import EngineGuard, FaultLimits
from workers.errors import EngineDiedError

QUICK = FaultLimits(engine_timeout_s=0.04, progress_timeout_s=60.0, max_engine_restarts=2)


class Engine:
    """Answers unless it ``hangs``; what it was asked is in ``asked``."""

    def __init__(self) -> None:
        self.hangs = False
        self.asked: list[bool] = []

    async def ping(self, deep: bool, timeout_s: float) -> None:
        self.asked.append(deep)
        await asyncio.sleep(0)
        if self.hangs:
            raise EngineDiedError("long", f"it gave no answer within {timeout_s:g} s")


@asynccontextmanager
async def guarded(
    *engines: Engine, limits: FaultLimits = QUICK, restart: Callable[[int], Awaitable[None]] | None = None
) -> AsyncIterator[EngineGuard]:
    async def revive(number: int) -> None:
        engines[number].hangs = False

    guard = EngineGuard("long", engines, limits, restart or revive)
    yield guard
    guard.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.005)


async def test_an_engine_that_gives_no_answer_is_started_again_and_the_others_serve_meanwhile() -> None:
    good, bad, back = Engine(), Engine(), asyncio.Event()

    async def restart(number: int) -> None:
        assert number == 1
        await back.wait()
        bad.hangs = False

    async with guarded(good, bad, restart=restart) as guard:
        assert guard.alive() == [0, 1]
        bad.hangs = True
        await until(lambda: guard.alive() == [0])
        await guard.available()
        waiting = asyncio.create_task(guard.settled())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        back.set()
        await waiting
        assert (guard.alive(), guard.restarts) == ([0, 1], 1)
        assert all(good.asked) and all(bad.asked)


async def test_a_turn_whose_engine_dies_ends_quietly_and_counts_the_engine_as_lost_once() -> None:
    async with guarded(Engine()) as guard:
        turns = 0
        for _ in range(3):
            with guard.turn(0):
                turns += 1
                if turns == 1:
                    # Two turns of one death.
                    with guard.turn(0):
                        raise EngineDiedError("long", "killed")
                    raise EngineDiedError("long", "killed")
            await guard.available()
        assert (turns, guard.restarts) == (3, 1)


async def test_an_engine_that_answers_but_ends_no_turn_is_lost_too_and_one_without_turns_is_not() -> None:
    limits = FaultLimits(engine_timeout_s=0.02, progress_timeout_s=0.1, max_engine_restarts=2)
    async with guarded(Engine(), Engine(), limits=limits) as guard:
        await asyncio.sleep(0.3)
        assert guard.restarts == 0
        with guard.turn(1):
            await until(lambda: guard.restarts == 1)
        await until(lambda: guard.alive() == [0, 1])


async def test_the_run_ends_with_the_policys_name_where_restarts_are_spent_or_fail() -> None:
    async with guarded(Engine()) as guard:
        for _ in range(2):
            with guard.turn(0):
                raise EngineDiedError("long", "killed")
            await guard.settled()
        with guard.turn(0):
            raise EngineDiedError("long", "killed")
        with pytest.raises(EngineDiedError, match=r"'long' died: killed, after faults\.max_engine_restarts=2"):
            await guard.available()

    async def fails(number: int) -> None:
        raise RuntimeError("no device\nis free")

    async with guarded(Engine(), restart=fails) as guard:
        with guard.turn(0):
            raise EngineDiedError("long", "killed")
        with pytest.raises(EngineDiedError, match="killed; it could not be started again: no device is free"):
            await guard.available()
        with pytest.raises(EngineDiedError, match="no device"):
            await guard.settled()


async def test_engines_may_take_their_time_over_what_they_do_together_but_not_die_of_it() -> None:
    engine = Engine()
    async with guarded(engine) as guard:

        async def loads() -> str:
            await asyncio.sleep(0.1)
            return "loaded"

        engine.asked.clear()
        assert await guard.together(loads) == "loaded"
        # Its core is busy with the weights; only its death is looked for.
        assert not all(engine.asked)

        async def never() -> None:
            engine.hangs = True
            await asyncio.Event().wait()

        with pytest.raises(EngineDiedError, match="no answer"):
            await guard.together(never)
        assert guard.restarts == 0


async def test_what_fails_because_an_engine_died_names_the_engine_and_other_failures_stay_what_they_are() -> None:
    async def raises() -> None:
        raise RuntimeError("a socket closed")

    engine = Engine()
    async with guarded(engine) as guard:
        with pytest.raises(RuntimeError, match="a socket closed"):
            await guard.together(raises)

        async def dies() -> None:
            engine.hangs = True
            await raises()

        with pytest.raises(EngineDiedError, match="no answer"):
            await guard.together(dies)


async def test_what_ends_after_the_guard_was_closed_is_not_started_again() -> None:
    engine, started = Engine(), list[int]()

    async def restart(number: int) -> None:
        await asyncio.sleep(0.05)
        started.append(number)

    async with guarded(engine, restart=restart) as guard:
        with guard.turn(0):
            raise EngineDiedError("long", "killed")
        guard.close()
        engine.hangs = True
        await asyncio.sleep(0.15)
        assert not started


async def test_every_end_is_told_to_who_watches_for_a_stall() -> None:
    beats: list[int] = []
    guard = EngineGuard("long", [Engine()], QUICK, lambda number: asyncio.sleep(0), lambda: beats.append(1))
    with guard.turn(0):
        pass
    assert len(beats) == 1
    with guard.turn(0):
        raise EngineDiedError("long", "killed")
    await guard.settled()
    assert len(beats) == 3
    guard.close()


async def test_what_never_comes_to_its_end_ends_the_run_with_the_policys_name() -> None:
    async def never(*_: int) -> None:
        await asyncio.Event().wait()

    limits = FaultLimits(engine_timeout_s=0.02, transition_timeout_s=0.1)
    async with guarded(Engine(), limits=limits) as guard:
        with pytest.raises(EngineDiedError, match=r"'long' died: .* took longer than faults\.transition_timeout_s"):
            await guard.together(never)
        assert guard.lost
    async with guarded(Engine(), limits=limits, restart=never) as guard:
        with guard.turn(0):
            raise EngineDiedError("long", "killed")
        assert guard.lost
        with pytest.raises(EngineDiedError, match="killed; it could not be started again: TimeoutError"):
            await guard.settled()


async def test_a_look_that_fails_of_something_else_is_said() -> None:
    class Broken(Engine):
        async def ping(self, deep: bool, timeout_s: float) -> None:
            raise KeyError("nobody expected this")

    async with guarded(Broken()) as guard:
        await until(lambda: guard.lost)
        with pytest.raises(EngineDiedError, match=r"it could not be looked after \(KeyError: 'nobody expected this'\)"):
            await guard.available()
