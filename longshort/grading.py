"""Is the answer in a response the gold answer?

:func:`grade` finds the answer in a response and compares it with the gold. math-verify does the mathematics and is
known to this file only. Numbers, choices, words and numerals in a base are compared here, because math-verify rounds to
six decimals, drops the base of ``2516_8`` and takes words for products of letters.

**Where the answer is.** First what may hold it:

1. Thoughts, ``<think>…</think>``, are left out where anything else is written. A ``<think>`` that never closes was cut:
   nothing after it counts.
2. If ``<answer>`` is left, only the last complete ``<answer>…</answer>`` counts; with none complete there is no answer.
   Without the tag everything counts.

Then, in the last ``MAX_SEARCHED`` characters of that, the content of the last complete ``\\boxed{…}`` or ``\\fbox{…}``
that is not blank. Without braces a number is boxed, as in ``\\boxed 5``. A text with boxes of which none is complete
has no answer. A text without boxes has its answer in the last line with a letter or digit, less a lead such as "The
answer is"; if that line is not equal to a mathematical gold, the last expression that math-verify finds in it may be.

**What is equal.** See :class:`_Gold`. Answers longer than ``MAX_COMPARED`` characters are not compared.

:func:`grade` has no time limit, because sympy can only be stopped with its process: see :mod:`longshort.grading_pool`.
"""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal

from math_verify import LatexExtractionConfig, parse, verify
from sympy import Float, Rational

Answer = str | int | float
GradeError = Literal["gold", "too_long", "timeout", "crash"]

MAX_SEARCHED = 100_000
MAX_COMPARED = 1_000

# math-verify warns once in every process that its own time limits are off.
logging.getLogger("math_verify").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class Grade:
    """What grading found.

    Attributes:
        correct: whether the answer is the gold answer; False wherever ``error`` is set.
        extracted: the answer as written, or None where the response has none.
        error: why the two were not compared: ``"gold"`` (the gold is not gradable), ``"too_long"`` (the answer is),
            ``"timeout"`` (the time limit) or ``"crash"`` (the worker process died, for example of memory); for a
            user's own reward function, a sentence.
        score: what a user's own reward function gave; None stands for 1 where ``correct``, else 0.
    """

    correct: bool
    extracted: str | None
    error: GradeError | str | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Extracted:
    """The answer found in a response.

    Attributes:
        text: as written, without the box; at most ``MAX_SEARCHED`` characters.
        boxed: whether ``text`` as a whole is the answer. If not, it is a line with the answer somewhere.
    """

    text: str
    boxed: bool


def grade(response: str, answer: Answer) -> Grade:
    """Grade one response against its gold answer, in this thread and without a time limit."""
    found = extract_answer(response)
    if found is None:
        return Grade(False, None)
    correct, error = compare(found, gold_text(answer))
    return Grade(correct, found.text, error)


def gold_is_gradable(answer: Answer) -> bool:
    """Whether any response could be graded correct. Callers exclude and count the problems where none could."""
    return _parse_gold(gold_text(answer)) is not None


def gold_text(answer: Answer) -> str:
    """A gold answer as text: ``27.0`` and ``27`` give ``"27"``, ``1e-07`` gives ``"0.0000001"``, ``nan`` nothing."""
    if isinstance(answer, str | int):
        return str(answer)
    if not math.isfinite(answer):
        return ""
    return str(int(answer)) if answer == int(answer) else format(Decimal(repr(float(answer))), "f")


# Finding the answer

_LEAD = re.compile(
    r"^.*\b(?:answer|result|solution|option|choice)\b[^:=]{0,40}?(?:\bis\b|:|=)[\s:*]*(?:(?:option|choice)\b\s*)?",
    re.IGNORECASE,
)
_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![a-zA-Z])\s*")
# Escapes are tokens too: \{ is no brace, but \\{ is a line break and a brace.
_BOX_TOKEN = re.compile(
    rf"(?P<box>{_BOX.pattern}\{{)|{_BOX.pattern}(?P<number>[-+]?(?:\d[\d,]*(?:[./]\d+)?|\.\d+))|\\.|[{{}}]", re.DOTALL
)


