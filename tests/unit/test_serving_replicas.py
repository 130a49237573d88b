"""The client of a cluster's replicas, with a hand-written handle. Not proved here: Ray Serve."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from longshort.episode import Ids
from longshort.generation import Completion, OnText, SamplingParams
from workers.errors import EngineDiedError
from workers.replicas import EngineDeployment, Piece, ServeEngines

# Ray Serve awaits it.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine .EngineDeployment.__del__")

PARAMS = SamplingParams(max_tokens=5)


class Parts:
    """What one call gives: parts, and at last an error if there is one."""

    def __init__(self, parts: list[Any], wait: bool = False) -> None:
        self.parts, self.wait, self.cancelled = parts, wait, False

    async def __aiter__(self) -> AsyncIterator[Any]:
        for part in self.parts:
            if isinstance(part, Exception):
                raise part
            yield part
        if self.wait:
            await asyncio.Event().wait()

    def cancel(self) -> None:
        self.cancelled = True


class Handle:
    """Answers calls in their order; keeps what was asked."""

    def __init__(self, *answers: Parts) -> None:
        self.answers, self.asked, self.sessions = list(answers), list[tuple[Ids, int, bool]](), list[str]()

    def options(self, *, stream: bool, method_name: str, session_id: str) -> Handle:
        assert (stream, method_name) == (True, "stream")
        self.sessions.append(session_id)
        return self

    def remote(self, prompt: Ids, params: SamplingParams, live: bool) -> Parts:
        self.asked.append((prompt, params.max_tokens, live))
        return self.answers.pop(0)


async def test_a_turn_goes_on_at_another_replica_from_its_tokens() -> None:
    handle = Handle(
        Parts([Piece("ab", (7, 8)), EngineDiedError("long", "killed")]),
        Parts([Piece("c", (9,)), Completion((9,), (), "stop", cached_tokens=2)]),
    )
    heard: list[tuple[str, int]] = []
    completion = await ServeEngines("long", handle).stream((1,), PARAMS, "s", lambda *told: heard.append(told))
    assert (completion.token_ids, completion.prompt_tokens) == ((7, 8, 9), 1)
    assert heard == [("ab", 2), ("c", 1)]
    assert handle.asked == [((1,), 5, True), ((1, 7, 8), 3, True)]
    assert handle.sessions == ["s", "s#1"]


async def test_when_all_that_are_tried_die_the_policy_is_named() -> None:
    handle = Handle(*[Parts([EngineDiedError("long", "killed")]) for _ in range(3)])
    with pytest.raises(EngineDiedError, match=r"'long' died: .*killed"):
        await ServeEngines("long", handle).generate((1,), PARAMS, "s")


async def test_a_caller_that_goes_away_cancels_the_call() -> None:
    parts = Parts([], wait=True)
    asking = asyncio.create_task(ServeEngines("long", Handle(parts)).generate((1,), PARAMS, "s"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert parts.cancelled


class FakeEngine:
    """Says its prompt's length in words, with time between them."""

    ended = 0

    def __init__(self, policy: str, arguments: Mapping[str, Any]) -> None:
        self.policy, self.arguments = policy, arguments

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def stream(
        self, prompt: Ids, params: SamplingParams, on_text: OnText | None, sampled: list[int]
    ) -> Completion:
        try:
            for number in range(params.max_tokens):
                await asyncio.sleep(0.001 if params.seed is None else 3600)
                sampled.append(number)
                if on_text is not None:
                    on_text(f"{number} ", 1)
            return Completion(tuple(sampled), (), "length", cached_tokens=len(prompt))
        except asyncio.CancelledError:
            FakeEngine.ended += 1
            raise


@pytest.fixture
def replica(monkeypatch: pytest.MonkeyPatch) -> EngineDeployment:
    monkeypatch.setattr("workers.replicas.VLLMEngine", FakeEngine)
    monkeypatch.setattr("workers.replicas.configure_serving", lambda device: None)
    return asyncio.run(made())


async def made() -> EngineDeployment:
    # As Ray Serve makes it.
    replica = EngineDeployment.__new__(EngineDeployment)
    await replica.__init__("long", {}, "cpu")  # type: ignore[misc]
    return replica


@pytest.mark.parametrize("live", [True, False])
def test_a_replica_tells_every_token_once_and_then_the_whole(replica: EngineDeployment, live: bool) -> None:
    async def parts() -> list[Any]:
        return [part async for part in replica.stream((1, 2), PARAMS, live)]

    *pieces, completion = asyncio.run(parts())
    assert completion.token_ids == (0, 1, 2, 3, 4)
    assert sum((piece.ids for piece in pieces), ()) == ((0, 1, 2, 3, 4) if live else ())
    assert "".join(piece.text for piece in pieces) == ("0 1 2 3 4 " if live else "")


def test_a_replicas_caller_that_goes_away_ends_the_engines_request(replica: EngineDeployment) -> None:
    async def go_away() -> None:
        parts = replica.stream((1,), SamplingParams(5, seed=1), True)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(parts), 0.01)  # type: ignore[arg-type]
        await asyncio.sleep(0)

    before = FakeEngine.ended
    asyncio.run(go_away())
    assert FakeEngine.ended == before + 1
