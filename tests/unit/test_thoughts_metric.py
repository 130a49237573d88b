"""Equation (1), its error bound, and the rules that make long and short thoughts of scores.

Not proved here: that thoughts with high scores matter to anyone but the formula.
"""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshort.thoughts.metric import decay_in_doubt, error_bound, joint_scores, sampling_error
from longshort.thoughts.partition import RULES, Partition

CHAINS = st.integers(1, 30).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(1, 3_000), min_size=n, max_size=n),
        st.lists(st.integers(0, 8).map(lambda right: right / 8), min_size=n + 1, max_size=n + 1),
    )
)
SCORES = st.lists(st.sampled_from([-0.25, 0.0, 0.1, 0.5, 0.9]) | st.floats(-1, 1), min_size=1, max_size=30)


def by_hand(lengths: Sequence[int], accuracies: Sequence[float], decay: float) -> list[float]:
    total, scores = sum(lengths), []
    for i, (length, prefix) in enumerate(zip(lengths, accumulate(lengths), strict=True), start=1):
        gain = (total - prefix) / total * (total - length) / total * accuracies[i]
        scores.append(math.log2(1 + gain) - (decay if accuracies[i] <= accuracies[i - 1] else 0))
    return scores


# Equation (1)


def test_scores_of_an_example() -> None:
    # T1 = 0.9, 0.6, 0; T2 = 0.9, 0.7, 0.4.
    scores = joint_scores([10, 30, 60], [0.0, 0.5, 0.5, 1.0])
    assert scores == pytest.approx([math.log2(1.405), math.log2(1.21) - 0.25, 0.0])
    assert joint_scores([10, 30, 60], [0.5, 0.5, 0.5, 0.25], decay=0.1)[2] == pytest.approx(-0.1)


@given(CHAINS, st.floats(0, 2))
def test_scores_are_the_formula(chain: tuple[list[int], list[float]], decay: float) -> None:
    lengths, accuracies = chain
    scores = joint_scores(lengths, accuracies, decay)
    assert scores == pytest.approx(by_hand(lengths, accuracies, decay), abs=1e-12)
    assert scores[-1] in (0.0, -decay), "T1(n) is 0"
    assert all(-decay <= score <= 1 for score in scores)


