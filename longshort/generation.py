"""The interface that every engine, endpoint and fake implements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from longshort.episode import FinishReason, Ids


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How one turn is sampled; names and meaning are vLLM's.

    ``max_tokens`` is at least 1. ``seed`` is per request, so that equal requests of a group differ. Waiting requests of
    lower ``priority`` start first; engines may ignore it.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    seed: int | None = None
    stop: tuple[str, ...] = ()
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """Sampled ids with their log-probabilities (nats, same length) and why sampling ended."""

    token_ids: Ids
    log_probs: tuple[float, ...]
    finish_reason: FinishReason
    cached_tokens: int | None = None


class Generator(Protocol):
    """One policy's token-in, token-out generation."""

    async def generate(self, prompt_ids: Ids, params: SamplingParams, session: str) -> Completion:
        """Continue ``prompt_ids``. Requests of one ``session`` go to the same replica, for its prefix cache."""
        ...


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that an episode needs."""

    eos_token_id: int | None

    def encode(self, text: str, add_special_tokens: bool = ...) -> list[int]: ...

    def decode(self, ids: list[int], skip_special_tokens: bool = ...) -> str: ...

    def get_vocab(self) -> dict[str, int]: ...

    def apply_chat_template(self, conversation: list[dict[str, str]], **kwargs: object) -> list[int]: ...
