"""What a length reward may know of the answers to one problem."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Group:
    """The answers to one problem in a batch; entry i of every tuple belongs to answer i.

    Example: ``Group(lengths=(40, 90), correct=(True, False), finished=(True, False), turns=(2, 3), limit=90)``.

    Attributes:
        lengths: tokens, of the trainee's own turns or of the whole conversation.
        correct: whether the answer is right.
        finished: whether the answer ended by itself, within all limits.
        turns: turns of the conversation.
        limit: most tokens that one such answer may have, in the unit of ``lengths``.

    Raises:
        ValueError: the tuples differ in length, or the limit is below 1.
    """

    lengths: tuple[int, ...]
    correct: tuple[bool, ...]
    finished: tuple[bool, ...]
    turns: tuple[int, ...]
    limit: int

    def __post_init__(self) -> None:
        sizes = (len(self.lengths), len(self.correct), len(self.finished), len(self.turns))
        if len(set(sizes)) > 1:
            raise ValueError(
                f"a group has {sizes} lengths, verdicts, finished marks and turn counts; give one of each per answer"
            )
        if self.limit < 1:
            raise ValueError(f"a group's limit is {self.limit} tokens; give at least 1")
