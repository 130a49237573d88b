"""Faults of engines, turns and rewards on one running stack, which has to be whole again after each."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
from omegaconf import OmegaConf

from longshort.config import build_config
from longshort.custom_reward import CustomReward, CustomRewards
from longshort.display import Display
from longshort.episode import View
from longshort.generation import Completion, SamplingParams
from longshort.run import Run
from longshort.trainer import RewardFailureError
from tests.faults.runs import LONG_S, SETTINGS, Findings
from tests.killed_runs import beyond_loopback, children_of, engine_cores, left_behind, still_alive
from tests.planted import PLANTED
from workers.team import configure_environment

PROMPT, PARAMS = (5, 6, 7, 8), SamplingParams(max_tokens=8, temperature=0.0)
FOUND_S = 30.0
# For a fault, with the start of another engine and the steps around it.
CASE_S = 300.0
# Nats by which log-probabilities of one token differ at most, between processes that have the same weights.
SAME = 1e-3
# Python's own, for as long as it runs.
TRACKER = "multiprocessing.resource_tracker"


@dataclass
class Stage:
    """The stack, chance, and the step that comes next."""

    run: Run
    rng: random.Random
    step: int = 1

    def policy(self) -> str:
        return self.rng.choice(sorted(self.run.trainer.policies))

    async def take_step(self) -> None:
        """One step, complete: every episode of it, for both policies."""
        settings = self.run.trainer.settings
        result = await self.run.trainer.step(self.step)
        self.step += 1
        assert len(result.graded.episodes) == settings.train_batch_size * settings.n

    def cores(self, policy: str) -> list[psutil.Process]:
        """The processes of its engine's core."""
        return engine_cores(os.getpid(), policy)

    def server(self, policy: str) -> list[psutil.Process]:
        """The Ray actor that its engine belongs to."""
        parents = []
        for core in self.cores(policy):
            with suppress(psutil.NoSuchProcess):
                parents.append(core.parent())
        return [parent for parent in parents if parent is not None]

    async def says(self, policy: str) -> Completion:
        return await self.run.trainer.policies[policy].generator.generate(PROMPT, PARAMS, os.urandom(4).hex())

    async def check_weights(self, policy: str) -> None:
        """What its engine samples has the log-probabilities that its trainer gives."""
        member = self.run.trainer.policies[policy]
        for seed in range(4):
            params = SamplingParams(max_tokens=16, seed=seed)
            said = await member.generator.generate(PROMPT, params, os.urandom(4).hex())
            view = View(PROMPT, said.token_ids, (1,) * len(said.token_ids), said.log_probs)
            (expected,) = (await member.score([view])).log_probs
            assert said.log_probs == pytest.approx(expected, abs=SAME), f"{policy}'s engine has other weights"


@asynccontextmanager
async def stage(folder: Path, rng: random.Random, findings: Findings) -> AsyncIterator[Stage]:
    """The playground pair on a Ray of its own, with other weights than it began with."""
    configure_environment("cpu")
    from longshort.assembly import open_run

    before = {name: os.environ.get(name) for name in PLANTED}
    os.environ.update(PLANTED)
    overrides = [*SETTINGS, f"trainer.default_local_dir={folder}", "faults.max_engine_restarts=1000"]
    started: dict[psutil.Process, str] = {}
    try:
        with Display() as display:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(LONG_S):
                    run = await stack.enter_async_context(open_run(build_config("local", overrides), display))
                    opened = Stage(run, rng)
                    await opened.take_step()
                driver = psutil.Process(os.getpid())
                findings.listening |= beyond_loopback([driver, *children_of(driver.pid)])
                try:
                    yield opened
                finally:
                    started = children_of(driver.pid)
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        ours = {each: name for each, name in (started | children_of(os.getpid())).items() if not _is_tracker(each)}
        findings.orphans += await asyncio.to_thread(left_behind, ours)
        findings.look_for_secrets(folder)


def _is_tracker(process: psutil.Process) -> bool:
    try:
        return TRACKER in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


