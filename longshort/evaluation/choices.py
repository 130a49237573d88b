"""Multiple choice: options in an order that a seed decides, and grading by letter or by the option's text."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from longshort.episode import Episode
from longshort.grading import Grade, extract_answer
from longshort.grading_pool import GradingPool

REQUEST = "\nThe answer is the letter of one option, in \\boxed{}."
# An answer of this form names an option, so it is not compared with the options' texts.
_LETTER = re.compile(r"\W*(?:\\text\W*)?[A-Z]\b(?:\W.*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class MultipleChoice:
    """A question as it is asked.

    Attributes:
        question: the text with its options, one a line: ``(A) 12``.
        letter: of the right option.
        text: of the right option.
    """

    question: str
    letter: str
    text: str


def multiple_choice(question: str, right: str, wrong: Sequence[str], seed: str) -> MultipleChoice:
    """Options in an order that ``seed`` decides, the same on every machine."""
    options = [right, *wrong]
    random.Random(seed).shuffle(options)
    letters = ascii_uppercase[: len(options)]
    lines = [f"({letter}) {option}" for letter, option in zip(letters, options, strict=True)]
    return MultipleChoice("\n".join([question, "", *lines]) + REQUEST, letters[options.index(right)], right)


def choice_of_row(row: Mapping[str, object], seed: int) -> MultipleChoice:
    """Of a row in GPQA's shape: ``Question``, ``Correct Answer``, ``Incorrect Answer 1`` to ``3``.

    Raises:
        ValueError: what is missing; a clause to stand after the record's place.
    """
    keys = ("Question", "Correct Answer", *[f"Incorrect Answer {number}" for number in (1, 2, 3)])
    values = [str(row.get(key) or "").strip() for key in keys]
    for key, value in zip(keys, values, strict=True):
        if not value:
            raise ValueError(f"it has no {key!r}")
    question, right, *wrong = values
    if right in wrong:
        raise ValueError("its right answer is among the wrong ones")
    return multiple_choice(question, right, wrong, f"{seed}/{question}")


@dataclass(frozen=True)
class ChoiceGrader:
    """Grades answers to one question: the letter is right, and so is the option's text where no letter is given."""

    choice: MultipleChoice
    grader: GradingPool

    async def __call__(self, episode: Episode) -> Grade:
        """See :func:`longshort.grading.grade`."""
        grade = await self.grader.grade(episode.final_text, self.choice.letter)
        found = extract_answer(episode.final_text)
        if grade.correct or found is None or _LETTER.fullmatch(found.text):
            return grade
        return await self.grader.grade(episode.final_text, self.choice.text)
