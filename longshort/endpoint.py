"""Generation by an OpenAI-compatible server, such as ``vllm serve`` or a hosted one.

Concurrency: each call of ``generate`` waits for one of ``Endpoint.concurrency`` slots, and with it for nothing but its
own answer and its own back-off. It keeps the slot while it backs off, so an overloaded server is asked less. Slots and
connections belong to one event loop, from the first call until ``close``.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import os
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from longshort.endpoint_answer import Answer, Fault, error_message, parse_answer, seconds_to_wait
from longshort.generation import Chat, Completion, GenerationFailedError, Prompt, SamplingParams, Tokenizer

log = logging.getLogger(__name__)

# 408: the server's own time limit.
TRANSIENT = frozenset({408, 429, *range(500, 600)})
REFUSALS = frozenset({400, 422})
SHOWN_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server and how it is asked.

    Attributes:
        url: up to and with the version, as in ``http://127.0.0.1:8000/v1``. A key goes over https or to this machine.
        model: the name that the server has for it.
        key_variable: environment variable that holds the key, read at each request; None, or unset, sends none.
        vllm: the server takes vLLM's own parameters. Without them there is no ``top_k``, no ids and log-probabilities,
            no priority, and a model's own default penalties apply.
        priorities: send priorities; vLLM refuses them unless it runs with ``--scheduling-policy priority``.
        extra: fields of every request body, e.g. ``{"chat_template_kwargs": {"enable_thinking": False}}``.
        concurrency: requests in flight.
        timeout: seconds that one request may take, answer included.
        attempts: requests for one completion, the first included.
        first_wait: seconds before the second request; doubled for each further one, and shortened at random by up to
            a half.
        longest_wait: cap of it, in seconds; a server that asks for more is given up.
    """

    url: str
    model: str
    key_variable: str | None = "OPENAI_API_KEY"
    vllm: bool = True
    priorities: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int = 64
    timeout: float = 600.0
    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 60.0

    def __post_init__(self) -> None:
        for name in ("concurrency", "timeout", "attempts"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} of the endpoint must be above 0")
        if _host(self.url) is None:
            # The address itself may hold a password.
            raise ValueError(
                "the endpoint's url must be http(s)://host[:port]/path without user name, query or fragment; "
                "give the key in the environment variable that key_variable names"
            )


@dataclass(frozen=True, slots=True)
class Counters:
    """What an endpoint was asked so far; tokens as the server counted them in its answers.

    ``requests`` counts every HTTP request, ``retries`` those that repeated one, ``failures`` the completions that were
    given up, ``unguided`` those made without their JSON schema because the server refused it.
    """

    requests: int = 0
    retries: int = 0
    failures: int = 0
    unguided: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


