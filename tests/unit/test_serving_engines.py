"""A policy's engines by hand-written ones: who serves whom, and what becomes of a turn whose engine dies.

Not proved here: that vLLM is started again (``tests/integration/test_serving_stack.py``).
"""

from __future__ import annotations

import asyncio

import pytest

from longshort.episode import Ids
from longshort.generation import Completion, OnText, SamplingParams
from workers.errors import EngineDiedError
from workers.serving import CPU_ENGINE, Engines, engine_arguments, start_engines

PARAMS = SamplingParams(max_tokens=5)


class FakeEngine:
    """Answers with its number; ``dies``: before a word, or after one."""

    def __init__(self, number: int, dies: str = "") -> None:
        self.number, self.dies, self.alive, self.log = number, dies, True, list[str]()
        self.go = asyncio.Event()
        self.go.set()

    async def start(self) -> None:
        self.log.append("start")
        if self.dies == "at start":
            raise ValueError("the engine of policy 'long' does not start")

    async def stop(self) -> None:
        self.log.append("stop")

    async def stream(
        self, prompt: Ids, params: SamplingParams, on_text: OnText | None, sampled: list[int]
    ) -> Completion:
        self.log.append(f"stream {len(prompt)} {params.max_tokens}")
        await self.go.wait()
        if self.dies:
            if self.dies == "after a word" and on_text is not None:
                on_text("a", 2)
                sampled += [7, 8]
            self.alive = False
            raise EngineDiedError("long", "killed")
        if on_text is not None:
            on_text("ab", 2)
        return Completion((self.number,), (), "stop")


async def served_by(engines: Engines, session: str) -> int:
    return (await engines.generate((1,), PARAMS, session)).token_ids[0]


async def test_a_session_stays_on_its_engine_and_a_new_one_goes_to_the_least_loaded() -> None:
    first, second = FakeEngine(0), FakeEngine(1)
    engines = Engines("long", [first, second])
    assert await served_by(engines, "a") == 0
    first.go.clear()
    waiting = asyncio.create_task(served_by(engines, "a"))
    await asyncio.sleep(0)
    assert await served_by(engines, "b") == 1
    first.go.set()
    assert await waiting == 0
    assert await served_by(engines, "b") == 1


async def test_a_turn_whose_engine_dies_is_played_by_another_one() -> None:
    engines = Engines("long", [FakeEngine(0, "before a word"), FakeEngine(1)])
    heard: list[str] = []
    completion = await engines.stream((1,), PARAMS, "a", lambda text, tokens: heard.append(text))
    assert (completion.token_ids, heard) == ((1,), ["ab"])
    assert engines.alive == 1


async def test_a_turn_that_has_begun_is_gone_on_with_from_its_tokens() -> None:
    other = FakeEngine(1)
    engines = Engines("long", [FakeEngine(0, "after a word"), other])
    heard: list[str] = []
    completion = await engines.stream((5,), PARAMS, "a", lambda text, tokens: heard.append(text))
    assert (completion.token_ids, heard, completion.prompt_tokens) == ((7, 8, 1), ["a", "ab"], 1)
    assert other.log == ["stream 3 3"]


async def test_without_an_engine_the_policy_is_named() -> None:
    engines = Engines("long", [FakeEngine(0, "before a word")])
    with pytest.raises(EngineDiedError):
        await served_by(engines, "a")
    with pytest.raises(EngineDiedError, match=r"'long'.*being started again"):
        await served_by(engines, "a")


async def test_where_one_does_not_start_all_are_stopped() -> None:
    good, bad = FakeEngine(0), FakeEngine(1, "at start")
    with pytest.raises(ValueError, match="does not start"):
        await start_engines({"long": Engines("long", [good]), "short": Engines("short", [bad])}, "cuda")
    assert good.log == ["start", "stop"]


def test_engine_arguments_of_a_device_give_way_to_the_users() -> None:
    cpu = engine_arguments("m", 8192, "auto", "cpu", block_size=16)
    assert (cpu["dtype"], cpu["max_num_batched_tokens"], cpu["block_size"]) == ("float32", 8192, 16)
    assert CPU_ENGINE["block_size"] == 32
    assert engine_arguments("m", 10, "bfloat16", "cpu")["dtype"] == "bfloat16"
    assert engine_arguments("m", 10, "auto", "cuda", max_num_seqs=3) == {
        "model": "m",
        "max_model_len": 10,
        "dtype": "auto",
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "max_num_seqs": 3,
    }
