"""The body of ``/v1/chat/completions``, read and checked: names and meaning are OpenAI's."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from longshort.serving.errors import RequestError

EFFORTS = ("low", "medium", "high")
MAX_STOPS = 4
MAX_STOP_LENGTH = 256
SPEAKERS = ("system", "developer", "user", "assistant")
# What would change the answer, cannot be done, and must not be passed over; the values that ask for nothing are fine.
UNSUPPORTED: Mapping[str, tuple[object, ...]] = {
    "tools": (None, []),
    "functions": (None, []),
    "tool_choice": (None, "none", "auto"),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "logit_bias": (None, {}),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "response_format": (None, {"type": "text"}),
    "audio": (None,),
    "modalities": (None, ["text"]),
}


@dataclass(frozen=True, slots=True)
class Message:
    """``role`` is system, user or assistant; OpenAI's newer ``developer`` is a system message."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request that can be played. None leaves a choice to the pair.

    Attributes:
        model: the pair's name.
        messages: a conversation that ends with the user.
        n: choices.
        max_tokens: most tokens of a choice, thinking and answer.
        effort: one of ``EFFORTS``.
        stop: texts that end the answer, and are not part of it.
        include_usage: whether a stream ends with a chunk that has the usage.
        include_turns: whether a stream has every turn's text as it is sampled too.
        return_token_ids: whether the reply has the sampled ids of every turn.
    """

    model: str
    messages: tuple[Message, ...]
    stream: bool = False
    n: int = 1
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    effort: str | None = None
    include_usage: bool = False
    include_turns: bool = False
    return_token_ids: bool = False


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Most messages of a conversation, and most choices of a request."""

    messages: int = 256
    choices: int = 16


def parse(body: bytes, limits: RequestLimits) -> ChatRequest:
    """Read a body.

    Raises:
        RequestError: it is no JSON, or a value is of the wrong type or out of range.
    """
    return read(_json(body), limits)


def read(data: Mapping[str, Any], limits: RequestLimits) -> ChatRequest:
    """Check a body that is JSON already; raises as :func:`parse`."""
    for name, harmless in UNSUPPORTED.items():
        if data.get(name) not in harmless:
            raise RequestError(f"{name} is not something that a pair can do; leave it out", name)
    options = _mapping(data, "stream_options")
    return ChatRequest(
        model=_text(data, "model"),
        messages=_messages(data, limits.messages),
        stream=_flag(data, "stream"),
        n=_integer(data, "n", 1, limits.choices) or 1,
        temperature=_number(data, "temperature", 0.0, 2.0),
        top_p=_top_p(data),
        top_k=_integer(data, "top_k", -1, 2**31 - 1),
        seed=_integer(data, "seed", -(2**63), 2**63 - 1),
        stop=_stop(data),
        max_tokens=_max_tokens(data),
        effort=_effort(data),
        include_usage=_flag(options, "include_usage"),
        include_turns=_flag(options, "include_turns"),
        return_token_ids=_flag(data, "return_token_ids"),
    )


def _json(body: bytes) -> Mapping[str, Any]:
    try:
        data = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise RequestError(f"the body is not UTF-8 (byte {error.start}); encode it so") from error
    except RecursionError as error:
        raise RequestError("the body is JSON that is nested too deeply; a request needs a few levels") from error
    except ValueError as error:
        raise RequestError(f"the body is not JSON: {_short(str(error))}") from error
    if not isinstance(data, dict):
        raise RequestError(f"the body is a JSON {_kind(data)}; give an object")
    return data


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _messages(data: Mapping[str, Any], most: int) -> tuple[Message, ...]:
    given = data.get("messages")
    if not isinstance(given, list) or not given:
        raise RequestError(f"messages is {_kind(given)}; give a list of at least one message", "messages")
    if len(given) > most:
        raise RequestError(f"messages has {len(given)} entries; this server takes up to {most}", "messages")
    messages = tuple(_message(each, f"messages[{number}]") for number, each in enumerate(given))
    spoken = [message for message in messages if message.role != "system"]
    if not spoken or spoken[-1].role != "user":
        raise RequestError("messages has to end with one of the user; there is nothing to answer", "messages")
    if spoken[0].role != "user":
        raise RequestError("messages has to begin with the user, behind system messages", "messages")
    return messages


