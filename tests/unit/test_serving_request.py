"""What a request is refused with: one sentence in OpenAI's shape, never a crash."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving_fakes import served

from longshort.serving.errors import RequestError
from longshort.serving.request import ChatRequest, Message, RequestLimits, parse

LIMITS = RequestLimits(messages=4, choices=3)
GOOD: dict[str, Any] = {"model": "fake", "messages": [{"role": "user", "content": "1+1?"}]}


def read(**changed: Any) -> ChatRequest:
    return parse(json.dumps({**GOOD, **changed}).encode(), LIMITS)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"model": 3}, "model is a number"),
        ({"messages": None}, "messages is missing or null"),
        ({"messages": []}, "at least one message"),
        ({"messages": "hello"}, "messages is a text"),
        ({"messages": [{"role": "user", "content": "x"}] * 5}, "has 5 entries; this server takes up to 4"),
        ({"messages": ["x"]}, r"messages\[0\] is a text"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 'role is "tool"; it can be system'),
        ({"messages": [{"role": "user"}]}, "content is missing"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "is not a text"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "has to end with one of the user"),
        ({"messages": [{"role": "system", "content": "x"}]}, "has to end with one of the user"),
        (
            {"messages": [{"role": "assistant", "content": "x"}, {"role": "user", "content": "x"}]},
            "has to begin with the user",
        ),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "half of a surrogate pair"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}, "calls a tool"),
        ({"stream": "yes"}, "stream is a text; give true or false"),
        ({"stream_options": 1}, "stream_options is a number"),
        ({"n": 4}, "n is 4; give a whole number from 1 to 3"),
        ({"n": True}, "n is true"),
        ({"n": 1.5}, "n is 1.5"),
        ({"temperature": "hot"}, 'temperature is "hot"; give a number from 0 to 2'),
        ({"temperature": -1}, "temperature is -1"),
        ({"temperature": 1e999}, "Infinity is no number of JSON"),
        ({"top_p": 0}, "leaves nothing to sample"),
        ({"top_k": -2}, "top_k is -2"),
        ({"seed": 10**400}, "a number that is too large"),
        ({"seed": "1"}, 'seed is "1"'),
        ({"max_completion_tokens": 0}, "max_completion_tokens is 0"),
        ({"max_tokens": -5}, "max_tokens is -5"),
        ({"reasoning_effort": "huge"}, 'reasoning_effort is "huge"; it can be low, medium, high'),
        ({"reasoning_effort": ["low"]}, "reasoning_effort is a list"),
        ({"stop": [""]}, "each is a text of 1 to 256"),
        ({"stop": ["a"] * 5}, "up to 4"),
        ({"stop": 7}, "stop is a number"),
        ({"tools": [{"type": "function"}]}, "tools is not something that a pair can do"),
        ({"logprobs": True}, "logprobs is not"),
        ({"presence_penalty": 0.5}, "presence_penalty is not"),
        ({"response_format": {"type": "json_object"}}, "response_format is not"),
    ],
)
def test_a_bad_value_is_named(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence) as caught:
        read(**changed)
    assert caught.value.status == 400
    assert set(caught.value.body()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[1]", "the body is a JSON a list"),
        (b'{"model": "\xff"}', "not UTF-8 .byte 11"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"temperature": NaN}', "NaN is no number of JSON"),
    ],
)
def test_a_body_that_is_no_request_is_named(body: bytes, sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        parse(body, LIMITS)


def test_openais_values_that_ask_for_nothing_are_fine() -> None:
    asked = read(
        n=None,
        temperature=0,
        logprobs=False,
        presence_penalty=0,
        tools=[],
        response_format={"type": "text"},
        user="me",
        max_tokens=5,
        stop="x",
        messages=[{"role": "developer", "content": [{"type": "text", "text": "a"}]}, *GOOD["messages"]],
    )
    assert (asked.n, asked.temperature, asked.max_tokens, asked.stop) == (1, 0.0, 5, ("x",))
    assert asked.messages[0] == Message("system", "a")


def test_the_newer_name_of_the_budget_goes_before_the_older() -> None:
    assert read(max_tokens=5, max_completion_tokens=7).max_tokens == 7


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(
    [
        *GOOD,
        *("stream", "n", "temperature", "top_p", "top_k", "seed", "stop", "max_tokens", "max_completion_tokens"),
        *("reasoning_effort", "stream_options", "tools", "logprobs", "return_token_ids", "response_format"),
    ]
)


@given(st.dictionaries(KEYS, JSON, max_size=4))
def test_any_json_is_a_request_or_is_refused_with_400(changed: dict[str, Any]) -> None:
    try:
        parse(json.dumps({**GOOD, **changed}).encode(), LIMITS)
    except RequestError as error:
        assert error.status == 400
        assert len(error.message) < 500


async def test_http_refusals_have_openais_shape() -> None:
    async with served(max_body_bytes=2000) as at:
        assert (await at.ask("x" * 3000))["status"] == 413
        assert (await at.post(json.dumps(GOOD).encode(), **{"Content-Type": "text/plain"}))[0] == 415
        status, body = await at.get("/v1/nothing")
        assert (status, json.loads(body)["error"]["message"]) == (404, "there is no GET /v1/nothing here")
        assert (await at.get("/v1/chat/completions"))[0] == 405
        assert (await at.get("/v1/models/other"))[0] == 404


async def test_a_body_that_does_not_arrive_is_given_up() -> None:
    async with served(body_timeout_s=0.1) as at:
        host, port = at.address.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        assert b" 408 " in await reader.readline()
        writer.close()


async def test_hostile_bytes_and_half_closed_sockets_leave_the_server_well() -> None:
    rng = random.Random(0)
    whole = json.dumps(GOOD).encode()
    async with served(body_timeout_s=0.5) as at:
        host, port = at.address.removeprefix("http://").split(":")
        for _ in range(60):
            reader, writer = await asyncio.open_connection(host, int(port))
            head = (
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n" % len(whole)
            )
            sent = bytearray(head + whole)
            for _ in range(rng.choice([0, 1, 5])):
                sent[rng.randrange(len(sent))] = rng.randrange(256)
            writer.write(bytes(sent[: rng.choice([rng.randrange(len(sent)), len(sent)])]))
            if rng.random() < 0.7:
                writer.write_eof()
                assert b" 500 " not in await asyncio.wait_for(reader.read(), 2)
            writer.close()
        assert (await at.ask())["status"] == 200
        text = (await at.get("/metrics"))[1].decode()
        assert 'status="500"' not in text
