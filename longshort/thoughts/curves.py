"""What samples say about the success curves P_0 … P_n of chains of thought, and about what is still to be sampled.

A curve is taken to be a Markov chain over a grid of success rates from 0 to 1: with each thought it stays where it is,
moves a little, or jumps up or down to a rate that is common among all curves. How often it does which, where curves
begin and which rates are common is learned from the samples of all chains together (expectation maximisation). So a
prefix that was sampled little borrows from its neighbours; and exact plateaus, which decide the penalty δ, can occur.

The letters of shapes: C chains, S draws, n thoughts of the longest chain (n + 1 prefixes), K rates of the grid. Rows of
shorter chains end with prefixes without samples.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

# Rates lie closer near 0 and 1, where a few samples tell them apart.
GRID = np.sin(np.pi / 2 * np.linspace(0, 1, 31)) ** 2
_K = len(GRID)
# What a curve does with a thought before anything is known: stays; moves by about 1.2 or 3 places of the grid; jumps
# up; jumps down. It counts like this many thoughts that were seen, and so do the uniform beginnings and landing places.
_MOVES = np.array([0.4, 0.2, 0.15, 0.15, 0.1])
_WEIGHT = 20.0
_IMPOSSIBLE = -1e3


@dataclass(frozen=True, slots=True)
class Counts:
    """What was sampled: of each prefix right answers and samples (C, n + 1), and the thoughts of each chain (C,)."""

    successes: np.ndarray
    rollouts: np.ndarray
    thoughts: np.ndarray


class CurveModel:
    """The Markov chain, its parameters, and draws of curves given samples."""

    def __init__(self) -> None:
        self._start = np.full(_K, 1 / _K)
        self._common = np.full(_K, 1 / _K)
        self._moves = _MOVES
        self._rebuild()

    def fit(self, groups: Iterable[Counts]) -> None:
        """One step of expectation maximisation from the samples of all chains, a group of them at a time."""
        pairs, visits, first = np.zeros((_K, _K)), np.zeros(_K), np.zeros(_K)
        for counts in groups:
            found = self._expected(counts)
            pairs, visits, first = pairs + found[0], visits + found[1], first + found[2]
        responsible = self._moves[:, None, None] * self._kernels / np.maximum(self._transition, 1e-300)
        self._moves = _normal((responsible * pairs).sum((1, 2)) + _WEIGHT * _MOVES)
        self._common = _normal(visits + first + _WEIGHT / _K)
        self._start = _normal(first + _WEIGHT / _K)
        self._rebuild()

    def draw(self, counts: Counts, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Curves (C, S, n + 1) as likely as the samples make them."""
        ahead = self._forward(_likelihood(counts))
        chains, prefixes, _ = ahead.shape
        uniform = rng.random((prefixes, chains, draws, 1))
        rows = np.arange(chains)[:, None]
        places = np.empty((chains, draws, prefixes), np.int8)
        summed = _shares(ahead[:, -1])[:, None]
        for prefix in range(prefixes - 1, -1, -1):
            if prefix < prefixes - 1:
                # (C, K, K): the share of each rate up to one's own, given the rate behind the thought.
                before = _shares(ahead[:, prefix, None] * self._transition.T)
                summed = before[rows, places[:, :, prefix + 1]]
            places[:, :, prefix] = (summed < uniform[prefix]).sum(-1)
        return GRID[places]

    def _expected(self, counts: Counts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Expected numbers: moves from rate to rate (K, K), later prefixes at each rate (K,), first ones (K,)."""
        likelihood = _likelihood(counts)
        ahead = self._forward(likelihood)
        behind = np.ones(likelihood.shape[::2])
        pairs, visits = np.zeros((_K, _K)), np.zeros(_K)
        for place in range(likelihood.shape[1] - 1, 0, -1):
            inside = (place <= counts.thoughts)[:, None]
            visits += (_normal(ahead[:, place] * behind) * inside).sum(0)
            told = likelihood[:, place] * behind
            total = ((ahead[:, place - 1] @ self._transition) * told).sum(-1, keepdims=True)
            pairs += (ahead[:, place - 1] * inside / total).T @ told * self._transition
            behind = _normal(told @ self._transition.T)
        return pairs, visits, _normal(ahead[:, 0] * behind).sum(0)

    def _forward(self, likelihood: np.ndarray) -> np.ndarray:
        """(C, n + 1, K): how likely each rate is given the samples up to its prefix."""
        ahead = np.empty_like(likelihood)
        ahead[:, 0] = _normal(self._start * likelihood[:, 0])
        for place in range(1, likelihood.shape[1]):
            ahead[:, place] = _normal(ahead[:, place - 1] @ self._transition * likelihood[:, place])
        return ahead

    def _rebuild(self) -> None:
        self._kernels = _kernels(self._common)
        self._transition = np.tensordot(self._moves, self._kernels, 1)


def _kernels(common: np.ndarray) -> np.ndarray:
    """(5, K, K): where each kind of move leads from each rate; one that leads nowhere stays."""
    distance = np.arange(_K) - np.arange(_K)[:, None]
    near, far = (np.exp(-0.5 * (distance / width) ** 2) * (distance != 0) for width in (1.2, 3.0))
    up, down = common * (distance > 0), common * (distance < 0)
    kernels = np.array([np.eye(_K), near, far, up, down])
    totals = kernels.sum(-1, keepdims=True)
    return np.where(totals > 0, kernels / np.where(totals > 0, totals, 1), np.eye(_K))


def _likelihood(counts: Counts) -> np.ndarray:
    """(C, n + 1, K), up to a factor for each prefix."""
    with np.errstate(divide="ignore"):
        right, wrong = np.maximum(np.log(GRID), _IMPOSSIBLE), np.maximum(np.log1p(-GRID), _IMPOSSIBLE)
    logs = counts.successes[..., None] * right + (counts.rollouts - counts.successes)[..., None] * wrong
    return np.exp(logs - logs.max(-1, keepdims=True))


def _normal(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum(-1, keepdims=True)


def _shares(weights: np.ndarray) -> np.ndarray:
    """Cumulated shares along the last axis; the last is above 1, so that no draw falls behind it."""
    shares = np.cumsum(weights, -1)
    shares /= shares[..., -1:]
    shares[..., -1] = 2.0
    return shares
