"""The server with a scripted pair: what of a conversation is shown where, limits, refusals, care.

Not proved here: anything of vLLM (``tests/integration/test_serving_stack.py`` serves the playground pair).
"""

from __future__ import annotations

import asyncio

import openai
import pytest
from serving_fakes import ANSWER, THOUGHT, fake_pair, served

from longshort.serving.open import _until
from workers.errors import EngineDiedError

REASONING = "let me see"
CONTENT = "it is \\boxed{5}"


def text_of(chunks: list[dict], key: str, index: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get(key, "") for choice in choices)


async def test_thinking_is_reasoning_and_the_last_turn_is_content() -> None:
    async with served() as at:
        reply = await at.ask()
    (choice,) = reply["choices"]
    assert choice["message"] == {"role": "assistant", "content": CONTENT, "reasoning_content": REASONING}
    assert choice["finish_reason"] == "stop"
    assert choice["longshort"]["outcome"] == "answered"
    assert [turn["role"] for turn in choice["longshort"]["turns"]] == ["long", "short"]


async def test_a_stream_has_the_same_text_as_the_whole_reply() -> None:
    async with served() as at:
        chunks = await at.chunks(stream_options={"include_usage": True})
        whole = await at.ask()
    assert text_of(chunks, "reasoning_content") == REASONING
    assert text_of(chunks, "content") == CONTENT
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert (chunks[-1]["choices"], chunks[-1]["usage"]) == ([], whole["usage"])


async def test_a_turn_that_hands_back_is_reasoning_with_its_role() -> None:
    short = ["<answer>more please</rethink>", ANSWER]
    async with served(short=short) as at:
        chunks = await at.chunks()
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    by_short = [
        d["reasoning_content"] for d in deltas if d.get("longshort", {}).get("role") == "short" and "content" not in d
    ]
    assert "".join(by_short) == "\n\nmore please"
    assert text_of(chunks, "reasoning_content") == f"{REASONING}\n\nmore please\n\n{REASONING}"
    assert text_of(chunks, "content") == CONTENT


async def test_choices_are_streamed_beside_each_other_and_do_not_mix() -> None:
    def think(request):
        return f"<think>sample {request.params.seed % 97}</think>"

    async with served(long=think) as at:
        chunks = await at.chunks(n=3, seed=5)
        again = await at.ask(n=3, seed=5)
    texts = [text_of(chunks, "reasoning_content", index) for index in range(3)]
    assert texts == [choice["message"]["reasoning_content"] for choice in again["choices"]]
    assert len(set(texts)) == 3


async def test_openais_client_streams_and_collects() -> None:
    async with served() as at:
        client = openai.AsyncOpenAI(base_url=f"{at.address}/v1", api_key="none", max_retries=0)
        messages = [{"role": "user", "content": "1+1?"}]
        whole = await client.chat.completions.create(model="fake", messages=messages)
        assert whole.choices[0].message.content == CONTENT
        assert whole.choices[0].message.reasoning_content == REASONING
        assert whole.usage.completion_tokens_details.reasoning_tokens == len("let me see") + 2
        stream = await client.chat.completions.create(model="fake", messages=messages, stream=True)
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(pieces) == CONTENT
        assert [model.id async for model in client.models.list()] == ["fake"]
        with pytest.raises(openai.NotFoundError, match="there is no model"):
            await client.chat.completions.create(model="other", messages=messages)
        await client.close()


async def test_a_stop_text_ends_the_content_and_is_not_in_it() -> None:
    async with served() as at:
        reply = await at.ask(stop=["\\boxed"])
        chunks = await at.chunks(stop="\\boxed")
    assert reply["choices"][0]["message"]["content"] == text_of(chunks, "content") == "it is "
    assert reply["choices"][0]["finish_reason"] == "stop"


async def test_usage_counts_tokens_by_role() -> None:
    async with served() as at:
        usage = (await at.ask())["usage"]
    assert usage["longshort"]["long"]["completion_tokens"] == len("let me see") + 2
    assert usage["longshort"]["short"]["completion_tokens"] == len(CONTENT) + 2
    assert usage["completion_tokens"] == len("let me see") + len(CONTENT) + 4
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["longshort"]["short"]["prompt_tokens"] > usage["prompt_tokens"]


async def test_a_budget_ends_a_turn_that_would_eat_the_reserve_and_says_so() -> None:
    async with served(long="<think>" + "x" * 100 + "</think>") as at:
        reply = await at.ask(max_completion_tokens=36)
    (choice,) = reply["choices"]
    assert choice["message"]["content"] == CONTENT
    assert choice["finish_reason"] == "stop"
    assert choice["longshort"]["budget"] == {"tokens": 36, "used": 33, "reserve": 20, "ended_turns": [0]}
    assert reply["usage"]["completion_tokens"] <= 36


