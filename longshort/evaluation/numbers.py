"""All numbers of a benchmark, as ``summary.json`` holds them, and their average over benchmarks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil
from statistics import fmean
from typing import Any, get_args

from longshort.episode import Episode, Outcome
from longshort.evaluation.context_cost import context_cost
from longshort.evaluation.metrics import average_interval, confidence_interval, interval_error, pass_at_k
from longshort.evaluation.records import Evaluated, by_problem

# Of lengths, in per cent: ThinkPrune's (arXiv 2504.01296).
PERCENTILES = (20, 40, 50, 60, 80, 90, 99)
# What has no mean over benchmarks.
NOT_AVERAGED = frozenset(
    {"problems", "samples", "left_out", "interval", "standard_error", "max", "length_percentiles", "aes"}
)


def benchmark_numbers(samples: Sequence[Evaluated]) -> dict[str, Any]:
    """Numbers of one benchmark; shares are between 0 and 1, lengths are sampled tokens.

    - ``pass@1``, ``standard_error``, ``interval``: mean over problems, clustered by problem, the interval and the error
      that it is made of; the latter two are None for a single problem.
    - ``pass@k``: by k, the powers of two up to the samples of a problem, and that number.
    - ``tokens``: of a conversation; ``tokens_per_right_answer``: all tokens through all right answers, None without.
    - ``turns``, ``outcomes``, ``truncated`` (a limit of tokens or turns was hit), ``malformed``, ``errors`` (ungraded).
    - ``length_percentiles``: of right and of wrong answers; None where there are none.
    - ``roles``: of each role turns and tokens per conversation, tokens per turn, shares of its turns that were cut or
      follow the template, and ``context``, see :func:`longshort.evaluation.context_cost.context_cost`.
    """
    grouped = [[sample.correct for sample in group] for group in by_problem(samples).values()]
    episodes = [sample.episode for sample in samples]
    tokens = sum(episode.tokens for episode in episodes)
    right = sum(map(sum, grouped))
    outcomes = Counter(episode.outcome for episode in episodes)
    shares = {name: outcomes[name] / len(episodes) for name in get_args(Outcome)}
    several = len(grouped) > 1
    return {
        "problems": len(grouped),
        "samples": max(map(len, grouped)),
        "pass@1": fmean(map(fmean, grouped)),
        "standard_error": interval_error(grouped) if several else None,
        "interval": list(confidence_interval(grouped)) if several else None,
        "pass@k": _pass_at_ks(grouped),
        "tokens": tokens / len(episodes),
        "tokens_per_right_answer": tokens / right if right else None,
        "turns": {
            "mean": fmean(len(episode.turns) for episode in episodes),
            "max": max(len(episode.turns) for episode in episodes),
        },
        "outcomes": shares,
        "truncated": shares["token_limit"] + shares["turn_limit"],
        "malformed": shares["malformed"],
        "errors": fmean(episode.error is not None for episode in episodes),
        "length_percentiles": {
            "right": _percentiles([sample.episode.tokens for sample in samples if sample.correct]),
            "wrong": _percentiles([sample.episode.tokens for sample in samples if not sample.correct]),
        },
        "roles": {role: _of_role(episodes, role) for role in _roles(episodes)},
    }


def average_numbers(benchmarks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over benchmarks, each counting the same, of the numbers that all of them have.

    ``standard_error`` and ``interval``, where every benchmark has them, are
    :func:`longshort.evaluation.metrics.average_interval`'s.
    """
    found = _mean_of(benchmarks)
    errors = [each["standard_error"] for each in benchmarks]
    if all(errors):
        error, interval = average_interval(
            [each["pass@1"] for each in benchmarks], errors, [each["problems"] for each in benchmarks]
        )
        found |= {"standard_error": error, "interval": list(interval)}
    return found


def percentile(ordered: Sequence[int], share: int) -> int:
    """The least value that at least ``share`` per cent of the values do not exceed (nearest rank).

    Args:
        ordered: ascending, not empty.
    """
    return ordered[max(ceil(share / 100 * len(ordered)), 1) - 1]


def _percentiles(lengths: Sequence[int]) -> dict[str, int] | None:
    ordered = sorted(lengths)
    return {str(share): percentile(ordered, share) for share in PERCENTILES} if ordered else None


def _pass_at_ks(grouped: Sequence[Sequence[bool]]) -> dict[str, float]:
    """Mean over problems of unbiased pass@k."""
    least = min(map(len, grouped))
    ks = sorted({2**power for power in range(least.bit_length())} | {least})
    return {str(k): fmean(pass_at_k(len(group), sum(group), k) for group in grouped) for k in ks}


def _roles(episodes: Sequence[Episode]) -> list[str]:
    """All that could speak, and all that did."""
    named = [role for episode in episodes for role in (*episode.prompts, *[turn.role for turn in episode.turns])]
    return list(dict.fromkeys(named))


def _of_role(episodes: Sequence[Episode], role: str) -> dict[str, Any]:
    turns = [turn for episode in episodes for turn in episode.turns if turn.role == role]
    tokens = sum(len(turn.token_ids) for turn in turns)
    return {
        "turns": len(turns) / len(episodes),
        "tokens": tokens / len(episodes),
        "tokens_per_turn": tokens / len(turns) if turns else None,
        "cut_turns": fmean(turn.finish_reason == "length" for turn in turns) if turns else None,
        "well_formed_turns": fmean(turn.well_formed for turn in turns) if turns else None,
        "context": context_cost(episodes, role),
    }


def _mean_of(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in values[0]:
        if key in NOT_AVERAGED or not all(key in value for value in values):
            continue
        column = [value[key] for value in values]
        if all(isinstance(one, Mapping) for one in column):
            found[key] = _mean_of(column)
        elif all(isinstance(one, int | float) for one in column):
            found[key] = fmean(column)
    return found
