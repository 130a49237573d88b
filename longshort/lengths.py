"""How long the conversation about a problem is expected to be, from the last time it was played."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean

from longshort.episode import Episode, Problem


class ExpectedLengths:
    """Tokens per conversation, by problem; the mean of all known ones for a problem not played yet.

    The controller serves the longest expected conversations first: they decide when a batch is complete.
    """

    def __init__(self) -> None:
        self._tokens: dict[str, float] = {}
        self._mean = 0.0

    def __call__(self, problem: Problem) -> float:
        return self._tokens.get(problem.id, self._mean)

    def observe(self, episodes: Iterable[Episode]) -> None:
        """Replace what is known of every problem in ``episodes``."""
        lengths: dict[str, list[int]] = {}
        for episode in episodes:
            lengths.setdefault(episode.problem.id, []).append(episode.tokens)
        self._tokens |= {problem: fmean(tokens) for problem, tokens in lengths.items()}
        self._mean = fmean(self._tokens.values())

    def state_dict(self) -> dict[str, float]:
        return dict(self._tokens)

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self._tokens = dict(state)
        self._mean = fmean(self._tokens.values()) if self._tokens else 0.0
