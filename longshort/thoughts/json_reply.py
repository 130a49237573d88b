r"""JSON out of a model's answer: in a code fence or bare, with thoughts before it, with LaTeX that nobody escaped.

In JSON, ``"\frac"`` is a form feed and ``rac``, and ``"\("`` is an error. A backslash that LaTeX must have meant is
doubled before the answer is read: one before a character that JSON cannot escape; ``\b`` and ``\f`` before a letter,
since nobody writes backspaces and form feeds; and ``\n``, ``\r`` and ``\t`` where a command of ``_COMMANDS`` begins, if
no backslash before a letter is doubled anywhere in the answer. ``\ne`` stays a line end and an "e".
"""

from __future__ import annotations

import json
import re
from typing import Any

from longshort.protocol import END_THINK

_FENCED = re.compile(r"```[a-zA-Z]*\s*(?=[{\[])")
_BARE = re.compile(r"[{\[](?=\s*[\"{\[\]}])")
_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{4}|(.)|$)", re.DOTALL)
_DOUBLED = re.compile(r"(?<!\\)(?:\\\\)+[a-zA-Z]")
_COMMANDS = re.compile(
    r"(?:n(?:abla|earrow|eg|eq|ewline|exists|mid|ot|otag|otin)"
    r"|r(?:angle|brace|brack|ceil|floor|ho|ight|ightarrow|m)"
    r"|t(?:ag|an|anh|au|ext|extbf|extit|extrm|frac|heta|ilde|imes|o|op|riangle|herefore))(?![a-zA-Z])"
)


def read_json(raw: str) -> Any:
    """The first object or list in ``raw``.

    Raises:
        ValueError: there is none, it breaks off or is malformed, or a key comes twice; in a sentence for the model.
    """
    text = raw[raw.rfind(END_THINK) + len(END_THINK) :] if END_THINK in raw else raw
    match = _FENCED.search(text)
    start = match.end() if match else -1
    if start < 0:
        match = _BARE.search(text)
        start = match.start() if match else -1
    if start < 0:
        raise ValueError("the answer holds no JSON object: answer with the object and nothing else")
    text = _escape_latex(text[start:])
    try:
        return json.JSONDecoder(object_pairs_hook=_unique, strict=False).raw_decode(text)[0]
    except json.JSONDecodeError as error:
        near = text[max(0, error.pos - 20) : error.pos + 20]
        raise ValueError(
            f"the JSON is malformed at its line {error.lineno}, column {error.colno}, near {near!r} ({error.msg}): "
            "correct it, and give all of it"
        ) from error
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply: give one object of plain entries") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for place, key in enumerate(keys) if key in keys[:place])
        raise ValueError(f'the key "{twice}" comes twice in one object: give each entry its own')
    return found


def _escape_latex(text: str) -> str:
    careful = _DOUBLED.search(text) is not None

    def escaped(match: re.Match[str]) -> str:
        character, after = match[1], text[match.end() : match.end() + 1]
        if match[0] == "\\" or (character is None and len(match[0]) == 6) or character in '"\\/':
            return match[0]
        if character in "bf":
            return "\\" + match[0] if after.isascii() and after.isalpha() else match[0]
        if character in "nrt":
            command = not careful and _COMMANDS.match(text, match.start() + 1)
            return "\\" + match[0] if command else match[0]
        return "\\" + match[0]

    return _ESCAPE.sub(escaped, text)