class EndpointGenerator:
    """Completions of an :class:`Endpoint`; an async context manager, which closes the connections.

    ``Chat`` prompts go to ``/chat/completions`` and come back as text. To continue ``opened`` is an extension of vLLM
    (``continue_final_message``): some other servers have it too, some refuse it, and some ignore it and begin a new
    turn; how it is rendered is up to the chat template. Ids go to ``/completions`` and come back as ids: those that
    the server returns, or else its text in the ids of ``tokenizer``, without log-probabilities.

    The server cuts the stop string off; it is put back where the answer names it in ``stop_reason``, as vLLM's does.
    Sessions are left to the server's own routing.

    Args:
        endpoint: the server.
        tokenizer: the model's; needed for ids where the server returns none.
        sleep: waits between attempts.
        jitter: 0 to 1, how much of the random half of a wait is taken.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        tokenizer: Tokenizer | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.endpoint = endpoint
        self.counters = Counters()
        self._tokenizer = tokenizer
        self._sleep = sleep
        self._jitter = jitter
        self._refused: set[str] = set()
        self._connections: tuple[aiohttp.ClientSession, asyncio.Semaphore] | None = None
        # Whether a key may be sent is found out before the first request.
        self._key()

    async def __aenter__(self) -> EndpointGenerator:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; requests in flight fail, and a later one opens new ones."""
        if self._connections is not None:
            await self._connections[0].close()
            self._connections = None

    def _open(self) -> tuple[aiohttp.ClientSession, asyncio.Semaphore]:
        if self._connections is None:
            http = aiohttp.ClientSession(
                # The slots bound them; waiting for a connection would count as the server's time.
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=self.endpoint.timeout),
            )
            self._connections = http, asyncio.Semaphore(self.endpoint.concurrency)
        return self._connections

    async def generate(self, prompt: Prompt, params: SamplingParams, session: str) -> Completion:
        """See :class:`longshort.generation.Generator`.

        Raises:
            GenerationFailedError: no usable answer after the last attempt, or a refusal.
            ValueError: the server cannot serve such a prompt or parameter as it is set up here.
        """
        url, body = self._request(prompt, params)
        schema = json.dumps(body.get("response_format"), sort_keys=True)
        unguided = {name: value for name, value in body.items() if name != "response_format"}
        http, slots = self._open()
        async with slots:
            if schema in self._refused:
                body = unguided
            answer, attempts = await self._persist(http, url, body)
            if isinstance(answer, Fault) and answer.status in REFUSALS and "response_format" in body:
                body = unguided
                answer, more = await self._persist(http, url, body)
                attempts += more
                # A server that refuses both had another reason.
                if isinstance(answer, Answer):
                    self._refused.add(schema)
        if isinstance(answer, Fault):
            self._count(failures=1)
            raise GenerationFailedError(url, answer.status, attempts, answer.reason)
        self._count(
            unguided=params.json_schema is not None and "response_format" not in body,
            prompt_tokens=answer.prompt_tokens or 0,
            cached_tokens=answer.cached_tokens or 0,
            completion_tokens=answer.sampled_tokens or 0,
        )
        return self._completion(prompt, params, answer)

    def _request(self, prompt: Prompt, params: SamplingParams) -> tuple[str, dict[str, Any]]:
        """Address and body."""
        endpoint = self.endpoint
        body: dict[str, Any] = {
            "model": endpoint.model,
            "max_tokens": params.max_tokens,
            "temperature": params.temperature,
            "top_p": params.top_p,
        }
        if params.seed is not None:
            body["seed"] = params.seed
        if params.stop:
            body["stop"] = list(params.stop)
        if params.json_schema is not None:
            schema = {"name": "answer", "schema": dict(params.json_schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if endpoint.vllm:
            # vLLM takes what is not given here from the model's generation_config.json. A tag that is a special token
            # must still be seen by the stop strings.
            body |= {"top_k": params.top_k, "min_p": 0.0, "repetition_penalty": 1.0, "skip_special_tokens": False}
        elif params.top_k > 0:
            raise ValueError(f"top_k={params.top_k} needs a vLLM server; set vllm, or give it in the endpoint's extra")
        if endpoint.vllm and endpoint.priorities:
            body["priority"] = params.priority
        if isinstance(prompt, Chat):
            path = "chat/completions"
            body["messages"] = [dict(message) for message in prompt.messages]
            if prompt.opened:
                body["messages"].append({"role": "assistant", "content": prompt.opened})
                body |= {"continue_final_message": True, "add_generation_prompt": False}
        else:
            path = "completions"
            body["prompt"] = list(prompt)
            if endpoint.vllm:
                body |= {"return_token_ids": True, "logprobs": 0}
            else:
                self._reader()
        return f"{endpoint.url.rstrip('/')}/{path}", body | dict(endpoint.extra)

    def _reader(self) -> Tokenizer:
        if self._tokenizer is None:
            raise ValueError(
                f"{self.endpoint.url} returns no token ids; give the tokenizer of {self.endpoint.model}, or a Chat"
            )
        return self._tokenizer

    async def _persist(
        self, http: aiohttp.ClientSession, url: str, body: Mapping[str, Any]
    ) -> tuple[Answer | Fault, int]:
        """The answer, or what went wrong at last, and how many requests it took."""
        for attempt in range(1, self.endpoint.attempts + 1):
            self._count(requests=1, retries=attempt > 1)
            answer = await self._attempt(http, url, body)
            if isinstance(answer, Answer) or not answer.transient or attempt == self.endpoint.attempts:
                break
            back_off = min(self.endpoint.first_wait * 2 ** (attempt - 1), self.endpoint.longest_wait)
            # Added to what the server asks for, so that requests refused together do not come back together.
            wait = answer.retry_after + back_off * (1 - self._jitter() / 2)
            log.info("%s: %s; attempt %d in %.1f s", url, answer.reason, attempt + 1, wait)
            await self._sleep(wait)
        return answer, attempt

    async def _attempt(self, http: aiohttp.ClientSession, url: str, body: Mapping[str, Any]) -> Answer | Fault:
        key = self._key()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # A fault is returned, not raised: aiohttp's exceptions hold the request's headers, and would be its context.
        try:
            # A redirect could carry the key to another server.
            async with http.post(url, json=body, headers=headers, allow_redirects=False) as response:
                payload, status = await response.read(), response.status
                retry_after = seconds_to_wait(response.headers.get("Retry-After", ""))
        except TimeoutError:
            return Fault(f"no answer within {self.endpoint.timeout:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return Fault(self._shown(f"{type(error).__name__}: {error}"))
        if status in (401, 403):
            # Such answers may quote the key, whole or in parts.
            return Fault(f"it does not accept the key in {self.endpoint.key_variable}", status, transient=False)
        if status in TRANSIENT and retry_after > self.endpoint.longest_wait:
            reason = f"it asks to wait {retry_after:g} s, longer than longest_wait={self.endpoint.longest_wait:g}"
            return Fault(reason, status, transient=False)
        if not 200 <= status < 300:
            return Fault(self._shown(error_message(payload)), status, retry_after, status in TRANSIENT)
        return parse_answer(payload) or Fault("the answer is no completion", status)

    def _completion(self, prompt: Prompt, params: SamplingParams, answer: Answer) -> Completion:
        text, ids = answer.text, answer.token_ids
        if answer.stop_reason in params.stop and not text.endswith(answer.stop_reason):
            text += answer.stop_reason
        if ids is None:
            ids = () if isinstance(prompt, Chat) else tuple(self._reader().encode(text, add_special_tokens=False))
        return Completion(
            token_ids=ids,
            log_probs=answer.log_probs,
            finish_reason=answer.finish_reason,
            cached_tokens=answer.cached_tokens,
            text=text,
            prompt_tokens=answer.prompt_tokens,
            sampled_tokens=answer.sampled_tokens,
        )

    def _key(self) -> str | None:
        variable = self.endpoint.key_variable
        key = os.environ.get(variable, "").strip() if variable else ""
        if not (key.isascii() and key.isprintable()):
            raise ValueError(f"the environment variable {variable} holds characters that no key has; correct it")
        url = self.endpoint.url
        if key and url.lower().startswith("http:") and not _is_loopback(_host(url) or ""):
            raise ValueError(
                f"the key in {variable} would go to {url} unencrypted; use https, or set key_variable to null where "
                "the server needs no key"
            )
        return key or None

    def _shown(self, text: str) -> str:
        """``text`` for a log or an error: on one line, short, without the key."""
        key = self._key()
        return " ".join((text.replace(key, "***") if key else text).split())[:SHOWN_CHARACTERS]

    def _count(self, **more: int) -> None:
        self.counters = replace(
            self.counters, **{name: getattr(self.counters, name) + number for name, number in more.items()}
        )


def _host(url: str) -> str | None:
    """Host of an address that is only scheme, host, port and path; None for any other."""
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        return None
    plain = parts.scheme in ("http", "https") and port_is_valid and "@" not in parts.netloc
    return parts.hostname if plain and not parts.query and not parts.fragment else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
