"""From thoughts and their partition to the turns that a conversation will have (arXiv 2505.11827, section 4.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from longshort.thoughts.thought import Thought

FINAL = "final answer"


@dataclass(frozen=True, slots=True)
class Kept:
    """Consecutive thoughts that stay long; ``text`` is theirs, joined."""

    text: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Consecutive thoughts that a short one replaces.

    Attributes:
        kinds: of the thoughts, in order; ``("final answer",)`` where the chain ends with a long thought and an answer
            is appended.
        texts: of the thoughts; empty where an answer is appended.
    """

    kinds: tuple[str, ...]
    texts: tuple[str, ...] = ()


Segment = Kept | Gap


def segments_of(thoughts: Sequence[Thought], long: Sequence[bool]) -> tuple[Segment, ...]:
    """Kept thoughts and gaps by turns: first a :class:`Kept`, last a :class:`Gap`.

    Raises:
        ValueError: there are no thoughts, the flags do not fit, or the first thought is not long.
    """
    if not thoughts or len(long) != len(thoughts):
        raise ValueError(f"{len(long)} flags for {len(thoughts)} thoughts: give one for each of at least one thought")
    if not long[0]:
        raise ValueError("the first thought is not long: a conversation opens with the long model, so keep it")
    return tuple(_merged(thoughts, long))


def gaps_of(segments: Sequence[Segment]) -> tuple[Gap, ...]:
    """The gaps among ``segments``, in order."""
    return tuple(segment for segment in segments if isinstance(segment, Gap))


def _merged(thoughts: Sequence[Thought], long: Sequence[bool]) -> Iterator[Segment]:
    kept = True
    for kept, pairs in groupby(zip(long, thoughts, strict=True), key=lambda pair: bool(pair[0])):
        run = [thought for _, thought in pairs]
        if kept:
            yield Kept("".join(thought.text for thought in run))
        else:
            yield Gap(tuple(thought.kind for thought in run), tuple(thought.text for thought in run))
    if kept:
        yield Gap((FINAL,))
