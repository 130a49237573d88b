"""The interface that every engine, endpoint and scripted stand-in implements.

One interface, three backends: vLLM replicas on Ray (``workers/rollout.py``), any OpenAI-compatible endpoint
(``endpoint.py``) and scripted answers for tests (``scripted.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from longshort.episode import FinishReason, Ids


@dataclass(frozen=True, slots=True)
class Chat:
    """Messages to answer, for a backend that knows the model's chat template.

    Attributes:
        messages: ``{"role": …, "content": …}`` each, e.g. a system prompt and a question.
        opened: text that the assistant's turn already starts with; the completion continues it and does not repeat it.
    """

    messages: tuple[Mapping[str, str], ...]
    opened: str = ""


Prompt = Ids | Chat


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How one turn is sampled; names and meaning are vLLM's.

    ``max_tokens`` is at least 1. ``seed`` is per request, so that equal requests of a group differ. A ``stop`` string
    that ended the turn is part of it. Waiting requests of lower ``priority`` start first; engines may ignore it.
    ``json_schema`` guides decoding where the backend can; elsewhere the text may break it. A text in ``forbid`` is not
    sampled, as the tokens that its encoding has; engines that cannot do so ignore it.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    seed: int | None = None
    stop: tuple[str, ...] = ()
    priority: int = 0
    json_schema: Mapping[str, Any] | None = None
    forbid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """What was sampled and why sampling ended.

    Attributes:
        token_ids: sampled ids, an end-of-sequence token included; empty where an endpoint gave only text.
        log_probs: log-probability of each id, in nats; same length, or empty where an endpoint gave none.
        finish_reason: see :class:`longshort.episode.Turn`.
        cached_tokens: prompt tokens that a prefix cache held, if the backend says so.
        text: the sampled text without end-of-sequence token; always there for a chat, else see :func:`text_of`.
        prompt_tokens: length of the prompt, if the backend says so.
        sampled_tokens: length as an endpoint counts it, with thoughts that it may have hidden; see :attr:`tokens`.
    """

    token_ids: Ids
    log_probs: tuple[float, ...]
    finish_reason: FinishReason
    cached_tokens: int | None = None
    text: str | None = None
    prompt_tokens: int | None = None
    sampled_tokens: int | None = None

    @property
    def tokens(self) -> int | None:
        """Sampled tokens; None where an endpoint gave neither ids nor a count."""
        # At least one is sampled, so no ids means that they are not known.
        return self.sampled_tokens if self.sampled_tokens is not None else len(self.token_ids) or None


class GenerationFailedError(RuntimeError):
    """One request failed for good; others may not, so a caller can mark its item and go on.

    Attributes:
        url: what was asked, without credentials.
        status: the last HTTP status, or None where no answer came.
        attempts: requests that were sent.
        reason: what went wrong last.
    """

    def __init__(self, url: str, status: int | None, attempts: int, reason: str) -> None:
        super().__init__(url, status, attempts, reason)
        self.url, self.status, self.attempts, self.reason = url, status, attempts, reason

    def __str__(self) -> str:
        status = "no answer" if self.status is None else f"status {self.status}"
        return f"{self.url} gave no completion ({status}, attempts {self.attempts}): {self.reason}"


class Generator(Protocol):
    """One policy's generation."""

    async def generate(self, prompt: Prompt, params: SamplingParams, session: str) -> Completion:
        """Continue ``prompt``. Requests of one ``session`` go to the same replica, for its prefix cache.

        Raises:
            GenerationFailedError: this request failed, after retries where the backend has them.
        """
        ...


# Hears text as it is sampled, and how many tokens it took.
OnText = Callable[[str, int], None]


@runtime_checkable
class StreamingGenerator(Generator, Protocol):
    """A generator that can be listened to."""

    async def stream(self, prompt: Prompt, params: SamplingParams, session: str, on_text: OnText) -> Completion:
        """As :meth:`generate`; what ``on_text`` hears adds up to the text of the completion, its stop string included.

        Cancelling it frees what the request holds.
        """
        ...


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that an episode needs."""

    eos_token_id: int | None

    def encode(self, text: str, add_special_tokens: bool = ...) -> list[int]: ...

    def decode(self, ids: list[int], skip_special_tokens: bool = ...) -> str: ...

    def get_vocab(self) -> dict[str, int]: ...

    def apply_chat_template(self, conversation: list[dict[str, str]], **kwargs: object) -> list[int]: ...


def chat_ids(tokenizer: Tokenizer, chat: Chat) -> Ids:
    """Ids of ``chat`` up to where the assistant goes on.

    ``opened`` is encoded by itself, as if the model had sampled it after the generation prompt.
    """
    messages = [dict(message) for message in chat.messages]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    opened = tokenizer.encode(chat.opened, add_special_tokens=False) if chat.opened else []
    return (*ids, *opened)


def until_stop(text: str, stop: Sequence[str]) -> str:
    """``text`` up to the end of the first stop string in it: that may end inside the last token."""
    ends = [text.find(end) + len(end) for end in stop if end in text]
    return text[: min(ends)] if ends else text


def text_of(completion: Completion, tokenizer: Tokenizer | None) -> str:
    """The sampled text without end-of-sequence token; ``tokenizer`` is needed where only ids came."""
    if completion.text is not None:
        return completion.text
    assert tokenizer is not None, "a backend that gives no text has a tokenizer"
    ids = completion.token_ids
    visible = ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids
    return tokenizer.decode(list(visible), skip_special_tokens=False)
