"""What a client sees of sampled text: everything but the protocol's tags."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache

from longshort.protocol import TAGS


class Visible:
    """Takes the tags and the space around a turn out of its text, piece by piece.

    The tag that opens or closes a turn leaves nothing; one inside, where none belongs, leaves a space, so that what is
    left of two can never make a third. What may be the beginning of a tag, and space at the end, is held back until
    more is known.

    Example: of ``"<thi"``, ``"nk>a <"``, ``" b</th"``, ``"ink>"`` come ``""``, ``"a"``, ``" < b"``, ``""``.
    """

    def __init__(self, tags: Sequence[str] = TAGS) -> None:
        self._tags = tuple(tags)
        self._pattern = _any_of(self._tags)
        self._held = ""
        self._begun = False

    def feed(self, text: str) -> str:
        """What has become sure with ``text``."""
        self._held += text
        self._held = self._pattern.sub(" ", self._held)
        sure = len(self._held) - beginning_at_end(self._held, self._tags)
        return self._take(self._held[:sure])

    def end(self) -> str:
        """What was held back and is no tag after all."""
        rest = self._take(self._held).rstrip()
        self._held = ""
        return rest

    def _take(self, sure: str) -> str:
        rest = self._held[len(sure) :]
        shown = sure.rstrip()
        # Space may turn out to be the end of the turn.
        self._held = sure[len(shown) :] + rest
        if not self._begun:
            shown = shown.lstrip()
            self._begun = bool(shown)
            if not self._begun:
                self._held = rest
        return shown


def visible(text: str, tags: Sequence[str] = TAGS) -> str:
    """All of a turn's text at once."""
    filter = Visible(tags)
    return filter.feed(text) + filter.end()


class UntilStop:
    """Passes text on up to a client's stop text, which it leaves out.

    Attributes:
        stopped: whether it came.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        if self.stopped or not self._stops:
            return "" if self.stopped else text
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._held[: min(found)]
        sure = len(self._held) - beginning_at_end(self._held, self._stops)
        passed, self._held = self._held[:sure], self._held[sure:]
        return passed

    def end(self) -> str:
        """What was held back."""
        rest, self._held = self._held, ""
        return "" if self.stopped else rest


def beginning_at_end(text: str, patterns: Sequence[str]) -> int:
    """Characters at the end of ``text`` that may be the beginning of one of ``patterns``, which it does not hold."""
    beginnings, longest = _beginnings(tuple(patterns))
    return next((size for size in range(min(longest, len(text)), 0, -1) if text[-size:] in beginnings), 0)


@cache
def _any_of(texts: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))))


@lru_cache(maxsize=1024)
def _beginnings(patterns: tuple[str, ...]) -> tuple[frozenset[str], int]:
    """All proper beginnings, and the length of the longest."""
    found = frozenset(pattern[:size] for pattern in patterns for size in range(1, len(pattern)))
    return found, max(map(len, found), default=0)
