"""Numbers of a benchmark, of a comparison, and their averages, against the formulas by hand.

Not proved here: that intervals cover where problems are few and all alike.
"""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace
from math import comb
from pathlib import Path
from statistics import fmean, stdev

import pytest

from longshort.display import Display
from longshort.episode import Episode, Outcome, Problem, Turn
from longshort.evaluation.comparison import compare_folders, compare_samples, mcnemar, show_comparison
from longshort.evaluation.context_cost import context_cost
from longshort.evaluation.metrics import Z_95, clustered_standard_error, confidence_interval, pass_at_k
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


def test_the_interval_of_one_sample_is_nearly_wilsons() -> None:
    grades = [[True]] * 60 + [[False]] * 40
    n, p = 99, 0.6
    middle, spread = p + Z_95**2 / (2 * n), Z_95 * (p * (1 - p) / n + Z_95**2 / (4 * n * n)) ** 0.5
    assert confidence_interval(grades) == pytest.approx(
        ((middle - spread) / (1 + Z_95**2 / n), (middle + spread) / (1 + Z_95**2 / n))
    )


def test_the_interval_is_no_point_where_all_problems_agree_and_samples_do_not_narrow_it() -> None:
    once = confidence_interval([[True]] * 30)
    assert once == confidence_interval([[True] * 64] * 30)
    assert once[0] == pytest.approx(30 / (30 + Z_95**2)) and once[1] == 1.0


def test_problems_that_agree_more_than_coins_would_count_as_all_samples_at_most() -> None:
    low, high = confidence_interval([[True, False]] * 19 + [[True, True], [False, False]])
    n = 42
    half = Z_95 * (0.25 / n + Z_95**2 / (4 * n * n)) ** 0.5 / (1 + Z_95**2 / n)
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half))


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
    average = average_numbers([small, large])
    assert average["pass@1"] == 0.75 and average["tokens"] == 25
    assert average["roles"]["long"]["context"]["generated"] == 25
    assert average["standard_error"] == pytest.approx(clustered_standard_error([[1], [0]]) / 2)
    assert average["interval"][1] == 1.0
    assert "problems" not in average and "max" not in average["turns"]
    assert average["tokens_per_right_answer"] == pytest.approx((20 + 40) / 2)


# Comparison


def test_the_difference_is_paired_by_problem() -> None:
    a, b = [[1, 0], [0, 0], [1, 1], [0, 1]], [[1, 1], [0, 1], [1, 1], [1, 0]]
    paired = compare_samples(graded(a, 20), graded(b, 8))
    differences = [0.5, 0.5, 0.0, 0.0]
    error = stdev(differences) / 2
    assert paired.accuracy == (0.5, 0.75) and paired.difference == pytest.approx(0.25)
    assert paired.interval == pytest.approx((0.25 - Z_95 * error, 0.25 + Z_95 * error))
    assert (paired.tokens, paired.token_difference, paired.token_interval) == ((20, 8), -12, (-12, -12))
    assert (paired.only_a, paired.only_b, paired.problems, paired.samples) == (0, 2, 4, 2)
    assert paired.p_value == pytest.approx(0.5)
    assert paired.aes == pytest.approx(12 / 20 + 3 * 0.25 / 0.5)


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


async def write(folder: Path, rows: list[list[int]], limit: int = 448, name: str = "mine", **changes: str) -> Path:
    """An evaluation as its command leaves it."""

    async def work(item: Evaluated) -> dict[str, object]:
        return item.to_record()

    samples = graded(rows)
    for key, value in changes.items():
        first = samples[0].episode
        samples[0] = replace(samples[0], episode=replace(first, problem=replace(first.problem, **{key: value})))
    items = {sample_id(s.episode.problem.id, s.episode.sample): s for s in samples}
    await run_stage(folder, name, items, work, {})
    settings = {"limits": {"max_episode_tokens": limit}}
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
    assert "50.0%, 100.0%" in capsys.readouterr().out


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
