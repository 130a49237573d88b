"""Does the controller keep both engines busy? Makespan against its lower bound, and against lockstep.

Simulated engines in virtual time: a step takes 8 ms + 0.03 ms for each of at most 256 running sequences. Long turns are
lognormal (median 400 tokens, sigma 0.8), the number of long turns geometric (mean 2.2, at most 5), seed 0. Short turns
are lognormal (sigma 0.6), their mean that of the long turns divided by the cost ratio: at ratio 1 both engines have the
same work, and at 2.3 the median is 200 tokens. The bound is max(work / capacity of the busier engine, longest chain).

``ours`` is the real :class:`SynergyController`. What it expects of a problem's length is what an earlier epoch would
tell: the true length times a lognormal error (sigma 0.5). ``fcfs`` is the same controller expecting nothing.
``lockstep`` plays the same episodes with a barrier after every turn. ``driver_ms_per_turn`` is the wall time of the
driver with an engine of zero latency.

    python -m benchmarks.pipelining [--quick]

Prints JSON; exit code 1 where a target falls short.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import math
import random
import sys
import time
from dataclasses import dataclass

from benchmarks.virtual_time import run
from longshort.controller import Limits, Member, Sampling, SynergyController
from longshort.episode import Ids, Problem
from longshort.generation import Completion, SamplingParams
from longshort.protocol import LONG_SHORT

STEP_S, SEQUENCE_S, CAPACITY = 8e-3, 3e-5, 256
LONG_MEDIAN, LONG_SIGMA, SHORT_SIGMA = 400, 0.8, 0.6
EXPECTATION_ERROR = 0.5
LIMITS = Limits(max_turns=10, max_turn_tokens=dict.fromkeys(("long", "short"), 10**9), max_episode_tokens=10**9)
# Largest ours / bound, and smallest lockstep / ours by cost ratio.
OURS_TO_BOUND = {1024: 1.5, 4096: 1.15}
LOCKSTEP_TO_OURS = {1: 2.2, 4: 1.6, 10: 1.5}

VOCABULARY = {"x": 0, "<think>": 1, "</think>": 2, "<answer>": 3, "</answer>": 4, "</rethink>": 5}
NAMES = {number: name for name, number in VOCABULARY.items()}

Script = tuple[tuple[str, int], ...]


def draw_scripts(episodes: int, cost_ratio: float, seed: int = 0) -> list[Script]:
    """Role and tokens of every turn of every episode."""
    rng = random.Random(seed)
    mean = LONG_MEDIAN * math.exp(LONG_SIGMA**2 / 2) / cost_ratio
    short_median = mean / math.exp(SHORT_SIGMA**2 / 2)
    scripts = []
    for _ in range(episodes):
        rounds = 1
        while rounds < 5 and rng.random() > 1 / 2.2:
            rounds += 1
        turns: list[tuple[str, int]] = []
        for _ in range(rounds):
            turns.append(("long", max(1, round(rng.lognormvariate(math.log(LONG_MEDIAN), LONG_SIGMA)))))
            turns.append(("short", max(1, round(rng.lognormvariate(math.log(short_median), SHORT_SIGMA)))))
        scripts.append(tuple(turns))
    return scripts


class TagTokenizer:
    """A tokenizer of the protocol's tags; every other id is the letter x."""

    eos_token_id = None

    def get_vocab(self) -> dict[str, int]:
        return VOCABULARY

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return [VOCABULARY[text]]

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        return "".join([NAMES[number] for number in ids])

    def apply_chat_template(self, conversation: list[dict[str, str]], **kwargs: object) -> list[int]:
        return [0] * 100


def completion(script: Script, turn: int) -> Completion:
    """The scripted turn as tokens that the protocol understands."""
    role, tokens = script[turn]
    opening, closing = (1, 2) if role == "long" else (3, 4 if turn == len(script) - 1 else 5)
    return Completion((opening, *[0] * max(tokens - 2, 1), closing), (0.0,) * (max(tokens - 2, 1) + 2), "stop")


@dataclass
class Request:
    left: int
    done: asyncio.Future[None]


