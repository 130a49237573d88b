"""The playground pair served by its engines: the requests of docs/serve.md, the evaluation's tokens, budgets, care.

Not proven here: speed (``benchmarks/serving.py``).
"""

from __future__ import annotations

import asyncio
import io
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import pytest_asyncio
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM

from longshort.controller import Sampling, SynergyController, render_prompt
from longshort.display import Display
from longshort.evaluation.records import read_benchmark
from longshort.playground import generate_problems
from longshort.serving.chat import Conversation, Lines, converse
from longshort.serving.open import OpenPair, listening, open_pair
from longshort.serving.server import Server
from longshort.serving.settings import ServingSettings

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOCUMENTED = re.findall(
    r"^\d+\. .*?Answers (\d+) with `(.*?)`\.\n\n```sh\n(curl .*?)```",
    (Path(__file__).parents[2] / "docs" / "serve.md").read_text(),
    re.MULTILINE | re.DOTALL,
)
SETTINGS = ServingSettings(port=0, device="cpu", drain_s=5)


class Serving:
    """A server at ``address``, and the pair behind it."""

    def __init__(self, address: str, opened: OpenPair, server: Server, session: aiohttp.ClientSession) -> None:
        self.address, self.opened, self.server, self.session = address, opened, server, session

    def body(self, question: str, **more: Any) -> dict[str, Any]:
        return {"model": "playground", "messages": [{"role": "user", "content": question}], **more}

    async def ask(self, question: str, **more: Any) -> dict[str, Any]:
        url = f"{self.address}/v1/chat/completions"
        async with self.session.post(url, json=self.body(question, **more)) as response:
            return {"status": response.status, **await response.json()}

    def requests(self, role: str) -> int:
        """Requests that the engines of ``role`` work on."""
        return sum(
            engine._llm.output_processor.get_num_unfinished_requests() for engine in self.opened.engines[role].engines
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def serving() -> AsyncIterator[Serving]:
    with Display() as display:
        async with open_pair(["playground"], SETTINGS, display) as opened:
            server = Server(opened.pair, opened.controller, opened.prompts, SETTINGS, None, opened.alive)
            async with listening(server, SETTINGS) as address, aiohttp.ClientSession() as session:
                yield Serving(address, opened, server, session)


@pytest.mark.parametrize(("status", "part", "command"), DOCUMENTED)
async def test_a_documented_request_gives_what_is_documented(
    serving: Serving, status: str, part: str, command: str
) -> None:
    command = command.replace("http://127.0.0.1:8000", serving.address).replace(
        "curl ", "curl -w '\\n%{http_code}' ", 1
    )
    process = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.PIPE)
    output = (await process.communicate())[0].decode()
    assert output.rsplit("\n", 1)[1] == status, output
    assert part in output


async def test_twenty_requests_are_documented() -> None:
    assert len(DOCUMENTED) == 20


def greedy(model: Any, context: list[int], budget: int, ends: set[int]) -> list[int]:
    """The likeliest continuation by plain torch."""
    sampled: list[int] = []
    with torch.inference_mode():
        while len(sampled) < budget and not ends & set(sampled[-1:]):
            sampled.append(int(model(torch.tensor([context + sampled])).logits[0, -1].argmax()))
    return sampled


async def test_greedy_answers_are_those_of_the_controller_and_of_plain_torch_token_for_token(serving: Serving) -> None:
    controller: SynergyController = serving.opened.controller
    pair = serving.opened.pair
    models = {role: AutoModelForCausalLM.from_pretrained(path).eval() for role, path in pair.models.items()}
    for number, problem in enumerate(generate_problems(6, 11, "test")):
        played = await controller.play(problem, 0, Sampling(temperature=0.0))
        reply = await serving.ask(problem.question, temperature=0, return_token_ids=True, seed=number)
        turns = reply["choices"][0]["longshort"]["turns"]
        assert [(t["role"], tuple(t["token_ids"])) for t in turns] == [(t.role, t.token_ids) for t in played.turns]
        assert reply["choices"][0]["longshort"]["outcome"] == played.outcome
        context = {
            role: list(
                render_prompt(pair.protocol, role, serving.opened.controller.members[role].tokenizer, problem.question)
            )
            for role in models
        }
        for turn in played.turns[:3]:
            tokenizer = controller.members[turn.role].tokenizer
            ends = {tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(list(pair.protocol.closings[turn.role]))}
            ids = greedy(models[turn.role], context[turn.role], pair.limits.max_turn_tokens[turn.role], ends)
            assert tuple(ids) == turn.token_ids
            context = {role: [*before, *turn.ids_for(role)] for role, before in context.items()}


async def test_random_budgets_are_kept_and_give_answers(serving: Serving) -> None:
    rng, problems = random.Random(0), generate_problems(60, 12, "test")
    budgets = [rng.randint(40, 448) for _ in problems]

    async def ask(number: int) -> dict[str, Any]:
        question = problems[number].question
        return await serving.ask(question, max_completion_tokens=budgets[number], seed=number)

    replies = await asyncio.gather(*[ask(number) for number in range(len(problems))])
    for budget, reply in zip(budgets, replies, strict=True):
        assert reply["usage"]["completion_tokens"] <= budget
        assert not re.search(r"</?(think|answer|rethink)>", json.dumps(reply["choices"][0]["message"]))
    outcomes = [reply["choices"][0]["longshort"]["outcome"] for reply in replies]
    assert outcomes.count("answered") >= len(problems) - 1