def extract_answer(response: str) -> Extracted | None:
    """The answer in ``response`` by the rules at the top of this file, or None. Takes time linear in its length."""
    part = _answer_part(_without_thoughts(response))
    if part is None:
        return None
    part = part[-MAX_SEARCHED:]
    boxed = last_boxed(part)
    if boxed is not None:
        return Extracted(boxed, boxed=True)
    lines = [line for line in part.splitlines() if any(map(str.isalnum, line))]
    if not lines or _BOX.search(part):
        return None
    return Extracted(_LEAD.sub("", lines[-1].strip()[-MAX_COMPARED:]).strip(), boxed=False)


def last_boxed(text: str) -> str | None:
    """Content of the last complete box that is not blank, stripped, or None. Takes time linear in its length.

    The last box is the one that closes last: of nested boxes the outer one. Braces count unless escaped.

    Example: ``r"\\boxed{1}, then \\boxed{\\frac{1}{2}}, then \\boxed{3"`` gives ``r"\\frac{1}{2}"``.
    """
    content: str | None = None
    # Where the content of each open brace starts if the brace is a box's, else None.
    opened: list[int | None] = []
    for token in _BOX_TOKEN.finditer(text):
        if token["box"]:
            opened.append(token.end())
        elif token["number"]:
            content = token["number"]
        elif token[0] == "{":
            opened.append(None)
        elif token[0] == "}" and opened:
            start = opened.pop()
            if start is not None:
                content = text[start : token.start()].strip() or content
    return content


def _without_thoughts(text: str) -> str:
    """``text`` less its thoughts, or ``text`` where complete thoughts are all there is."""
    outside: list[str] = []
    inside = False
    for piece in re.split(r"(</?think>)", text):
        if piece == "<think>":
            inside = True
        elif piece == "</think>":
            if not inside:
                # The prompt ended with the opening tag: all so far was thought.
                outside.clear()
            inside = False
        elif not inside:
            outside.append(piece)
    rest = "".join(outside)
    return rest if inside or rest.strip() else text


def _answer_part(text: str) -> str | None:
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, end) if end >= 0 else -1
    if start >= 0:
        return text[start + len("<answer>") : end]
    return None if "<answer>" in text else text


# Comparing it with the gold


@dataclass(frozen=True, slots=True)
class _Gold:
    """A gold answer, of the first kind that fits.

    - ``number``, an integer or decimal: ``27``, ``27.0``, ``10,080``, ``\\$18.90``, ``90^\\circ``, ``15\\mbox{ cm}^2``.
      Another such number is equal if it differs by float noise at most (1e-12 of the gold, and nothing between
      integers); units count for nothing.
      Any other answer, such as ``\\frac{54}{2}`` or ``x=27``, is compared as in ``math``.
    - ``choice``, one capital: ``A``, ``(B)``, ``\\text{(C)}``. Equal is the same letter in any of these forms and in
      either case, also with the text of the choice behind it: ``(C) 12``.
    - ``numeral`` in a base: ``2516_8``. Equal are the same digits in the same base, or with no base.
    - ``words``: ``\\text{Evelyn}``, ``yes``. Equal up to case, space, punctuation and a leading article.
    - ``math``: anything else that math-verify can read. Equal is what it finds equal; decimals count to six digits.

    ``50\\%`` equals both ``50`` and ``0.5``.

    Attributes:
        kind: one of the above.
        text: the gold, tidied.
        percent: whether it had a percent sign, which ``text`` has not.
        value: what the kind compares: a Fraction, a letter, ``(digits, base)`` or normalised words; None for ``math``.
        latex: what math-verify reads of a ``number`` or ``math``; of a number it need not, where the answer is one too.
    """

    kind: Literal["number", "choice", "numeral", "words", "math"]
    text: str
    percent: bool
    value: Any = None
    latex: str = ""


