"""Which checkpoint of a round the next one starts from.

ThinkPrune's rule (arXiv 2504.01296) is ``shortest``: of the checkpoints that lost at most 10% of the accuracy, relative
to the round's start, the one that writes least. The others stand beside it in ``SELECTION_RULES``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from longshort.evaluation.metrics import accuracy_efficiency_score

# Two accuracies that differ by less than this, relatively, are equal: 0.9 * 0.8 is more than 0.72 in floating point,
# while right answers among a billion would have to be counted to see such a difference.
EQUAL = 1e-9
LAST = "last"


class Measured(Protocol):
    """What an evaluation says: accuracy as a share, length as mean tokens of an episode."""

    @property
    def accuracy(self) -> float: ...

    @property
    def length(self) -> float: ...


M = TypeVar("M", bound=Measured)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A checkpoint and its evaluation; also the round's start. NaN stands for what was not measured.

    Attributes:
        step: of the round; 0 for its start.
        accuracy: pass@1, from 0 to 1.
        length: mean tokens of an episode.
        standard_error: of ``accuracy``.
    """

    step: int
    accuracy: float
    length: float
    standard_error: float


@dataclass(frozen=True, slots=True)
class Choice:
    """What a rule selected.

    Attributes:
        selected: None where the round's start is kept.
        reason: one sentence for people, with accuracies, their standard errors, and lengths.
    """

    selected: Candidate | None
    reason: str


# (candidates, the round's start, tolerance) to one of the candidates, or None to keep the start.
Rule = Callable[[Sequence[Candidate], Candidate, float], Candidate | None]


def select_checkpoint(candidates: Sequence[M], baseline_accuracy: float, tolerance: float = 0.10) -> M | None:
    """The shortest candidate whose accuracy is at least (1 - tolerance) * baseline_accuracy; None if there is none.

    Of equally short ones the more accurate, then the later in ``candidates``. Accuracy exactly at the limit is enough.
    Noise is not considered: with a large standard error the limit is passed or missed by luck.

    Raises:
        ValueError: no candidates, a tolerance outside [0, 1), or a number that is not finite.
    """
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance={tolerance} is no share of accuracy to lose; give 0 or more and less than 1")
    if not math.isfinite(baseline_accuracy):
        raise ValueError(f"the baseline's accuracy is {baseline_accuracy}; evaluate the round's start first")
    _check(candidates)
    kept = [one for one in candidates if _keeps(one, baseline_accuracy, tolerance)]
    return _last_max(kept, lambda one: (-one.length, one.accuracy)) if kept else None


def shortest(candidates: Sequence[Candidate], baseline: Candidate, tolerance: float) -> Candidate | None:
    """:func:`select_checkpoint`, where the later one has the higher step."""
    return select_checkpoint(_by_step(candidates), baseline.accuracy, tolerance)


def best_accuracy(candidates: Sequence[Candidate], baseline: Candidate, tolerance: float) -> Candidate | None:
    """The most accurate; of equals the shortest, then the later. Uses neither ``baseline`` nor ``tolerance``."""
    _check(candidates)
    return _last_max(_by_step(candidates), lambda one: (one.accuracy, -one.length))


def best_aes(candidates: Sequence[Candidate], baseline: Candidate, tolerance: float) -> Candidate | None:
    """The highest AES against ``baseline``, even below 0; of equals the shortest, then the later. No ``tolerance``."""
    _check([baseline])
    _check(candidates)
    return _last_max(_by_step(candidates), lambda one: (_aes(one, baseline), -one.length))


def last(candidates: Sequence[Candidate], baseline: Candidate, tolerance: float) -> Candidate | None:
    """The latest step. Nothing has to be measured."""
    _check_some(candidates)
    return _by_step(candidates)[-1]


SELECTION_RULES: Mapping[str, Rule] = {
    "shortest": shortest,
    "best_accuracy": best_accuracy,
    "best_aes": best_aes,
    LAST: last,
}


def choose(rule_name: str, candidates: Sequence[Candidate], baseline: Candidate, tolerance: float) -> Choice:
    """What the rule of that name selects, and why.

    Raises:
        ValueError: an unknown rule, or what the rule itself refuses.
    """
    if rule_name not in SELECTION_RULES:
        raise ValueError(f"selection rule {rule_name!r} is unknown; choose one of {', '.join(SELECTION_RULES)}")
    selected = SELECTION_RULES[rule_name](candidates, baseline, tolerance)
    if selected is not None:
        why = _why(rule_name, selected, candidates, baseline, tolerance)
        figures = f"{_figures(selected)}; the round began with {_figures(baseline)}"
        return Choice(selected, f"step {selected.step} is {why}, with {figures}")
    best = best_accuracy(candidates, baseline, tolerance)
    assert best is not None, "a rule that keeps the start has compared candidates"
    return Choice(
        None,
        f"no checkpoint of {len(candidates)} keeps {_limit(baseline, tolerance)}: the best, step {best.step}, has "
        f"{_figures(best)}, so the round's start is kept, with {_figures(baseline)}",
    )


def _why(
    rule_name: str, selected: Candidate, candidates: Sequence[Candidate], baseline: Candidate, tolerance: float
) -> str:
    count = len(candidates)
    match rule_name:
        case "shortest":
            kept = sum(_keeps(one, baseline.accuracy, tolerance) for one in candidates)
            return f"the shortest of the {kept} of {count} that keep {_limit(baseline, tolerance)}"
        case "best_accuracy":
            return f"the most accurate of {count}"
        case "best_aes":
            return f"the one of {count} with the highest AES, {_aes(selected, baseline):.3f}"
        case _:
            return f"the last of {count}"


def _limit(baseline: Candidate, tolerance: float) -> str:
    return f"an accuracy of at least {(1 - tolerance) * baseline.accuracy:.4f}"


def _keeps(one: Measured, baseline_accuracy: float, tolerance: float) -> bool:
    least = (1 - tolerance) * baseline_accuracy
    return one.accuracy >= least or math.isclose(one.accuracy, least, rel_tol=EQUAL)


def _aes(one: Candidate, baseline: Candidate) -> float:
    return accuracy_efficiency_score(one.accuracy, one.length, baseline.accuracy, baseline.length)


def _by_step(candidates: Sequence[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=lambda one: one.step)


def _last_max(candidates: Sequence[M], key: Callable[[M], tuple[float, float]]) -> M:
    """The largest by ``key``; of equals the last, where ``max`` would give the first."""
    return max(reversed(candidates), key=key)


def _check_some(candidates: Sequence[object]) -> None:
    if not candidates:
        raise ValueError("there are no checkpoints to select from; save and evaluate at least one in the round")


def _check(candidates: Sequence[Measured]) -> None:
    _check_some(candidates)
    for one in candidates:
        if not (math.isfinite(one.accuracy) and math.isfinite(one.length)):
            raise ValueError(
                f"accuracy={one.accuracy} and length={one.length} of {one} cannot be compared; evaluate it, "
                "or select the last checkpoint"
            )


def _figures(one: Candidate) -> str:
    if not math.isfinite(one.accuracy):
        return "no evaluation"
    error = f"{one.standard_error:.4f}" if math.isfinite(one.standard_error) else "unknown"
    return f"accuracy {one.accuracy:.4f} (standard error {error}) and {one.length:.1f} tokens"
