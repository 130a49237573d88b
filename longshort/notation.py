"""How people write answers: numbers, choices, numerals and words, tidied so that they can be compared."""

from __future__ import annotations

import re

from longshort.extraction import BOX

_MINUS, _APOSTROPHE = "\u2212", "\u2019"
_REPLACED = {_MINUS: "-", "π": r"\pi ", "∞": r"\infty ", "°": r"^\circ ", r"\$": "", "{,}": ",", r"\displaystyle": ""}
_OUTER = re.compile(r"\$\$?([^$]*)\$\$?|\\\((.*)\\\)|\\\[(.*)\\\]|\*\*([^*]*)\*\*", re.DOTALL)
FONT = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|mathbf|mathrm|mathit|mathsf|mbox|operatorname)\s*\{([^{}]*)\}"
)
_UNIT = re.compile(
    r"\s*\^\s*\{?\s*\\circ\s*\}?$|\s*\\degree$|(?<=\d)_\{?10\}?$"
    r"|(?<=[\d}])\s*\\(?:text|textrm|mbox|mathrm)\s*\{[^{}]*\}\s*(?:\^\s*\{?\d\}?)?$"
)
CHOICE = re.compile(r"\(?\s*(?P<letter>[A-Za-z])\s*[).:]?")
CHOICE_AND_TEXT = re.compile(
    # The text may not name a second choice.
    r"(?=\(\s*[A-Z]\s*\)|[A-Z]\s*[).:])\(?\s*(?P<letter>[A-Z])\s*[).:]"
    r"(?!.*\b[A-Z]\s*\))(?!.*(?:\bor\b|\band\b|[,/&])\s*\(?[A-Z]\b).*",
    re.DOTALL,
)
_NUMERAL = re.compile(r"\(?(?P<digits>[0-9A-Za-z]*\d[0-9A-Za-z]*)\)?\s*_\s*\{?(?P<base>\d{1,2})\}?")
_NUMBER = re.compile(r"[-+]?(?=\.?\d)(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d*)(?:\.\d*)?")
ONLY_DIGITS = re.compile(r"[\d\s]+")
SENTENCE = re.compile(rf"(?=.*[^\W\d_])[^\W_]+(?:(?:[\s.,:'{_APOSTROPHE}!?]+|-(?=[^\W\d_]))[^\W_]+)*[.!?]*")
WORD = re.compile(r".*[^\W\d_]{3}.*|no", re.IGNORECASE)


def tidy(text: str) -> tuple[str, bool]:
    """``text`` without boxes, delimiters, fine spacing, currency and percent signs and a final stop.

    Also whether there was a percent sign.
    """
    text = BOX.sub("", text).strip().rstrip(".;,").strip()
    while outer := _OUTER.fullmatch(text):
        text = next(group for group in outer.groups() if group is not None).strip().rstrip(".;,").strip()
    for old, new in _REPLACED.items():
        text = text.replace(old, new)
    text = re.sub(r"(?<!\\)\\!\s*", "", text.replace("$", ""))
    # The second backslash of a line break is not the start of a space.
    text = re.sub(r"(?<!\\)\\[,;: ]|~|\s+", " ", text)
    # math-verify reads percent signs only with some of the ANTLR versions that it supports.
    plain = re.sub(r"\s*(?:\\?%|\\(?:text|mbox)\s*\{\s*percent\s*\}|\bpercent\b)", "", text)
    return plain.strip(), plain != text


def plain_text(text: str) -> str:
    """``text`` with the content of ``\\text{…}`` and the like in its place."""
    while (plain := FONT.sub(r"\1", text)) != text:
        text = plain
    return text.strip()


def without_unit(text: str) -> str:
    """``text`` without a unit at its end, plain."""
    while (bare := _UNIT.sub("", text).strip()) != text:
        text = bare
    return plain_text(text)


def number_of(bare: str) -> str | None:
    """An integer or decimal without separators, or None."""
    return bare.replace(",", "").replace(" ", "") if _NUMBER.fullmatch(bare) else None


def numeral_of(bare: str) -> tuple[str, int] | None:
    """Digits and base, or None. ``x_1`` is no numeral, nor is ``19_8``."""
    match = _NUMERAL.fullmatch(bare)
    if not match:
        return None
    digits, base = match["digits"].lower(), int(match["base"])
    values = (int(digit, 36) for digit in digits)
    return (digits, base) if base >= 2 and all(value < base for value in values) else None


def words_of(plain: str) -> str:
    """Its words as they are compared: without case, punctuation and a leading article."""
    text = re.sub(rf"['{_APOSTROPHE}]|\.(?!\d)", "", plain.casefold())
    return re.sub(r"^(?:an?|the) (?=.)", "", " ".join(re.findall(r"[^\W_]+", text)))
