"""Do two sets of problems share questions?

Questions count as one if they differ in case, spacing or dollar signs alone: data sets that quote the same problem
set it differently. A reworded question is not found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from longshort.episode import Problem

# A command, an escaped character, or what may be spacing by itself; in this order, so that \\, is no thin space.
_TOKEN = re.compile(r"\\[a-z]+|\\.|\$|~|\s+", re.DOTALL)
_SPACING = re.compile(r"\\(?:[,;:!>$\\\s]|q?quad)|\$|~|\s+")


def question_key(question: str) -> str:
    """``question`` in lower case, without dollar signs, and with a space only between two words or numbers.

    LaTeX's spacing (``\\,`` ``\\;`` ``\\:`` ``\\!`` ``\\ `` ``\\quad`` ``\\\\`` ``~``) is space like any other.

    Example: ``"Find  $x +\\,1$."`` and ``"find $x+1$."`` both give ``"find x+1."``.
    """
    # A command ends with a space that need not be written, as in \pi2.
    spaced = _TOKEN.sub(lambda token: " " if _SPACING.fullmatch(token[0]) else token[0] + " ", question.casefold())
    return re.sub(r"(?<!\w) | (?!\w)", "", " ".join(spaced.split()))


def ids_by_question(problems: Iterable[Problem]) -> dict[str, str]:
    """From each question's key to the id of the first problem that asks it."""
    ids: dict[str, str] = {}
    for problem in problems:
        ids.setdefault(question_key(problem.question), problem.id)
    return ids


def shared_questions(training: Iterable[Problem], validation: Iterable[Problem]) -> Mapping[str, str]:
    """The ids of training problems that validation asks too, each with the id of its validation problem."""
    ids = ids_by_question(validation)
    keys = ((problem.id, question_key(problem.question)) for problem in training)
    return {name: ids[key] for name, key in keys if key in ids}