@pytest.mark.parametrize(
    ("lengths", "accuracies", "decay", "named"),
    [
        ([], [0.5], 0.25, "lengths"),
        ([[1, 2]], [0.5, 0.5], 0.25, "lengths"),
        ([1, 2], [0.5, 0.5], 0.25, "give 3 values"),
        ([1, 0], [0.5, 0.5, 0.5], 0.25, r"lengths\[1\] is 0"),
        ([-1], [0.5, 0.5], 0.25, r"lengths\[0\] is -1"),
        ([math.inf], [0.5, 0.5], 0.25, r"lengths\[0\] is inf"),
        ([1], [0.5, 1.5], 0.25, r"accuracies\[1\] is 1.5"),
        ([1], [math.nan, 0.5], 0.25, r"accuracies\[0\] is nan"),
        ([1], [0.5, 0.5], -1.0, "decay is -1"),
        ([1], [0.5, 0.5], math.nan, "decay is nan"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(
    lengths: list[int], accuracies: list[float], decay: float, named: str
) -> None:
    with pytest.raises(ValueError, match=named) as error:
        joint_scores(lengths, accuracies, decay)
    assert "\n" not in str(error.value)


# The bound


def test_bound_of_128_rollouts() -> None:
    assert sampling_error(128) == pytest.approx(math.sqrt(math.log(40) / 256))
    assert error_bound(128) == pytest.approx(math.sqrt(math.log(40) / 256) / math.log(2))
    assert error_bound(32) == pytest.approx(2 * error_bound(128))
    assert error_bound(128, 0.99) > error_bound(128)


@pytest.mark.parametrize(
    ("rollouts", "confidence", "named"),
    [
        (0, 0.95, "rollouts"),
        (-1, 0.95, "rollouts"),
        (1.5, 0.95, "rollouts"),
        (8, 0.0, "confidence"),
        (8, 1.0, "confidence"),
    ],
)
def test_bad_rollouts_and_confidences_are_refused(rollouts: int, confidence: float, named: str) -> None:
    with pytest.raises(ValueError, match=f"{named} is"):
        error_bound(rollouts, confidence)


def test_delta_is_in_doubt_where_two_errors_can_turn_the_order() -> None:
    twice = 2 * sampling_error(128)
    assert decay_in_doubt([0.1, 0.1, 0.1 + twice + 0.01, 0.11], 128) == [True, False, False]
    with pytest.raises(ValueError, match="at least one thought"):
        decay_in_doubt([0.5], 128)


@pytest.mark.parametrize("rollouts", [8, 32, 128])
def test_the_bound_holds_on_simulated_chains_where_delta_is_not_in_doubt(
    rollouts: int, record_property: Callable[[str, object], None]
) -> None:
    rng = np.random.default_rng(rollouts)
    bound, outside, sure, thoughts = error_bound(rollouts), 0, 0, 0
    for _ in range(1_000):
        n = int(rng.integers(1, 30))
        lengths = rng.integers(1, 2_000, n).tolist()
        rates = rng.random(n + 1)
        accuracies = rng.binomial(rollouts, rates) / rollouts
        off = np.abs(np.subtract(joint_scores(lengths, accuracies), joint_scores(lengths, rates)))
        certain = ~np.array(decay_in_doubt(accuracies, rollouts))
        outside += int((off[certain] > bound).sum())
        sure += int(certain.sum())
        thoughts += n
    record_property("share_in_doubt", 1 - sure / thoughts)
    record_property("share_outside", outside / sure)
    assert sure > 100, "the test says something"
    assert outside <= 0.05 * sure


# Rules


def scanned(scores: Sequence[float]) -> tuple[bool, ...]:
    return tuple(i == 0 or score > max(scores[:i]) for i, score in enumerate(scores))


@given(SCORES)
def test_scan_keeps_the_first_and_every_new_maximum(scores: list[float]) -> None:
    assert Partition()(scores) == scanned(scores)


@given(SCORES, st.sampled_from(list(RULES)), st.integers(1, 5))
def test_every_rule_keeps_the_first_thought_and_decides_on_all(scores: list[float], rule: str, k: int) -> None:
    long = Partition(rule, k=k)(scores, "chain")
    assert len(long) == len(scores)
    assert long[0]


@given(SCORES, st.integers(0, 3))
def test_random_keeps_as_many_as_scan_or_the_given_share(scores: list[float], seed: int) -> None:
    assert sum(Partition("random", seed=seed)(scores, "a")) == sum(scanned(scores))
    share = random.Random(seed).random()
    assert sum(Partition("random", seed=seed, share=share)(scores, "a")) == max(1, round(share * len(scores)))


def test_random_depends_on_seed_and_chain_only() -> None:
    scores = [0.1 * i for i in range(10)] * 3
    rule = Partition("random", seed=1, share=0.5)
    assert rule(scores, "a") == rule(scores[::-1], "a")
    assert len({rule(scores, "a"), rule(scores, "b"), Partition("random", seed=2, share=0.5)(scores, "a")}) == 3


def test_top_k_and_threshold() -> None:
    scores = [0.0, 0.3, 0.9, 0.3, 0.2]
    assert Partition("top_k", k=2)(scores) == (True, True, True, False, False)
    assert Partition("top_k", k=9)(scores) == (True,) * 5
    assert Partition("threshold", threshold=0.3)(scores) == (True, False, True, False, False)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"rule": "best"}, "choose one of scan, random, top_k, threshold"),
        ({"share": 1.5}, "share"),
        ({"k": 0}, "k is 0"),
    ],
)
def test_bad_rules_are_refused(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Partition(**settings)


@pytest.mark.parametrize("scores", [[], [0.1, math.nan]])
def test_scores_that_cannot_be_compared_are_refused(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="chain 'c7'"):
        Partition()(scores, "c7")


# Imports


def test_the_package_imports_without_torch_ray_and_engines() -> None:
    modules = ["chunk", "llm_chunker", "metric", "partition", "adaptive", "synthesis", "completer"]
    code = "import sys\n" + "".join(f"import longshort.thoughts.{module}\n" for module in modules)
    code += "print([name for name in ('torch', 'ray', 'vllm', 'verl') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
