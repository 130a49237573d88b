"""The synergy controller: plays episodes, each at its own pace.

One coroutine per episode. An episode waits for its own turn's completion and for nothing else: it consumes the engine
of the role that speaks, and its next turn starts as soon as the last one is there, with no barrier between turns.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from typing import Protocol as Interface

from longshort.episode import Episode, Ids, Outcome, Problem, Turn
from longshort.generation import (
    Chat,
    Completion,
    Generator,
    SamplingParams,
    StreamingGenerator,
    Tokenizer,
    chat_ids,
    until_stop,
)
from longshort.protocol import Protocol

PROMPT_CACHE = 4096


@dataclass(frozen=True)
class Member:
    """One policy at the table: how it generates and reads, the context it can hold (tokens), how it is sampled."""

    generator: Generator
    tokenizer: Tokenizer
    max_model_len: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1


@dataclass(frozen=True)
class Limits:
    """Caps of an episode, in sampled tokens and turns.

    ``close_cut_turns``: a thinking turn without closing tag, cut or ended early, is closed by the controller and play
    goes on; False ends the episode, as ``token_limit`` where the turn was cut, else as ``malformed``.

    ``reserve``: tokens of the episode, and of every model's context, that are kept for a turn that may answer. A turn
    that may not is cut before it takes them, and where another exchange would not fit, the answering role is not let
    hand back. 0 keeps none, as in training.
    """

    max_turns: int
    max_turn_tokens: Mapping[str, int]
    max_episode_tokens: int
    close_cut_turns: bool = True
    reserve: int = 0


@dataclass(frozen=True)
class Sampling:
    """How turns are sampled: None leaves it to each member; ``run`` and ``step`` go into every turn's seed."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    run: int = 0
    step: int = 0


class Listener(Interface):
    """Hears an episode while it is played."""

    def turn_begins(self, role: str, may_answer: bool, must_answer: bool) -> None:
        """Whether the turn may end the episode with an answer, and whether it may do nothing else."""

    def hears(self, text: str, tokens: int) -> None:
        """Sampled text of the turn, tags included, and how many tokens it took."""

    def turn_ends(self, turn: Turn, over: bool, budget: int) -> None:
        """``over``: the episode ends with it; ``budget``: tokens that it could have had."""


def turn_seed(run: int, step: int, problem: str, sample: int, turn: int) -> int:
    """Seed of one turn: equal for equal arguments on any machine, else independent; 0 to 2**31 - 1."""
    name = f"{run}/{step}/{problem}/{sample}/{turn}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=4).digest(), "big") >> 1


def render_prompt(protocol: Protocol, role: str, tokenizer: Tokenizer, question: str) -> Ids:
    """Ids that ``role`` starts from: its system prompt and the question, by its chat template."""
    system, user = protocol.system_prompts[role], question + protocol.instructions.get(role, "")
    return chat_ids(tokenizer, Chat(({"role": "system", "content": system}, {"role": "user", "content": user})))