def _message(given: object, key: str) -> Message:
    if not isinstance(given, dict):
        raise RequestError(f"{key} is {_kind(given)}; give an object with role and content", key)
    role = given.get("role")
    if not isinstance(role, str) or role not in SPEAKERS:
        raise RequestError(f"{key}.role is {_shown(role)}; it can be {', '.join(SPEAKERS)}", f"{key}.role")
    if given.get("tool_calls") or given.get("function_call"):
        raise RequestError(f"{key} calls a tool, which a pair cannot do; leave it out", key)
    content = _content(given.get("content"), f"{key}.content")
    try:
        content.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError(f"{key}.content has half of a surrogate pair; give whole characters", key) from error
    return Message("system" if role == "developer" else role, content)


def _content(given: object, key: str) -> str:
    if isinstance(given, str):
        return given
    if not isinstance(given, list):
        raise RequestError(f"{key} is {_kind(given)}; give a text", key)
    parts = []
    for number, part in enumerate(given):
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get("text") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(text, str):
            raise RequestError(f"{key}[{number}] is not a text, and a pair reads nothing else", f"{key}[{number}]")
        parts.append(text)
    return "\n".join(parts)


def _max_tokens(data: Mapping[str, Any]) -> int | None:
    """OpenAI's newer name goes before the older one."""
    newer, older = (_integer(data, name, 1, 2**31 - 1) for name in ("max_completion_tokens", "max_tokens"))
    return older if newer is None else newer


def _effort(data: Mapping[str, Any]) -> str | None:
    effort = data.get("reasoning_effort")
    if effort is not None and (not isinstance(effort, str) or effort not in EFFORTS):
        raise RequestError(f"reasoning_effort is {_shown(effort)}; it can be {', '.join(EFFORTS)}", "reasoning_effort")
    return effort


def _stop(data: Mapping[str, Any]) -> tuple[str, ...]:
    given = data.get("stop")
    stops = [] if given is None else [given] if isinstance(given, str) else given
    if not isinstance(stops, list) or len(stops) > MAX_STOPS:
        raise RequestError(f"stop is {_kind(given)}; give a text or up to {MAX_STOPS} of them", "stop")
    for stop in stops:
        if not isinstance(stop, str) or not 0 < len(stop) <= MAX_STOP_LENGTH:
            raise RequestError(f"stop has {_shown(stop)}; each is a text of 1 to {MAX_STOP_LENGTH} characters", "stop")
    return tuple(stops)


def _top_p(data: Mapping[str, Any]) -> float | None:
    top_p = _number(data, "top_p", 0.0, 1.0)
    if top_p == 0.0:
        raise RequestError("top_p is 0, which leaves nothing to sample; give more than 0, up to 1", "top_p")
    return top_p


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str):
        raise RequestError(f"{key} is {_kind(value)}; give a text", key)
    return value


def _flag(data: Mapping[str, Any], key: str) -> bool:
    value = data.get(key)
    if value is not None and not isinstance(value, bool):
        raise RequestError(f"{key} is {_kind(value)}; give true or false", key)
    return bool(value)


def _mapping(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key)
    if value is not None and not isinstance(value, dict):
        raise RequestError(f"{key} is {_kind(value)}; give an object", key)
    return value or {}


def _integer(data: Mapping[str, Any], key: str, least: int, most: int) -> int | None:
    value = data.get(key)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise RequestError(f"{key} is {_shown(value)}; give a whole number from {least} to {most}", key)
    return value


def _number(data: Mapping[str, Any], key: str, least: float, most: float) -> float | None:
    value = data.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise RequestError(f"{key} is {_shown(value)}; give a number from {least:g} to {most:g}", key)
    return float(value)


def _kind(value: object) -> str:
    """In JSON's words."""
    if value is None:
        return "missing or null"
    names = {bool: "a boolean", str: "a text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def _shown(value: object) -> str:
    """A value short enough for an error; a number of thousands of digits cannot even be printed."""
    if isinstance(value, int) and abs(value) >= 10**20:
        return "a number that is too large"
    if isinstance(value, float) and not math.isfinite(value):
        return "a number that is too large"
    if isinstance(value, str | int | float):
        return _short(json.dumps(value))
    return _kind(value)


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
