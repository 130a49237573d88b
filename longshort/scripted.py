"""Generation from a script: deterministic answers for tests, with everything that was asked kept."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from longshort.episode import Ids
from longshort.generation import Chat, Completion, OnText, Prompt, SamplingParams, Tokenizer, text_of, until_stop

Reply = str | Completion | Exception


@dataclass(frozen=True, slots=True)
class Request:
    """One call of a generator; ``turn`` counts the calls of its session, from 0."""

    prompt: Prompt
    params: SamplingParams
    session: str
    turn: int


Script = Callable[[Request], Reply] | Mapping[str | Ids, Reply] | Sequence[Reply]


async def _at_once(request: Request) -> None:
    await asyncio.sleep(0)


class ScriptedGenerator:
    """Answers from a script. A text ends where an engine's would: after its first stop string, or at the cap.

    Args:
        script: a function of the request; or replies by prompt, where a chat is looked up by the text of its last
            message and ids by themselves; or replies by turn of the session, the last one for all further turns. An
            exception among them is raised, a completion returned as it is.
        tokenizer: makes ids of the texts, each with log-probability 0.0, as the answer is certain, and an end of
            sequence after a whole text. Without one there are no ids, and no cap.
        gate: awaited before each reply, such as ``lambda request: asyncio.sleep(0.1)`` for an engine that takes time.
        faults: what the k-th call raises instead, counted from 0.

    Attributes:
        requests: all calls, in the order in which they came.
    """

    def __init__(
        self,
        script: Script,
        tokenizer: Tokenizer | None = None,
        gate: Callable[[Request], Awaitable[object]] = _at_once,
        faults: Mapping[int, Exception] | None = None,
    ) -> None:
        self.script: Script = [script] if isinstance(script, str) else script
        self.requests: list[Request] = []
        self._tokenizer = tokenizer
        self.gate = gate
        self._faults = faults or {}
        self._turns: Counter[str] = Counter()

    async def generate(self, prompt: Prompt, params: SamplingParams, session: str) -> Completion:
        """See :class:`longshort.generation.Generator`.

        Raises:
            ValueError: the script has no reply to the prompt.
        """
        number, request = len(self.requests), Request(prompt, params, session, self._turns[session])
        self.requests.append(request)
        self._turns[session] += 1
        await self.gate(request)
        reply = self._faults.get(number) or self._reply(request)
        if isinstance(reply, Exception):
            raise reply
        return self.completion(reply, params) if isinstance(reply, str) else reply

    async def stream(self, prompt: Prompt, params: SamplingParams, session: str, on_text: OnText) -> Completion:
        """See :class:`longshort.generation.StreamingGenerator`: token by token, other requests between them."""
        completion = await self.generate(prompt, params, session)
        assert self._tokenizer is not None, "tokens are streamed one by one, so there has to be a tokenizer"
        told = ""
        for number in range(1, len(completion.token_ids) + 1):
            whole = text_of(replace(completion, text=None, token_ids=completion.token_ids[:number]), self._tokenizer)
            whole = until_stop(whole, params.stop)
            on_text(whole[len(told) :], 1)
            told = whole
            await asyncio.sleep(0)
        return completion

    def _reply(self, request: Request) -> Reply:
        if callable(self.script):
            return self.script(request)
        if isinstance(self.script, Mapping):
            prompt = request.prompt
            key = prompt.messages[-1]["content"] if isinstance(prompt, Chat) else prompt
            if key not in self.script:
                raise ValueError(f"the script has no reply to {key!r}; add one, or script it with a function")
            return self.script[key]
        return self.script[min(request.turn, len(self.script) - 1)]

    def completion(self, text: str, params: SamplingParams) -> Completion:
        """``text`` as an engine would have sampled it under ``params``."""
        text = until_stop(text, params.stop)
        if self._tokenizer is None:
            return Completion((), (), "stop", text=text)
        ids = self._tokenizer.encode(text, add_special_tokens=False)
        if not text.endswith(params.stop) and self._tokenizer.eos_token_id is not None:
            ids.append(self._tokenizer.eos_token_id)
        if len(ids) <= params.max_tokens:
            return Completion(tuple(ids), (0.0,) * len(ids), "stop", text=text)
        ids = ids[: params.max_tokens]
        text = self._tokenizer.decode(ids, skip_special_tokens=False)
        return Completion(tuple(ids), (0.0,) * len(ids), "length", text=text)