async def _lost(
    on: Stage, policy: str, how: signal.Signals, of: Callable[[str], list[psutil.Process]], idle: bool
) -> str:
    """An engine that is lost, idle or in a step, is back with the weights of the moment."""
    lost = on.run.trainer.policies[policy]
    restarts = lost.engine_restarts
    before = await on.says(policy)
    victims = of(policy)
    assert victims, "there is no such process"
    parts = {*victims, *on.cores(policy)}
    step = None if idle else asyncio.create_task(on.take_step())
    try:
        if step is not None:
            await asyncio.sleep(on.rng.uniform(0.05, 1.5))
            step = await _at_work(on, policy, step)
        began = time.monotonic()
        for victim in victims:
            victim.send_signal(how)
        while lost.engine_restarts == restarts:
            if step is not None and step.done():
                step.result()
            assert time.monotonic() - began < FOUND_S, f"not found within {FOUND_S:g} s"
            await asyncio.sleep(0.05)
        found = time.monotonic() - began
        if step is not None:
            await step
        after = await on.says(policy)
        if step is None:
            assert after.token_ids == before.token_ids, "it has other weights"
            assert after.log_probs == pytest.approx(before.log_probs, abs=SAME), "it has other weights"
        await on.check_weights(policy)
        assert lost.engine_restarts == restarts + 1
        assert not await asyncio.to_thread(still_alive, parts, 10), "what was lost still lives"
        await on.take_step()
        return f"{policy}: found within {found:.0f} s" if idle else f"{policy}: the step was played to its end"
    finally:
        for part in parts:
            with suppress(psutil.NoSuchProcess):
                part.kill()
        if step is not None and not step.done():
            step.cancel()
            await asyncio.wait({step}, timeout=10)


async def _at_work(on: Stage, policy: str, step: asyncio.Task[None]) -> asyncio.Task[None]:
    """The step under way, once the policy plays a turn, scores or learns.

    Not just before its engines take weights, nor while they do: a loss then ends the run, as it should.
    """
    member = on.run.trainer.policies[policy]
    guard = member.guard
    while guard._together or not (any(guard._turns) or member._calls.locked()):
        if step.done():
            step.result()
            step = asyncio.create_task(on.take_step())
        await asyncio.sleep(0.005)
    return step


async def engine_killed_idle(on: Stage) -> str:
    return await _lost(on, on.policy(), signal.SIGKILL, on.cores, idle=True)


async def engine_killed_serving(on: Stage) -> str:
    return await _lost(on, on.policy(), signal.SIGKILL, on.cores, idle=False)


async def server_killed(on: Stage) -> str:
    return await _lost(on, on.policy(), signal.SIGKILL, on.server, idle=on.rng.random() < 0.5)


async def engine_hangs(on: Stage) -> str:
    return await _lost(on, on.policy(), signal.SIGSTOP, on.cores, idle=on.rng.random() < 0.5)


async def server_hangs(on: Stage) -> str:
    return await _lost(on, on.policy(), signal.SIGSTOP, on.server, idle=True)


async def reward_raises(on: Stage) -> str:
    return await _refused(on, "raise RuntimeError('its own fault')", "its own fault")


async def reward_is_no_number(on: Stage) -> str:
    return await _refused(on, "return float('nan')", "no finite number")


async def reward_hangs(on: Stage) -> str:
    return await _refused(on, "__import__('time').sleep(30)", "took longer than reward.function_timeout_s")


async def _refused(on: Stage, body: str, named: str) -> str:
    """A step whose episodes a user's function rewards so ends with a sentence; the next one is whole."""
    file = on.run.folder / "reward.py"
    file.write_text(f"def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n    {body}\n")
    reward = CustomReward("custom_reward_function", OmegaConf.create({"path": str(file), "name": "compute_score"}), 2.0)
    trainer, before = on.run.trainer, on.run.trainer.player
    trainer.player = replace(before, custom_rewards=CustomRewards(reward))
    try:
        await on.take_step()
    except RewardFailureError as error:
        assert named in str(error) and "reward.py" in str(error), str(error)
    else:
        raise AssertionError("the step was trained on such rewards")
    finally:
        trainer.player = before
    await on.take_step()
    return "the step ended with a sentence; the next one is whole"


async def clock_jumps(on: Stage) -> str:
    """The driver's wall clock goes an hour back or forth within a step."""
    own, jump = time.time, on.rng.choice([-3600.0, 3600.0])
    step = asyncio.create_task(on.take_step())
    await asyncio.sleep(on.rng.uniform(0.05, 1.0))
    time.time = lambda: own() + jump
    try:
        await step
    finally:
        time.time = own
    await on.take_step()
    return f"{jump:+.0f} s: trained on"


CASES: Mapping[str, Callable[[Stage], Awaitable[str]]] = {
    "engine killed idle": engine_killed_idle,
    "engine killed while serving": engine_killed_serving,
    "engine's server killed": server_killed,
    "engine hangs": engine_hangs,
    "engine's server hangs": server_hangs,
    "reward hangs": reward_hangs,
    "reward raises": reward_raises,
    "reward is NaN": reward_is_no_number,
    "clock jump": clock_jumps,
}
# Quick ones are drawn less often than those of engines.
WEIGHTS = {"reward hangs": 0.5, "reward raises": 0.5, "reward is NaN": 0.5, "clock jump": 0.5}
