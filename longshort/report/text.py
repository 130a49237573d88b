"""Text of others made harmless to look at: nothing in it moves a cursor, turns the reading direction, or hides."""

from __future__ import annotations

import unicodedata

# Reading direction (Unicode TR 9), and what is invisible within a word.
_DIRECTION = "\u061c\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"


def plain(text: str) -> str:
    r"""``text`` with control characters, direction marks and halves of surrogate pairs spelt, as ``\x1b``, ``\u202e``.

    Tab and line feed stay.
    """
    return "".join(_spelt(char) for char in text)


def one_line(text: str, most: int = 200) -> str:
    """``text`` for a cell or a label: plain, white space as single blanks, at most ``most`` characters."""
    line = plain(" ".join(text[: 4 * most].split()))
    return line if len(line) <= most and len(text) <= 4 * most else line[: most - 1] + "…"


def _spelt(char: str) -> str:
    if char in "\n\t":
        return char
    kind = unicodedata.category(char)
    if kind == "Cc":
        return f"\\x{ord(char):02x}"
    return f"\\u{ord(char):04x}" if kind == "Cs" or char in _DIRECTION else char
