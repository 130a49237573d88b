"""Two evaluations of the same problems, paired: what differs between them is the models, not the problems."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path
from statistics import fmean
from typing import Any

from longshort.display import Display
from longshort.evaluation.identity import flat
from longshort.evaluation.metrics import accuracy_efficiency_score, difference_interval, mean_interval
from longshort.evaluation.records import Evaluated, benchmarks_of, by_problem, read_benchmark, read_summary

# The one limit that a pair shares with a single model: the room that an answer has.
ROOM = ("limits.max_episode_tokens",)
LIMITS = (*ROOM, "limits.max_turns", "limits.max_turn_tokens", "limits.close_cut_turns")
# May differ, and is shown: how the models are used.
SHOWN = ("sampling", "limits.limit_in_prompt")


@dataclass(frozen=True, slots=True)
class Paired:
    """B against A on one benchmark.

    Attributes:
        problems, samples: of each.
        accuracy: pass@1 of A and of B; tokens: mean tokens of a conversation of A and of B.
        difference, interval: accuracy of B less that of A, and its 95% interval,
            :func:`longshort.evaluation.metrics.difference_interval`; None for a single problem.
        token_difference, token_interval: the same of tokens, by :func:`longshort.evaluation.metrics.mean_interval`.
        only_a, only_b: problems that A, or B, answered right more often than the other.
        p_value: two-sided, exact, that ``only_a`` and ``only_b`` are as likely: McNemar's test where there is one
            sample; with more, the sign test over problems, because samples of a problem are not independent.
        aes: of B with A as its base; None where A has nothing right.
    """

    problems: int
    samples: int
    accuracy: tuple[float, float]
    tokens: tuple[float, float]
    difference: float
    interval: tuple[float, float] | None
    token_difference: float
    token_interval: tuple[float, float] | None
    only_a: int
    only_b: int
    p_value: float
    aes: float | None


def compare_samples(a: Sequence[Evaluated], b: Sequence[Evaluated]) -> Paired:
    """Compare the samples of one benchmark.

    Raises:
        ValueError: problems or the numbers of samples differ; a clause to stand after the benchmark's name.
    """
    groups_a, groups_b = by_problem(a), by_problem(b)
    _refuse_other_problems(groups_a, groups_b)
    pairs = [(groups_a[key], groups_b[key]) for key in groups_a]
    right = [(fmean(s.correct for s in one), fmean(s.correct for s in other)) for one, other in pairs]
    tokens = [(fmean(s.episode.tokens for s in one), fmean(s.episode.tokens for s in other)) for one, other in pairs]
    accuracy_a, accuracy_b = (fmean(column) for column in zip(*right, strict=True))
    tokens_a, tokens_b = (fmean(column) for column in zip(*tokens, strict=True))
    several = len(pairs) > 1
    only_a, only_b = sum(x > y for x, y in right), sum(x < y for x, y in right)
    return Paired(
        problems=len(pairs),
        samples=len(pairs[0][0]),
        accuracy=(accuracy_a, accuracy_b),
        tokens=(tokens_a, tokens_b),
        difference=accuracy_b - accuracy_a,
        interval=difference_interval([y - x for x, y in right]) if several else None,
        token_difference=tokens_b - tokens_a,
        token_interval=mean_interval([y - x for x, y in tokens]) if several else None,
        only_a=only_a,
        only_b=only_b,
        p_value=mcnemar(only_a, only_b),
        aes=accuracy_efficiency_score(accuracy_b, tokens_b, accuracy_a, tokens_a) if accuracy_a and tokens_a else None,
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided exact p-value of McNemar's test: each of the discordant pairs is a fair coin.

    min(1, 2 P(X <= min(a, b))) with X binomial of a + b and 1/2; 1 where no pair is discordant.
    """
    n, least = only_a + only_b, min(only_a, only_b)
    # In logarithms: 2**n is beyond the floats from 1,024 on.
    tail = math.fsum(math.exp(math.log(comb(n, i)) - n * math.log(2)) for i in range(least + 1))
    return min(1.0, 2 * tail)


