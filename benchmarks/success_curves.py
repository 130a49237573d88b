"""Chains of thought with known success rates, to measure estimates of the rates against.

A chain has 10 to 60 thoughts, each number as likely. Lengths of thoughts are lognormal (median 120 tokens, sigma 0.8).
Of each family, P_0 … P_n, clipped to 0 … 1, are:

- ``mixed``: P_0 is Beta(1, 2). With each thought the rate stays exactly as it is (40%), jumps up by 0.1 to 0.4 (10%),
  falls by 0.05 to 0.3 (3%), or moves by a normal step of mean 0.01 and deviation 0.04.
- ``smooth``: a logistic rise between two uniform rates, its middle anywhere in the chain, its width 1 to n/3 thoughts,
  and normal noise of deviation 0.03 on each rate. No two rates are equal.
- ``steps``: what models that hardly vary do. The rate begins at 0, 0.02 or 0.5 and stays exactly as it is, but with 12%
  of the thoughts it changes to one of 0, 0.02, 0.5, 0.9, 0.98, 1 and 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

FEWEST, MOST = 10, 60


@dataclass(frozen=True, slots=True)
class SimulatedChain:
    """Tokens of the n thoughts, and the true success rates of the n + 1 prefixes."""

    lengths: tuple[int, ...]
    rates: tuple[float, ...]


def draw_chains(family: str, count: int, seed: int) -> list[SimulatedChain]:
    """``count`` chains of a family of ``FAMILIES``."""
    rng = np.random.default_rng(seed)
    chains = []
    for _ in range(count):
        n = int(rng.integers(FEWEST, MOST + 1))
        lengths = np.maximum(1, np.round(rng.lognormal(np.log(120), 0.8, n))).astype(int)
        rates = np.clip(FAMILIES[family](n, rng), 0, 1)
        chains.append(SimulatedChain(tuple(lengths.tolist()), tuple(rates.tolist())))
    return chains


def draw_stream(chain: SimulatedChain, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Whether each sample of each prefix is right, (n + 1, samples)."""
    return rng.random((len(chain.rates), samples)) < np.array(chain.rates)[:, None]


def _mixed(n: int, rng: np.random.Generator) -> np.ndarray:
    rates = [float(rng.beta(1, 2))]
    for kind in rng.random(n):
        if kind < 0.4:
            move = 0.0
        elif kind < 0.5:
            move = rng.uniform(0.1, 0.4)
        elif kind < 0.53:
            move = -rng.uniform(0.05, 0.3)
        else:
            move = rng.normal(0.01, 0.04)
        rates.append(min(max(rates[-1] + move, 0.0), 1.0))
    return np.array(rates)


def _smooth(n: int, rng: np.random.Generator) -> np.ndarray:
    low, high = np.sort(rng.random(2))
    middle, width = rng.uniform(0, n), rng.uniform(1, n / 3)
    rise = 1 / (1 + np.exp(-(np.arange(n + 1) - middle) / width))
    return low + (high - low) * rise + rng.normal(0, 0.03, n + 1)


def _steps(n: int, rng: np.random.Generator) -> np.ndarray:
    rates = [float(rng.choice([0.0, 0.02, 0.5]))]
    for change in rng.random(n) < 0.12:
        rates.append(float(rng.choice([0.0, 0.02, 0.5, 0.9, 0.98, 1.0, 1.0])) if change else rates[-1])
    return np.array(rates)


FAMILIES: Mapping[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "mixed": _mixed,
    "smooth": _smooth,
    "steps": _steps,
}