def compare(found: Extracted, gold: str) -> tuple[bool, GradeError | None]:
    """Whether ``found`` is the answer ``gold``, and :class:`Grade`'s error, if any."""
    target = _parse_gold(gold)
    if target is None:
        return False, "gold"
    if len(found.text) > MAX_COMPARED:
        return False, "too_long"
    return _equal(found, target), None


@lru_cache(maxsize=4096)
def _parse_gold(gold: str) -> _Gold | None:
    text, percent = _tidy(last_boxed(gold) or gold)
    if len(text) > MAX_COMPARED:
        return None
    plain, bare = _plain(text), _bare(text)
    if number := _number(bare):
        return _Gold("number", text, percent, Fraction(number), number)
    if (choice := _CHOICE.fullmatch(plain)) and choice["letter"].isupper():
        return _Gold("choice", text, percent, choice["letter"])
    if numeral := _numeral(bare):
        return _Gold("numeral", text, percent, numeral)
    if _SENTENCE.fullmatch(plain) and (_FONT.fullmatch(text) or _WORD.fullmatch(plain)):
        return _Gold("words", text, percent, _words(plain))
    return _Gold("math", text, percent, None, text) if _gold_reading(text) else None


def _equal(found: Extracted, gold: _Gold) -> bool:
    text, percent = _tidy(found.text)
    plain, bare = _plain(text), _bare(text)
    if gold.kind == "choice":
        choice = _CHOICE.fullmatch(plain) or _CHOICE_AND_TEXT.fullmatch(plain)
        return choice is not None and choice["letter"].upper() == gold.value
    if gold.kind == "words":
        return _words(plain) == gold.value
    numeral = _numeral(bare)
    if gold.kind == "numeral":
        return gold.value == (numeral or (bare.lower(), gold.value[1]))
    if numeral:
        return False
    number = _number(bare)
    to_gold = gold.percent - percent
    if number and gold.kind == "number":
        return any(_close(Fraction(number) * scale, gold.value) for scale in (1, Fraction(100) ** to_gold))
    if text == gold.text:
        return True
    # math-verify adds numbers that stand side by side: it reads "1 2" as 3.
    if not number and _ONLY_DIGITS.fullmatch(bare):
        return False
    latex = number or text
    scaled = {-1: rf"\frac{{{latex}}}{{100}}", 0: latex, 1: rf"100 \cdot ({latex})"}[to_gold]
    if any(_verify(gold, _parse(reading)) for reading in {latex, scaled}):
        return True
    return not found.boxed and _verify(gold, parse(found.text, parsing_timeout=None))


def _close(number: Fraction, gold: Fraction) -> bool:
    if number.denominator == gold.denominator == 1:
        return number == gold
    return abs(number - gold) <= abs(gold) / 10**12


# math-verify's own time limits work in the main thread only, so they are off.


def _parse(latex: str) -> tuple[Any, ...]:
    """math-verify's reading of a whole expression and the text that it read, or nothing where it cannot read it."""
    boxed = f"\\boxed{{{latex}}}"
    if last_boxed(boxed) != latex:
        # Its braces are not balanced; math-verify would guess.
        return ()
    parsed = parse(boxed, [LatexExtractionConfig(boxed_match_priority=0)], parsing_timeout=None)
    return () if not parsed or isinstance(parsed[0], str) else tuple(parsed)


@lru_cache(maxsize=4096)
def _gold_reading(latex: str) -> tuple[Any, ...]:
    return _parse(latex)


def _verify(gold: _Gold, parsed: tuple[Any, ...] | list[Any]) -> bool:
    digits = 6
    expected = _gold_reading(gold.latex)
    value = expected[0]
    if isinstance(value, Rational | Float) and 0 < abs(value) < 1:
        # math-verify rounds to decimals, which would leave nothing of a small gold.
        digits -= math.ceil(math.log10(max(abs(float(value)), 1e-300)))
    return verify(list(expected), list(parsed), digits, allow_set_relation_comp=True, timeout_seconds=None)


