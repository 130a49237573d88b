"""How much a thought matters (Long⊗Short, arXiv 2505.11827, section 3), and how well that is known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

DECAY = 0.25


def joint_scores(lengths: Sequence[int], accuracies: Sequence[float], decay: float = DECAY) -> list[float]:
    """Scores M(y_1) … M(y_n) of the n thoughts of a chain, equation (1)::

        M(y_i) = log2(1 + T1(i) · T2(i) · P̂_i) - δ(y_i)
        T1(i)  = (d_y - d_{y_1..y_i}) / d_y      a short prefix scores high
        T2(i)  = (d_y - d_{y_i}) / d_y           a short thought scores high
        δ(y_i) = decay if P̂_i ≤ P̂_{i-1}, else 0

    T1(n) = 0, so the last thought scores 0 or -decay whatever its accuracy; the formula is kept as it is.

    Args:
        lengths: tokens of each thought, at least 1.
        accuracies: P̂_0 … P̂_n, the share of right rollouts from each prefix; P̂_0 is that of the bare question, which
            the paper leaves open and δ(y_1) needs.
        decay: the penalty of a thought after which the accuracy is not higher.

    Raises:
        ValueError: there is no thought, the numbers of values do not fit, or one is out of range.
    """
    tokens, shares = np.asarray(lengths, dtype=float), np.asarray(accuracies, dtype=float)
    if tokens.ndim != 1 or not len(tokens):
        raise ValueError(
            f"lengths has the shape {tokens.shape}: give the tokens of each thought of one chain, in a row"
        )
    if shares.shape != (len(tokens) + 1,):
        raise ValueError(
            f"accuracies has the shape {shares.shape} for {len(tokens)} thoughts: give {len(tokens) + 1} values, the "
            "first for the bare question"
        )
    _check_each("lengths", tokens, tokens >= 1, "a thought has at least 1 token")
    _check_each("accuracies", shares, (shares >= 0) & (shares <= 1), "a share lies from 0 to 1")
    if not (math.isfinite(decay) and decay >= 0):
        raise ValueError(f"decay is {decay}: give a finite number that is not negative")
    return scores_of(weights_of(tokens), shares, decay).tolist()


def weights_of(lengths: np.ndarray) -> np.ndarray:
    """T1(i) · T2(i) along the last axis, from lengths of the same shape; thoughts of length 0 fill up rows."""
    total = lengths.sum(-1, keepdims=True)
    return (total - np.cumsum(lengths, -1)) / total * (total - lengths) / total


def scores_of(weights: np.ndarray, accuracies: np.ndarray, decay: float) -> np.ndarray:
    """M along the last axis: ``weights`` (…, n) and ``accuracies`` (…, n + 1) give (…, n)."""
    before, after = accuracies[..., :-1], accuracies[..., 1:]
    return np.log2(1 + weights * after) - decay * (after <= before)


def sampling_error(rollouts: int, confidence: float = 0.95) -> float:
    """ε with |P̂ - P| ≤ ε at this confidence: ``sqrt(ln(2 / (1 - confidence)) / (2 · rollouts))`` (Hoeffding).

    Raises:
        ValueError: fewer than one rollout, or a confidence that is not between 0 and 1.
    """
    if isinstance(rollouts, bool) or not isinstance(rollouts, int | np.integer) or rollouts < 1:
        raise ValueError(f"rollouts is {rollouts!r}: give a whole number, at least 1")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}: give a number between 0 and 1, such as 0.95")
    return math.sqrt(math.log(2 / (1 - confidence)) / (2 * rollouts))


def error_bound(rollouts: int, confidence: float = 0.95) -> float:
    """How far M may be off because P̂ is sampled: ε / ln 2, by the mean value theorem (arXiv 2505.11827, section 3).

    It holds for each thought by itself, and where the error leaves δ as it is: see :func:`decay_in_doubt`.

    Raises:
        ValueError: see :func:`sampling_error`.
    """
    return sampling_error(rollouts, confidence) / math.log(2)


def decay_in_doubt(accuracies: Sequence[float], rollouts: int, confidence: float = 0.95) -> list[bool]:
    """For each thought, whether sampling errors of ε could change its δ: |P̂_i - P̂_{i-1}| ≤ 2ε.

    Raises:
        ValueError: see :func:`sampling_error`; or there are fewer than two accuracies.
    """
    shares = np.asarray(accuracies, dtype=float)
    if shares.ndim != 1 or len(shares) < 2:
        raise ValueError(
            f"accuracies has the shape {shares.shape}: give P̂_0 to P̂_n of one chain with at least one thought"
        )
    _check_each("accuracies", shares, (shares >= 0) & (shares <= 1), "a share lies from 0 to 1")
    return (np.abs(np.diff(shares)) <= 2 * sampling_error(rollouts, confidence)).tolist()


def _check_each(name: str, values: np.ndarray, good: np.ndarray, rule: str) -> None:
    good = good & np.isfinite(values)
    if not good.all():
        place = int(np.argmin(good))
        raise ValueError(f"{name}[{place}] is {values[place]}: {rule}; correct it")
