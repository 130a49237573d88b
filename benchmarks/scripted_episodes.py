"""Episodes whose turns are scripted, played by the real :class:`SynergyController`.

Long turns are lognormal (median 400 tokens, sigma 0.8), the number of long turns geometric (mean 2.2, at most 5), seed
0. Short turns are lognormal (sigma 0.6), their mean that of the long turns divided by the cost ratio: at ratio 1 both
engines have the same work, and at 2.3 the median is 200 tokens.

- :class:`SimulatedEngine`, in virtual time: a step takes 8 ms + 0.03 ms for each of at most 256 running sequences.
- :class:`InstantEngine`: each pass of the event loop answers one request, so no two turns end together.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import random
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache

from longshort.controller import Limits, Member, Sampling, SynergyController
from longshort.episode import Episode, Problem
from longshort.generation import Completion, Prompt, SamplingParams
from longshort.protocol import LONG_SHORT

STEP_S, SEQUENCE_S, CAPACITY = 8e-3, 3e-5, 256
LONG_MEDIAN, LONG_SIGMA, SHORT_SIGMA = 400, 0.8, 0.6
EXPECTATION_ERROR = 0.5
ROLES = ("long", "short")
LIMITS = Limits(max_turns=10, max_turn_tokens=dict.fromkeys(ROLES, 10**9), max_episode_tokens=10**9)

VOCABULARY = {"x": 0, "<think>": 1, "</think>": 2, "<answer>": 3, "</answer>": 4, "</rethink>": 5}
NAMES = {number: name for name, number in VOCABULARY.items()}

# Role and tokens of every turn.
Script = tuple[tuple[str, int], ...]


def draw_scripts(episodes: int, cost_ratio: float, seed: int = 0) -> list[Script]:
    """One script per episode."""
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


def tokens_of(script: Script, role: str | None = None) -> int:
    """Tokens of one role, or of both."""
    return sum(tokens for author, tokens in script if role in (None, author))


def expect(scripts: Sequence[Script]) -> dict[str, float]:
    """What an earlier epoch would tell of each problem's length."""
    rng = random.Random(1)
    return {str(i): tokens_of(s) * math.exp(rng.gauss(0, EXPECTATION_ERROR)) for i, s in enumerate(scripts)}


class TagTokenizer:
    """A tokenizer of the protocol's tags; every other id is the letter x."""

    eos_token_id: int | None = None

    def get_vocab(self) -> dict[str, int]:
        return VOCABULARY

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return [VOCABULARY[text]]

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        return "".join([NAMES[number] for number in ids])

    def apply_chat_template(self, conversation: list[dict[str, str]], **kwargs: object) -> list[int]:
        return [0] * 100


@cache
def completion(tokens: int, opening: int, closing: int) -> Completion:
    """A turn of that length that the protocol understands; kept, so that turns of one length share their memory."""
    ids = (opening, *[0] * max(tokens - 2, 1), closing)
    return Completion(ids, (0.0,) * len(ids), "stop")


# Engines in virtual time, or in none


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


class InstantEngine:
    """Answers at once, one request in each pass of the event loop."""

    def __init__(self) -> None:
        self.waiting: deque[asyncio.Future[None]] = deque()

    async def serve(self, tokens: int, priority: int) -> None:
        self.waiting.append(asyncio.get_running_loop().create_future())
        await self.waiting[-1]

    async def work(self) -> None:
        while True:
            if self.waiting:
                self.waiting.popleft().set_result(None)
            await asyncio.sleep(0)


# Generators that keep to the scripts


class Lockstep:
    """The barrier after every turn: nobody starts a turn before all have ended the one before."""

    def __init__(self, scripts: Sequence[Script]) -> None:
        self.playing = [sum(len(script) > turn for script in scripts) for turn in range(max(map(len, scripts)))]
        self.ended = [asyncio.Event() for _ in self.playing]

    async def begin(self, turn: int) -> None:
        if turn:
            await self.ended[turn - 1].wait()

    def end(self, turn: int) -> None:
        self.playing[turn] -= 1
        if not self.playing[turn]:
            self.ended[turn].set()


@dataclass
class Play:
    """What the generators of both roles share: the scripts, and the turns that each session has begun."""

    scripts: Sequence[Script]
    lockstep: Lockstep | None
    begun: dict[str, int]

    @asynccontextmanager
    async def turn(self, session: str) -> AsyncIterator[tuple[int, bool]]:
        """The session's next turn, once it may start: its tokens, and whether it is the last."""
        turn = self.begun.get(session, 0)
        self.begun[session] = turn + 1
        script = self.scripts[int(session.split("/")[1])]
        if self.lockstep is not None:
            await self.lockstep.begin(turn)
        yield script[turn][1], turn == len(script) - 1
        if self.lockstep is not None:
            self.lockstep.end(turn)


@dataclass
class ScriptedGenerator:
    """Scripted turns that take an engine's time."""

    role: str
    engine: SimulatedEngine | InstantEngine
    play: Play

    async def generate(self, prompt: Prompt, params: SamplingParams, session: str) -> Completion:
        async with self.play.turn(session) as (tokens, last):
            await self.engine.serve(tokens, params.priority)
        return completion(tokens, *((1, 2) if self.role == "long" else (3, 4 if last else 5)))


async def play(
    scripts: Sequence[Script],
    engines: Mapping[str, SimulatedEngine | InstantEngine],
    expectation: Mapping[str, float],
    in_lockstep: bool = False,
) -> AsyncIterator[Episode]:
    """Every script's episode through the real controller."""
    shared = Play(scripts, Lockstep(scripts) if in_lockstep else None, {})
    tokenizer = TagTokenizer()
    members = {role: Member(ScriptedGenerator(role, engines[role], shared), tokenizer, 10**9) for role in ROLES}
    controller = SynergyController(LONG_SHORT, members, LIMITS, lambda problem: expectation.get(problem.id, 0.0))
    problems = [Problem(str(i), "", "") for i in range(len(scripts))]
    workers = [asyncio.create_task(engine.work()) for engine in set(engines.values())]
    async for _, episode in controller.play_all(problems, 1, Sampling()):
        assert episode.outcome == "answered"
        yield episode
    for worker in workers:
        worker.cancel()


def play_at_once(scripts: Sequence[Script]) -> AsyncIterator[Episode]:
    """Every script's episode, with an engine that takes no time."""
    return play(scripts, dict.fromkeys(ROLES, InstantEngine()), {})


async def count_turns(episodes: AsyncIterator[Episode]) -> int:
    return sum([len(episode.turns) async for episode in episodes])
