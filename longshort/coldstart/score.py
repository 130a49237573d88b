"""``longshort score``: Monte Carlo rollouts of the base model from every prefix of every chain.

Concurrency: all rollouts of a round are under way together; between rounds the adaptive mode looks at all chains. The
first rollout of a chain goes on from the whole chain, and the others of that chain wait for it, so that the engine
computes the chain once and finds every prefix in its cache.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig

from longshort.coldstart.chunk import THOUGHTS, chunking_from
from longshort.coldstart.distill import CHAINS
from longshort.coldstart.setting import Setting, folder_of, tokenizer_of
from longshort.controller import turn_seed
from longshort.episode import Problem
from longshort.generation import Chat, Generator, SamplingParams
from longshort.stages import Record, Stage, StageResult, open_stage, read_stage
from longshort.thoughts.adaptive import Adaptive, AdaptiveScoring, Request
from longshort.thoughts.scored import Rollout, ScoredChain
from longshort.thoughts.thought import Thought

ROLLOUTS = "rollouts"
SEED_STEP = -3
# What a rollout depends on; how many there are and what is made of them may change.
SAMPLING = ("instruction", "max_tokens", "temperature", "top_p")


@dataclass(frozen=True, slots=True)
class DividedChain:
    """A chain to score: its id, its problem, its thoughts and their lengths in tokens."""

    id: str
    problem: Problem
    thoughts: tuple[Thought, ...]
    lengths: tuple[int, ...]

    def prefix(self, thoughts: int) -> str:
        return "".join(thought.text for thought in self.thoughts[:thoughts])


@dataclass(frozen=True, slots=True)
class Sample:
    """Sample ``number``, counted from 0, of the rollouts from the first ``thoughts`` thoughts of a chain."""

    chain: DividedChain
    thoughts: int
    number: int

    @property
    def id(self) -> str:
        return f"{self.chain.id}/{self.thoughts}/{self.number}"


async def score(setting: Setting) -> StageResult:
    """One record per rollout: whether it was right, its answer, text and tokens, and what the prompt cost.

    Raises:
        ValueError: there are no thoughts, or settings contradict each other.
    """
    settings = setting.config.coldstart.score
    chains = divided_chains(setting.config)
    facts = setting.settings("score", "base")
    facts["score"] = {name: settings[name] for name in SAMPLING}
    with open_stage(setting.folder, ROLLOUTS, facts) as stage:
        async with setting.open_model("base") as base:
            sampler = _Sampler(base, setting, stage, chains)
            if settings.adaptive.enabled:
                await _adaptively(sampler, chains, adaptive_of(settings))
            else:
                await sampler.take(_samples(chains, settings.rollouts))
        return stage.finish(sorted(stage.records.keys() | stage.failed.keys(), key=_order))


def divided_chains(config: DictConfig) -> list[DividedChain]:
    """The chains with a right answer and at least one thought, with the lengths of their thoughts."""
    folder, tokenizer = folder_of(config), tokenizer_of(config, "base")
    chains, thoughts = read_stage(folder, CHAINS), read_stage(folder, THOUGHTS)
    found = []
    for key, chain in chains.items():
        if key in thoughts and chain["correct"] and (kept := chunking_from(thoughts[key]).thoughts):
            lengths = [max(1, len(tokenizer.encode(t.text, add_special_tokens=False))) for t in kept]
            found.append(DividedChain(key, Problem(**chain["problem"]), kept, tuple(lengths)))
    if not found:
        raise ValueError(f"{folder} holds no divided chain with a right answer: distil and chunk more problems")
    return found


def adaptive_of(settings: DictConfig) -> Adaptive:
    """The adaptive mode as ``coldstart.score`` describes it."""
    own = settings.adaptive
    return Adaptive(settings.rollouts, own.error, own.budget, own.first, own.batch, decay=settings.decay)


def scored_chains(config: DictConfig) -> list[ScoredChain]:
    """All chains whose every prefix has a rollout, each with its samples in order."""
    rollouts = read_stage(folder_of(config), ROLLOUTS)
    return [found for chain in divided_chains(config) if (found := _scored(chain, rollouts)) is not None]


def prompt_tokens(records: Iterable[Record]) -> tuple[int, int]:
    """Prompt tokens that were sent, and those of them that no prefix cache held, by the engine's own counts."""
    sent = cached = 0
    for record in records:
        sent += record["prompt_tokens"] or 0
        cached += record["cached_tokens"] or 0
    return sent, sent - cached


