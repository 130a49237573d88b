"""``longshort serve cluster=true``: replicas of a local Ray Serve, asked, replaced under load, killed, ended.

Not proved here: several nodes, scaling by load, speed.
"""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import psutil
import pytest

from longshort.playground import generate_problems
from tests.killed_runs import GONE_S, RAYS_AGENTS, engine_cores

QUESTIONS = [problem.question for problem in generate_problems(8, 11, "test")]


class Served:
    """The server's process, and its address."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process, self.address = process, address

    async def ask(self, session: aiohttp.ClientSession, question: str, **more: Any) -> tuple[int, dict[str, Any]]:
        body = {"model": "playground", "messages": [{"role": "user", "content": question}], "temperature": 0, **more}
        async with session.post(f"{self.address}/v1/chat/completions", json=body) as response:
            return response.status, await response.json()

    def engines(self) -> list[psutil.Process]:
        return engine_cores(self.process.pid)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    command = [
        sys.executable,
        "-m",
        "longshort.cli",
        "serve",
        "playground",
        "port=0",
        "cluster=true",
        "replicas.short=2",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = None
    while found is None:
        line = process.stdout.readline()
        assert line, "the server did not start"
        found = re.search(r"http://\S+", line)
    yield Served(process, found[0])
    process.kill()
    process.wait()


async def test_replicas_answer_are_replaced_and_come_back_and_no_request_fails(served: Served) -> None:
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        before = [await served.ask(session, question) for question in QUESTIONS]
        assert {status for status, _ in before} == {200}
        contents = [reply["choices"][0]["message"]["content"] for _, reply in before]
        assert all(contents) and before[0][1]["usage"]["longshort"]["short"]["completion_tokens"] > 0
        first = served.engines()
        assert len(first) == 3

        over, answers = asyncio.Event(), list[tuple[int, dict[str, Any]]]()

        async def keep_asking(number: int) -> None:
            while not over.is_set():
                answers.append(await served.ask(session, QUESTIONS[number]))

        asking = [asyncio.create_task(keep_asking(number)) for number in range(len(QUESTIONS))]
        served.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 240
        while any(engine.is_running() for engine in first):
            assert time.monotonic() < deadline, "the first replicas are not replaced"
            await asyncio.sleep(0.5)
        over.set()
        await asyncio.gather(*asking)
        assert {status for status, _ in answers} == {200}
        assert {reply["choices"][0]["message"]["content"] for _, reply in answers} <= set(contents)

        for engine in served.engines():
            engine.kill()
        deadline = time.monotonic() + 240
        while True:
            status, reply = await served.ask(session, QUESTIONS[0])
            if status == 200:
                break
            assert status == 503 and reply["error"]["code"] == "engine_died", reply
            assert time.monotonic() < deadline, "no replica comes back"
            await asyncio.sleep(1)
        assert reply["choices"][0]["message"]["content"] == contents[0]


async def test_sigterm_ends_the_server_and_what_it_started(served: Served) -> None:
    started = {child: child.name().strip() for child in psutil.Process(served.process.pid).children(recursive=True)}
    served.process.terminate()
    assert await asyncio.to_thread(served.process.wait, 120) == 0
    _, alive = psutil.wait_procs([child for child, name in started.items() if name not in RAYS_AGENTS], timeout=GONE_S)
    assert not alive, [started[child] for child in alive]
