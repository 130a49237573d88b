"""The record of a thought."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Thought:
    """One logical block of a chain of thought.

    Attributes:
        text: as it was written, with the blank lines behind it.
        kind: what it does, in the words of who divided the chain, e.g. ``"verification"`` or ``"问题理解"``.
        start: its first step, counted from 1.
        end: its last step, inclusive.
    """

    text: str
    kind: str
    start: int
    end: int
