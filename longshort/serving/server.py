"""The HTTP server: ``/v1/chat/completions``, ``/v1/models``, ``/health``, ``/metrics``.

Built on aiohttp, which the project has for its own requests anyway: four routes need no framework.

Concurrency: one task per request, cancelled when its client goes away, and with it the engine's requests. A stream's
choices are played by tasks of their own; the request's task sleeps until one of them has text, then until its share of
``events_per_s`` allows another event, and sends all that has come.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from aiohttp import web

from longshort.controller import Sampling, SynergyController
from longshort.episode import Ids
from longshort.generation import GenerationFailedError
from longshort.pair import Pair
from longshort.serving.budget import budget_of
from longshort.serving.errors import RequestError
from longshort.serving.metrics import ServingMetrics
from longshort.serving.play import Choice, Played, play_choice
from longshort.serving.prompts import Prompts
from longshort.serving.reply import DONE, Reply, event
from longshort.serving.request import ChatRequest, RequestLimits, parse
from longshort.serving.settings import ServingSettings
from workers.errors import EngineDiedError

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
# Seconds after which a refused client should try again.
RETRY_BUSY, RETRY_ENGINE = 1, 10
# Of a request whose status is on its way already.
_STREAMING = "longshort.streaming"


@dataclass(frozen=True)
class _Job:
    """A request that is ready to be played."""

    asked: ChatRequest
    controller: SynergyController
    prompts: dict[str, Ids]
    conversation: str
    sampling: Sampling
    reply: Reply

    def play(self, number: int, choice: Choice) -> Awaitable[Played]:
        return play_choice(self.controller, self.prompts, self.conversation, number, self.sampling, choice)


class Server:
    """Serves one pair.

    Args:
        pair, controller, prompts: what is served; the controller's members stream.
        settings: limits.
        key: what clients have to give, or None.
        alive: per role, how many engines can serve.
    """

    def __init__(
        self,
        pair: Pair,
        controller: SynergyController,
        prompts: Prompts,
        settings: ServingSettings,
        key: str | None = None,
        alive: Callable[[], dict[str, int]] = dict,
    ) -> None:
        self.pair = pair
        self.name = settings.name or pair.name
        self.metrics = ServingMetrics()
        self.draining = False
        self._controller = controller
        self._prompts = prompts
        self._settings = settings
        self._limits = RequestLimits(settings.max_messages, settings.max_choices)
        self._key = None if key is None else key.encode()
        self._alive = alive
        self._running = 0
        self._created = int(time.time())
        self._idle = asyncio.Event()
        self._idle.set()

    def app(self) -> web.Application:
        """The application with its routes."""

        @web.middleware
        async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._answer(request, handler)

        app = web.Application(middlewares=[answer], client_max_size=self._settings.max_body_bytes)
        app.add_routes(
            [
                web.post("/v1/chat/completions", self.chat_completions),
                web.get("/v1/models", self.models),
                web.get("/v1/models/{name:.+}", self.model),
                web.get("/health", self.health),
                web.get("/metrics", self.show_metrics),
            ]
        )
        return app

    async def drain(self, seconds: float) -> None:
        """Take no new requests, and wait for those that run."""
        self.draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            log.warning("%d requests were still running after %g s and are ended", self._running, seconds)

    async def health(self, request: web.Request) -> web.StreamResponse:
        """200 where every role has an engine, else 503; never needs a key."""
        alive = self._alive()
        well = not self.draining and all(alive.values())
        status = "ok" if well else "draining" if self.draining else "starting an engine again"
        return web.json_response({"status": status, "engines": alive}, status=200 if well else 503)

    async def models(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": [self._model()]})

    async def model(self, request: web.Request) -> web.StreamResponse:
        self._check_model(request.match_info["name"])
        return web.json_response(self._model())

    async def show_metrics(self, request: web.Request) -> web.StreamResponse:
        for role, count in self._alive().items():
            self.metrics.engines.labels(role).set(count)
        return web.Response(body=self.metrics.text(), content_type="text/plain", charset="utf-8")

    async def chat_completions(self, request: web.Request) -> web.StreamResponse:
        job = self._job(await self._body(request))
        began = time.perf_counter()
        with self._room(job.asked.n):
            if job.asked.stream:
                response = await self._stream(request, job)
            else:
                response = web.json_response(job.reply.completion(await self._play(job)))
        self.metrics.seconds.observe(time.perf_counter() - began)
        return response

    async def _body(self, request: web.Request) -> bytes:
        if request.content_type != "application/json":
            # What a page of another site can send without asking is none of these.
            raise RequestError(f"the body is {request.content_type}; send application/json", status=415)
        try:
            async with asyncio.timeout(self._settings.body_timeout_s):
                return await request.read()
        except TimeoutError as error:
            raise RequestError("the body did not arrive in time; send it at once", status=408) from error

    def _job(self, body: bytes) -> _Job:
        asked = parse(body, self._limits)
        self._check_model(asked.model)
        prompts = self._prompts(asked.messages)
        pair = self.pair
        budget = budget_of(pair.limits, pair.protocol, pair.contexts, prompts, asked.max_tokens, asked.effort)
        own = pair.sampling
        seed = int.from_bytes(os.urandom(8), "big") if asked.seed is None else asked.seed
        # A conversation goes by its first message, so that all its turns find the engine that has read them.
        first = next(message.content for message in asked.messages if message.role == "user")
        return _Job(
            asked=asked,
            controller=self._controller.within(budget.limits),
            prompts=prompts,
            conversation=hashlib.blake2b(first.encode(), digest_size=8).hexdigest(),
            sampling=replace(
                own,
                temperature=own.temperature if asked.temperature is None else asked.temperature,
                top_p=own.top_p if asked.top_p is None else asked.top_p,
                top_k=own.top_k if asked.top_k is None else asked.top_k,
                run=seed,
            ),
            reply=Reply(
                id=f"chatcmpl-{os.urandom(12).hex()}",
                created=int(time.time()),
                model=self.name,
                hard=budget.limits if budget.hard else None,
                token_ids=asked.return_token_ids,
            ),
        )

    async def _play(self, job: _Job) -> list[Played]:
        """All choices of a request beside each other."""
        choices = [Choice(job.asked.stop, hidden=self._prompts.protected) for _ in range(job.asked.n)]
        return await self._all([self._counted(job, number, choice) for number, choice in enumerate(choices)])

    async def _counted(self, job: _Job, number: int, choice: Choice) -> Played:
        played = await job.play(number, choice)
        self.metrics.count(played)
        return played

    @staticmethod
    async def _all(plays: list[Awaitable[Played]]) -> list[Played]:
        """Results in order; the first failure ends the others."""
        tasks = [asyncio.ensure_future(play) for play in plays]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    async def _stream(self, request: web.Request, job: _Job) -> web.StreamResponse:
        asked, reply, changed, due = job.asked, job.reply, asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        hidden = self._prompts.protected
        choices = [Choice(asked.stop, changed.set, asked.include_turns, hidden) for _ in range(asked.n)]
        over: dict[int, Played] = {}

        async def play(number: int) -> Played:
            over[number] = await self._counted(job, number, choices[number])
            changed.set()
            return over[number]

        playing = asyncio.ensure_future(self._all([play(number) for number in range(asked.n)]))
        playing.add_done_callback(lambda task: changed.set())
        playing.add_done_callback(lambda task: due.set())
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
        )
        closed: set[int] = set()
        try:
            while len(closed) < asked.n:
                await changed.wait()
                changed.clear()
                if playing.done() and playing.exception() is not None:
                    # Before the first byte it still is a status.
                    playing.result()
                chunks = []
                if not response.prepared:
                    request[_STREAMING] = True
                    await response.prepare(request)
                    chunks = [reply.first(number) for number in range(asked.n)]
                for number, choice in enumerate(choices):
                    chunks += [reply.piece(number, piece) for piece in choice.take()]
                    if number in over and number not in closed:
                        closed.add(number)
                        chunks.append(reply.last(number, over[number]))
                if len(closed) == asked.n and asked.include_usage:
                    chunks.append(reply.usage([over[number] for number in range(asked.n)]))
                end = DONE if len(closed) == asked.n else b""
                await response.write(b"".join(map(event, chunks)) + end)
                if not end:
                    # The end of a reply does not wait for its share.
                    timer = loop.call_later(self._running / self._settings.events_per_s, due.set)
                    await due.wait()
                    timer.cancel()
                    due.clear()
        except (EngineDiedError, GenerationFailedError) as error:
            if not response.prepared:
                raise
            await response.write(event(_of_engine(error).body()))
        finally:
            playing.cancel()
            await asyncio.gather(playing, return_exceptions=True)
        await response.write_eof()
        return response

    @contextmanager
    def _room(self, choices: int) -> Iterator[None]:
        """Room for so many choices.

        Raises:
            RequestError: there is none now.
        """
        if self.draining:
            raise RequestError("the server is going down; ask another one", status=503, retry_after=RETRY_ENGINE)
        if self._running + choices > self._settings.max_requests:
            raise RequestError(
                f"{self._running} choices are being played, and {self._settings.max_requests} is the most; try again",
                status=429,
                code="rate_limit_exceeded",
                retry_after=RETRY_BUSY,
            )
        self._running += choices
        self._idle.clear()
        self.metrics.in_flight.set(self._running)
        try:
            yield
        finally:
            self._running -= choices
            self.metrics.in_flight.set(self._running)
            if not self._running:
                self._idle.set()

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every refusal in OpenAI's shape, and every reply counted."""
        try:
            self._check_key(request)
            response = await handler(request)
        except RequestError as error:
            response = _refusal(error)
        except (EngineDiedError, GenerationFailedError) as error:
            response = _refusal(_of_engine(error))
        except web.HTTPException as error:
            response = _refusal(_of_http(error, request, self._settings.max_body_bytes))
        except (asyncio.CancelledError, ConnectionError):
            self.metrics.abandoned.inc()
            raise
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            if _STREAMING in request:
                raise
            response = _refusal(RequestError("the server failed; its log says why", status=500))
        self.metrics.requests.labels(str(response.status)).inc()
        return response

    def _check_key(self, request: web.Request) -> None:
        if self._key is None or request.path == "/health":
            return
        given = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._key):
            raise RequestError(
                "the key is wrong or missing; send `Authorization: Bearer <key>`", status=401, code="invalid_api_key"
            )

    def _check_model(self, name: str) -> None:
        if name != self.name:
            shown = json.dumps(name if len(name) <= 80 else name[:77] + "...")
            raise RequestError(
                f"there is no model {shown}; this server has {self.name}", "model", 404, code="model_not_found"
            )

    def _model(self) -> dict[str, object]:
        roles = {role: {"context": self.pair.contexts[role]} for role in self.pair.protocol.roles}
        return {
            "id": self.name,
            "object": "model",
            "created": self._created,
            "owned_by": "longshort",
            "max_model_len": min(self.pair.contexts.values()),
            "longshort": roles,
        }


def _refusal(error: RequestError) -> web.Response:
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return web.json_response(error.body(), status=error.status, headers=headers)


def _of_engine(error: Exception) -> RequestError:
    return RequestError(
        f"{error}; it is started again, try later", status=503, code="engine_died", retry_after=RETRY_ENGINE
    )


def _of_http(error: web.HTTPException, request: web.Request, most: int) -> RequestError:
    if error.status == 413:
        return RequestError(f"the body is longer than {most} bytes; shorten it", status=413)
    if error.status in (404, 405):
        return RequestError(f"there is no {request.method} {request.path[:80]} here", status=error.status)
    return RequestError(f"{error.reason}", status=error.status)
