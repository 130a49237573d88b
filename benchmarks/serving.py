"""What serving costs, and whether it holds: the playground pair behind its server, against its engines alone.

`direct`: the controller plays on engines of this process, so many episodes at once. `served`: the same problems and
seeds as streams from ``longshort serve`` in a process of its own; this process is their client, on the same cores. They
take turns for some seconds each, because the speed of a machine that others share drifts; ``served_to_direct`` is the
median ratio of such neighbours. Tokens are those of conversations that ended in time. Then the streams go on without a
pause; ``server_growth`` is what the server's memory has grown by from a third of that time to its end. First tokens are
medians at concurrency 1, over the same prompts.

`budgets`: requests with random budgets, from ``LEAST_BUDGET`` up. `hostile`: requests that are none, and broken
connections; then the server must be well.

    python -m benchmarks.serving [--quick] [--seconds N] [--cluster]

Prints JSON; exit code 1 where a target is missed. ``--cluster`` serves by replicas of Ray Serve, for whose speed there
is no target.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import aiohttp
import psutil
from rich.console import Console

from longshort.controller import Sampling
from longshort.display import Display
from longshort.episode import Problem
from longshort.generation import SamplingParams
from longshort.pair import PLAYGROUND, read_pair
from longshort.playground import generate_problems
from longshort.protocol import TAGS
from longshort.serving.open import OpenPair, open_pair
from longshort.serving.prompts import Prompts
from longshort.serving.settings import ServingSettings
from longshort.serving.visible import visible

STREAMS = 256
# Targets.
LEAST_RATIO, MOST_FIRST_TOKEN_MS, LEAST_ANSWERED, MOST_GROWTH = 0.85, 15.0, 0.99, 0.05
LEAST_BUDGET, MOST_BUDGET = 64, 448
# One of so many streams is compared with its tokens, piece by piece.
CHECKED = 10
# Neighbours that are compared.
ROUNDS = 6
SETTINGS = ServingSettings()


@dataclass
class Load:
    """What a time under load gave."""

    seconds: float
    tokens: int = 0
    conversations: int = 0
    broken: list[str] = field(default_factory=list)
    growth: float = 0.0

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds


async def under_load(one: Callable[[int, Load], Awaitable[None]], seconds: float) -> Load:
    """``STREAMS`` loops that begin the next conversation when theirs is over; those under way at the end are cut."""
    load, numbers = Load(seconds), itertools.count()

    async def loop() -> None:
        while True:
            await one(next(numbers), load)

    tasks = [asyncio.create_task(loop()) for _ in range(STREAMS)]
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
    return load


async def direct(opened: OpenPair, problems: list[Problem], seconds: float) -> Load:
    async def one(number: int, load: Load) -> None:
        problem = problems[number % len(problems)]
        episode = await opened.controller.play(problem, 0, Sampling(temperature=1.0, run=number))
        load.tokens += episode.tokens
        load.conversations += 1

    return await under_load(one, seconds)


async def engines_first_token_ms(opened: OpenPair, problems: list[Problem]) -> float:
    times = []
    for problem in problems:
        prompt, first = opened.controller.prompt("long", problem.question), list[float]()
        began = time.perf_counter()
        await opened.engines["long"].stream(
            prompt,
            SamplingParams(max_tokens=3, temperature=0.0),
            problem.id,
            lambda text, tokens, first=first: first.append(time.perf_counter()),  # type: ignore[misc]
        )
        times.append(first[0] - began)
    return 1000 * median(times)


@asynccontextmanager
async def server(cluster: bool) -> AsyncIterator[tuple[str, psutil.Process]]:
    """``longshort serve``, and its address."""
    command = [sys.executable, "-m", "longshort.cli", "serve", PLAYGROUND, "port=0", f"cluster={str(cluster).lower()}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = None
        while found is None:
            line = await asyncio.to_thread(process.stdout.readline)
            assert line, "the server did not start"
            found = re.search(r"http://\S+", line)
        yield found[0], psutil.Process(process.pid)
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)


def body_of(question: str, **more: Any) -> dict[str, Any]:
    return {"model": PLAYGROUND, "messages": [{"role": "user", "content": question}], **more}


class Client:
    """Requests of one server."""

    def __init__(self, address: str, session: aiohttp.ClientSession) -> None:
        self.url, self.session = f"{address}/v1/chat/completions", session
        pair, self.tokenizers = read_pair([PLAYGROUND])
        self.hidden = Prompts(pair.protocol, self.tokenizers).protected

    async def served(self, problems: list[Problem], seconds: float, process: psutil.Process) -> Load:
        memory: list[int] = []

        async def one(number: int, load: Load) -> None:
            checked = number % CHECKED == 0
            events = await self.stream(problems[number % len(problems)].question, number, checked)
            usage = json.loads(events[-2][6:])["usage"] if len(events) > 2 else None
            if usage is None or events[-1] != b"data: [DONE]":
                load.broken.append(f"stream {number} has no end")
                return
            if checked and (wrong := self.mixed_up(events)):
                load.broken.append(f"stream {number}: {wrong}")
            load.tokens += usage["completion_tokens"]
            load.conversations += 1

        async def watch() -> None:
            await asyncio.sleep(seconds / 3)
            while True:
                memory.append(process.memory_info().rss)
                await asyncio.sleep(1)

        watching = asyncio.create_task(watch())
        load = await under_load(one, seconds)
        watching.cancel()
        tail = max(1, len(memory) // 10)
        load.growth = median(memory[-tail:]) / median(memory[:tail]) - 1 if memory else 0.0
        return load

    async def stream(self, question: str, seed: int, with_ids: bool) -> list[bytes]:
        """Its events; the last is the end of the stream."""
        body = body_of(
            question, stream=True, seed=seed, return_token_ids=with_ids, stream_options={"include_usage": True}
        )
        async with self.session.post(self.url, json=body) as response:
            assert response.status == 200, await response.text()
            return (await response.read()).rstrip().split(b"\n\n")

    def mixed_up(self, events: list[bytes]) -> str:
        """How the text of a stream differs from its own tokens, or nothing."""
        choices = [c for event in events[:-1] for c in json.loads(event[6:])["choices"]]
        texts = {
            key: "".join(choice["delta"].get(key, "") for choice in choices) for key in ("reasoning_content", "content")
        }
        turns = choices[-1]["longshort"]["turns"]
        shown = [visible(self.tokenizers[turn["role"]].decode(turn["token_ids"]), self.hidden) for turn in turns]
        together = "\n\n".join(text for text in texts.values() if text)
        expected = "\n\n".join(text for text in shown if text)
        return "" if together == expected else f"{together!r} instead of {expected!r}"

    async def first_token_ms(self, problems: list[Problem]) -> float:
        times = []
        for problem in problems:
            body = body_of(problem.question, stream=True, temperature=0)
            began = time.perf_counter()
            async with self.session.post(self.url, json=body) as response:
                async for line in response.content:
                    if b'"reasoning_content":' in line:
                        times.append(time.perf_counter() - began)
                        break
                # A connection that is left in the middle of a reply would have to be made again.
                await response.read()
        return 1000 * median(times)

    async def budgets(self, problems: list[Problem], count: int) -> dict[str, Any]:
        rng, outcomes, over, tags = random.Random(0), Counter[str](), 0, 0
        budgets = [rng.randint(LEAST_BUDGET, MOST_BUDGET) for _ in range(count)]
        room = asyncio.Semaphore(64)

        async def ask(number: int) -> None:
            nonlocal over, tags
            body = body_of(
                problems[number % len(problems)].question, max_completion_tokens=budgets[number], seed=number
            )
            async with room, self.session.post(self.url, json=body) as response:
                reply = await response.json()
            (choice,) = reply["choices"]
            over += reply["usage"]["completion_tokens"] > budgets[number]
            tags += any(tag in json.dumps(choice["message"]) for tag in TAGS)
            outcomes[choice["longshort"]["outcome"]] += 1

        await asyncio.gather(*[ask(number) for number in range(count)])
        answered = outcomes["answered"] / count
        return {"requests": count, "over": over, "tags": tags, "answered": answered, "outcomes": dict(outcomes)}

    async def hostile(self, count: int) -> dict[str, Any]:
        """Requests that are none; how many a crash or a 500 came of."""
        rng, statuses = random.Random(1), Counter[str]()
        host, port = self.url.split("/")[2].rsplit(":", 1)
        room = asyncio.Semaphore(32)

        async def ask(number: int) -> None:
            async with room:
                sent, half_closed = hostile_request(random.Random(rng.random()))
                reader, writer = await asyncio.open_connection(host, int(port))
                try:
                    writer.write(sent)
                    if half_closed:
                        writer.write_eof()
                    line = await asyncio.wait_for(reader.readline(), 60)
                    statuses[line.split(b" ")[1].decode() if line.startswith(b"HTTP/") else "closed"] += 1
                except (TimeoutError, ConnectionError) as error:
                    statuses[type(error).__name__] += 1
                finally:
                    writer.close()

        await asyncio.gather(*[ask(number) for number in range(count)])
        async with self.session.get(self.url.replace("/v1/chat/completions", "/health")) as response:
            well = response.status == 200
        return {"requests": count, "statuses": dict(sorted(statuses.items())), "well": well}


def hostile_request(rng: random.Random) -> tuple[bytes, bool]:
    """Bytes to send, and whether the client then closes its half of the connection."""
    question = "".join(rng.choice([*TAGS, "<|user|>", "<|end|>", "</thi", "nk>", "7+5", " "]) for _ in range(6))
    body: dict[str, Any] = body_of(question, max_completion_tokens=8)
    kind = rng.randrange(7)
    if kind == 0:
        key = rng.choice(["n", "seed", "temperature", "top_p", "stop", "messages", "max_completion_tokens", "model"])
        body[key] = rng.choice([None, True, -1, 10**30, 1e308, "x", [], {}, [[]], {"a": 1}])
    data = json.dumps(body).encode()
    if kind == 1:
        data = rng.choice([b"[", b'{"a":']) * rng.randint(10, 50_000)
    elif kind == 2:
        data = bytes(rng.randrange(256) for _ in range(rng.randint(0, 400)))
    elif kind == 3:
        data = data.replace(b"user", b"\xff\xfe")
    elif kind == 4:
        data = b'{"seed": ' + b"9" * rng.randint(1, 20_000) + b"}"
    length = len(data) + (rng.randint(1, 50) if kind == 5 else 0)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}"
    )
    # A length that is never reached is given up by closing.
    return head.encode() + b"\r\nConnection: close\r\n\r\n" + data, kind == 5 or rng.random() < 0.1


async def measure(cluster: bool, seconds: float, first_tokens: int, budgets: int, hostile: int) -> dict[str, Any]:
    """All of it."""
    problems = generate_problems(512, 21, "test")
    slice_s = seconds / ROUNDS
    with Display(Console(stderr=True)) as display:
        async with (
            open_pair([PLAYGROUND], SETTINGS, display) as opened,
            server(cluster) as (address, process),
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        ):
            client = Client(address, session)
            await direct(opened, problems, 5)
            await client.served(problems, 5, process)
            display.stage("first tokens")
            engines_ms = await engines_first_token_ms(opened, problems[:first_tokens])
            server_ms = await client.first_token_ms(problems[:first_tokens])
            display.stage("engines alone and served, in turns")
            alone, beside = list[Load](), list[Load]()
            for _ in range(ROUNDS):
                alone.append(await direct(opened, problems, slice_s))
                beside.append(await client.served(problems, slice_s, process))
            display.stage("streams without a pause")
            served = await client.served(problems, seconds, process)
            display.stage("budgets")
            kept = await client.budgets(problems, budgets)
            display.stage("hostile requests")
            survived = await client.hostile(hostile)
    ratios = [one.tokens_per_s / other.tokens_per_s for one, other in zip(beside, alone, strict=True)]
    return {
        "streams": STREAMS,
        "cluster": cluster,
        "seconds": seconds,
        "direct_tokens_per_s": round(median(each.tokens_per_s for each in alone), 1),
        "served_tokens_per_s": round(median(each.tokens_per_s for each in beside), 1),
        "served_to_direct": round(median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "conversations": served.conversations,
        "broken": [sentence for load in (*beside, served) for sentence in load.broken][:5],
        "server_growth": round(served.growth, 4),
        "engines_first_token_ms": round(engines_ms, 2),
        "server_first_token_ms": round(server_ms, 2),
        "first_token_ms_more": round(server_ms - engines_ms, 2),
        "budgets": kept,
        "hostile": survived,
    }


def missed(figures: dict[str, Any]) -> list[str]:
    """Targets that the figures miss."""
    budgets, hostile = figures["budgets"], figures["hostile"]
    checks = {
        "served_to_direct": figures["cluster"] or figures["served_to_direct"] >= LEAST_RATIO,
        "broken": not figures["broken"],
        "server_growth": figures["server_growth"] <= MOST_GROWTH,
        "first_token_ms_more": figures["cluster"] or figures["first_token_ms_more"] <= MOST_FIRST_TOKEN_MS,
        "budgets": not budgets["over"] and not budgets["tags"] and budgets["answered"] >= LEAST_ANSWERED,
        "hostile": hostile["well"] and not any(status.startswith("5") for status in hostile["statuses"]),
    }
    return [name for name, kept in checks.items() if not kept]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a minute of load, 100 budgets, 500 hostile requests")
    parser.add_argument("--seconds", type=float, default=180.0, help="of load, each")
    parser.add_argument("--cluster", action="store_true", help="serve by replicas of Ray Serve")
    arguments = parser.parse_args()
    counts = (60.0, 20, 100, 500) if arguments.quick else (arguments.seconds, 100, 1000, 10_000)
    figures = asyncio.run(measure(arguments.cluster, *counts))
    sys.stdout.write(json.dumps({**figures, "missed": missed(figures)}, indent=1) + "\n")
    return 1 if missed(figures) else 0


if __name__ == "__main__":
    sys.exit(main())
