"""Generation by an endpoint, against a real HTTP server on this machine that misbehaves as servers do.

Not proved here: that vLLM or a hosted service reads the requests as they are meant, and that a chat template continues
an opened turn. Waiting between attempts is recorded, not done.
"""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web
from fakes import FakeTokenizer

from longshort.endpoint import Counters, Endpoint, EndpointGenerator
from longshort.generation import Chat, Completion, GenerationFailedError, Prompt, SamplingParams

KEY = "sk-planted-0123456789"
CHAT = Chat(({"role": "system", "content": "Answer."}, {"role": "user", "content": "2+3?"}))
PARAMS = SamplingParams(max_tokens=50)
SCHEMA = {"type": "object", "properties": {"blocks": {"type": "array"}}, "required": ["blocks"]}
OTHER_SCHEMA = {"type": "object", "properties": {"score": {"type": "number"}}}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture(autouse=True)
def _planted_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def usage(**more: object) -> dict[str, object]:
    return {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18, **more}


def message(text: str | None, finish_reason: str = "stop", **choice: object) -> dict[str, object]:
    """A body of ``/chat/completions``."""
    said = {"role": "assistant", "content": text}
    return {"choices": [{"index": 0, "message": said, "finish_reason": finish_reason, **choice}], "usage": usage()}


def written(text: str, finish_reason: str = "stop", **choice: object) -> dict[str, object]:
    """A body of ``/completions``."""
    return {"choices": [{"index": 0, "text": text, "finish_reason": finish_reason, **choice}], "usage": usage()}


