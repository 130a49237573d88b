"""Conversations from chains of thought whose thoughts are long or short (Long⊗Short, arXiv 2505.11827, section 4.1).

Consecutive long thoughts become one long turn in their own words, consecutive short ones a short turn that a completer
writes anew. A short turn that a long one follows ends with ``</rethink>``, the last with ``</answer>``; a chain that
ends with a long thought gets a short turn with the answer. A conversation is kept if all turns are well formed and the
last gives the right answer in ``\\boxed{}``; every other chain is dropped with one of ``REASONS``.

A thought or completion that holds one of the protocol's tags is dropped with its chain and not escaped: escaped tags
would teach the models a spelling that no reader of the protocol knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from longshort.episode import Problem
from longshort.extraction import last_boxed
from longshort.grading import Grade
from longshort.protocol import ANSWER, END_ANSWER, END_THINK, LONG_SHORT, RETHINK, TAGS, THINK
from longshort.thoughts.completer import Completer
from longshort.thoughts.segments import Kept, Segment, gaps_of, segments_of
from longshort.thoughts.thought import Thought

Conversation = tuple[tuple[str, str], ...]
Reason = Literal[
    "no thoughts",
    "tag in a thought",
    "blank thought",
    "not completed",
    "tag in a completion",
    "blank completion",
    "no boxed answer",
    "ungradable answer",
    "wrong answer",
]
REASONS: tuple[Reason, ...] = get_args(Reason)

# Grades (response, gold answer), as GradingPool.grade does.
Grader = Callable[[str, str], Awaitable[Grade]]


@dataclass(frozen=True, slots=True)
class DividedChain:
    """A chain whose thoughts are long or short.

    Attributes:
        problem: what it is about; its id is the chain's.
        thoughts: in order.
        long: for each thought, whether it stays long; the first does.
        closed: whether the thinking ended by itself.
    """

    problem: Problem
    thoughts: tuple[Thought, ...]
    long: tuple[bool, ...]
    closed: bool = True


@dataclass(frozen=True, slots=True)
class Synthesis:
    """What became of one chain.

    Attributes:
        problem_id: of its problem.
        conversation: (role, text) of each turn, tags included, or None where the chain was dropped.
        dropped: why, or None.
        thoughts, long_thoughts: how many there were, and how many of them stay long.
        turns: of the conversation that was made, or would have been.
        answer_appended: whether the chain ended with a long thought.
        closed: whether the chain's thinking ended by itself.
        answer: the boxed answer of the last turn, as written.
        faults: why answers of the completing model were refused.
    """

    problem_id: str
    conversation: Conversation | None
    dropped: Reason | None
    thoughts: int
    long_thoughts: int
    turns: int = 0
    answer_appended: bool = False
    closed: bool = True
    answer: str | None = None
    faults: tuple[str, ...] = ()


async def synthesise(chain: DividedChain, completer: Completer, grade: Grader, frame: str = "\n") -> Synthesis:
    """The conversation of one chain, or why there is none.

    Args:
        completer: writes the short turns; whatever it returns is checked here.
        grade: compares the last turn with the problem's answer, for example :meth:`GradingPool.grade`.
        frame: stands between a tag and the text beside it, which is stripped.

    Raises:
        ValueError: flags and thoughts do not fit, or the first thought is not long.
        Whatever the completer raises: an engine that fails says nothing about the chain.
    """
    record = Synthesis(chain.problem.id, None, None, len(chain.thoughts), sum(chain.long), closed=chain.closed)
    if not chain.thoughts:
        return replace(record, dropped="no thoughts")
    segments = segments_of(chain.thoughts, chain.long)
    record = replace(record, turns=len(segments), answer_appended=chain.long[-1])
    kept = [segment.text for segment in segments if isinstance(segment, Kept)]
    if bad := _unusable(kept):
        return replace(record, dropped="tag in a thought" if bad == "tag" else "blank thought")
    completed = await completer.complete(chain.problem, segments)
    record = replace(record, faults=completed.faults)
    if completed.texts is None:
        return replace(record, dropped="not completed")
    assert len(completed.texts) == len(gaps_of(segments)), "a completer writes one text for each gap"
    if bad := _unusable(completed.texts):
        return replace(record, dropped="tag in a completion" if bad == "tag" else "blank completion")
    conversation = _turns(segments, completed.texts, frame)
    last = conversation[-1][1]
    record = replace(record, answer=last_boxed(last))
    if record.answer is None:
        return replace(record, dropped="no boxed answer")
    graded = await grade(last, chain.problem.answer)
    if graded.error is not None:
        return replace(record, dropped="ungradable answer")
    if not graded.correct:
        return replace(record, dropped="wrong answer")
    assert all(LONG_SHORT.well_formed(role, text) for role, text in conversation), "bodies have text and no tags"
    return replace(record, conversation=conversation)


def count_dropped(records: Iterable[Synthesis]) -> dict[Reason, int]:
    """How many chains were dropped, by reason; reasons that did not occur count 0."""
    counts = Counter(record.dropped for record in records)
    return {reason: counts[reason] for reason in REASONS}


def _unusable(bodies: Sequence[str]) -> Literal["tag", "blank"] | None:
    if any(tag in body for body in bodies for tag in TAGS):
        return "tag"
    return None if all(body.strip() for body in bodies) else "blank"


def _turns(segments: Sequence[Segment], texts: Sequence[str], frame: str) -> Conversation:
    """Turns of ``segments``, which end with a gap, with ``texts`` in the gaps."""
    turns, short = [], iter(texts)
    for place, segment in enumerate(segments):
        if isinstance(segment, Kept):
            turns.append(("long", _framed(THINK, segment.text, END_THINK, frame)))
        else:
            closing = END_ANSWER if place == len(segments) - 1 else RETHINK
            turns.append(("short", _framed(ANSWER, next(short), closing, frame)))
    return tuple(turns)


def _framed(opening: str, body: str, closing: str, frame: str) -> str:
    return f"{opening}{frame}{body.strip()}{frame}{closing}"
