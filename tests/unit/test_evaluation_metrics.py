"""AES is the paper's, to its printed decimals; the standard error of pass@1 counts problems, not samples.

Not proved here: that the paper's accuracies and lengths can be reached, nor that the standard error holds for few
problems or for problems that resemble each other.
"""

from __future__ import annotations

import csv
import os
import random
from itertools import product
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshort.evaluation.metrics import accuracy_efficiency_score, clustered_standard_error

SHARED = Path(os.environ.get("LONGSHORT_SHARED", Path(__file__).parents[3] / "shared"))
BENCHMARKS = ("math500", "aime2024", "aime2025", "gpqa_diamond", "amc2023")
# A table's AES has two decimals, and so have the accuracies that it is computed from: 0.005 points of an accuracy of
# about 60, five times, in A and in A_base.
ROUNDING = 0.005 + 2 * 5 * 0.005 / 60


def table_rows() -> list[dict[str, str]]:
    path = SHARED / "papers" / "longshort_tables.csv"
    if not path.exists():
        pytest.skip(f"{path} is absent; LONGSHORT_SHARED names the folder that holds papers/longshort_tables.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def accuracy_of(row: dict[str, str]) -> float:
    return fmean(float(row[name]) for name in BENCHMARKS)


# AES


def test_aes_is_that_of_every_row_of_the_papers_tables_but_one() -> None:
    rows = table_rows()
    bases = {row["backbone"]: row for row in rows if row["method"].startswith("DeepSeek-R1-Distill")}
    computed = {
        (row["backbone"], row["method"]): accuracy_efficiency_score(
            accuracy_of(row), float(row["length"]), accuracy_of(base), float(base["length"])
        )
        for row in rows
        for base in [bases[row["backbone"]]]
    }
    printed = {(row["backbone"], row["method"]): float(row["aes"]) for row in rows}
    assert len(computed) == len(rows) and {row["table"] for row in rows} == {"2", "3", "4"}
    # The paper's own accuracies and length give another value here than the one beside them.
    misprint = ("Llama3.1-8B", "CoD")
    assert (printed.pop(misprint), computed.pop(misprint)) == (0.40, pytest.approx(0.31, abs=ROUNDING))
    assert computed == pytest.approx(printed, abs=ROUNDING)


def test_a_loss_of_accuracy_weighs_five_and_a_gain_three() -> None:
    assert accuracy_efficiency_score(0.8, 1000, 0.8, 1000) == 0
    assert accuracy_efficiency_score(0.8, 250, 0.8, 1000) == pytest.approx(0.75)
    assert accuracy_efficiency_score(0.88, 1000, 0.8, 1000) == pytest.approx(3 * 0.1)
    assert accuracy_efficiency_score(0.72, 1000, 0.8, 1000) == pytest.approx(-5 * 0.1)
    assert accuracy_efficiency_score(0.8, 1500, 0.8, 1000) == pytest.approx(-0.5)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
@pytest.mark.parametrize("name", ["accuracy", "length"])
def test_aes_refuses_a_base_that_cannot_be_divided_by(name: str, value: float) -> None:
    base = {"base_accuracy": 0.5, "base_length": 100.0, f"base_{name}": value}
    with pytest.raises(ValueError, match=rf"base's {name}, which is {value}; give a base"):
        accuracy_efficiency_score(0.5, 100, **base)


# Standard error

GRADES = st.integers(1, 6).flatmap(
    lambda k: st.lists(st.lists(st.booleans(), min_size=k, max_size=k), min_size=2, max_size=12)
)


@given(GRADES)
def test_it_is_the_sandwich_over_all_pairs_of_samples_of_a_problem(grades: list[list[bool]]) -> None:
    problems, samples = len(grades), len(grades[0])
    mean = fmean(value for row in grades for value in row)
    pairs = sum((a - mean) * (b - mean) for row in grades for a, b in product(row, row))
    # With the correction for few clusters.
    variance = pairs * problems / (problems - 1) / (problems * samples) ** 2
    assert clustered_standard_error(grades) ** 2 == pytest.approx(variance, abs=1e-12)


def test_copies_of_a_sample_say_nothing_new() -> None:
    grades = [[True], [False], [True], [True]]
    once = clustered_standard_error(grades)
    assert once == pytest.approx(0.25)
    assert clustered_standard_error([row * 16 for row in grades]) == pytest.approx(once)
    assert stdev(value for row in grades for value in row * 16) / sqrt(64) < once / 3


def test_it_is_the_spread_of_pass_at_1_over_repeated_evaluations() -> None:
    rng = random.Random(0)

    def evaluate() -> list[list[bool]]:
        hardness = [rng.choice([0.1, 0.5, 0.95]) for _ in range(60)]
        return [[rng.random() < right for _ in range(4)] for right in hardness]

    evaluations = [evaluate() for _ in range(600)]
    spread = stdev(fmean(map(fmean, grades)) for grades in evaluations)
    assert fmean(map(clustered_standard_error, evaluations)) == pytest.approx(spread, rel=0.1)


def test_problems_count_the_same_however_many_samples_they_have() -> None:
    # Shares 1, 0.5 and 0.
    assert clustered_standard_error([[1.0], [1.0, 0.0], [0.0] * 7]) == pytest.approx(0.5 / sqrt(3))


def test_it_refuses_what_has_no_spread() -> None:
    with pytest.raises(ValueError, match=r"over 1 problem\(s\) is undefined; give at least 2"):
        clustered_standard_error([[True, False]])
    with pytest.raises(ValueError, match="problem 1 has no sample; give at least 1"):
        clustered_standard_error([[True], []])