class SimulatedEngine:
    """Continuous batching in virtual time; waiting requests of lower priority value start first."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, int, Request]] = []
        self.running: list[Request] = []
        self.arrivals = 0
        self.wake = asyncio.Event()

    async def serve(self, tokens: int, priority: int) -> None:
        request = Request(tokens, asyncio.get_running_loop().create_future())
        self.arrivals += 1
        heapq.heappush(self.waiting, (priority, self.arrivals, request))
        self.wake.set()
        await request.done

    async def work(self) -> None:
        while True:
            while self.waiting and len(self.running) < CAPACITY:
                self.running.append(heapq.heappop(self.waiting)[2])
            if not self.running:
                self.wake.clear()
                await self.wake.wait()
                continue
            steps = await self._advance(min(request.left for request in self.running))
            for request in self.running:
                request.left -= steps
                if request.left <= 0:
                    request.done.set_result(None)
            self.running = [request for request in self.running if request.left > 0]

    async def _advance(self, most: int) -> int:
        """Take ``most`` steps, or fewer where a sequence arrives that fits; returns the steps taken."""
        step_s = STEP_S + SEQUENCE_S * len(self.running)
        if len(self.running) == CAPACITY:
            await asyncio.sleep(most * step_s)
            return most
        clock = asyncio.get_running_loop().time
        started = clock()
        self.wake.clear()
        try:
            await asyncio.wait_for(self.wake.wait(), most * step_s)
        except TimeoutError:
            return most
        # The sequence joins at the end of the step under way.
        steps = min(most, int((clock() - started) / step_s) + 1)
        await asyncio.sleep(max(0.0, started + steps * step_s - clock()))
        return steps


class ScriptedGenerator:
    """Plays the scripts on an engine, or at once where there is none."""

    def __init__(self, scripts: list[Script], engine: SimulatedEngine | None, turns: dict[str, int]) -> None:
        self.scripts, self.engine, self.turns = scripts, engine, turns

    async def generate(self, prompt_ids: Ids, params: SamplingParams, session: str) -> Completion:
        turn = self.turns.get(session, 0)
        self.turns[session] = turn + 1
        script = self.scripts[int(session.split("/")[1])]
        if self.engine is not None:
            await self.engine.serve(script[turn][1], params.priority)
        return completion(script, turn)


def bound(scripts: list[Script]) -> float:
    """No schedule of two such engines is faster (seconds)."""
    work = {role: sum(n for script in scripts for r, n in script if r == role) for role in ("long", "short")}
    per_token = (STEP_S + SEQUENCE_S * CAPACITY) / CAPACITY
    chain = max(sum(n for _, n in script) for script in scripts)
    return max(max(work.values()) * per_token, chain * (STEP_S + SEQUENCE_S))


async def play(scripts: list[Script], engines: dict[str, SimulatedEngine | None], expectation: dict[str, float]) -> int:
    """All episodes through the real controller; returns the turns played."""
    turns: dict[str, int] = {}
    tokenizer = TagTokenizer()
    members = {role: Member(ScriptedGenerator(scripts, engines[role], turns), tokenizer, 10**9) for role in engines}
    controller = SynergyController(LONG_SHORT, members, LIMITS, lambda problem: expectation.get(problem.id, 0.0))
    problems = [Problem(str(i), "", "") for i in range(len(scripts))]
    workers = [asyncio.create_task(engine.work()) for engine in engines.values() if engine is not None]
    async for _, episode in controller.play_all(problems, 1, Sampling()):
        assert episode.outcome == "answered"
    for worker in workers:
        worker.cancel()
    return sum(turns.values())


async def lockstep(scripts: list[Script]) -> None:
    """The same engines with a barrier after every turn."""
    engines = {role: SimulatedEngine() for role in ("long", "short")}
    workers = [asyncio.create_task(engine.work()) for engine in engines.values()]
    for turn in range(max(map(len, scripts))):
        active = [script[turn] for script in scripts if len(script) > turn]
        await asyncio.gather(*[engines[role].serve(tokens, 0) for role, tokens in active])
    for worker in workers:
        worker.cancel()


def measure(episodes: int, cost_ratio: float) -> dict[str, float | int | str]:
    """One row of the result."""
    scripts = draw_scripts(episodes, cost_ratio)
    rng = random.Random(1)
    expectation = {
        str(i): sum(n for _, n in script) * math.exp(rng.gauss(0, EXPECTATION_ERROR))
        for i, script in enumerate(scripts)
    }

    async def ours(expected: dict[str, float]) -> int:
        return await play(scripts, {role: SimulatedEngine() for role in ("long", "short")}, expected)

    lower = bound(scripts)
    _, ours_s = run(ours(expectation))
    _, fcfs_s = run(ours({}))
    _, lockstep_s = run(lockstep(scripts))
    return {
        "engine": "simulated",
        "episodes": episodes,
        "cost_ratio": cost_ratio,
        "ours_to_bound": round(ours_s / lower, 3),
        "fcfs_to_bound": round(fcfs_s / lower, 3),
        "lockstep_to_ours": round(lockstep_s / ours_s, 3),
        "driver_ms_per_turn": driver_ms_per_turn(episodes),
    }


def driver_ms_per_turn(episodes: int) -> float:
    """Wall milliseconds that the driver spends on a turn when engines take none; cost ratio 1."""
    scripts = draw_scripts(episodes, 1)
    started = time.perf_counter()
    turns = asyncio.run(play(scripts, {"long": None, "short": None}, {}))
    return round(1000 * (time.perf_counter() - started) / turns, 3)


def falls_short(row: dict[str, float | int | str]) -> list[str]:
    """Targets that a row misses."""
    missed = []
    if row["ours_to_bound"] > OURS_TO_BOUND.get(row["episodes"], math.inf):
        missed.append("ours_to_bound")
    if row["episodes"] == max(OURS_TO_BOUND) and row["lockstep_to_ours"] < LOCKSTEP_TO_OURS.get(row["cost_ratio"], 0):
        missed.append("lockstep_to_ours")
    if row["driver_ms_per_turn"] > 0.5:
        missed.append("driver_ms_per_turn")
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="up to 1,024 episodes, cost ratio 1")
    quick = parser.parse_args().quick
    sizes, ratios = ((64, 1024), (1,)) if quick else ((64, 256, 1024, 4096), (1, 4, 10))
    rows = [measure(episodes, ratio) for ratio in ratios for episodes in sizes]
    missed = {f"{row['episodes']} episodes, ratio {row['cost_ratio']}": m for row in rows if (m := falls_short(row))}
    sys.stdout.write(json.dumps({"rows": rows, "missed": missed}, indent=1) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
