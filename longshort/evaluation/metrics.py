"""Figures of an evaluation: accuracy against length in one number, pass@1 and how sure it is, pass@k."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import atan, comb, cos, fsum, pi, sin, sqrt
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
    return stdev(_shares(correct)) / sqrt(len(correct))


def interval_error(correct: Sequence[Sequence[bool | float]]) -> float:
    """Standard error that the interval of pass@1 is made of; above 0 also where all problems agree.

    As if z^2/2 further problems had no right answer and z^2/2 only right ones (Agresti & Coull 1998), but with a
    problem's share of right answers in place of one answer, because samples of a problem succeed together. With
    n = P + z^2 and the middle c = (sum_p m_p + z^2/2) / n:
    sqrt(sum_p (m_p - c)^2 + z^2/2 (c^2 + (1 - c)^2)) / n. With one sample a problem it is sqrt(c (1 - c) / n).

    Args:
        correct: (P, k), as in :func:`clustered_standard_error`.

    Raises:
        ValueError: see :func:`clustered_standard_error`.
    """
    return _padded(_shares(correct), {0.0: Z_95**2 / 2, 1.0: Z_95**2 / 2})[1]


def confidence_interval(correct: Sequence[Sequence[bool | float]]) -> tuple[float, float]:
    """95% interval of pass@1, clustered by problem: c ± t e, within 0 and 1.

    c and e are the middle and the error of :func:`interval_error`, t the 0.975 quantile of Student's distribution of
    P - 1 degrees of freedom. It holds the plain mean, is never a point, and changes little with one answer.

    Args:
        correct: (P, k), as in :func:`clustered_standard_error`.

    Raises:
        ValueError: see :func:`clustered_standard_error`.
    """
    return average_interval([fmean(_shares(correct))], [interval_error(correct)], [len(correct)])[1]


def average_interval(
    accuracies: Sequence[float], errors: Sequence[float], problems: Sequence[int]
) -> tuple[float, tuple[float, float]]:
    """Standard error and 95% interval of the mean of pass@1 over B benchmarks, each counting the same.

    The z^2 further problems of :func:`interval_error` are divided between the benchmarks (Price & Bonett 2004, of a
    linear function of proportions), because a shift of each middle would not shrink in the mean as errors do. With
    w = z^2/B, a benchmark of P problems has the middle (P m + w/2) / (P + w) and its error times (P + z^2) / (P + w).
    Errors of benchmarks are independent: e = sqrt(sum of squares) / B. The interval is the mean of the middles ± t e,
    within 0 and 1; the degrees of freedom are Satterthwaite's, (sum e_b^2)^2 / sum(e_b^4 / (P_b - 1)), rounded down.

    Args:
        accuracies, errors, problems: (B,), pass@1, :func:`interval_error` and P of each.
    """
    added = Z_95**2 / len(accuracies)
    middle = fmean((p * m + added / 2) / (p + added) for m, p in zip(accuracies, problems, strict=True))
    squares = [(e * (p + Z_95**2) / (p + added)) ** 2 for e, p in zip(errors, problems, strict=True)]
    error = sqrt(fsum(squares)) / len(squares)
    freedom = fsum(squares) ** 2 / fsum(one**2 / (p - 1) for one, p in zip(squares, problems, strict=True))
    # A rounding error shall not make 28 of 29.
    half = student_95(int(freedom + 1e-6)) * error
    return error, (max(middle - half, 0.0), min(middle + half, 1.0))


def difference_interval(differences: Sequence[float]) -> tuple[float, float]:
    """95% interval of the mean of problems' differences of their shares of right answers; never a point.

    As if half a further problem had the difference -1, half a one +1, and one 0 (Agresti & Min 2005, who add 1/2 to
    each of the four kinds of matched answers); then Student's with P - 1 degrees of freedom, within -1 and 1.

    Args:
        differences: (P,), each between -1 and 1; P is at least 2.
    """
    middle, error = _padded(differences, {-1.0: 0.5, 0.0: 1.0, 1.0: 0.5})
    half = student_95(len(differences) - 1) * error
    return max(middle - half, -1.0), min(middle + half, 1.0)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """95% interval of the mean of P values without bounds, at least 2: Student's with P - 1 degrees of freedom."""
    half = student_95(len(values) - 1) * stdev(values) / sqrt(len(values))
    return fmean(values) - half, fmean(values) + half


@lru_cache
def student_95(freedom: int) -> float:
    """The t that a value of Student's distribution lies within ±t of with probability 0.95; freedom is at least 1.

    By bisection of the exact probability (Abramowitz & Stegun 1964, 26.7.3 and 26.7.4).
    """
    # One degree of freedom has 12.71.
    low, high = Z_95, 13.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if _student_within(middle, freedom) > 0.95 else (middle, high)
    return high


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


def _student_within(t: float, freedom: int) -> float:
    angle = atan(t / sqrt(freedom))
    odd = freedom % 2
    term, total = cos(angle) ** odd, 0.0
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= (power + 1) / (power + 2) * cos(angle) ** 2
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total


def _padded(values: Sequence[float], added: Mapping[float, float]) -> tuple[float, float]:
    """Mean and standard error of ``values`` and of further ones, by value how many."""
    n = len(values) + fsum(added.values())
    mean = (fsum(values) + fsum(value * count for value, count in added.items())) / n
    squares = fsum((value - mean) ** 2 for value in values)
    squares += fsum(count * (value - mean) ** 2 for value, count in added.items())
    return mean, sqrt(squares) / n


def _shares(correct: Sequence[Sequence[bool | float]]) -> list[float]:
    """Of right answers, problem by problem."""
    if len(correct) < 2:
        raise ValueError(f"a standard error over {len(correct)} problem(s) is undefined; give at least 2 problems")
    for index, samples in enumerate(correct):
        if not samples:
            raise ValueError(f"problem {index} has no sample; give at least 1, or leave the problem out")
    return [fmean(samples) for samples in correct]