class _Sampler:
    """Takes samples that are not stored yet."""

    def __init__(self, base: Generator, setting: Setting, stage: Stage, chains: Sequence[DividedChain]) -> None:
        self._base, self._setting, self.stage = base, setting, stage
        settings = setting.config.coldstart.score
        self._params = SamplingParams(settings.max_tokens, temperature=settings.temperature, top_p=settings.top_p)
        self._computed = {chain.id: asyncio.Event() for chain in chains}
        self._round = 0

    async def take(self, samples: Iterable[Sample]) -> None:
        """Give every sample its record, or its failure."""
        items = {sample.id: sample for sample in samples}
        for sample in items.values():
            if sample.id in self.stage.records or sample.id in self.stage.failed:
                self._computed[sample.chain.id].set()
        self._round += 1
        self._setting.display.stage(f"scoring thoughts, round {self._round}")
        await self.stage.run(items, self._record, self._setting.display.advance)

    async def _record(self, sample: Sample) -> Record:
        computed = self._computed[sample.chain.id]
        if _opens(sample):
            try:
                return await self._rollout(sample)
            finally:
                computed.set()
        await computed.wait()
        return await self._rollout(sample)

    async def _rollout(self, sample: Sample) -> Record:
        setting, problem = self._setting, sample.chain.problem
        prefix = sample.chain.prefix(sample.thoughts)
        question = problem.question + setting.config.coldstart.score.instruction
        chat = Chat(({"role": "user", "content": question},), opened=prefix)
        seed = turn_seed(setting.config.seed, SEED_STEP, sample.chain.id, sample.number, sample.thoughts)
        completion = await self._base.generate(chat, replace(self._params, seed=seed), sample.chain.id)
        assert completion.text is not None, "a chat is answered in text"
        # The answer may stand in the prefix already.
        grade = await setting.grader.grade(prefix + completion.text, problem.answer)
        return {
            "correct": completion.finish_reason == "stop" and grade.correct,
            "answer": grade.extracted,
            "text": completion.text,
            "tokens": completion.tokens,
            "prompt_tokens": completion.prompt_tokens,
            "cached_tokens": completion.cached_tokens,
        }


async def _adaptively(sampler: _Sampler, chains: Sequence[DividedChain], settings: Adaptive) -> None:
    """Rounds of samples where decisions are open; chains with a failed rollout are left to the next run."""
    while chains:
        scoring = AdaptiveScoring([chain.lengths for chain in chains], settings)
        while requests := await asyncio.to_thread(scoring.propose):
            asked = [(request, list(_requested(chains, request))) for request in requests]
            await sampler.take(sorted((s for _, samples in asked for s in samples), key=lambda s: not _opens(s)))
            if any(sample.id in sampler.stage.failed for _, samples in asked for sample in samples):
                break
            for request, samples in asked:
                scoring.observe(request, sum(sampler.stage.records[sample.id]["correct"] for sample in samples))
        else:
            return
        bad = {key.rsplit("/", 2)[0] for key in sampler.stage.failed}
        chains = [chain for chain in chains if chain.id not in bad]


def _requested(chains: Sequence[DividedChain], request: Request) -> Iterator[Sample]:
    for number in range(request.first, request.first + request.count):
        yield Sample(chains[request.chain], request.prefix, number)


def _samples(chains: Sequence[DividedChain], rollouts: int) -> Iterator[Sample]:
    """All samples of all prefixes, the longest prefix of a chain first."""
    for chain in chains:
        for thoughts in range(len(chain.thoughts), -1, -1):
            for number in range(rollouts):
                yield Sample(chain, thoughts, number)


def _opens(sample: Sample) -> bool:
    """Whether it is the rollout that the others of its chain wait for."""
    return sample.number == 0 and sample.thoughts == len(sample.chain.thoughts)


def _order(key: str) -> tuple[str, int, int]:
    chain, thoughts, number = key.rsplit("/", 2)
    return chain, int(thoughts), int(number)


def _scored(chain: DividedChain, rollouts: Mapping[str, Any]) -> ScoredChain | None:
    samples = tuple(tuple(_stored(chain, prefix, rollouts)) for prefix in range(len(chain.thoughts) + 1))
    if not all(samples):
        return None
    return ScoredChain(replace(chain.problem, id=chain.id), chain.thoughts, chain.lengths, samples)


def _stored(chain: DividedChain, prefix: int, rollouts: Mapping[str, Any]) -> Iterator[Rollout]:
    number = 0
    while (record := rollouts.get(Sample(chain, prefix, number).id)) is not None:
        yield Rollout(record["correct"], record["tokens"] or 0)
        number += 1