def says(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Handler:
    """Answers with ``body``: JSON, or bytes as they are."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=payload, status=status, headers=headers)

    return handler


def refuses(status: int, text: str, **headers: str) -> Handler:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return says({"error": {"message": text, "type": "some_error", "code": status}}, status, names)


async def hangs(request: web.Request) -> web.Response:
    await asyncio.sleep(60)
    raise AssertionError("the client gave up long ago")


async def hangs_up(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def stops_in_the_middle(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"choices": [')
    assert request.transport is not None
    request.transport.abort()
    return response


FINE = says(message("5"))


@dataclass
class Server:
    """Plays its handlers in order, the last one for all further requests, and keeps what it was asked."""

    handlers: list[Handler] = field(default_factory=list)
    asked: list[tuple[str, Mapping[str, str], dict[str, Any]]] = field(default_factory=list)
    url: str = ""

    def plays(self, *handlers: Handler) -> None:
        self.handlers, self.asked = list(handlers), []

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [body for _, _, body in self.asked]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        handler = self.handlers[min(len(self.asked), len(self.handlers) - 1)]
        self.asked.append((request.path, dict(request.headers), await request.json()))
        return await handler(request)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_post("/{path:.*}", server.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield server
    await runner.cleanup()


@dataclass
class Client:
    """A generator whose waits are recorded instead of waited."""

    generator: EndpointGenerator
    waits: list[float]

    async def ask(self, prompt: Prompt = CHAT, params: SamplingParams = PARAMS) -> Completion:
        # No test waits; one that does hangs on a server that the client should have given up.
        async with asyncio.timeout(4):
            return await self.generator.generate(prompt, params, "session")

    async def fails(self, prompt: Prompt = CHAT, params: SamplingParams = PARAMS) -> GenerationFailedError:
        with pytest.raises(GenerationFailedError) as caught:
            await self.ask(prompt, params)
        return caught.value


Connect = Callable[..., Client]


@pytest.fixture
async def connect(server: Server) -> AsyncIterator[Connect]:
    clients: list[Client] = []

    def connect(tokenizer: FakeTokenizer | None = None, jitter: float = 0.0, **settings: Any) -> Client:
        waits: list[float] = []

        async def sleep(seconds: float) -> None:
            waits.append(seconds)

        endpoint = Endpoint(**{"url": server.url, "model": "m", "timeout": 5.0, "attempts": 4, **settings})
        clients.append(Client(EndpointGenerator(endpoint, tokenizer, sleep, lambda: jitter), waits))
        return clients[-1]

    yield connect
    for client in clients:
        await client.generator.close()


# What is asked


async def test_a_chat_is_asked_with_the_sampling_of_the_request(server: Server, connect: Connect) -> None:
    server.plays(FINE)
    params = SamplingParams(50, temperature=0.3, top_p=0.9, top_k=20, seed=4, stop=("</a>",), priority=-7)
    await connect(priorities=True, extra={"chat_template_kwargs": {"enable_thinking": False}}).ask(CHAT, params)
    (path, _, body), expected = server.asked[0], {"temperature": 0.3, "top_p": 0.9, "top_k": 20, "seed": 4}
    assert path == "/v1/chat/completions"
    assert body.items() >= expected.items()
    assert (body["model"], body["max_tokens"], body["stop"], body["priority"]) == ("m", 50, ["</a>"], -7)
    assert body["messages"] == list(CHAT.messages)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert "response_format" not in body and "continue_final_message" not in body


async def test_an_opened_turn_is_continued(server: Server, connect: Connect) -> None:
    server.plays(FINE)
    await connect().ask(Chat(CHAT.messages, opened="<think>2 and 3"))
    body = server.bodies[0]
    assert body["messages"] == [*CHAT.messages, {"role": "assistant", "content": "<think>2 and 3"}]
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


async def test_vllm_samples_as_asked_and_not_by_the_models_own_generation_config(
    server: Server, connect: Connect
) -> None:
    server.plays(FINE)
    await connect().ask()
    body = server.bodies[0]
    assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (-1, 0.0, 1.0)
    assert body["skip_special_tokens"] is False
    # vLLM refuses a priority unless it schedules by it.
    assert "priority" not in body


async def test_other_servers_are_asked_for_nothing_that_openai_does_not_define(
    server: Server, connect: Connect
) -> None:
    server.plays(FINE)
    client = connect(FakeTokenizer(), vllm=False, priorities=True)
    await client.ask()
    server.plays(says(written("5")))
    await client.ask((1, 2))
    ours = {"model", "max_tokens", "temperature", "top_p", "messages", "prompt"}
    assert all(body.keys() <= ours for body in server.bodies)
    with pytest.raises(ValueError, match="top_k=20 needs a vLLM server"):
        await client.ask(CHAT, SamplingParams(50, top_k=20))


# What is made of the answer


async def test_a_chats_answer_is_text_with_the_servers_counts(server: Server, connect: Connect) -> None:
    body = message("It is 5.", "length")
    server.plays(says(body | {"usage": usage(prompt_tokens_details={"cached_tokens": 8})}))
    completion = await connect().ask()
    assert completion == Completion((), (), "length", 8, "It is 5.", prompt_tokens=11, sampled_tokens=7)


async def test_a_message_whose_thoughts_are_kept_apart_is_empty_and_has_its_length(
    server: Server, connect: Connect
) -> None:
    server.plays(says(message(None, "length")))
    completion = await connect().ask()
    assert (completion.text, completion.tokens, completion.finish_reason) == ("", 7, "length")


async def test_ids_go_in_and_come_out_as_they_were_sampled(server: Server, connect: Connect) -> None:
    server.plays(says(written("5", token_ids=[40, 0], logprobs={"token_logprobs": [-0.5, -0.25], "tokens": ["5", ""]})))
    completion = await connect().ask((1, 2, 3))
    (path, _, body) = server.asked[0]
    assert (path, body["prompt"], body["return_token_ids"], body["logprobs"]) == ("/v1/completions", [1, 2, 3], True, 0)
    assert (completion.token_ids, completion.log_probs, completion.text) == ((40, 0), (-0.5, -0.25), "5")


@pytest.mark.parametrize("vllm", [False, True])
async def test_text_becomes_ids_of_the_tokenizer_where_the_server_returns_none(
    server: Server, connect: Connect, vllm: bool
) -> None:
    server.plays(says(written("so 5")))
    tokenizer = FakeTokenizer()
    completion = await connect(tokenizer, vllm=vllm).ask((1, 2))
    assert (completion.token_ids, completion.log_probs) == (tokenizer.spell("so 5"), ())
    with pytest.raises(ValueError, match="give the tokenizer of m, or a Chat"):
        await connect(vllm=vllm).ask((1, 2))


@pytest.mark.parametrize(
    ("text", "finish_reason", "stop_reason", "expected"),
    [
        ("so", "stop", "</a>", "so</a>"),
        ("so</a>", "stop", "</a>", "so</a>"),
        # An end of sequence has no reason, or is an id; a cut text has none.
        ("so", "stop", None, "so"),
        ("so", "stop", "a stop string of the server's own", "so"),
        ("so", "stop", 151643, "so"),
        ("so", "length", None, "so"),
    ],
)
async def test_a_stop_string_is_part_of_the_text_exactly_where_it_ended_it(
    server: Server, connect: Connect, text: str, finish_reason: str, stop_reason: object, expected: str
) -> None:
    client, params = connect(FakeTokenizer()), SamplingParams(50, stop=("</b>", "</a>"))
    for prompt, body in ((CHAT, message), ((1,), written)):
        server.plays(says(body(text, finish_reason, stop_reason=stop_reason)))
        completion = await client.ask(prompt, params)
        assert (completion.text, completion.finish_reason) == (expected, finish_reason)


# Schemas


def wants_json(schema: Mapping[str, object]) -> SamplingParams:
    return SamplingParams(50, json_schema=schema)


async def test_a_schema_guides_decoding_of_chats_and_ids(server: Server, connect: Connect) -> None:
    client = connect(FakeTokenizer())
    for prompt, body in ((CHAT, message), ((1,), written)):
        server.plays(says(body("{}")))
        await client.ask(prompt, wants_json(SCHEMA))
        wanted = server.bodies[0]["response_format"]
        assert (wanted["type"], wanted["json_schema"]["schema"]) == ("json_schema", SCHEMA)
    assert client.generator.counters.unguided == 0


async def test_a_server_that_refuses_a_schema_is_asked_without_it_and_not_asked_again(
    server: Server, connect: Connect
) -> None:
    server.plays(refuses(400, "response_format is not supported"), FINE)
    client = connect()
    assert [(await client.ask(CHAT, wants_json(SCHEMA))).text for _ in range(3)] == ["5"] * 3
    assert ["response_format" in body for body in server.bodies] == [True, False, False, False]
    # It may take another one.
    await client.ask(CHAT, wants_json(OTHER_SCHEMA))
    assert "response_format" in server.bodies[-1]
    assert client.generator.counters == Counters(requests=5, unguided=3, prompt_tokens=44, completion_tokens=28)
    assert client.waits == []


async def test_a_refusal_for_another_reason_is_not_put_down_to_the_schema(server: Server, connect: Connect) -> None:
    server.plays(refuses(400, "the prompt is too long"))
    client = connect()
    error = await client.fails(CHAT, wants_json(SCHEMA))
    assert (error.status, error.attempts, error.reason) == (400, 2, "the prompt is too long")
    server.plays(FINE)
    await client.ask(CHAT, wants_json(SCHEMA))
    assert "response_format" in server.bodies[0]


# Trouble


@pytest.mark.parametrize(
    "trouble",
    [
        *[refuses(status, "later") for status in (408, 429, 500, 502, 503)],
        hangs,
        hangs_up,
        stops_in_the_middle,
        *map(says, (b"", b"<html>", b"[" * 100_000, b"null", b"\xff", {}, {"choices": []}, {"choices": [{}]})),
        *map(says, (message("5", "abort"), message("5", "content_filter"), {"choices": [{"message": None}]})),
        says({"choices": [{"message": {"content": ["5"]}, "finish_reason": "stop"}]}),
        says(written("5", token_ids=[40], logprobs={"token_logprobs": [-0.5, -0.5]})),
        says(written("5", token_ids=[40], logprobs={"token_logprobs": [None]})),
    ],
)
async def test_passing_trouble_is_retried(server: Server, connect: Connect, trouble: Handler) -> None:
    server.plays(trouble, trouble, FINE)
    client = connect(timeout=0.2 if trouble is hangs else 5.0)
    assert (await client.ask()).text == "5"
    assert client.waits == [1.0, 2.0]
    assert client.generator.counters == Counters(requests=3, retries=2, prompt_tokens=11, completion_tokens=7)


@pytest.mark.parametrize(
    ("trouble", "status", "reason"),
    [
        (refuses(503, "overloaded"), 503, "overloaded"),
        (says(b"<html>", 500), 500, "<html>"),
        (says(b"{"), 200, "the answer is no completion"),
        (hangs, None, "no answer within 0.1 s"),
        (hangs_up, None, "ServerDisconnectedError: Server disconnected"),
    ],
)
async def test_after_the_last_attempt_the_caller_learns_what_failed_and_can_go_on(
    server: Server, connect: Connect, trouble: Handler, status: int | None, reason: str
) -> None:
    server.plays(trouble)
    client = connect(timeout=0.1 if trouble is hangs else 5.0)
    error = pickle.loads(pickle.dumps(await client.fails()))
    assert (error.url, error.status, error.attempts) == (f"{server.url}/chat/completions", status, 4)
    assert error.reason == reason
    assert client.generator.counters == Counters(requests=4, retries=3, failures=1)
    server.plays(FINE)
    assert (await client.ask()).text == "5"


@pytest.mark.parametrize("status", [307, 400, 404, 413])
async def test_a_refusal_is_final(server: Server, connect: Connect, status: int) -> None:
    server.plays(refuses(status, "no  such\nmodel", Location=f"{server.url}/elsewhere"))
    client = connect()
    error = await client.fails()
    assert (error.status, error.attempts, error.reason) == (status, 1, "no such model")
    assert len(server.asked) == 1 and client.waits == []


async def test_an_address_that_nobody_listens_at_fails(connect: Connect) -> None:
    client = connect(url="http://127.0.0.1:9/v1")
    assert (await client.fails()).status is None
    assert len(client.waits) == 3


async def test_waits_double_up_to_their_cap(server: Server, connect: Connect) -> None:
    server.plays(refuses(500, "later"))
    client = connect(attempts=6, first_wait=0.5, longest_wait=3.0)
    await client.fails()
    assert client.waits == [0.5, 1.0, 2.0, 3.0, 3.0]


async def test_chance_takes_up_to_half_of_a_wait_away(server: Server, connect: Connect) -> None:
    server.plays(refuses(500, "later"))
    client = connect(jitter=1.0)
    await client.fails()
    assert client.waits == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("status", [429, 503])
async def test_a_server_is_not_asked_before_the_time_it_names(server: Server, connect: Connect, status: int) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    server.plays(*[refuses(status, "slow down", Retry_After=when) for when in ("7", date, "soon")], FINE)
    client = connect(jitter=1.0)
    await client.ask()
    seconds, until_date, neither = client.waits
    assert seconds == 7.5
    assert 39 < until_date <= 41
    assert neither == 2.0


async def test_a_server_that_wants_to_be_left_alone_for_long_is_given_up(server: Server, connect: Connect) -> None:
    server.plays(refuses(429, "your quota is used up", Retry_After="3600"))
    client = connect()
    error = await client.fails()
    assert (error.status, error.attempts, client.waits) == (429, 1, [])
    assert error.reason == "it asks to wait 3600 s, longer than longest_wait=60"


# Concurrency


async def test_no_more_requests_are_in_flight_than_allowed_and_as_many_are_used(
    server: Server, connect: Connect
) -> None:
    now, most = 0, 0

    async def counts(request: web.Request) -> web.StreamResponse:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1
        return await FINE(request)

    server.plays(counts)
    client = connect(concurrency=3)
    assert len(await asyncio.gather(*[client.ask() for _ in range(20)])) == 20
    assert most == 3


async def test_a_request_keeps_its_slot_while_it_backs_off(server: Server, connect: Connect) -> None:
    server.plays(refuses(500, "later"), FINE)
    client = connect(concurrency=1)
    first, second = SamplingParams(50, seed=1), SamplingParams(50, seed=2)
    await asyncio.gather(client.ask(CHAT, first), client.ask(CHAT, second))
    assert [body["seed"] for body in server.bodies] == [1, 1, 2]


async def test_a_cancelled_request_gives_its_slot_back(server: Server, connect: Connect) -> None:
    server.plays(hangs, FINE)
    client = connect(concurrency=1)
    asked = asyncio.ensure_future(client.ask())
    while not server.asked:
        await asyncio.sleep(0.01)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert (await client.ask()).text == "5"


async def test_a_closed_generator_opens_again(server: Server, connect: Connect) -> None:
    server.plays(FINE)
    generator = connect().generator
    for _ in range(2):
        async with generator:
            await generator.generate(CHAT, PARAMS, "session")
    assert len(server.asked) == 2


# The key


async def test_the_key_is_sent_as_the_environment_has_it(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.plays(FINE)
    monkeypatch.setenv("ANOTHER_KEY", "another\n")
    client = connect(key_variable="ANOTHER_KEY")
    for wanted in (connect(), client, connect(key_variable=None)):
        await wanted.ask()
    monkeypatch.delenv("ANOTHER_KEY")
    await client.ask()
    sent = [headers.get("Authorization") for _, headers, _ in server.asked]
    assert sent == [f"Bearer {KEY}", "Bearer another", None, None]


def chain(error: BaseException | None) -> list[BaseException]:
    """The error and all that it came from."""
    return [] if error is None else [error, *chain(error.__cause__), *chain(error.__context__)]


@pytest.mark.parametrize(
    "trouble",
    [
        *[refuses(status, f"Incorrect API key provided: {KEY}.") for status in (400, 401, 403, 404, 429, 500)],
        says(f"<html>{KEY}</html>".encode(), 502),
        says(KEY.encode()),
        refuses(307, "moved", Location=f"http://127.0.0.1:9/{KEY}"),
        hangs,
        hangs_up,
        stops_in_the_middle,
    ],
)
async def test_the_key_is_in_no_log_error_or_description(
    server: Server, connect: Connect, caplog: pytest.LogCaptureFixture, trouble: Handler
) -> None:
    server.plays(trouble)
    client = connect(timeout=0.1 if trouble is hangs else 5.0)
    with caplog.at_level(logging.DEBUG):
        error = await client.fails()
    assert server.asked[0][1]["Authorization"] == f"Bearer {KEY}", "it was sent, so it could have leaked"
    told = [
        *[str(record.__dict__) for record in caplog.records if record.name != "aiohttp.access"],
        *traceback.format_exception(error),
        *[f"{link!r} {vars(link)}" for link in chain(error)],
        repr(pickle.dumps(error)),
        repr(client.generator),
        repr(vars(client.generator)),
        repr(client.generator.endpoint),
        repr(client.generator.counters),
    ]
    assert not [text for text in told if KEY in text]


async def test_a_refused_key_is_blamed_on_its_variable(server: Server, connect: Connect) -> None:
    server.plays(refuses(401, "Incorrect API key provided: sk-pl***6789."))
    assert (await connect().fails()).reason == "it does not accept the key in OPENAI_API_KEY"


@pytest.mark.parametrize("url", ["https://api.example.org/v1", "http://localhost:8000/v1", "http://[::1]:8000/v1"])
def test_a_key_goes_over_https_or_to_this_machine(url: str) -> None:
    EndpointGenerator(Endpoint(url, "m"))


async def test_a_key_does_not_go_unencrypted_over_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = Endpoint("http://node-7:8000/v1", "m")
    with pytest.raises(ValueError, match="OPENAI_API_KEY would go to http://node-7:8000/v1 unencrypted") as caught:
        EndpointGenerator(endpoint)
    assert KEY not in str(caught.value)
    monkeypatch.delenv("OPENAI_API_KEY")
    async with EndpointGenerator(endpoint) as generator:
        # The key is read at each request, so it may come later.
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        with pytest.raises(ValueError, match="unencrypted"):
            await generator.generate(CHAT, PARAMS, "session")


def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\r\nHost: elsewhere")
    with pytest.raises(ValueError, match="OPENAI_API_KEY holds characters") as caught:
        EndpointGenerator(Endpoint("https://api.example.org/v1", "m"))
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        *["", "127.0.0.1:8000/v1", "ftp://host/v1", "https:///v1", "https://host:port/v1"],
        *["https://user:passw0rd@host/v1", "https://user:pass/w0rd@host/v1", "https://host/v1?key=passw0rd"],
    ],
)
def test_an_address_that_is_none_or_holds_a_secret_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match="url must be http") as caught:
        Endpoint(url, "m")
    assert all("w0rd" not in str(link) for link in chain(caught.value))


@pytest.mark.parametrize("setting", ["concurrency", "timeout", "attempts"])
def test_settings_that_could_not_work_are_refused(setting: str) -> None:
    with pytest.raises(ValueError, match=f"{setting}=0 of the endpoint must be above 0"):
        Endpoint("https://host/v1", "m", **{setting: 0})
