"""Figures of an evaluation: accuracy against length in one number, and the standard error of pass@1."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, stdev

LENGTH_WEIGHT = 1.0
GAIN_WEIGHT = 3.0
LOSS_WEIGHT = 5.0


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
