"""What an OpenAI-compatible server answers: a completion, or why there is none."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from longshort.episode import FinishReason, Ids


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a request has no answer; ``retry_after`` is the server's wish, in seconds."""

    reason: str
    status: int | None = None
    retry_after: float = 0.0
    transient: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """The fields of a body that are read; ``stop_reason`` is empty where it names no stop string."""

    text: str
    finish_reason: FinishReason
    stop_reason: str
    token_ids: Ids | None
    log_probs: tuple[float, ...]
    prompt_tokens: int | None
    cached_tokens: int | None
    sampled_tokens: int | None


def parse_answer(payload: bytes) -> Answer | None:
    """The first choice of a completion or chat completion, or None where the body is none.

    Endings other than ``stop`` and ``length`` (an abort, a content filter, a call of a tool) leave half a text. A
    message without content is one whose thoughts the server keeps apart.
    """
    try:
        body = json.loads(payload)
        choice, usage = body["choices"][0], body.get("usage") or {}
        text = (choice["message"].get("content") or "") if "message" in choice else choice["text"]
        finish_reason, stop_reason = choice["finish_reason"], choice.get("stop_reason")
        ids = choice.get("token_ids")
        answer = Answer(
            text=text,
            finish_reason=finish_reason,
            stop_reason=stop_reason if isinstance(stop_reason, str) else "",
            token_ids=None if ids is None else tuple(int(number) for number in ids),
            log_probs=() if ids is None else tuple(float(value) for value in _log_probs(choice)),
            prompt_tokens=_number(usage.get("prompt_tokens")),
            cached_tokens=_number((usage.get("prompt_tokens_details") or {}).get("cached_tokens")),
            sampled_tokens=_number(usage.get("completion_tokens")),
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    whole = isinstance(text, str) and finish_reason in ("stop", "length")
    return answer if whole and len(answer.log_probs) in (0, len(answer.token_ids or ())) else None


def _log_probs(choice: Mapping[str, Any]) -> list[float]:
    return (choice.get("logprobs") or {}).get("token_logprobs") or []


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


def error_message(payload: bytes) -> str:
    """What an error's body says: OpenAI's ``error.message``, or all of it."""
    text = payload.decode(errors="replace")
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return text


def seconds_to_wait(header: str) -> float:
    """Seconds that ``Retry-After`` asks for, as a number or a date; 0 where it asks for nothing readable."""
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0