# Reading what people write

_MINUS, _APOSTROPHE = "\u2212", "\u2019"
_REPLACED = {_MINUS: "-", "π": r"\pi ", "∞": r"\infty ", "°": r"^\circ ", r"\$": "", "{,}": ",", r"\displaystyle": ""}
_OUTER = re.compile(r"\$\$?([^$]*)\$\$?|\\\((.*)\\\)|\\\[(.*)\\\]|\*\*([^*]*)\*\*", re.DOTALL)
_FONT = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|mathbf|mathrm|mathit|mathsf|mbox|operatorname)\s*\{([^{}]*)\}"
)
_UNIT = re.compile(
    r"\s*\^\s*\{?\s*\\circ\s*\}?$|\s*\\degree$|(?<=\d)_\{?10\}?$"
    r"|(?<=[\d}])\s*\\(?:text|textrm|mbox|mathrm)\s*\{[^{}]*\}\s*(?:\^\s*\{?\d\}?)?$"
)
_CHOICE = re.compile(r"\(?\s*(?P<letter>[A-Za-z])\s*[).:]?")
_CHOICE_AND_TEXT = re.compile(
    # The text may not name a second choice.
    r"(?=\(\s*[A-Z]\s*\)|[A-Z]\s*[).:])\(?\s*(?P<letter>[A-Z])\s*[).:]"
    r"(?!.*\b[A-Z]\s*\))(?!.*(?:\bor\b|\band\b|[,/&])\s*\(?[A-Z]\b).*",
    re.DOTALL,
)
_NUMERAL = re.compile(r"\(?(?P<digits>[0-9A-Za-z]*\d[0-9A-Za-z]*)\)?\s*_\s*\{?(?P<base>\d{1,2})\}?")
_NUMBER = re.compile(r"[-+]?(?=\.?\d)(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d*)(?:\.\d*)?")
_ONLY_DIGITS = re.compile(r"[\d\s]+")
_SENTENCE = re.compile(rf"(?=.*[^\W\d_])[^\W_]+(?:(?:[\s.,:'{_APOSTROPHE}!?]+|-(?=[^\W\d_]))[^\W_]+)*[.!?]*")
_WORD = re.compile(r".*[^\W\d_]{3}.*|no", re.IGNORECASE)


def _tidy(text: str) -> tuple[str, bool]:
    """``text`` without boxes, delimiters, fine spacing, currency and percent signs and a final stop.

    Also whether there was a percent sign.
    """
    text = _BOX.sub("", text).strip().rstrip(".;,").strip()
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


def _plain(text: str) -> str:
    """``text`` with the content of ``\\text{…}`` and the like in its place."""
    while (plain := _FONT.sub(r"\1", text)) != text:
        text = plain
    return text.strip()


def _bare(text: str) -> str:
    """``text`` without a unit at its end, plain."""
    while (bare := _UNIT.sub("", text).strip()) != text:
        text = bare
    return _plain(text)


def _number(bare: str) -> str | None:
    """An integer or decimal without separators, or None."""
    return bare.replace(",", "").replace(" ", "") if _NUMBER.fullmatch(bare) else None


def _numeral(bare: str) -> tuple[str, int] | None:
    """Digits and base, or None. ``x_1`` is no numeral, nor is ``19_8``."""
    match = _NUMERAL.fullmatch(bare)
    if not match:
        return None
    digits, base = match["digits"].lower(), int(match["base"])
    values = (int(digit, 36) for digit in digits)
    return (digits, base) if base >= 2 and all(value < base for value in values) else None


def _words(plain: str) -> str:
    text = re.sub(rf"['{_APOSTROPHE}]|\.(?!\d)", "", plain.casefold())
    return re.sub(r"^(?:an?|the) (?=.)", "", " ".join(re.findall(r"[^\W_]+", text)))
