"""Hand-written stand-ins for tokenizers, engines, policies and graders, with everything they were asked kept.

They hold to the contracts of ``longshort.generation`` and ``longshort.policy``; nothing here samples or learns.
"""

from __future__ import annotations

import asyncio
import random
import string
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from longshort.controller import Limits, Member, Sampling, SynergyController
from longshort.episode import Episode, Ids, Problem, View
from longshort.generation import Completion, SamplingParams
from longshort.grading import Grade
from longshort.policy import Sample, TokenScores
from longshort.protocol import LONG_SHORT, TAGS
from longshort.scripted import Reply, Request, Script, ScriptedGenerator

EOS = "<|end|>"
ALPHABET = string.printable
ROOMY = Limits(max_turns=9, max_turn_tokens={"long": 200, "short": 200}, max_episode_tokens=2000)


class FakeTokenizer:
    """One token per printable character, plus ``pieces`` of several characters and an end of sequence.

    Encoding takes the longest piece that fits, so ids of single characters may decode to a text that encodes to
    other ids: with the piece ``"ab"``, the ids of ``"a"`` and ``"b"`` do not survive decoding and encoding.

    Args:
        seed: shuffles the ids; tokenizers of different seeds share none of their meaning.
        pieces: tokens of more than one character.
    """

    def __init__(self, seed: int = 0, pieces: Sequence[str] = TAGS) -> None:
        tokens = [*sorted(pieces, key=len, reverse=True), EOS, *ALPHABET]
        numbers = list(range(len(tokens)))
        random.Random(seed).shuffle(numbers)
        self.vocabulary = dict(zip(tokens, numbers, strict=True))
        self.tokens = {number: token for token, number in self.vocabulary.items()}
        self.eos_token_id: int | None = self.vocabulary[EOS]
        self.encoded: list[str] = []

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        assert not add_special_tokens, "an episode adds no special tokens"
        self.encoded.append(text)
        ids = []
        while text:
            token = next(token for token in self.vocabulary if text.startswith(token))
            ids.append(self.vocabulary[token])
            text = text[len(token) :]
        return ids

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        assert not skip_special_tokens, "a reader sees every token"
        return "".join(self.tokens[number] for number in ids)

    def spell(self, text: str) -> Ids:
        """Ids of ``text``, character by character: another way to write what :meth:`encode` writes."""
        return tuple(self.vocabulary[character] for character in text)

    def get_vocab(self) -> dict[str, int]:
        return dict(self.vocabulary)

    def apply_chat_template(self, conversation: list[dict[str, str]], **kwargs: object) -> list[int]:
        assert kwargs == {"add_generation_prompt": True, "tokenize": True, "return_dict": False}
        assert [message["role"] for message in conversation] == ["system", "user"]
        # The end of a system prompt says whose it is; all of it would make tests slow.
        system, user = (message["content"] for message in conversation)
        return self.encode(f"[{system[-30:]}|{user}]", add_special_tokens=False)


class FakeGenerator(ScriptedGenerator):
    """A script that also says how a turn ends: without stop string or end of sequence it was cut."""

    def __init__(
        self,
        tokenizer: FakeTokenizer,
        script: Script,
        gate: Callable[[Request], Awaitable[object]] = lambda request: asyncio.sleep(0),
    ) -> None:
        super().__init__(script, tokenizer, gate)
        self.tokenizer = tokenizer

    def completion(self, text: str, params: SamplingParams) -> Completion:
        """``text`` as an engine would have sampled it under ``params``."""
        ends = [text.index(stop) + len(stop) for stop in (*params.stop, EOS) if stop in text]
        ids = self.tokenizer.encode(text[: min(ends, default=None)], add_special_tokens=False)
        cut = len(ids) > params.max_tokens or not ends
        return completion_of(ids[: params.max_tokens], "length" if cut else "stop")


def completion_of(ids: Sequence[int], finish_reason: str = "stop") -> Completion:
    """A completion of ``ids`` with a log-probability for each that tells its place."""
    log_probs = tuple(-0.1 * (place + 1) for place in range(len(ids)))
    return Completion(tuple(ids), log_probs, finish_reason, cached_tokens=1)


