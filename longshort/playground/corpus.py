r"""Scripted conversations that the pair is cold-started on: correct, well formed, and wordy by a known amount.

Example, for ``7+5*3-4``; line ends inside thoughts are real, those between turns are not:

    long   <think>7+5=12⏎12*3=36⏎36-4=32⏎wait⏎7+5=12⏎12*3=36⏎36-4=32⏎</think>
    short  <answer>so 36-4=32 \boxed{32}</answer>

A thought is the chain, then ``REPEATS`` needless verifications: a cue word and the whole chain once more. They change
no answer, because the first chain is already right. What reinforcement learning can save is fixed here, beforehand:

=======================================  ======
needless share of the long's tokens      ``NEEDLESS_SHARE_LONG``
needless share of the short's tokens     ``NEEDLESS_SHARE_SHORT``
=======================================  ======

Some conversations differ:

- Guess (``P_GUESS``): the thought is the final value alone. It is right here, but a tiny model cannot compute it for a
  long chain, so a model that guesses is often wrong.
- Rethink (``P_STOP`` of the others with ``HARD`` or more operations): the first thought stops after some step, the
  short model says what is left and closes with ``</rethink>``, and the long model's second thought starts from there:

    long   <think>7+5=12⏎12*3=36⏎</think>
    short  <answer>left 36-4</rethink>
    long   <think>36-4=32⏎</think>
    short  <answer>\boxed{32}</answer>
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from longshort.episode import Problem
from longshort.playground.problems import Step, steps_of

# Probability of 0, 1, 2, 3 needless verifications.
REPEATS = (0.15, 0.27, 0.36, 0.22)
CUES = ("wait\n", "hmm\n", "check\n")
P_GUESS = 0.02
P_STOP = 0.20
HARD = 3
# Probability that the short model repeats the last step before its answer.
P_RESTATE = 0.5

# Expected shares under the constants above and the default problems, tags counted, to two digits.
NEEDLESS_SHARE_LONG = 0.64
NEEDLESS_SHARE_SHORT = 0.28


@dataclass(frozen=True, slots=True)
class ScriptedTurn:
    """A turn's author, its text with both tags, and how many of its tokens (characters) are needless."""

    role: str
    text: str
    needless: int = 0


@dataclass(frozen=True, slots=True)
class Conversation:
    """A problem and the scripted turns about it, long first and then by turns."""

    problem: Problem
    turns: tuple[ScriptedTurn, ...]


def converse(problems: Iterable[Problem], seed: int) -> Iterator[Conversation]:
    """One conversation per problem; equal arguments give equal conversations."""
    rng = random.Random(seed)
    for problem in problems:
        yield Conversation(problem, tuple(_turns(problem, rng)))


def needless_share(conversations: Iterable[Conversation], role: str) -> float:
    """Needless tokens of ``role`` over all of its tokens; each tag and each other character is one token."""
    turns = [turn for conversation in conversations for turn in conversation.turns if turn.role == role]
    return sum(turn.needless for turn in turns) / sum(tokens_in(turn.text) for turn in turns)


def tokens_in(turn: str) -> int:
    """Tokens of a turn with an opening and a closing tag."""
    opening, closing = turn.index(">") + 1, len(turn) - turn.rindex("<")
    return len(turn) - opening - closing + 2


def _turns(problem: Problem, rng: random.Random) -> Iterator[ScriptedTurn]:
    steps = steps_of(problem.question)
    if rng.random() < P_GUESS:
        yield ScriptedTurn("long", f"<think>{problem.answer}</think>")
        yield ScriptedTurn("short", f"<answer>\\boxed{{{problem.answer}}}</answer>")
        return
    done = 0
    if len(steps) >= HARD and rng.random() < P_STOP:
        done = rng.randrange(1, len(steps))
        yield ScriptedTurn("long", f"<think>{_chain(steps[:done])}</think>")
        yield ScriptedTurn("short", f"<answer>left {_left(steps[done:])}</rethink>")
    extra = _verification(steps, rng)
    yield ScriptedTurn("long", f"<think>{_chain(steps[done:])}{extra}</think>", len(extra))
    restated = f"so {_line(steps[-1])} " if rng.random() < P_RESTATE else ""
    yield ScriptedTurn("short", f"<answer>{restated}\\boxed{{{problem.answer}}}</answer>", len(restated))


def _verification(steps: list[Step], rng: random.Random) -> str:
    (times,) = rng.choices(range(len(REPEATS)), REPEATS)
    return "".join(rng.choice(CUES) + _chain(steps) for _ in range(times))


def _chain(steps: list[Step]) -> str:
    return "".join(f"{_line(step)}\n" for step in steps)


def _line(step: Step) -> str:
    before, operator, operand, after = step
    return f"{before}{operator}{operand}={after}"


def _left(steps: list[Step]) -> str:
    """What the steps compute, as one chain: ``36-4``."""
    return str(steps[0][0]) + "".join(f"{operator}{operand}" for _, operator, operand, _ in steps)
