"""Group advantages: per problem, before any padding, and equal to the formula.

Not proved here: that verl's estimators are what their papers say; GRPO and RLOO are compared with formulas by hand.
"""

from __future__ import annotations

from statistics import fmean, stdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longshort.advantages import group_advantages
from longshort.episode import View
from longshort.policy import Sample
from longshort.validation import ESTIMATORS
from workers.batch import filler_view, pad_to_multiple

REWARDS = st.lists(st.floats(-3, 3, allow_subnormal=False), min_size=2, max_size=9)
few = settings(max_examples=40)


@few
@given(REWARDS)
def test_grpo_is_the_distance_from_the_mean_in_standard_deviations(rewards: list[float]) -> None:
    mean, deviation = fmean(rewards), stdev(rewards)
    expected = [(reward - mean) / (deviation + 1e-6) for reward in rewards]
    assert group_advantages(rewards, ["p"] * len(rewards)) == pytest.approx(expected, abs=1e-6)


@few
@given(REWARDS)
def test_without_the_deviation_it_is_the_distance_from_the_mean(rewards: list[float]) -> None:
    expected = [reward - fmean(rewards) for reward in rewards]
    values = group_advantages(rewards, ["p"] * len(rewards), normalise_by_std=False)
    assert values == pytest.approx(expected, abs=1e-6)


def test_hand_values_of_two_problems() -> None:
    # Means 1.5 and 0, deviations sqrt(0.5) and 2.
    values = group_advantages([2.0, 1.0, 2.0, -2.0, 0.0], ["a", "a", "b", "b", "b"])
    root = 0.5 / (0.5**0.5 + 1e-6)
    assert values == pytest.approx([root, -root, 2 / (2 + 1e-6), -2 / (2 + 1e-6), 0.0], abs=1e-6)


def test_rloo_compares_with_the_mean_of_the_others() -> None:
    for estimator in ("rloo", "rloo_vectorized"):
        values = group_advantages([3.0, 1.0, 2.0, 7.0, 7.0], ["a", "a", "a", "b", "b"], estimator)
        assert values == pytest.approx([1.5, -1.5, 0.0, 0.0, 0.0]), estimator


@few
@given(REWARDS, REWARDS, REWARDS, st.sampled_from(ESTIMATORS), st.booleans())
def test_other_problems_change_no_advantage(
    rewards: list[float], some: list[float], others: list[float], estimator: str, by_std: bool
) -> None:
    def among(neighbours: list[float]) -> list[float]:
        groups = [*["p"] * len(rewards), *["q"] * len(neighbours)]
        return group_advantages([*rewards, *neighbours], groups, estimator, by_std)[: len(rewards)]

    assert among(some) == pytest.approx(among(others), abs=1e-9)
    assert among(some) == pytest.approx(group_advantages(rewards, ["p"] * len(rewards), estimator, by_std), abs=1e-9)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_groups_may_lie_in_any_order(estimator: str) -> None:
    together = group_advantages([1.0, 3.0, 5.0, 9.0], ["a", "a", "b", "b"], estimator)
    mixed = group_advantages([1.0, 5.0, 3.0, 9.0], ["a", "b", "a", "b"], estimator)
    assert mixed == pytest.approx([together[i] for i in (0, 2, 1, 3)])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_group_of_equal_rewards_teaches_nothing(estimator: str) -> None:
    for reward in (0.0, 0.1, 1 / 3, 2.7):
        assert group_advantages([reward] * 7, ["p"] * 7, estimator) == pytest.approx([0.0] * 7, abs=1e-6)


# Fillers


def samples_of(count: int, reference: bool = False) -> list[Sample]:
    view = View((1, 2), (3, 4, 5), (1, 0, 1), (-1.0, 0.0, -2.0))
    return [Sample(view, 1.0 + i, view.log_probs, view.log_probs if reference else None) for i in range(count)]


@given(st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_fillers_come_last_without_mask_and_advantage_and_make_the_number_divide(
    count: int, divisor: int, reference: bool
) -> None:
    samples = samples_of(count, reference)
    padded = pad_to_multiple(samples, divisor)
    assert padded[:count] == samples
    assert len(padded) % divisor == 0
    assert len(padded) < count + divisor
    for filler in padded[count:]:
        assert not any(filler.view.mask)
        assert filler.advantage == 0.0
        sizes = (filler.view.mask, filler.view.response_ids, filler.view.log_probs, filler.old_log_probs)
        assert {len(column) for column in sizes} == {1}
        assert (filler.ref_log_probs is not None) == reference


def test_a_filler_has_a_prompt_as_every_row_must() -> None:
    filler = filler_view(samples_of(1)[0].view)
    assert len(filler.prompt_ids) == 1
    assert filler.mask == (0,)