@dataclass
class FakePolicy:
    """Records what it is given. ``log`` may be shared by policies to see who went first.

    Attributes:
        metrics: what :meth:`update` returns.
        drift: what the trainer's log-probabilities have over the sampler's.
        hold: awaited within :meth:`update`.
        reference: what a reference's log-probabilities have over the trainer's; None for no reference.
    """

    name: str
    generator: FakeGenerator
    trainable: bool = True
    metrics: Mapping[str, float] = field(default_factory=lambda: {"actor/pg_loss": 0.5})
    hold: Callable[[], Awaitable[object]] = lambda: asyncio.sleep(0)
    drift: float = 0.0
    reference: float | None = None
    log: list[tuple[str, str]] = field(default_factory=list)
    updates: list[list[Sample]] = field(default_factory=list)
    syncs: int = 0
    saves: bool = True
    engine_restarts: int = 0

    @property
    def tokenizer(self) -> FakeTokenizer:
        return self.generator.tokenizer

    async def score(self, views: Sequence[View]) -> TokenScores:
        await self._enter("score")
        return TokenScores(_shifted(views, self.drift), tuple((1.0,) * len(view.response_ids) for view in views))

    async def reference_scores(self, views: Sequence[View]) -> TokenScores | None:
        if self.reference is None:
            return None
        return TokenScores(_shifted(views, self.drift + self.reference))

    async def update(self, samples: Sequence[Sample]) -> Mapping[str, float]:
        await self._enter("update")
        await self.hold()
        self.updates.append(list(samples))
        return self.metrics

    async def sync_weights(self) -> None:
        await self._enter("sync")
        self.syncs += 1

    async def sleep(self) -> None:
        await self._enter("sleep")

    async def wake_up(self) -> None:
        await self._enter("wake")

    async def save(self, folder: Path) -> None:
        if not self.saves:
            raise OSError("disk full")
        folder.mkdir(parents=True)
        (folder / "weights").write_text(f"{self.name} {len(self.updates)}")

    async def load(self, folder: Path) -> None:
        self.log.append((self.name, f"load {(folder / 'weights').read_text()}"))

    async def load_weights(self, folder: Path) -> None:
        self.log.append((self.name, f"weights {(folder / 'weights').read_text()}"))

    async def begin_round(self, learns: bool, optim: Mapping[str, Any], carry: Collection[str]) -> None:
        await self._enter(f"begin {'learning' if learns else 'playing'} {'+'.join(carry)}".strip())

    async def _enter(self, call: str) -> None:
        self.log.append((self.name, call))
        await asyncio.sleep(0)


def _shifted(views: Sequence[View], by: float) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(value + by for value in view.log_probs) for view in views)


@dataclass
class FakeGrader:
    """Grades by a rule: by default a response is right that holds the boxed gold."""

    rule: Callable[[str, str], Grade] = lambda response, answer: Grade(f"\\boxed{{{answer}}}" in response, answer)
    graded: list[str] = field(default_factory=list)

    async def grade(self, response: str, answer: str) -> Grade:
        self.graded.append(response)
        await asyncio.sleep(0)
        return self.rule(response, answer)


def problems(count: int, answer: str = "5") -> list[Problem]:
    """Distinct problems with the same answer."""
    return [Problem(f"p{i}", f"question {i}?", answer) for i in range(count)]


def controller_of(
    long: FakeGenerator, short: FakeGenerator, limits: Limits = ROOMY, max_model_len: int = 4000
) -> SynergyController:
    """A controller of the two generators, each with its own tokenizer."""
    members = {
        role: Member(generator, generator.tokenizer, max_model_len)
        for role, generator in (("long", long), ("short", short))
    }
    return SynergyController(LONG_SHORT, members, limits)


def play(
    long: Sequence[Reply], short: Sequence[Reply], limits: Limits = ROOMY, tokenizers: Sequence[FakeTokenizer] = ()
) -> Episode:
    """One episode of scripted turns; ``tokenizers`` of long and short, by default one that both share."""
    long_tokenizer, short_tokenizer = tokenizers or [FakeTokenizer()] * 2
    controller = controller_of(FakeGenerator(long_tokenizer, long), FakeGenerator(short_tokenizer, short), limits)
    return asyncio.run(controller.play(problems(1)[0], 0, Sampling()))
