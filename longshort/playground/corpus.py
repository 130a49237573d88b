r"""What the playground's reasoner and base models are trained on: chains of thought, redundant by a known amount.

Example, for ``7+5*3-4``; blank lines end thoughts:

    7+5=12 yes 7+5=12⏎⏎12*3=36⏎⏎36-4=32 ok 36-4=32 yes 36-4=32⏎⏎Wait 7+5=12⏎⏎12*3=36⏎⏎36-4=32⏎⏎

Every step is a thought: its line, then ``CHECKS`` needless repetitions at once. After the last step all lines come
again ``PASSES`` times, each line a thought, the first behind a cue. No repetition changes anything, because the line
that it repeats is right. All of this redundancy is fixed here, before anything is trained on it:

=========================================================  ==========================
needless share of a chain's characters                     ``NEEDLESS_SHARE``
the same without the passes, which scoring thoughts finds  ``NEEDLESS_SHARE_OF_STEPS``
=========================================================  ==========================

- The *reasoner* writes such a chain between ``<think>`` and ``</think>``, then the answer in ``\boxed{}``.
- A *base model* has seen such chains, and it has learned to end them: from any thought on it writes ``\boxed{}`` at
  once with probability ``P_ANSWER``, else the next step, and so on. It cannot compute many steps in its head, so the
  further the chain it is given has come, the more often its answer is right.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from longshort.episode import Problem
from longshort.playground.problems import Step, steps_of
from longshort.protocol import END_THINK, THINK

# Probability of 0, 1, … repetitions of a step at once.
CHECKS = (0.05, 0.15, 0.25, 0.30, 0.25)
AGAIN = (" yes ", " ok ")
# Probability of 0, 1, … passes over all steps at the end.
PASSES = (0.10, 0.30, 0.40, 0.20)
CUES = ("Wait ", "Hmm ")
BREAK = "\n\n"
# A step as `line_of` writes it.
LINE = re.compile(r"(\d+)([-+*])(\d+)=(\d+)")

P_ANSWER = 0.6
# Share of a base model's documents that are chains; the others end what they are given.
P_CHAIN = 0.3

# Expected under the constants above and the default problems, to two digits.
NEEDLESS_SHARE = 0.84
NEEDLESS_SHARE_OF_STEPS = 0.77


@dataclass(frozen=True, slots=True)
class Document:
    """A question, what is given after it, and what a model learns to write then."""

    question: str
    given: str
    text: str


def reasoning(problems: Iterable[Problem], seed: int) -> Iterator[Document]:
    """What the reasoner learns, one document per problem; equal arguments give equal documents."""
    rng = random.Random(seed)
    for problem in problems:
        yield _chain_document(problem, rng)


def general(problems: Iterable[Problem], seed: int) -> Iterator[Document]:
    """What a base model learns, one document per problem; equal arguments give equal documents."""
    rng = random.Random(seed)
    for problem in problems:
        yield _chain_document(problem, rng) if rng.random() < P_CHAIN else _ending(problem, rng)


def chain(problem: Problem, rng: random.Random) -> tuple[str, ...]:
    """The thoughts of one chain, each with the blank line behind it."""
    lines = [line_of(step) for step in steps_of(problem.question)]
    thoughts = [line + "".join(rng.choice(AGAIN) + line for _ in range(_drawn(CHECKS, rng))) for line in lines]
    for _ in range(_drawn(PASSES, rng)):
        thoughts += [rng.choice(CUES) + lines[0], *lines[1:]]
    return tuple(thought + BREAK for thought in thoughts)


def needless_share(problems: Iterable[Problem], seed: int, passes: bool = True) -> float:
    """Characters of chains that repeat a line, over all of them; without ``passes``, over those of the steps."""
    rng = random.Random(seed)
    needed = written = 0
    for problem in problems:
        steps = steps_of(problem.question)
        thoughts = chain(problem, rng)
        needed += sum(len(line_of(step) + BREAK) for step in steps)
        written += sum(map(len, thoughts if passes else thoughts[: len(steps)]))
    return 1 - needed / written


def line_of(step: Step) -> str:
    """A step as it is written: ``12*3=36``."""
    before, operator, operand, after = step
    return f"{before}{operator}{operand}={after}"


def boxed(answer: object) -> str:
    """An answer as it is written."""
    return f"\\boxed{{{answer}}}"


def _chain_document(problem: Problem, rng: random.Random) -> Document:
    return Document(problem.question, "", f"{THINK}{''.join(chain(problem, rng))}{END_THINK}{boxed(problem.answer)}")


def _ending(problem: Problem, rng: random.Random) -> Document:
    """From a random thought on: the answer, or first some of the steps that are left."""
    thoughts, steps = chain(problem, rng), steps_of(problem.question)
    done = rng.randrange(len(thoughts) + 1)
    text = ""
    for step in steps[done:]:
        if rng.random() < P_ANSWER:
            break
        text += line_of(step) + BREAK
    return Document(problem.question, "".join(thoughts[:done]), text + boxed(problem.answer))


def _drawn(shares: tuple[float, ...], rng: random.Random) -> int:
    (count,) = rng.choices(range(len(shares)), shares)
    return count
