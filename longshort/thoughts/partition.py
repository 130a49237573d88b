"""Which thoughts of a chain stay long. The first always does, because the long model opens a conversation.

``scan`` is the rule of Long⊗Short (arXiv 2505.11827, section 4.1); the others are there to be compared with it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Partition:
    """A rule and what it goes by.

    Attributes:
        rule: a name in ``RULES``.
        seed: of ``random``.
        share: ``random`` keeps this share of a chain's thoughts, rounded, at least the first; None keeps as many as
            ``scan`` would.
        k: ``top_k`` keeps the k thoughts that score highest, and the first.
        threshold: ``threshold`` keeps the thoughts that score more, and the first.
    """

    rule: str = "scan"
    seed: int = 0
    share: float | None = None
    k: int = 3
    threshold: float = 0.0

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"rule is {self.rule!r}: choose one of {', '.join(RULES)}")
        if self.share is not None and not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share}: give a number from 0 to 1, or None")
        if self.k < 1:
            raise ValueError(f"k is {self.k}: keep at least 1 thought")

    def __call__(self, scores: Sequence[float], chain_id: str = "") -> tuple[bool, ...]:
        """For each thought, whether it stays long; ``chain_id`` lets ``random`` draw differently for each chain.

        Raises:
            ValueError: there are no scores, or one is not finite.
        """
        values = np.asarray(scores, dtype=float)
        if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
            raise ValueError(
                f"scores of chain {chain_id!r} are {scores!r}: give one finite score for each of its thoughts"
            )
        return tuple(RULES[self.rule](values, self, chain_id).tolist())


def scan(scores: np.ndarray) -> np.ndarray:
    """y_1 is long; y_i is long iff M(y_i) > max(M(y_1) … M(y_{i-1})). Along the last axis of ``scores``."""
    long = np.ones(scores.shape, dtype=bool)
    long[..., 1:] = scores[..., 1:] > np.maximum.accumulate(scores, -1)[..., :-1]
    return long


def _scan(scores: np.ndarray, settings: Partition, chain_id: str) -> np.ndarray:
    return scan(scores)


def _random(scores: np.ndarray, settings: Partition, chain_id: str) -> np.ndarray:
    """The first thought and others drawn evenly: their ablation of the metric."""
    total = len(scores)
    count = int(scan(scores).sum()) if settings.share is None else round(settings.share * total)
    drawn = random.Random(f"{settings.seed}/{chain_id}").sample(range(1, total), max(0, count - 1))
    return _marked(total, drawn)


def _top_k(scores: np.ndarray, settings: Partition, chain_id: str) -> np.ndarray:
    """Of equal scores the earlier one counts as higher."""
    return _marked(len(scores), np.argsort(-scores, kind="stable")[: settings.k].tolist())


def _threshold(scores: np.ndarray, settings: Partition, chain_id: str) -> np.ndarray:
    return _marked(len(scores), np.flatnonzero(scores > settings.threshold).tolist())


def _marked(total: int, places: Sequence[int]) -> np.ndarray:
    long = np.zeros(total, dtype=bool)
    long[[0, *places]] = True
    return long


RULES: Mapping[str, Callable[[np.ndarray, Partition, str], np.ndarray]] = {
    "scan": _scan,
    "random": _random,
    "top_k": _top_k,
    "threshold": _threshold,
}