async def test_many_streams_do_not_mix(serving: Serving) -> None:
    problems = generate_problems(32, 13, "test")

    async def streamed(question: str, seed: int) -> tuple[str, str]:
        body = serving.body(question, seed=seed, stream=True)
        texts = {"reasoning_content": "", "content": ""}
        async with serving.session.post(f"{serving.address}/v1/chat/completions", json=body) as response:
            async for line in response.content:
                if line.startswith(b"data: {"):
                    for choice in json.loads(line[6:])["choices"]:
                        for key in texts:
                            texts[key] += choice["delta"].get(key, "")
        return texts["reasoning_content"], texts["content"]

    together = await asyncio.gather(*[streamed(problem.question, 3) for problem in problems])
    for problem, (reasoning, content) in zip(problems, together, strict=True):
        # The models write the first operation of their own problem first.
        first = re.match(r"\d+[-+*]\d+", problem.question)
        assert first is not None
        assert reasoning.startswith(first[0])
        assert content


async def test_a_client_that_goes_away_frees_its_engine_requests(serving: Serving) -> None:
    body = serving.body("9*9+9*9+9*9", stream=True, n=4)
    async with serving.session.post(f"{serving.address}/v1/chat/completions", json=body) as response:
        await response.content.readline()
        response.close()
    for _ in range(100):
        await asyncio.sleep(0.02)
        if not serving.requests("long") and not serving.requests("short"):
            break
    assert (serving.requests("long"), serving.requests("short"), serving.server._running) == (0, 0, 0)


async def test_the_terminal_shows_what_the_server_answers(serving: Serving) -> None:
    pair, output, lines = serving.opened, io.StringIO(), iter(["10-2+7+6", "21-5", "/quit"])
    talk = Conversation(pair.pair, pair.controller, pair.prompts, Console(file=output, width=200))
    await converse(talk, Lines(lambda: next(lines)))
    assert [message.role for message in talk.messages] == ["user", "assistant"] * 2
    assert talk.messages[1].content in output.getvalue()
    assert len(re.findall(r"^\d+ tokens, \d+\.\d s", output.getvalue(), re.MULTILINE)) >= 4


async def test_an_engine_that_dies_is_back_by_itself(serving: Serving) -> None:
    """Last of those that share the engines."""
    (engine,) = serving.opened.engines["short"].engines
    before = psutil.Process().children(recursive=True)
    processes = {process.pid for process in engine._llm.engine_core.resources.engine_manager.processes}
    for child in before:
        if child.pid in processes:
            child.send_signal(signal.SIGKILL)
    answer = await serving.ask("7+5*3-4", temperature=0)
    assert (answer["status"], answer["error"]["code"]) == (503, "engine_died")
    deadline = time.monotonic() + 120
    while serving.opened.alive() != {"long": 1, "short": 1}:
        assert time.monotonic() < deadline, "it did not come back"
        await asyncio.sleep(0.2)
    assert (await serving.ask("7+5*3-4", temperature=0))["status"] == 200


async def test_sigterm_finishes_what_runs_and_ends_cleanly() -> None:
    command = [sys.executable, "-m", "longshort.cli", "serve", "playground", "port=0", "device=cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = ""
    for line in process.stdout:
        if found := re.search(r"http://\S+", line):
            address = found[0]
            break
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    async with aiohttp.ClientSession() as session:
        body = {"model": "playground", "n": 8, "messages": [{"role": "user", "content": "9*9+9*9+9*9"}]}
        asking = asyncio.create_task(session.post(f"{address}/v1/chat/completions", json=body).__aenter__())
        while "choices_in_flight 8.0" not in await text_of(session, f"{address}/metrics") and not asking.done():
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert len((await (await asking).json())["choices"]) == 8
    _, errors = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


async def text_of(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(url) as reply:
        return await reply.text()


async def test_greedy_answers_are_those_of_an_evaluation_on_the_training_stack_token_for_token(
    serving: Serving, tmp_path: Path
) -> None:
    greedily = ["evaluation.temperature=0", "evaluation.samples=1", "actor_rollout_ref.rollout.max_num_seqs=1"]
    problems = ["evaluation.benchmarks=[playground:test:12:11]", f"evaluation.folder={tmp_path}"]
    command = [sys.executable, "-m", "longshort.cli", "evaluate", *problems, *greedily]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    episodes = [sample.episode for sample in read_benchmark(tmp_path, "playground-test-12-11").values()]
    assert len(episodes) == 12
    for episode in episodes:
        reply = await serving.ask(episode.problem.question, temperature=0, return_token_ids=True)
        turns = reply["choices"][0]["longshort"]["turns"]
        assert [(t["role"], tuple(t["token_ids"])) for t in turns] == [(t.role, t.token_ids) for t in episode.turns]
