"""Figures of an evaluation: accuracy against length in one number, pass@1 and how sure it is, pass@k."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, sqrt
from statistics import fmean, stdev

LENGTH_WEIGHT = 1.0
GAIN_WEIGHT = 3.0
LOSS_WEIGHT = 5.0
# Of a normal distribution, 95% lie within so many standard deviations.
Z_95 = 1.959964


def accuracy_efficiency_score(accuracy: float, length: float, base_accuracy: float, base_length: float) -> float:
    """AES of Long⊗Short (arXiv 2505.11827, evaluation metrics): higher is better, the base itself has 0.

    AES = 1 * (L_base - L) / L_base + s * (A - A_base) / A_base, with s = 3 if A >= A_base, else 5. The second term is
    negative by itself where accuracy is lost. The paper's base is the distilled reasoning model; accuracies and lengths
    are means over the same benchmarks, each benchmark counting the same.

    Args:
        accuracy, base_accuracy: in the same unit, shares or per cent.
        length, base_length: mean tokens of a conversation.

    Raises:
        ValueError: a base value is not above 0.
    """
    for name, value in (("accuracy", base_accuracy), ("length", base_length)):
        if not value > 0:
            raise ValueError(f"AES divides by the base's {name}, which is {value}; give a base where it is above 0")
    shorter = (base_length - length) / base_length
    better = (accuracy - base_accuracy) / base_accuracy
    return LENGTH_WEIGHT * shorter + (GAIN_WEIGHT if better >= 0 else LOSS_WEIGHT) * better


def clustered_standard_error(correct: Sequence[Sequence[bool | float]]) -> float:
    """Standard error of pass@1, the mean over problems of each problem's share of right answers.

    Samples of one problem succeed together, so problems count as clusters (arXiv 2411.00640). With the shares m_p of P
    problems and their mean m: sqrt(sum_p (m_p - m)^2 / (P * (P - 1))). More samples of a problem make m_p steadier;
    only more problems bring this to 0. It assumes that problems are drawn independently.

    Args:
        correct: (P, k), 1 or True for a right answer; k may differ between problems.

    Returns:
        In the unit of ``correct``: 0.02 stands for 2 points of accuracy.

    Raises:
        ValueError: fewer than two problems, or a problem without a sample.
    """
    if len(correct) < 2:
        raise ValueError(f"a standard error over {len(correct)} problem(s) is undefined; give at least 2 problems")
    for index, samples in enumerate(correct):
        if not samples:
            raise ValueError(f"problem {index} has no sample; give at least 1, or leave the problem out")
    return stdev([fmean(samples) for samples in correct]) / sqrt(len(correct))


def confidence_interval(correct: Sequence[Sequence[bool | float]]) -> tuple[float, float]:
    """95% interval of pass@1, clustered by problem: Wilson's, for as many independent answers as the samples are worth.

    With p = pass@1 and its clustered standard error e, n = p (1 - p) / e^2 independent answers would have that error
    (the effective sample size of cluster samples); then (p + z^2/2n ± z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n).
    Unlike p ± z e it stays within 0 and 1, and where all problems agree it is not a point: n is then the number of
    problems. It never is more than the number of samples.

    Args:
        correct: (P, k), as in :func:`clustered_standard_error`.

    Raises:
        ValueError: see :func:`clustered_standard_error`.
    """
    error = clustered_standard_error(correct)
    p = fmean(map(fmean, correct))
    n = float(len(correct))
    if 0 < p < 1 and error > 0:
        n = min(p * (1 - p) / error**2, sum(map(len, correct)))
    middle, spread = p + Z_95**2 / (2 * n), Z_95 * sqrt(p * (1 - p) / n + Z_95**2 / (4 * n**2))
    return max((middle - spread) / (1 + Z_95**2 / n), 0.0), min((middle + spread) / (1 + Z_95**2 / n), 1.0)


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Probability that one of k samples is right: 1 - C(n - c, k) / C(n, k), unbiased (arXiv 2107.03374, section 2.1).

    Args:
        samples: n, drawn for a problem.
        right: c of them.
        k: at most n.

    Raises:
        ValueError: k is not between 1 and n.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} of {samples} samples is undefined; give a k between 1 and {samples}")
    return 1.0 - comb(samples - right, k) / comb(samples, k)
