"""Rewards of a group: equation (9), the length reward of Kimi k1.5, and what can never be rewarded.

Not proved here: that a grade is right (grading), and that these weights make a policy better or shorter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshort.episode import Episode, Outcome, Problem, Turn
from longshort.grading import Grade
from longshort.length_rewards import Kimi
from longshort.rewards import (
    HybridReward,
    Ramp,
    Reward,
    failure,
    follows_template,
    group_rewards,
    is_correct,
    kimi_length_rewards,
    length_group,
)

RIGHT, WRONG = Grade(True, "5"), Grade(False, "4")
ONE_EACH = HybridReward(eta=1.0, format_weight=1.0, mu=Ramp(1.0, 1.0, 0))
GROUPS = st.lists(st.tuples(st.integers(0, 10_000), st.booleans()), min_size=1, max_size=12)


def turn_of(role: str, tokens: int, well_formed: bool = True) -> Turn:
    return Turn(role, tuple(range(tokens)), "", (0.0,) * tokens, "stop", well_formed)


def episode_of(
    long: int = 10, short: int = 5, outcome: Outcome = "answered", forms: tuple[bool, bool] = (True, True)
) -> Episode:
    turns = (turn_of("long", long, forms[0]), turn_of("short", short, forms[1]))
    return Episode(Problem("p", "q", "5"), {"long": (1,), "short": (1,)}, turns, outcome)


def rewarded(
    group: list[Episode], grades: list[Grade], role: str, weights: HybridReward, step: int = 1
) -> list[Reward]:
    """With the length reward of Kimi k1.5."""
    correct = [is_correct(episode, grade) for episode, grade in zip(group, grades, strict=True)]
    lengths = Kimi().of_group(length_group(group, correct, role, weights.length_of, 10_000))
    return group_rewards(group, grades, role, weights, weights.mu.at(step), lengths)


def totals(rewards: Sequence[Reward]) -> list[float]:
    return [reward.total for reward in rewards]


# Correctness


@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_only_an_answered_episode_earns_correctness_although_its_box_is_right(outcome: Outcome) -> None:
    (reward,) = rewarded([episode_of(outcome=outcome)], [RIGHT], "short", ONE_EACH)
    assert reward.correct == float(outcome == "answered")
    assert is_correct(episode_of(outcome=outcome), RIGHT) == (outcome == "answered")


def test_an_answered_episode_with_a_wrong_or_missing_answer_earns_none() -> None:
    group = [episode_of(), episode_of()]
    assert [reward.correct for reward in rewarded(group, [WRONG, Grade(False, None)], "long", ONE_EACH)] == [
        0.0,
        0.0,
    ]


# Failures


@pytest.mark.parametrize("error", ["crash", "gold", "timeout", "f raised ValueError"])
def test_a_failed_grade_scores_zero_in_every_part(error: str) -> None:
    broken = Grade(False, "5", error)
    rewards = rewarded([episode_of(9), episode_of(3)], [broken, RIGHT], "long", ONE_EACH)
    assert rewards[0] == Reward(0.0, 0.0, 0.0, 0.0)
    assert rewards[1].total == 2.5
    assert failure(episode_of(), broken) == f"grade: {error}"


def test_an_answer_too_long_to_compare_is_wrong_but_no_failure() -> None:
    grade = Grade(False, "1" * 2000, "too_long")
    assert failure(episode_of(), grade) is None
    assert rewarded([episode_of()], [grade], "long", ONE_EACH) == [Reward(0.0, 1.0, 0.0, 1.0)]


def test_an_episode_with_an_error_scores_zero_in_every_part() -> None:
    broken = replace(episode_of(), error="engine gone")
    assert rewarded([broken], [RIGHT], "long", ONE_EACH) == [Reward(0.0, 0.0, 0.0, 0.0)]
    assert failure(broken, RIGHT) == "engine gone"


# Format


@pytest.mark.parametrize(
    ("forms", "own_long", "own_short", "both"),
    [((True, True), 1, 1, 1), ((False, True), 0, 1, 0), ((True, False), 1, 0, 0), ((False, False), 0, 0, 0)],
)
def test_format_counts_the_trainees_own_turns_or_those_of_all(
    forms: tuple[bool, bool], own_long: int, own_short: int, both: int
) -> None:
    episode = episode_of(forms=forms)
    assert follows_template(episode, "long", "own") == own_long
    assert follows_template(episode, "short", "own") == own_short
    for role in ("long", "short"):
        (reward,) = rewarded([episode], [WRONG], role, replace(ONE_EACH, format_of="all"))
        assert reward.format == both


def test_one_malformed_turn_of_several_loses_the_format_reward() -> None:
    episode = episode_of()
    again = replace(episode, turns=(*episode.turns, turn_of("long", 3, False)))
    assert not follows_template(again, "long", "own")
    assert follows_template(again, "short", "own")


def test_a_role_that_never_spoke_earns_no_format_reward() -> None:
    silent = replace(episode_of(), turns=(turn_of("long", 3),), outcome="token_limit")
    assert not follows_template(silent, "short", "own")
    assert follows_template(silent, "short", "all")


# Length


def test_length_rewards_of_right_answers_go_from_one_half_to_minus_one_half() -> None:
    assert kimi_length_rewards([10, 20, 30, 15], [True] * 4) == [0.5, 0.0, -0.5, 0.25]


def test_length_rewards_of_wrong_answers_are_never_positive_by_hand() -> None:
    assert kimi_length_rewards([10, 20, 30, 15], [False, False, False, True]) == [0.0, 0.0, -0.5, 0.25]


@given(GROUPS)
def test_a_wrong_answer_never_gains_by_its_length_and_none_more_than_one_half(group: list[tuple[int, bool]]) -> None:
    lengths, correct = zip(*group, strict=True)
    for value, right in zip(kimi_length_rewards(lengths, correct), correct, strict=True):
        assert -0.5 <= value <= (0.5 if right else 0.0)


@given(GROUPS, st.randoms(use_true_random=False))
def test_a_length_reward_depends_on_the_group_and_not_on_its_order(
    group: list[tuple[int, bool]], random: object
) -> None:
    places = list(range(len(group)))
    random.shuffle(places)
    values = kimi_length_rewards(*zip(*group, strict=True))
    assert kimi_length_rewards(*zip(*[group[i] for i in places], strict=True)) == [values[i] for i in places]


@given(GROUPS)
def test_of_two_right_answers_the_shorter_earns_more(group: list[tuple[int, bool]]) -> None:
    lengths, _ = zip(*group, strict=True)
    values = kimi_length_rewards(lengths, [True] * len(group))
    by_length = sorted(zip(lengths, values, strict=True))
    for (short, more), (long, less) in pairwise(by_length):
        assert more > less if short < long else more == less


@given(st.integers(0, 9999), st.lists(st.booleans(), max_size=8))
def test_equal_lengths_earn_nothing(length: int, correct: list[bool]) -> None:
    assert kimi_length_rewards([length] * len(correct), correct) == [0.0] * len(correct)


def test_a_single_answer_and_no_answer_have_no_length_reward() -> None:
    assert kimi_length_rewards([7], [True]) == [0.0]
    assert kimi_length_rewards([], []) == []


def test_lengths_and_verdicts_of_different_number_are_refused() -> None:
    with pytest.raises(ValueError, match="3 lengths but 2 verdicts"):
        kimi_length_rewards([1, 2, 3], [True, False])


def test_lengths_are_sampled_tokens_of_the_conversation_or_of_the_trainee() -> None:
    group = [episode_of(long=10, short=30), episode_of(long=20, short=10), episode_of(long=30, short=20)]
    grades = [RIGHT] * 3
    whole = rewarded(group, grades, "long", ONE_EACH)
    assert whole == rewarded(group, grades, "short", ONE_EACH)
    # 40, 30 and 50 tokens.
    assert [reward.length for reward in whole] == [0.0, 0.5, -0.5]
    own = replace(ONE_EACH, length_of="own")
    assert [reward.length for reward in rewarded(group, grades, "long", own)] == [0.5, 0.0, -0.5]
    assert [reward.length for reward in rewarded(group, grades, "short", own)] == [-0.5, 0.5, 0.0]


def test_the_controllers_closing_ids_are_no_length() -> None:
    closed = replace(episode_of(), turns=(replace(turn_of("long", 10), closing_ids=(1, 2, 3)), turn_of("short", 5)))
    rewards = rewarded([closed, episode_of()], [RIGHT, RIGHT], "long", ONE_EACH)
    assert [reward.length for reward in rewards] == [0.0, 0.0]


# The sum


def test_the_total_is_the_weighted_sum_of_the_parts() -> None:
    weights = HybridReward(eta=2.0, format_weight=0.5, mu=Ramp(0.0, 0.4, 2))
    group = [episode_of(10), episode_of(30, forms=(False, True)), episode_of(20)]
    rewards = rewarded(group, [RIGHT, RIGHT, WRONG], "long", weights, 2)
    assert [reward.parts() for reward in rewards] == [
        {"correct": 1.0, "format": 1.0, "length": 0.5, "total": pytest.approx(2.0 + 0.5 + 0.2 * 0.5)},
        {"correct": 1.0, "format": 0.0, "length": -0.5, "total": pytest.approx(2.0 - 0.2 * 0.5)},
        {"correct": 0.0, "format": 1.0, "length": 0.0, "total": pytest.approx(0.5)},
    ]


def test_a_group_of_two_problems_is_a_mistake_of_the_program() -> None:
    other = replace(episode_of(), problem=Problem("other", "q", "5"))
    with pytest.raises(AssertionError, match="one problem"):
        rewarded([episode_of(), other], [RIGHT, RIGHT], "long", ONE_EACH)


# The ramp


def test_a_ramp_goes_linearly_from_the_first_step_and_then_stays() -> None:
    ramp = Ramp(start=0.0, end=1.0, ramp_steps=4)
    assert [ramp.at(step) for step in (1, 2, 3, 4, 5, 6, 100)] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_a_ramp_may_fall_and_may_have_no_steps() -> None:
    assert [Ramp(1.0, 0.5, 2).at(step) for step in (0, 1, 2, 3, 4)] == [1.0, 1.0, 0.75, 0.5, 0.5]
    assert [Ramp(0.0, 0.7, 0).at(step) for step in (1, 2, 50)] == [0.7, 0.7, 0.7]