class SynergyController:
    """Alternates the turns of a team by its protocol.

    Args:
        protocol: who speaks, and how.
        members: per role of the protocol, its policy.
        limits: caps; what they cut is recorded on the episode.
        expected_tokens: length that a problem's conversation will have; the longest rest is served first.
    """

    def __init__(
        self,
        protocol: Protocol,
        members: Mapping[str, Member],
        limits: Limits,
        expected_tokens: Callable[[Problem], float] = lambda problem: 0.0,
    ) -> None:
        self.protocol = protocol
        self.members = members
        self.limits = limits
        self.expected_tokens = expected_tokens
        # The samples of a group share their prompts.
        self.prompt = lru_cache(maxsize=PROMPT_CACHE)(self._prompt)
        self._readers = {
            role: tuple(other for other in protocol.roles if not _share_ids(members[role], members[other]))
            for role in protocol.roles
        }

    def _prompt(self, role: str, question: str) -> Ids:
        return render_prompt(self.protocol, role, self.members[role].tokenizer, question)

    def play_all(
        self, problems: Sequence[Problem], samples: int, sampling: Sampling
    ) -> AsyncIterator[tuple[int, Episode]]:
        """Play ``samples`` episodes of every problem; yields ``(index, episode)`` as they finish.

        ``index`` counts problem by problem: sample s of problem p is p * samples + s.
        """
        return _as_finished([self.play(p, s, sampling) for p in problems for s in range(samples)])

    def within(self, limits: Limits) -> SynergyController:
        """The same team under other caps."""
        other = copy.copy(self)
        other.limits = limits
        return other

    async def play(
        self,
        problem: Problem,
        sample: int,
        sampling: Sampling,
        prompts: Mapping[str, Ids] | None = None,
        listener: Listener | None = None,
    ) -> Episode:
        """Play one episode to its end. Engine failures propagate.

        Args:
            prompts: per role, what it starts from; by default its system prompt and the question.
            listener: hears the turns as they are sampled; the generators then have to be able to stream.
        """
        prompts = prompts or {role: self.prompt(role, problem.question) for role in self.protocol.roles}
        episode = Episode(problem, prompts, (), "turn_limit", sample)
        role: str | None = self.protocol.first
        while role is not None:
            if len(episode.turns) == self.limits.max_turns:
                return episode
            context = episode.context(role)
            budget = self._budget(episode, role, len(context))
            if budget < 1:
                return replace(episode, outcome="token_limit")
            must_answer = self._must_answer(episode, role)
            if listener is not None:
                listener.turn_begins(role, self.protocol.may_answer(role), must_answer)
            params = self._params(episode, role, budget, sampling, must_answer)
            completion = await self._generate(episode, role, context, params, sampling.step, listener)
            turn, closing = self._read_turn(role, completion, len(context))
            episode = replace(episode, turns=(*episode.turns, turn))
            outcome = self._outcome(turn, closing)
            if listener is not None:
                listener.turn_ends(turn, outcome is not None, budget)
            if outcome is not None:
                return replace(episode, outcome=outcome)
            assert closing is not None
            role = self.protocol.closings[role][closing]
        raise AssertionError("an answered episode has an outcome")

    def _budget(self, episode: Episode, role: str, context: int) -> int:
        """Tokens that the next turn may take: its own cap, what is left of the episode, and of the model's context."""
        budget = min(
            self.limits.max_turn_tokens[role],
            self.limits.max_episode_tokens - episode.tokens,
            self.members[role].max_model_len - context,
        )
        if self.limits.reserve and not self.protocol.may_answer(role):
            left = self._left(episode)
            # With less than the reserve from the start, the turn that may not answer is as short as a turn can be.
            return min(budget, max(left - self.limits.reserve, min(1, left - 1)))
        return budget

    def _left(self, episode: Episode) -> int:
        """Tokens until the episode's cap, or until a context is full."""
        contexts = (self.members[role].max_model_len - len(episode.context(role)) for role in self.protocol.roles)
        return min(self.limits.max_episode_tokens - episode.tokens, *contexts)

    def _must_answer(self, episode: Episode, role: str) -> bool:
        """Whether no exchange would fit after this turn of a role that may answer, if it took all it can."""
        limits = self.limits
        if not limits.reserve or not self.protocol.may_answer(role):
            return False
        another = limits.max_turn_tokens[role] + 1 + limits.reserve
        return len(episode.turns) + 2 >= limits.max_turns or self._left(episode) < another

    def _params(
        self, episode: Episode, role: str, budget: int, sampling: Sampling, must_answer: bool
    ) -> SamplingParams:
        member = self.members[role]
        return SamplingParams(
            max_tokens=budget,
            temperature=member.temperature if sampling.temperature is None else sampling.temperature,
            top_p=member.top_p if sampling.top_p is None else sampling.top_p,
            top_k=member.top_k if sampling.top_k is None else sampling.top_k,
            seed=turn_seed(sampling.run, sampling.step, episode.problem.id, episode.sample, len(episode.turns)),
            stop=self.protocol.stop(role),
            priority=-max(int(self.expected_tokens(episode.problem)) - episode.tokens, 0),
            forbid=self._forbidden(role, must_answer),
        )

    def _forbidden(self, role: str, must_answer: bool) -> tuple[str, ...]:
        """What keeps a turn from the answer that a reserve is kept for: handing back, and ending without a tag."""
        if not self.limits.reserve or not self.protocol.may_answer(role) or self.protocol.ends_itself(role):
            return ()
        tokenizer = self.members[role].tokenizer
        end = tokenizer.eos_token_id
        ends = () if end is None else (tokenizer.decode([end], skip_special_tokens=False),)
        return (*(self.protocol.handing_back(role) if must_answer else ()), *ends)

    async def _generate(
        self, episode: Episode, role: str, context: Ids, params: SamplingParams, step: int, listener: Listener | None
    ) -> Completion:
        generator = self.members[role].generator
        session = f"{step}/{episode.problem.id}/{episode.sample}"
        if listener is None:
            return await generator.generate(context, params, session)
        assert isinstance(generator, StreamingGenerator), f"the generator of {role!r} cannot be listened to"
        return await generator.stream(context, params, session, listener.hears)

    def _read_turn(self, role: str, completion: Completion, prompt_tokens: int) -> tuple[Turn, str | None]:
        """The turn as all roles will read it, and the tag it closed with (the controller's, where that closed it)."""
        tokenizer = self.members[role].tokenizer
        ids = completion.token_ids
        visible = ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids
        # Readers go on right after the stop string.
        text = until_stop(tokenizer.decode(list(visible), skip_special_tokens=False), self.protocol.stop(role))
        well_formed = self.protocol.well_formed(role, text)
        closing = self.protocol.closing(role, text)
        closing_ids: Ids = ()
        if closing is None and self.limits.close_cut_turns:
            closing = self.protocol.default_closing(role)
            if closing is not None:
                closing_ids = tuple(tokenizer.encode(closing, add_special_tokens=False))
                text += closing
        read_as = {
            reader: tuple(self.members[reader].tokenizer.encode(text, add_special_tokens=False))
            for reader in self._readers[role]
        }
        if visible != ids:
            # The end-of-sequence token is the author's own; readers that share its ids go on without it.
            shared = (other for other in self.protocol.roles if other != role and other not in read_as)
            read_as |= dict.fromkeys(shared, visible + closing_ids)
        turn = Turn(
            role=role,
            token_ids=ids,
            text=text,
            log_probs=completion.log_probs,
            finish_reason=completion.finish_reason,
            well_formed=well_formed,
            closing_ids=closing_ids,
            read_as=read_as,
            cached_tokens=completion.cached_tokens,
            prompt_tokens=prompt_tokens,
        )
        return turn, closing

    def _outcome(self, turn: Turn, closing: str | None) -> Outcome | None:
        """How the episode ends with this turn, or None where play goes on."""
        if closing is None:
            if turn.finish_reason == "length":
                return "token_limit"
            return "answered" if self.protocol.ends_itself(turn.role) else "malformed"
        if self.protocol.closings[turn.role][closing] is not None:
            return None
        return "answered" if turn.well_formed else "malformed"


def _share_ids(author: Member, reader: Member) -> bool:
    """Whether the reader can take the author's ids as they are."""
    if author.tokenizer is reader.tokenizer:
        return True
    return author.tokenizer.get_vocab() == reader.tokenizer.get_vocab()


async def _as_finished(plays: Sequence[Coroutine[Any, Any, Episode]]) -> AsyncIterator[tuple[int, Episode]]:
    tasks = {asyncio.ensure_future(play): index for index, play in enumerate(plays)}
    # asyncio.wait would visit every task that still plays each time one finishes.
    finished: asyncio.Queue[asyncio.Task[Episode]] = asyncio.Queue()
    for task in tasks:
        task.add_done_callback(finished.put_nowait)
    try:
        while tasks:
            task = await finished.get()
            yield tasks.pop(task), task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