def compare_folders(a: Path, b: Path) -> dict[str, Paired]:
    """By benchmark that both folders have.

    Raises:
        ValueError: a folder holds no evaluation, they share no benchmark, or they are not comparable.
    """
    one, other = (flat(read_summary(folder)["settings"]) for folder in (a, b))
    alike = LIMITS if one.get("protocol") == other.get("protocol") else ROOM
    if differing := _differing(one, other, alike):
        said = ", ".join(f"{key} is {x} in the one and {y} in the other" for key, x, y in differing)
        raise ValueError(f"{a} and {b} are not comparable: {said}; evaluate both with the same")
    shared = [name for name in benchmarks_of(a) if name in benchmarks_of(b)]
    if not shared:
        raise ValueError(
            f"{a} and {b} share no benchmark: the one has {', '.join(benchmarks_of(a)) or 'none'}, the other "
            f"{', '.join(benchmarks_of(b)) or 'none'}; evaluate both on the same"
        )
    found = {}
    for name in shared:
        try:
            found[name] = compare_samples(
                list(read_benchmark(a, name).values()), list(read_benchmark(b, name).values())
            )
        except ValueError as error:
            raise ValueError(f"{a} and {b} are not comparable on {name}: {error}") from error
    return found


def unlike(a: Path, b: Path) -> list[tuple[str, str, str]]:
    """What differs and is no reason to refuse: settings, and benchmarks of one folder only. A name, A's and B's."""
    one, other = (flat(read_summary(folder)["settings"]) for folder in (a, b))
    found = [(key, str(x), str(y)) for key, x, y in _differing(one, other, SHOWN)]
    names = [set(benchmarks_of(folder)) for folder in (a, b)]
    if names[0] != names[1]:
        only_a, only_b = (", ".join(sorted(each)) for each in (names[0] - names[1], names[1] - names[0]))
        found.append(("not compared", only_a, only_b))
    return found


def show_comparison(a: Path, b: Path, display: Display) -> None:
    """Print what :func:`compare_folders` and :func:`unlike` found."""
    rows = []
    for name, each in compare_folders(a, b).items():
        rows.append(
            (
                name,
                f"{each.problems} x {each.samples}",
                "{:.1%}, {:.1%}".format(*each.accuracy),
                f"{each.difference:+.1%}{_within(each.interval, '+.1%')}",
                f"{each.only_a}, {each.only_b}",
                f"{each.p_value:.3g}",
                "{:.0f}, {:.0f}".format(*each.tokens),
                f"{each.token_difference:+.0f}{_within(each.token_interval, '+.0f')}",
                "" if each.aes is None else f"{each.aes:.2f}",
            )
        )
    columns: tuple[str, ...] = ("benchmark", "problems", "pass@1 A, B", "B - A (95% interval)", "better A, B", "p")
    columns += ("tokens A, B", "B - A (95% interval)", "AES of B")
    display.table(f"A = {a}, B = {b}", columns, rows)
    if differing := unlike(a, b):
        display.table("What differs", ("", "A", "B"), differing)


def _within(interval: tuple[float, float] | None, form: str) -> str:
    return "" if interval is None else f" ({interval[0]:{form}} to {interval[1]:{form}})"


def _differing(one: Mapping[str, Any], other: Mapping[str, Any], names: Sequence[str]) -> list[tuple[str, Any, Any]]:
    """Settings of these names, or below them, that are not equal: key, and the value of each."""
    keys = [key for key in one.keys() | other.keys() if any(f"{key}.".startswith(f"{name}.") for name in names)]
    return [(key, one.get(key), other.get(key)) for key in sorted(keys) if one.get(key) != other.get(key)]


def _refuse_other_problems(a: Mapping[str, Sequence[Evaluated]], b: Mapping[str, Sequence[Evaluated]]) -> None:
    if missing := sorted(a.keys() ^ b.keys()):
        raise ValueError(
            f"problems differ, {len(missing)} are in one only, such as {missing[0]}; evaluate both on the same problems"
        )
    for key in a:
        one, other = a[key][0].episode.problem, b[key][0].episode.problem
        if (one.question, one.answer) != (other.question, other.answer):
            raise ValueError(f"problem {key} differs in question or answer; evaluate both on the same problems")
    counts: list[Any] = [sorted({len(group) for group in groups.values()}) for groups in (a, b)]
    if counts[0] != counts[1] or len(counts[0]) > 1:
        raise ValueError(
            f"samples of a problem are {' to '.join(map(str, counts[0]))} in the one and "
            f"{' to '.join(map(str, counts[1]))} in the other; evaluate both to the end with the same "
            "evaluation.samples"
        )
