"""A scripted pair behind the server, for tests without an engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from fakes import FakeTokenizer

from longshort.controller import Limits, Sampling
from longshort.generation import Completion, OnText, Prompt, SamplingParams
from longshort.pair import Pair
from longshort.protocol import LONG_SHORT
from longshort.scripted import Request, Script, ScriptedGenerator
from longshort.serving.open import controller_of, listening
from longshort.serving.prompts import Prompts
from longshort.serving.server import Server
from longshort.serving.settings import ServingSettings

LIMITS = Limits(max_turns=6, max_turn_tokens={"long": 40, "short": 20}, max_episode_tokens=200)
THOUGHT, ANSWER = "<think>let me see</think>", "<answer>it is \\boxed{5}</answer>"


class ChatTokenizer(FakeTokenizer):
    """A fake one that reads conversations of any length."""

    def apply_chat_template(self, conversation: list[dict[str, str]], **kwargs: object) -> list[int]:
        # The end of a system prompt says whose it is; all of it would make tests slow.
        parts = [m["content"][-30:] if m["role"] == "system" else m["content"] for m in conversation]
        return self.encode("[" + "|".join(parts) + "]", add_special_tokens=False)


class SlowGenerator(ScriptedGenerator):
    """Counts requests that were given up, as an engine frees them."""

    freed = 0

    async def stream(self, prompt: Prompt, params: SamplingParams, session: str, on_text: OnText) -> Completion:
        try:
            return await super().stream(prompt, params, session, on_text)
        except asyncio.CancelledError:
            self.freed += 1
            raise


async def at_once(request: Request) -> None:
    await asyncio.sleep(0)


def fake_pair(limits: Limits = LIMITS, context: int = 2000) -> Pair:
    return Pair(
        name="fake",
        protocol=LONG_SHORT,
        models={"long": "l", "short": "s"},
        contexts={"long": context, "short": context},
        limits=limits,
        sampling=Sampling(temperature=0.0, top_p=1.0, top_k=-1),
        dtype={"long": "auto", "short": "auto"},
        facts={},
    )


@dataclass
class Served:
    """A server under test, at ``address``."""

    address: str
    server: Server
    generators: Mapping[str, SlowGenerator]
    session: aiohttp.ClientSession

    async def ask(self, content: str = "1+1?", **more: Any) -> dict[str, Any]:
        """A reply that is no stream; its status is under ``status``."""
        status, body, _ = await self.post({"model": "fake", "messages": [{"role": "user", "content": content}], **more})
        return {"status": status, **json.loads(body)}

    async def chunks(self, content: str = "1+1?", **more: Any) -> list[dict[str, Any]]:
        """All chunks of a stream."""
        request = {"model": "fake", "messages": [{"role": "user", "content": content}], "stream": True, **more}
        status, body, headers = await self.post(request)
        assert status == 200, body
        assert headers["Content-Type"].startswith("text/event-stream")
        events = body.decode().split("\n\n")
        assert events[-2:] == ["data: [DONE]", ""]
        return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]

    async def post(self, body: object, **headers: str) -> tuple[int, bytes, Mapping[str, str]]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"Content-Type": "application/json", **headers}
        async with self.session.post(f"{self.address}/v1/chat/completions", data=data, headers=given) as response:
            return response.status, await response.read(), response.headers

    async def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        async with self.session.get(self.address + path, headers=headers) as response:
            return response.status, await response.read()


@asynccontextmanager
async def served(
    long: Script = THOUGHT,
    short: Script = ANSWER,
    *,
    gate: Callable[[Request], Awaitable[object]] = at_once,
    faults: Mapping[int, Exception] | None = None,
    key: str | None = None,
    pair: Pair | None = None,
    alive: Callable[[], dict[str, int]] = dict,
    **settings: Any,
) -> AsyncIterator[Served]:
    """The server with a scripted pair, at a free port of loopback; ``faults`` are the long model's."""
    pair, tokenizer = pair or fake_pair(), ChatTokenizer()
    generators = {
        role: SlowGenerator(script, tokenizer, gate, faults if role == "long" else None)
        for role, script in (("long", long), ("short", short))
    }
    tokenizers = dict.fromkeys(generators, tokenizer)
    chosen = ServingSettings(**{"port": 0, "drain_s": 1.0, **settings})
    controller = controller_of(pair, tokenizers, dict(generators))
    server = Server(pair, controller, Prompts(pair.protocol, tokenizers), chosen, key, alive)
    async with listening(server, chosen) as address, aiohttp.ClientSession() as session:
        yield Served(address, server, generators, session)
