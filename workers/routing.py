"""Requests of one policy divided among its engines."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from workers.errors import EngineDiedError

MAX_SESSIONS = 1_000_000


class Router:
    """A session stays on its engine, where the prefix cache holds its history; a new one goes to the least loaded.

    Args:
        policy: whose engines they are, for errors.
        engines: how many there are.
        alive: numbers of those that can serve now.
    """

    def __init__(self, policy: str, engines: int, alive: Callable[[], Sequence[int]]) -> None:
        self.policy = policy
        self._alive = alive
        self._in_flight = [0] * engines
        self._sessions: OrderedDict[str, int] = OrderedDict()

    @contextmanager
    def engine_for(self, session: str) -> Iterator[int]:
        """Number of the engine for a request of ``session``, which counts as in flight within.

        Raises:
            EngineDiedError: none can serve.
        """
        chosen = self._choose(session)
        self._in_flight[chosen] += 1
        try:
            yield chosen
        except EngineDiedError:
            self._sessions.pop(session, None)
            raise
        finally:
            self._in_flight[chosen] -= 1

    def _choose(self, session: str) -> int:
        alive = self._alive()
        if not alive:
            raise EngineDiedError(self.policy, "it is being started again")
        held = self._sessions.pop(session, None)
        chosen = held if held in alive else min(alive, key=self._in_flight.__getitem__)
        assert chosen is not None, "one is alive"
        self._sessions[session] = chosen
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return chosen
