"""Chains of thought with their division into thoughts, as the authors of Long⊗Short publish them.

A record of their set OpenMath-ThoughtChunk1.8K has ``question``, ``answer``, ``thought`` (the chain) and ``block``::

    {"block 1": {"start": 1, "end": 4, "block type": "problem understanding"}, "block 2": …}

``start`` and ``end`` count the chain's steps from 1, both inclusive; steps are what blank lines separate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from longshort.episode import Problem

Chunking = Literal["complete", "unfinished", "broken"]
STATES: tuple[Chunking, ...] = get_args(Chunking)


@dataclass(frozen=True, slots=True)
class Block:
    """One thought: the steps ``start`` to ``end``, counted from 1, both inclusive; ``type`` in the authors' words."""

    start: int
    end: int
    type: str


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of thought and its blocks.

    Attributes:
        id, question, answer: those of the problem.
        thought: the chain as it was written, tags and answer included.
        blocks: by their start; empty where the record has none that can be read.
        steps: steps of ``thought`` up to the one with ``</think>``, e.g. 135; what follows is the answer.
        chunking: ``"complete"``; ``"unfinished"`` where the blocks end before step ``steps``; ``"broken"`` where there
            are none, or they do not begin at step 1, leave a gap, overlap, or name steps that are not there.
    """

    id: str
    question: str
    answer: str
    thought: str
    blocks: tuple[Block, ...]
    steps: int
    chunking: Chunking


def read_chain(row: Mapping[Any, Any], problem: Problem) -> Chain:
    """The chain of a record whose problem is known.

    Raises:
        ValueError: it has no chain of thought; a clause to stand after the record's place.
    """
    thought = row.get("thought")
    if not isinstance(thought, str) or not thought.strip():
        raise ValueError("it has no chain of thought")
    steps = split_steps(thought)
    thinking = next((number for number, step in enumerate(steps, start=1) if "</think>" in step), len(steps))
    blocks = _blocks(row.get("block"))
    chunking = _chunking(blocks, thinking, len(steps))
    return Chain(problem.id, problem.question, problem.answer, thought, blocks, thinking, chunking)


def split_steps(thought: str) -> list[str]:
    """The steps that blocks count."""
    return thought.split("\n\n")


def _blocks(value: object) -> tuple[Block, ...]:
    """Blocks by their start, or none where one cannot be read."""
    # In a table, all records have the keys of the longest, and None where they have no such block.
    found = [block for block in value.values() if block is not None] if isinstance(value, Mapping) else []
    try:
        # The authors' prompt asks for `block_type` in its words and for `block type` in its example.
        blocks = [Block(int(b["start"]), int(b["end"]), str(b.get("block type") or b["block_type"])) for b in found]
    except (KeyError, TypeError, ValueError, AttributeError):
        return ()
    return tuple(sorted(blocks, key=lambda block: block.start))


def _chunking(blocks: Sequence[Block], thinking: int, steps: int) -> Chunking:
    expected = 1
    for block in blocks:
        if block.start != expected or not block.start <= block.end <= steps:
            return "broken"
        expected = block.end + 1
    if not blocks:
        return "broken"
    return "complete" if expected > thinking else "unfinished"
