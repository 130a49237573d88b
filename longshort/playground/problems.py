"""Arithmetic chains that are evaluated strictly left to right, without operator precedence.

Example: ``7+5*3-4`` is ``((7+5)*3)-4 = 32``. Every value on the way lies in 0..29 and no operand comes twice, so each
step is a small fact that a tiny model can learn, while the whole chain in one go is not.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from typing import Literal

from longshort.episode import Problem

Split = Literal["train", "test"]
# Value so far, operator, operand, value after it.
Step = tuple[int, str, int, int]

SOURCE = "playground"
MAX_VALUE = 29
MAX_START = 20
MIN_OPERATIONS = 2
MAX_OPERATIONS = 4

# A question is a test question where the first byte of its SHA-256 is below this, so in 1 of 8 cases.
TEST_BYTES = 32
# Problems in a row without a new one after which the splits are taken to be exhausted.
MAX_MISSES = 10_000

_STEP = re.compile(r"([-+*])(\d+)")
_QUESTION = re.compile(r"(\d+)((?:[-+*]\d+)+)")


def generate_problems(
    count: int,
    seed: int,
    split: Split,
    operations: tuple[int, int] = (MIN_OPERATIONS, MAX_OPERATIONS),
) -> list[Problem]:
    """``count`` distinct problems; equal arguments give equal problems in the same order.

    ``operations`` are the fewest and the most of a problem, drawn evenly; where the short chains run out, at some ten
    thousands, longer ones take their place. Train and test share no question whatever the seeds, because the hash of
    the question decides the split (see ``TEST_BYTES``). ValueError where fewer than ``count`` questions can be found.
    """
    problems: dict[str, Problem] = {}
    misses = 0
    for problem in draw_problems(seed, split, operations):
        if len(problems) == count:
            break
        misses = misses + 1 if problem.question in problems else 0
        problems[problem.question] = problem
        if misses > MAX_MISSES:
            raise ValueError(f"found only {len(problems)} of {count} problems: ask for fewer or longer ones")
    return list(problems.values())


def draw_problems(
    seed: int, split: Split, operations: tuple[int, int] = (MIN_OPERATIONS, MAX_OPERATIONS)
) -> Iterator[Problem]:
    """Problems without end, each drawn on its own: a short chain soon comes again, and none gives way to longer ones.

    Arguments and errors are those of `generate_problems`, which keeps the first of each.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}: choose 'train' or 'test'")
    low, high = operations
    if not 1 <= low <= high:
        raise ValueError(f"operations is {operations}: the fewest must be at least 1 and at most the most")
    rng = random.Random(f"{seed}/{split}/{low}-{high}")
    while True:
        question, answer = _draw(rng, rng.randint(low, high))
        if split_of(question) == split:
            yield Problem(f"{SOURCE}/{question}", question, str(answer), SOURCE)


def split_of(question: str) -> Split:
    """The split that ``question`` belongs to."""
    return "test" if hashlib.sha256(question.encode()).digest()[0] < TEST_BYTES else "train"


def difficulty(problem: Problem) -> int:
    """Number of operations."""
    return len(steps_of(problem.question))


def steps_of(question: str) -> list[Step]:
    """The evaluation of ``question``, one step per operation; ValueError for anything but a chain.

    Example: ``7+5*3`` gives ``[(7, "+", 5, 12), (12, "*", 3, 36)]``.
    """
    match = _QUESTION.fullmatch(question)
    if match is None:
        raise ValueError(f"{question!r} is no chain of numbers and the operators + - *")
    value = int(match[1])
    steps: list[Step] = []
    for operator, digits in _STEP.findall(match[2]):
        after = _apply(value, operator, int(digits))
        steps.append((value, operator, int(digits), after))
        value = after
    return steps


def _draw(rng: random.Random, operations: int) -> tuple[str, int]:
    """One chain and its value, drawn until every value lies in 0..29.

    The operands of a chain differ, so that the step just done tells the next one: a tiny model finds it by content and
    need not count.
    """
    while True:
        value = rng.randint(1, MAX_START)
        question = str(value)
        for operand in rng.sample(range(1, 10), operations):
            operator = rng.choice("+-" if operand == 1 else "+-*")
            value = _apply(value, operator, operand)
            if not 0 <= value <= MAX_VALUE:
                break
            question += f"{operator}{operand}"
        else:
            return question, value


def _apply(value: int, operator: str, operand: int) -> int:
    if operator == "+":
        return value + operand
    return value - operand if operator == "-" else value * operand
