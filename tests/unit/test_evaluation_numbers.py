"""Numbers of a benchmark, of a comparison, and their averages, against the formulas by hand.

Intervals are also tried on problems of many kinds of difficulty. Not proved here: that they cover where problems
resemble each other.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Mapping
from dataclasses import replace
from math import comb, sqrt
from pathlib import Path
from statistics import fmean, pstdev, stdev
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshort.display import Display
from longshort.episode import Episode, Outcome, Problem, Turn
from longshort.evaluation.comparison import compare_folders, compare_samples, mcnemar, show_comparison, unlike
from longshort.evaluation.context_cost import context_cost
from longshort.evaluation.metrics import (
    Z_95,
    average_interval,
    clustered_standard_error,
    confidence_interval,
    difference_interval,
    interval_error,
    pass_at_k,
    student_95,
)
from longshort.evaluation.numbers import average_numbers, benchmark_numbers, percentile
from longshort.evaluation.records import SUMMARY, Evaluated, benchmarks_of, read_benchmark, read_summary, sample_id
from longshort.stages import run_stage


def turn(role: str, tokens: int, prompt: int = 0, cached: int | None = 0, **changes: object) -> Turn:
    made = Turn(role, (1,) * tokens, "x", (0.0,) * tokens, "stop", cached_tokens=cached, prompt_tokens=prompt)
    return replace(made, **changes)  # type: ignore[arg-type]


def sample(key: str, number: int, correct: bool, *turns: Turn, outcome: Outcome = "answered") -> Evaluated:
    problem = Problem(key, f"question {key}", "5")
    prompts = dict.fromkeys(("long", "short"), (1,))
    return Evaluated(Episode(problem, prompts, turns, outcome, number), correct)


def graded(rows: list[list[int]], tokens: int = 10) -> list[Evaluated]:
    return [
        sample(f"p{p}", s, bool(right), turn("long", tokens))
        for p, row in enumerate(rows)
        for s, right in enumerate(row)
    ]


# pass@1 and pass@k


def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer() -> None:
    for n, right in itertools.product(range(1, 7), range(7)):
        if right > n:
            continue
        answers = [True] * right + [False] * (n - right)
        for k in range(1, n + 1):
            subsets = [any(subset) for subset in itertools.combinations(answers, k)]
            assert pass_at_k(n, right, k) == pytest.approx(fmean(subsets))


@pytest.mark.parametrize("k", [0, 5])
def test_pass_at_k_of_too_few_samples_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"pass@{k} of 4 samples is undefined; give a k between 1 and 4"):
        pass_at_k(4, 2, k)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = random.Random(1)
    # Of these problems, a tenth is hard.
    rates = [0.1, *[0.97] * 9]
    covered = 0
    for _ in range(1000):
        drawn = [rng.choice(rates) for _ in range(60)]
        low, high = confidence_interval([[rng.random() < rate for _ in range(4)] for rate in drawn])
        assert 0 <= low < high <= 1
        covered += low <= fmean(rates) <= high
    assert 0.93 <= covered / 1000 <= 0.98


# Mean difficulty, and how alike problems are: from all or nothing to nearly equal.
DIFFICULTIES = [(0.5, 0.3), (0.9, 2.0), (0.98, 0.5), (0.98, 20.0)]


def shares(rng: np.random.Generator, problems: int, samples: int, mean: float, alike: float) -> list[float]:
    """Of right answers, of problems whose difficulties are of a Beta distribution."""
    rates = rng.beta(mean * alike, (1 - mean) * alike, size=problems)
    return [float(share) for share in rng.binomial(samples, rates) / samples]


@pytest.mark.parametrize("samples", [1, 16])
@pytest.mark.parametrize("problems", [10, 30, 100])
def test_the_interval_covers_where_problems_are_few_or_nearly_all_right(problems: int, samples: int) -> None:
    rng = np.random.default_rng(3)
    for mean, alike in DIFFICULTIES:
        drawn = [shares(rng, problems, samples, mean, alike) for _ in range(400)]
        intervals = [confidence_interval([[share] for share in one]) for one in drawn]
        assert fmean(low <= mean <= high for low, high in intervals) >= 0.93


@pytest.mark.parametrize("problems", [5, 30])
def test_the_interval_of_a_difference_covers(problems: int) -> None:
    rng = np.random.default_rng(4)
    for mean, alike in DIFFICULTIES:
        covered = []
        for _ in range(400):
            a, b = shares(rng, problems, 4, mean, alike), shares(rng, problems, 4, 0.8, alike)
            low, high = difference_interval([y - x for x, y in zip(a, b, strict=True)])
            covered.append(low <= 0.8 - mean <= high)
        assert fmean(covered) >= 0.93


@pytest.mark.parametrize("problems", [10, 30])
def test_the_interval_of_an_average_covers(problems: int) -> None:
    rng = np.random.default_rng(5)
    for mean, alike in DIFFICULTIES:
        covered = []
        for _ in range(400):
            graded = [[[share] for share in shares(rng, problems, 4, mean, alike)] for _ in range(4)]
            means = [fmean(map(fmean, rows)) for rows in graded]
            _, (low, high) = average_interval(means, [interval_error(rows) for rows in graded], [problems] * 4)
            covered.append(low <= mean <= high)
        assert fmean(covered) >= 0.93


@pytest.mark.parametrize(
    ("freedom", "printed"), [(1, 12.706), (2, 4.303), (3, 3.182), (10, 2.228), (29, 2.045), (100, 1.984), (1000, 1.962)]
)
def test_students_quantiles_are_those_of_the_tables(freedom: int, printed: float) -> None:
    assert student_95(freedom) == pytest.approx(printed, abs=5e-4)


def test_the_interval_of_one_sample_is_agresti_and_coulls() -> None:
    n = 100 + Z_95**2
    p = (60 + Z_95**2 / 2) / n
    half = 1.984217 * sqrt(p * (1 - p) / n)
    assert confidence_interval([[True]] * 60 + [[False]] * 40) == pytest.approx((p - half, p + half))


def test_the_interval_is_no_point_where_all_problems_agree_and_samples_do_not_narrow_it() -> None:
    once = confidence_interval([[True]] * 30)
    assert once == confidence_interval([[True] * 64] * 30)
    n = 30 + Z_95**2
    p = (30 + Z_95**2 / 2) / n
    assert once == pytest.approx((p - 2.045230 * sqrt(p * (1 - p) / n), 1.0))


def test_one_answer_of_many_changes_the_interval_little() -> None:
    right, nearly = [[True] * 64] * 30, [[True] * 64] * 29 + [[True] * 63 + [False]]
    assert confidence_interval(nearly) == pytest.approx(confidence_interval(right), abs=1e-3)


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=4), min_size=2, max_size=40))
def test_the_interval_holds_the_plain_mean(grades: list[list[bool]]) -> None:
    low, high = confidence_interval(grades)
    assert 0 <= low <= fmean(map(fmean, grades)) <= high <= 1 and low < high


# Numbers


def test_numbers_of_a_pair_by_hand() -> None:
    samples = [
        sample("a", 0, True, turn("long", 10, 5, 0), turn("short", 4, 20, 16)),
        sample("a", 1, False, turn("long", 30, 5, 4, finish_reason="length", well_formed=False), outcome="token_limit"),
        sample("b", 0, True, *[turn(r, 5, 10, 10) for r in ("long", "short") * 2]),
        sample("b", 1, False, turn("long", 6, 5, 5), turn("short", 2, 9, 9, well_formed=False), outcome="malformed"),
    ]
    numbers = benchmark_numbers(samples)
    assert (numbers["problems"], numbers["samples"], numbers["pass@1"]) == (2, 2, 0.5)
    assert numbers["pass@k"] == {"1": 0.5, "2": 1.0}
    assert numbers["tokens"] == (14 + 30 + 20 + 8) / 4
    assert numbers["tokens_per_right_answer"] == 72 / 2
    assert numbers["turns"] == {"mean": 9 / 4, "max": 4}
    assert (numbers["truncated"], numbers["malformed"], numbers["errors"]) == (0.25, 0.25, 0.0)
    assert numbers["outcomes"] == {"answered": 0.5, "turn_limit": 0.0, "token_limit": 0.25, "malformed": 0.25}
    assert numbers["length_percentiles"]["right"]["50"] == 14
    assert numbers["length_percentiles"]["wrong"]["99"] == 30
    long, short = numbers["roles"]["long"], numbers["roles"]["short"]
    assert (long["turns"], long["tokens"], long["tokens_per_turn"]) == (5 / 4, 56 / 4, 56 / 5)
    assert (long["cut_turns"], long["well_formed_turns"]) == (1 / 5, 4 / 5)
    assert short["context"] == {"prompt": 49 / 4, "cached": 45 / 4, "computed": 1.0, "generated": 16 / 4}
    assert json.loads(json.dumps(numbers)) == numbers


def test_a_cache_that_not_every_turn_tells_of_is_unknown() -> None:
    episodes = [sample("a", 0, True, turn("long", 3, 7, 7), turn("long", 3, 9, None)).episode]
    cost = context_cost(episodes, "long")
    assert cost == {"prompt": 16, "cached": None, "computed": None, "generated": 6}


def test_what_nobody_did_is_none_and_not_zero() -> None:
    numbers = benchmark_numbers([sample("a", 0, False, outcome="token_limit")])
    assert numbers["tokens_per_right_answer"] is None
    assert numbers["standard_error"] is numbers["interval"] is numbers["length_percentiles"]["right"] is None
    assert numbers["roles"]["long"]["tokens_per_turn"] is None
    assert numbers["length_percentiles"]["wrong"]["20"] == 0


def test_percentiles_are_values_that_occurred() -> None:
    lengths = list(range(1, 101))
    assert [percentile(lengths, share) for share in (20, 50, 99, 100)] == [20, 50, 99, 100]
    assert percentile([7], 20) == 7
    assert percentile([1, 9], 50) == 1 and percentile([1, 9], 60) == 9


def test_pass_at_k_goes_up_to_the_samples_of_every_problem() -> None:
    numbers = benchmark_numbers(graded([[1, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 1]]))
    assert list(numbers["pass@k"]) == ["1", "2", "4", "6"]
    assert numbers["pass@k"]["2"] == pytest.approx((1 - comb(3, 2) / 15 + 1 - comb(5, 2) / 15) / 2)


def test_the_average_counts_each_benchmark_the_same() -> None:
    small = benchmark_numbers(graded([[1], [0]], tokens=10))
    large = benchmark_numbers(graded([[1]] * 30, tokens=40))
    errors = [interval_error([[1], [0]]), interval_error([[1]] * 30)]
    average = average_numbers([small | {"aes": 1.0}, large | {"aes": 2.0}])
    assert average["pass@1"] == 0.75 and average["tokens"] == 25
    assert average["roles"]["long"]["context"]["generated"] == 25
    assert average["interval"] == list(average_interval([0.5, 1.0], errors, [2, 30])[1])
    assert "problems" not in average and "aes" not in average and "max" not in average["turns"]
    assert average["tokens_per_right_answer"] == pytest.approx((20 + 40) / 2)


def test_the_interval_of_an_average_by_hand() -> None:
    errors, z2 = [0.03, 0.05], Z_95**2
    # Half of the further problems each.
    middle = ((30 * 0.9 + z2 / 4) / (30 + z2 / 2) + (10 * 1.0 + z2 / 4) / (10 + z2 / 2)) / 2
    one, other = 0.03 * (30 + z2) / (30 + z2 / 2), 0.05 * (10 + z2) / (10 + z2 / 2)
    freedom = (one**2 + other**2) ** 2 / (one**4 / 29 + other**4 / 9)
    assert 14 < freedom < 15
    error = sqrt(one**2 + other**2) / 2
    found, interval = average_interval([0.9, 1.0], errors, [30, 10])
    assert found == pytest.approx(error)
    assert interval == pytest.approx((middle - 2.144787 * error, middle + 2.144787 * error))


def test_the_average_of_one_benchmark_has_its_interval_and_of_all_right_ones_is_no_point() -> None:
    right = benchmark_numbers(graded([[1]] * 30))
    assert average_numbers([right])["interval"] == pytest.approx(right["interval"])
    assert right["interval"][0] < average_numbers([right, right])["interval"][0] < 0.95


# Comparison


def test_the_difference_is_paired_by_problem() -> None:
    a, b = [[1, 0], [0, 0], [1, 1], [0, 1]], [[1, 1], [0, 1], [1, 1], [1, 0]]
    paired = compare_samples(graded(a, 20), graded(b, 8))
    # Twice each, since half a difference of -1 and of +1 and a whole one of 0 are added.
    doubled = [0.5] * 4 + [0.0] * 4 + [-1, 1, 0, 0]
    half = 3.182446 * pstdev(doubled) / sqrt(6)
    assert paired.accuracy == (0.5, 0.75) and paired.difference == pytest.approx(0.25)
    assert paired.interval == pytest.approx((1 / 6 - half, 1 / 6 + half))
    assert (paired.tokens, paired.token_difference, paired.token_interval) == ((20, 8), -12, (-12, -12))
    assert (paired.only_a, paired.only_b, paired.problems, paired.samples) == (0, 2, 4, 2)
    assert paired.p_value == pytest.approx(0.5)
    assert paired.aes == pytest.approx(12 / 20 + 3 * 0.25 / 0.5)


def test_no_difference_on_any_problem_is_not_certainty() -> None:
    paired = compare_samples(graded([[1]] * 30), graded([[1]] * 30))
    assert paired.difference == 0
    assert paired.interval == pytest.approx((-2.045230 / 32, 2.045230 / 32))


def test_tokens_have_students_interval() -> None:
    a = [sample(f"p{i}", 0, True, turn("long", 10)) for i in range(3)]
    b = [sample(f"p{i}", 0, True, turn("long", tokens)) for i, tokens in enumerate((11, 14, 20))]
    half = 4.302653 * stdev([1, 4, 10]) / sqrt(3)
    assert compare_samples(a, b).token_interval == pytest.approx((5 - half, 5 + half))


def test_pairing_is_surer_than_two_separate_intervals() -> None:
    rng = random.Random(2)
    rates = [rng.random() for _ in range(100)]
    a = [[int(rng.random() < rate) for _ in range(16)] for rate in rates]
    b = [[int(rng.random() < rate) for _ in range(16)] for rate in rates]
    paired = compare_samples(graded(a), graded(b))
    assert paired.interval is not None
    half = (paired.interval[1] - paired.interval[0]) / 2
    assert half < 0.6 * Z_95 * (clustered_standard_error(a) ** 2 + clustered_standard_error(b) ** 2) ** 0.5


@pytest.mark.parametrize(("a", "b", "p"), [(0, 0, 1.0), (5, 5, 1.0), (0, 1, 1.0), (0, 6, 2 / 64), (2, 8, 112 / 1024)])
def test_mcnemar_is_exact(a: int, b: int, p: float) -> None:
    assert mcnemar(a, b) == mcnemar(b, a) == pytest.approx(p)


def test_mcnemar_of_many_pairs_is_a_number() -> None:
    assert mcnemar(900, 1100) == pytest.approx(8.6e-6, rel=0.1)
    assert 0 <= mcnemar(0, 5000) < 1e-300


PLAIN: Mapping[str, Any] = {
    "protocol": "solo",
    "limits": {"max_turns": 1, "max_turn_tokens": {"solo": 448}, "close_cut_turns": True},
    "sampling": {"temperature": 0.6, "top_p": 0.95, "top_k": -1},
}


async def write(
    folder: Path,
    rows: list[list[int]],
    limit: int = 448,
    name: str = "mine",
    played: Mapping[str, Any] = PLAIN,
    **changes: str,
) -> Path:
    """An evaluation as its command leaves it."""

    async def work(item: Evaluated) -> dict[str, object]:
        return item.to_record()

    samples = graded(rows)
    for key, value in changes.items():
        first = samples[0].episode
        samples[0] = replace(samples[0], episode=replace(first, problem=replace(first.problem, **{key: value})))
    items = {sample_id(s.episode.problem.id, s.episode.sample): s for s in samples}
    await run_stage(folder, name, items, work, {})
    settings = played | {"limits": played["limits"] | {"max_episode_tokens": limit}}
    summary = {"model": {}, "settings": settings, "benchmarks": {name: benchmark_numbers(samples)}, "average": {}}
    (folder / SUMMARY).write_text(json.dumps(summary))
    return folder


async def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    await write(tmp_path, [[1, 0], [0, 1]])
    assert benchmarks_of(tmp_path) == ["mine"]
    assert list(read_benchmark(tmp_path, "mine").values()) == graded([[1, 0], [0, 1]])


async def test_two_folders_are_compared_on_what_they_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = await write(tmp_path / "a", [[1], [0]]), await write(tmp_path / "b", [[1], [1]])
    await write(b, [[1]], name="other")
    assert list(compare_folders(a, b)) == ["mine"]
    with Display() as display:
        show_comparison(a, b, display)
    shown = capsys.readouterr().out
    assert "50.0%, 100.0%" in shown and "not compared" in shown and "other" in shown


async def test_what_differs_and_is_no_limit_is_told(tmp_path: Path) -> None:
    a = await write(tmp_path / "a", [[1], [0]])
    assert unlike(a, a) == []
    other = {"sampling": {**PLAIN["sampling"], "top_p": 1.0}, "limits": {**PLAIN["limits"], "limit_in_prompt": 100}}
    b = await write(tmp_path / "b", [[1], [0]], played={**PLAIN, **other})
    await write(a, [[1]], name="first")
    await write(b, [[1]], name="other", played={**PLAIN, **other})
    assert unlike(a, b) == [
        ("limits.limit_in_prompt", "None", "100"),
        ("sampling.top_p", "0.95", "1.0"),
        ("not compared", "first", "other"),
    ]
    assert list(compare_folders(a, b)) == ["mine"]


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("max_turns", 2, r"limits\.max_turns is 1 in the one and 2 in the other"),
        ("max_turn_tokens", {"solo": 9}, r"limits\.max_turn_tokens\.solo is 448 in the one and 9 in the other"),
        ("close_cut_turns", False, r"limits\.close_cut_turns is True in the one and False in the other"),
    ],
)
async def test_one_kind_of_team_has_equal_limits_and_two_kinds_equal_room(
    tmp_path: Path, key: str, value: object, fault: str
) -> None:
    limits = {**PLAIN["limits"], key: value}
    a = await write(tmp_path / "a", [[1], [0]])
    b = await write(tmp_path / "b", [[1], [0]], played={**PLAIN, "limits": limits})
    with pytest.raises(ValueError, match=fault):
        compare_folders(a, b)
    pair = await write(tmp_path / "pair", [[1], [0]], played={**PLAIN, "protocol": "long_short", "limits": limits})
    assert list(compare_folders(a, pair)) == ["mine"]


@pytest.mark.parametrize(
    ("rows", "changes", "fault"),
    [
        ([[1], [0], [1]], {}, r"on mine: problems differ, 1 are in one only, such as p2"),
        ([[1, 1], [0, 0]], {}, r"on mine: samples of a problem are 1 in the one and 2 in the other"),
        ([[1], [0]], {"limit": 400}, r"limits\.max_episode_tokens is 448 in the one and 400 in the other"),
        ([[1], [0]], {"name": "yours"}, r"share no benchmark: the one has mine, the other yours"),
        ([[1], [0]], {"question": "other"}, r"on mine: problem p0 differs in question or answer"),
    ],
)
async def test_what_is_not_comparable_is_refused_with_what_differs(
    tmp_path: Path, rows: list[list[int]], changes: dict[str, object], fault: str
) -> None:
    a = await write(tmp_path / "a", [[1], [0]])
    b = await write(tmp_path / "b", rows, **changes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=fault):
        compare_folders(a, b)


def test_a_folder_without_an_evaluation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no evaluation \(summary\.json\); give the folder"):
        read_summary(tmp_path)
    (tmp_path / SUMMARY).write_text("{}")
    with pytest.raises(ValueError, match="is no summary of an evaluation"):
        read_summary(tmp_path)
