"""Multiple choice: options in an order that a seed decides, and grading by letter or by the option's text.

**Which option an answer names.** The first of these that fits:

1. A letter alone: ``B``, ``(B)``, ``B.``, ``\\text{B}``, ``Option B``; a small one where no option is written so.
2. The text of exactly one option, up to delimiters, fonts, spaces and a final stop; then up to case as well.
3. A letter with its own option's text behind it: ``(B) 12 m/s``. With another option's, it names none.
4. What equals exactly one option as mathematics, see :mod:`longshort.grading`. Lists, whose order may be what is asked,
   and numbers with different units are not compared so.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from longshort.episode import Episode
from longshort.extraction import MAX_COMPARED, Extracted, extract_answer
from longshort.grading import Grade, gold_text
from longshort.grading_pool import GradingPool

REQUEST = "\nThe answer is the letter of one option, in \\boxed{}."

_FONT = re.compile(r"\\(?:text|textbf|textit|textrm|textsf|mathbf|mathrm|mathit|mathsf|mbox)\s*\{([^{}]*)\}")
_DELIMITER = re.compile(r"(?<!\\)\$|\\[()\[\]]|^\*\*|\*\*$")
_SPACE = re.compile(r"(?:\\[,;:! ]|~|\s)+")
# Any but those between two letters and between two digits.
_NEEDLESS_SPACE = re.compile(r"(?<![^\W_]) |(?<=\d) (?!\d)|(?<=[^\W\d_]) (?![^\W\d_])")
_EXPONENT = re.compile(r"([\^_])\{([-+]?\w+)\}")
_NAMED = r"(?:(?:the )?(?:option|choice|answer)\b[\s:]*)?"
# As ASCII, so that no other letter passes for one of these.
_LETTER = re.compile(rf"{_NAMED}[(\[]?\s*([a-z])\s*[)\]]?[.:]?", re.IGNORECASE | re.ASCII)
_LETTER_AND_TEXT = re.compile(rf"(?i:{_NAMED})[(\[]?([A-Z])(?:\s*[)\].:,-]+\s*|\s+)(\S.*)", re.DOTALL)
_IN_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}")
_LIST = re.compile(r";|,(?!\d{3}(?!\d))|\b(?:and|or)\b")
_UNIT = re.compile(r"(?<=[\d)}])\s*([^\W\d_](?:[\w\s/*·.^{}\\]|(?<=[\^{])-)*)$")


@dataclass(frozen=True, slots=True)
class MultipleChoice:
    """A question as it is asked.

    Attributes:
        question: the text with its options, one a line: ``(A) 12``.
        letter: of the right option.
        options: all of them, from A on.
    """

    question: str
    letter: str
    options: tuple[str, ...]

    @property
    def text(self) -> str:
        """Of the right option."""
        return self.options[ascii_uppercase.index(self.letter)]


def multiple_choice(question: str, right: str, wrong: Sequence[str], seed: str) -> MultipleChoice:
    """Options in an order that ``seed`` decides, the same on every machine."""
    options = [right, *wrong]
    random.Random(seed).shuffle(options)
    letters = ascii_uppercase[: len(options)]
    lines = [f"({letter}) {option}" for letter, option in zip(letters, options, strict=True)]
    asked = "\n".join([question, "", *lines]) + REQUEST
    return MultipleChoice(asked, letters[options.index(right)], tuple(options))


def choice_of_row(row: Mapping[str, object], seed: int) -> MultipleChoice:
    """Of a row in GPQA's shape: ``Question``, ``Correct Answer``, ``Incorrect Answer 1`` to ``3``.

    Raises:
        ValueError: what is missing; a clause to stand after the record's place.
    """
    keys = ("Question", "Correct Answer", *[f"Incorrect Answer {number}" for number in (1, 2, 3)])
    values = [text_of(row.get(key)) for key in keys]
    for key, value in zip(keys, values, strict=True):
        if not value:
            raise ValueError(f"it has no {key!r}")
    question, right, *wrong = values
    if right in wrong:
        raise ValueError("its right answer is among the wrong ones")
    return multiple_choice(question, right, wrong, f"{seed}/{question}")


def text_of(value: object) -> str:
    """Stripped text of a string, finite number or truth value, ``""`` of anything else; 0 is ``"0"``."""
    return gold_text(value).strip() if isinstance(value, str | int | float) else ""


@dataclass(frozen=True)
class ChoiceGrader:
    """Grades answers to one question by the rules at the top of this file."""

    choice: MultipleChoice
    grader: GradingPool

    async def __call__(self, episode: Episode) -> Grade:
        """See :func:`longshort.grading.grade`; an option that mathematics cannot read is no error."""
        found = extract_answer(episode.final_text)
        if found is None:
            return Grade(False, None)
        if len(found.text) > max(MAX_COMPARED, *map(len, self.choice.options)):
            return Grade(False, found.text, "too_long")
        named = self._named(found)
        if named is None:
            return await self._by_mathematics(episode.final_text, found)
        return Grade(named == self.choice.letter, found.text)

    def _named(self, found: Extracted) -> str | None:
        """The letter of the option that is named by letter or text, ``""`` where these differ, None without any."""
        letters = ascii_uppercase[: len(self.choice.options)]
        plain = _plain(found.text)
        written = self._written(found)
        letter = _LETTER.fullmatch(plain)
        if letter and letter[1].upper() in letters and (letter[1].isupper() or written is None):
            return letter[1].upper()
        if written is None and (parts := _LETTER_AND_TEXT.fullmatch(plain)) and parts[1] in letters:
            behind = self._written(Extracted(parts[2], boxed=True))
            return behind if behind in (parts[1], None) else ""
        return written

    def _written(self, found: Extracted) -> str | None:
        """The letter of the only option with this text."""
        readings: tuple[Callable[[str], str], ...] = (str.strip, _key, lambda text: _key(text).casefold())
        for reading in readings:
            answer = reading(found.text)
            fits = [
                letter
                for letter, option in zip(ascii_uppercase, self.choice.options, strict=False)
                if answer in map(reading, _forms(option, found.boxed))
            ]
            if fits:
                return fits[0] if len(fits) == 1 else None
        return None

    async def _by_mathematics(self, response: str, found: Extracted) -> Grade:
        fits = []
        for letter, option in zip(ascii_uppercase, self.choice.options, strict=False):
            if not _comparable(_plain(found.text), _plain(option)):
                continue
            grade = await self.grader.grade(response, option)
            if grade.error not in (None, "gold"):
                return grade
            if grade.correct:
                fits.append(letter)
        return Grade(fits == [self.choice.letter], found.text)


def _forms(option: str, boxed: bool) -> set[str]:
    """An option, and what is left of it as a line without a box, whose lead is no part of the answer."""
    line = None if boxed else extract_answer(option)
    return {option} if line is None else {option, line.text}


def _comparable(answer: str, option: str) -> bool:
    if _LETTER.fullmatch(option) or _is_list(answer) or _is_list(option):
        return False
    units = [_key(match[1]) for text in (answer, option) if (match := _UNIT.search(text))]
    return len(set(units)) < 2


def _is_list(plain: str) -> bool:
    while (outside := _IN_BRACKETS.sub("", plain)) != plain:
        plain = outside
    return bool(_LIST.search(plain))


def _plain(text: str) -> str:
    """Without delimiters of mathematics, fonts and a final stop, and with plain spaces."""
    text = _SPACE.sub(" ", text).replace("\u2212", "-").replace("\u2019", "'")
    while (plain := _FONT.sub(r"\1", _DELIMITER.sub("", text)).strip().rstrip(" .;,")) != text:
        text = plain
    return text


def _key(text: str) -> str:
    """Plain, without needless spaces and without what LaTeX alone needs."""
    short = _EXPONENT.sub(r"\1\2", _plain(text))
    return re.sub(r"\\([^\w\s])", r"\1", _NEEDLESS_SPACE.sub("", short))