async def test_where_another_exchange_would_not_fit_the_short_model_may_not_hand_back() -> None:
    async with served() as at:
        await at.ask(max_completion_tokens=40)
        await at.ask(reasoning_effort="low")
        await at.ask()
        forbidden = [request.params.forbid for request in at.generators["short"].requests]
    assert forbidden == [("</rethink>", "<|end|>"), ("</rethink>", "<|end|>"), ()]


async def test_an_engine_that_died_is_a_503_that_says_when_to_retry() -> None:
    async with served(faults={0: EngineDiedError("long", "killed")}) as at:
        status, body, headers = await at.post({"model": "fake", "messages": [{"role": "user", "content": "?"}]})
        assert (status, headers["Retry-After"]) == (503, "10")
        assert b"'long'" in body
        assert (await at.ask())["status"] == 200
    async with served(faults={0: EngineDiedError("long", "killed")}) as at:
        streamed = {"model": "fake", "stream": True, "messages": [{"role": "user", "content": "?"}]}
        assert (await at.post(streamed))[0] == 503


async def test_a_client_that_goes_away_frees_its_engine_requests() -> None:
    begun, forever = asyncio.Event(), asyncio.Event()

    async def wait(request: object) -> None:
        begun.set()
        await forever.wait()

    for stream in (True, False):
        begun.clear()
        async with served(gate=wait) as at:
            asking = asyncio.create_task(at.ask(stream=stream))
            await begun.wait()
            asking.cancel()
            async with asyncio.timeout(20):
                while not at.generators["long"].freed or at.server._running:
                    await asyncio.sleep(0.001)
            assert at.generators["long"].freed == 1


async def test_more_than_the_most_requests_are_sent_away_with_429() -> None:
    gate = asyncio.Event()

    async def wait(request: object) -> None:
        await gate.wait()

    async with served(gate=wait, max_requests=2) as at:
        asking = asyncio.create_task(at.ask(n=2))
        while not at.server._running:
            await asyncio.sleep(0.001)
        status, _, headers = await at.post({"model": "fake", "messages": [{"role": "user", "content": "?"}]})
        assert (status, headers["Retry-After"]) == (429, "1")
        gate.set()
        assert (await asking)["status"] == 200


async def test_draining_finishes_what_runs_and_takes_nothing_new() -> None:
    gate = asyncio.Event()

    async def wait(request: object) -> None:
        await gate.wait()

    async with served(gate=wait) as at:
        asking = asyncio.create_task(at.ask())
        while not at.server._running:
            await asyncio.sleep(0.001)
        draining = asyncio.create_task(at.server.drain(5))
        await asyncio.sleep(0)
        assert (await at.ask())["status"] == 503
        assert (await at.get("/health"))[0] == 503
        gate.set()
        assert (await asking)["status"] == 200
        await draining


async def test_a_key_is_asked_for_everywhere_but_for_health() -> None:
    async with served(key="secret") as at:
        assert (await at.ask())["status"] == 401
        assert (await at.get("/v1/models"))[0] == 401
        assert (await at.get("/metrics", Authorization="Bearer wrong"))[0] == 401
        assert (await at.get("/health"))[0] == 200
        assert (await at.get("/v1/models", Authorization="Bearer secret"))[0] == 200


async def test_metrics_count_requests_tokens_and_outcomes() -> None:
    async with served(alive=lambda: {"long": 1, "short": 1}) as at:
        await at.ask()
        text = (await at.get("/metrics"))[1].decode()
    assert 'longshort_requests_total{status="200"} 1.0' in text
    assert 'longshort_completion_tokens_total{role="long"} 12.0' in text
    assert 'longshort_outcomes_total{outcome="answered"} 1.0' in text
    assert 'longshort_engines_alive{role="short"} 1.0' in text


async def test_a_conversation_that_fills_a_context_is_refused() -> None:
    async with served(pair=fake_pair(context=50)) as at:
        reply = await at.ask("x" * 60)
    assert (reply["status"], reply["error"]["code"]) == (400, "context_length_exceeded")


async def test_every_turn_can_be_had_as_it_is_sampled() -> None:
    async with served() as at:
        chunks = await at.chunks(stream_options={"include_turns": True})
    deltas = [choice["delta"].get("longshort", {}) for chunk in chunks for choice in chunk["choices"]]
    live = {
        role: "".join(d["text"] for d in deltas if d.get("role") == role and "text" in d) for role in ("long", "short")
    }
    assert live == {"long": REASONING, "short": CONTENT}
    assert THOUGHT not in str(chunks)


async def test_engines_are_replaced_each_time_it_is_asked_for_and_a_failure_leaves_those_that_run() -> None:
    ending, replacing, calls = asyncio.Event(), asyncio.Event(), list[int]()

    async def restart() -> None:
        calls.append(len(calls))
        if len(calls) == 1:
            raise ValueError("the replicas do not start")

    waiting = asyncio.create_task(_until(ending, replacing, restart))
    for count in (1, 2):
        replacing.set()
        async with asyncio.timeout(20):
            while len(calls) < count:
                await asyncio.sleep(0)
    ending.set()
    await waiting
