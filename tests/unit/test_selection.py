"""The checkpoint that a round hands on: within the tolerance, the shortest; and the other rules.

Not proved here: that the selected checkpoint is the better start, nor that the evaluation behind it is exact; one whose
accuracy is near the limit passes or fails by luck.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import inf, nan
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from longshort.rounds import SELECTION_RULES, Candidate, select_checkpoint
from longshort.rounds.selection import Choice, choose

# Right answers of so many: accuracies as evaluations have them, in which the limit can be met exactly.
PROBLEMS = 40
MEASURED = st.lists(st.tuples(st.integers(0, PROBLEMS), st.integers(1, 20)), min_size=1, max_size=8)
RIGHT, PERCENT = st.integers(0, PROBLEMS), st.integers(0, 99)
START = Candidate(0, 0.8, 1000.0, 0.02)


def candidates_of(measured: list[tuple[int, int]]) -> list[Candidate]:
    return [
        Candidate(10 * (i + 1), right / PROBLEMS, float(length), 0.01) for i, (right, length) in enumerate(measured)
    ]


# Shortest within the tolerance


@given(MEASURED, RIGHT, PERCENT)
@example([(36, 5), (35, 4)], 40, 10)
def test_it_qualifies_and_no_other_that_does_is_shorter(
    measured: list[tuple[int, int]], start: int, percent: int
) -> None:
    candidates = candidates_of(measured)
    chosen = select_checkpoint(candidates, start / PROBLEMS, percent / 100)
    # In whole numbers, so that the limit is exact.
    least = Fraction(start) * (100 - percent) / 100
    qualified = [one for one, (right, _) in zip(candidates, measured, strict=True) if right >= least]
    if chosen is None:
        assert qualified == []
        return
    assert any(chosen is one for one in qualified)
    assert all(chosen.length <= one.length for one in qualified)
    equal = [one for one in qualified if one.length == chosen.length]
    assert chosen.accuracy == max(one.accuracy for one in equal)
    assert chosen is [one for one in equal if one.accuracy == chosen.accuracy][-1]


@given(MEASURED, RIGHT, PERCENT, st.randoms(use_true_random=False))
def test_the_order_matters_only_among_equals(
    measured: list[tuple[int, int]], start: int, percent: int, random: Random
) -> None:
    candidates = candidates_of(measured)
    before = select_checkpoint(candidates, start / PROBLEMS, percent / 100)
    random.shuffle(candidates)
    after = select_checkpoint(candidates, start / PROBLEMS, percent / 100)
    assert (before and (before.length, before.accuracy)) == (after and (after.length, after.accuracy))


def test_accuracy_exactly_at_the_limit_is_enough() -> None:
    assert 0.72 < (1 - 0.10) * 0.8
    at, below = Candidate(1, 0.72, 500, 0.02), Candidate(2, 0.7199, 400, 0.02)
    assert select_checkpoint([at, below], 0.8) is at
    assert select_checkpoint([below], 0.8) is None


def test_a_tolerance_of_zero_allows_no_loss() -> None:
    same, worse = Candidate(1, 0.8, 900, 0.02), Candidate(2, 0.79, 100, 0.02)
    assert select_checkpoint([same, worse], 0.8, 0.0) is same


def test_it_takes_whatever_has_an_accuracy_and_a_length() -> None:
    @dataclass
    class Row:
        accuracy: float
        length: float
        folder: str

    rows = [Row(0.8, 900, "a"), Row(0.75, 700, "b"), Row(0.5, 100, "c")]
    chosen = select_checkpoint(rows, 0.8)
    assert chosen is not None and chosen.folder == "b"


@pytest.mark.parametrize("tolerance", [-0.1, 1.0, 10.0, nan])
def test_a_tolerance_is_a_share(tolerance: float) -> None:
    with pytest.raises(ValueError, match=rf"tolerance={tolerance} is no share of accuracy to lose; give"):
        select_checkpoint([START], 0.8, tolerance)


def test_it_refuses_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="no checkpoints to select from; save and evaluate"):
        select_checkpoint([], 0.8)
    with pytest.raises(ValueError, match="baseline's accuracy is nan; evaluate"):
        select_checkpoint([START], nan)
    for accuracy, length in ((nan, 1.0), (0.5, inf)):
        with pytest.raises(ValueError, match=f"accuracy={accuracy} and length={length} of .* cannot be compared"):
            select_checkpoint([START, Candidate(1, accuracy, length, 0.0)], 0.8)


# Rules by name


@given(st.sampled_from(sorted(SELECTION_RULES)), MEASURED, RIGHT.filter(bool), st.randoms(use_true_random=False))
def test_every_rule_gives_a_candidate_or_none_whatever_their_order(
    name: str, measured: list[tuple[int, int]], start: int, random: Random
) -> None:
    candidates, baseline = candidates_of(measured), Candidate(0, start / PROBLEMS, 10.0, 0.01)
    chosen = SELECTION_RULES[name](candidates, baseline, 0.1)
    assert chosen in candidates or (chosen is None and name == "shortest")
    random.shuffle(candidates)
    assert SELECTION_RULES[name](candidates, baseline, 0.1) is chosen
    assert choose(name, candidates, baseline, 0.1).selected is chosen


def test_rules_differ_in_what_they_prefer() -> None:
    steps = [
        Candidate(10, 0.84, 900, 0.02),  # AES 0.10 + 3 * 0.05 = 0.25
        Candidate(20, 0.79, 600, 0.02),  # AES 0.40 - 5 * 0.0125 = 0.3375
        Candidate(30, 0.73, 500, 0.02),  # AES 0.50 - 5 * 0.0875 = 0.0625
        Candidate(40, 0.60, 300, 0.02),  # AES 0.70 - 5 * 0.25 = -0.55
    ]
    chosen = {name: rule(steps, START, 0.1) for name, rule in SELECTION_RULES.items()}
    assert chosen == {"shortest": steps[2], "best_accuracy": steps[0], "best_aes": steps[1], "last": steps[3]}


def test_among_equals_the_shorter_and_then_the_later_step_wins() -> None:
    early, late = Candidate(10, 0.8, 500, 0.02), Candidate(20, 0.8, 500, 0.02)
    wordy = Candidate(30, 0.8, 600, 0.02)
    for name in ("shortest", "best_accuracy", "best_aes"):
        assert SELECTION_RULES[name]([late, wordy, early], START, 0.1) is late


@pytest.mark.parametrize("name", ["shortest", "best_accuracy", "best_aes"])
def test_only_the_last_needs_no_evaluation(name: str) -> None:
    unknown = [Candidate(10, nan, nan, nan), Candidate(20, nan, nan, nan)]
    with pytest.raises(ValueError, match="evaluate it, or select the last checkpoint"):
        SELECTION_RULES[name](unknown, START, 0.1)
    assert SELECTION_RULES["last"](unknown, START, 0.1) is unknown[1]
    assert "step 20 is the last of 2, with no evaluation" in choose("last", unknown, START, 0.1).reason


def test_aes_needs_a_start_that_solves_something() -> None:
    with pytest.raises(ValueError, match="base's accuracy, which is 0"):
        SELECTION_RULES["best_aes"]([START], Candidate(0, 0.0, 10, 0.0), 0.1)


@pytest.mark.parametrize("name", SELECTION_RULES)
def test_no_rule_selects_from_nothing(name: str) -> None:
    with pytest.raises(ValueError, match="no checkpoints to select from"):
        SELECTION_RULES[name]([], START, 0.1)


# Reasons


def test_the_reason_gives_the_figures_that_decided() -> None:
    steps = [Candidate(20, 0.7333, 612.4, 0.0213), Candidate(40, 0.61, 300.0, 0.03)]
    assert choose("shortest", steps, START, 0.1) == Choice(
        steps[0],
        "step 20 is the shortest of the 1 of 2 that keep an accuracy of at least 0.7200, with accuracy 0.7333 "
        "(standard error 0.0213) and 612.4 tokens; the round began with accuracy 0.8000 (standard error 0.0200) and "
        "1000.0 tokens",
    )
    assert "is the most accurate of 2" in choose("best_accuracy", steps, START, 0.1).reason
    assert "highest AES, -0.029" in choose("best_aes", steps, START, 0.1).reason


def test_where_none_qualifies_the_start_is_kept_and_the_best_is_named() -> None:
    steps = [Candidate(20, 0.7, 600.0, 0.03), Candidate(40, 0.5, 300.0, nan)]
    assert choose("shortest", steps, START, 0.1) == Choice(
        None,
        "no checkpoint of 2 keeps an accuracy of at least 0.7200: the best, step 20, has accuracy 0.7000 (standard "
        "error 0.0300) and 600.0 tokens, so the round's start is kept, with accuracy 0.8000 (standard error 0.0200) "
        "and 1000.0 tokens",
    )


def test_an_unknown_rule_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'longest' is unknown; choose one of shortest, best_accuracy, best_aes, last"):
        choose("longest", [START], START, 0.1)
