"""Is the answer in a response the gold answer?

:func:`grade` finds the answer in a response (:mod:`longshort.extraction`) and compares it with the gold. math-verify
does the mathematics and is known to this file only. Numbers, choices, words and numerals in a base are compared here,
because math-verify rounds to six decimals, drops the base of ``2516_8`` and takes words for products of letters.

What is equal: see :class:`_Gold`. Answers longer than ``MAX_COMPARED`` characters are not compared.

:func:`grade` has no time limit, because sympy can only be stopped with its process: see :mod:`longshort.grading_pool`.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal

from math_verify import LatexExtractionConfig, parse, verify
from sympy import Float, Rational

from longshort.extraction import MAX_COMPARED, Extracted, extract_answer, last_boxed
from longshort.notation import (
    CHOICE,
    CHOICE_AND_TEXT,
    FONT,
    ONLY_DIGITS,
    SENTENCE,
    WORD,
    number_of,
    numeral_of,
    plain_text,
    tidy,
    without_unit,
    words_of,
)

Answer = str | int | float
GradeError = Literal["gold", "too_long", "timeout", "crash"]

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
    text, percent = tidy(last_boxed(gold) or gold)
    if len(text) > MAX_COMPARED:
        return None
    plain, bare = plain_text(text), without_unit(text)
    if number := number_of(bare):
        return _Gold("number", text, percent, Fraction(number), number)
    if (choice := CHOICE.fullmatch(plain)) and choice["letter"].isupper():
        return _Gold("choice", text, percent, choice["letter"])
    if numeral := numeral_of(bare):
        return _Gold("numeral", text, percent, numeral)
    if SENTENCE.fullmatch(plain) and (FONT.fullmatch(text) or WORD.fullmatch(plain)):
        return _Gold("words", text, percent, words_of(plain))
    return _Gold("math", text, percent, None, text) if _gold_reading(text) else None


def _equal(found: Extracted, gold: _Gold) -> bool:
    text, percent = tidy(found.text)
    plain, bare = plain_text(text), without_unit(text)
    if gold.kind == "choice":
        choice = CHOICE.fullmatch(plain) or CHOICE_AND_TEXT.fullmatch(plain)
        return choice is not None and choice["letter"].upper() == gold.value
    if gold.kind == "words":
        return words_of(plain) == gold.value
    numeral = numeral_of(bare)
    if gold.kind == "numeral":
        return gold.value == (numeral or (bare.lower(), gold.value[1]))
    if numeral:
        return False
    number = number_of(bare)
    to_gold = gold.percent - percent
    if number and gold.kind == "number":
        return any(_close(Fraction(number) * scale, gold.value) for scale in (1, Fraction(100) ** to_gold))
    if text == gold.text:
        return True
    # math-verify adds numbers that stand side by side: it reads "1 2" as 3.
    if not number and ONLY_DIGITS.fullmatch(bare):
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
