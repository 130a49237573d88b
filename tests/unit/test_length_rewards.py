"""Length rewards against their papers' formulas by hand, and what holds for any group; the registry; saved states.

Not proved here: that the papers' weights are the right ones, that any of these makes a policy shorter or keeps it
accurate, that the trainer gives the lengths a user chose, and that a batch is as large as the methods assume that
compare groups or estimate from them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshort.length_rewards import (
    LENGTH_REWARDS,
    Group,
    GroupReward,
    LaserD,
    LengthReward,
    kimi_length_rewards,
    make_length_reward,
    register,
)

LIMIT = 1000
ANSWERS = st.lists(
    st.tuples(st.integers(0, LIMIT), st.booleans(), st.booleans(), st.integers(1, 9)), min_size=0, max_size=9
)
NAMES = sorted(LENGTH_REWARDS)
# Where a right answer that is shorter than another right one of its group never gets less. L1-Exact is missing by
# design; for turns, shorter means fewer of them.
SHORTER_IS_NO_WORSE = ["dapo_overlong", "grpo_lambda", "kimi", "l1_max", "laser", "laser_d", "none"]


def group_of(
    lengths: Sequence[int],
    correct: Sequence[bool] | None = None,
    finished: Sequence[bool] | None = None,
    turns: Sequence[int] | None = None,
    limit: int = LIMIT,
) -> Group:
    everyone = [True] * len(lengths)
    return Group(
        tuple(lengths),
        tuple(everyone if correct is None else correct),
        tuple(everyone if finished is None else finished),
        tuple([2] * len(lengths) if turns is None else turns),
        limit,
    )


def group_from(answers: Sequence[tuple[int, bool, bool, int]]) -> Group:
    lengths, correct, finished, turns = zip(*answers, strict=True) if answers else ((), (), (), ())
    return group_of(lengths, correct, finished, turns)


def values(name: str, *groups: Group, **settings: object) -> list[list[float]]:
    return make_length_reward(name, settings)(groups)


# For every reward


@pytest.mark.parametrize("name", NAMES)
@given(batch=st.lists(ANSWERS, max_size=6))
def test_every_answer_gets_one_finite_value(name: str, batch: list[Any]) -> None:
    groups = [group_from(answers) for answers in batch]
    reward = make_length_reward(name, {})
    for _ in range(2):  # a state must not spoil the second step
        given_values = reward(groups)
        assert [len(each) for each in given_values] == [len(group.lengths) for group in groups]
        assert all(math.isfinite(value) for each in given_values for value in each)


@pytest.mark.parametrize("name", NAMES)
@given(batch=st.lists(ANSWERS, min_size=1, max_size=4), seed=st.integers(0, 999))
def test_the_order_within_a_group_moves_the_values_and_changes_none(name: str, batch: list[Any], seed: int) -> None:
    places = list(range(len(batch[0])))
    Random(seed).shuffle(places)
    others = [group_from(answers) for answers in batch[1:]]
    before = values(name, group_from(batch[0]), *others)
    after = values(name, group_from([batch[0][i] for i in places]), *others)
    assert after[0] == pytest.approx([before[0][i] for i in places])
    assert after[1:] == before[1:]


@pytest.mark.parametrize("name", SHORTER_IS_NO_WORSE)
@given(batch=st.lists(ANSWERS, min_size=1, max_size=4))
def test_a_right_answer_shorter_than_a_right_one_never_gets_less(name: str, batch: list[Any]) -> None:
    groups = [group_from(answers) for answers in batch]
    for group, each in zip(groups, values(name, *groups), strict=True):
        right = sorted((n, -value) for n, value, ok in zip(group.lengths, each, group.correct, strict=True) if ok)
        assert [loss for _, loss in right] == sorted(loss for _, loss in right)


@pytest.mark.parametrize("name", sorted({*NAMES} - {"l1_exact", "dapo_overlong", "kimi"}))
@given(batch=st.lists(ANSWERS, min_size=1, max_size=4))
def test_a_wrong_answer_gets_nothing_where_length_is_for_right_ones(name: str, batch: list[Any]) -> None:
    groups = [group_from(answers) for answers in batch]
    for group, each in zip(groups, values(name, *groups), strict=True):
        assert all(value == 0 for value, right in zip(each, group.correct, strict=True) if not right)


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_group_and_an_empty_batch_get_no_value(name: str) -> None:
    assert values(name) == []
    assert values(name, group_of([])) == [[]]
    assert [len(each) for each in values(name, group_of([]), group_of([3]))] == [0, 1]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kimi", 0.0),
        ("clip", 1.0),
        ("l1_exact", -0.0003 * 600),
        ("l1_max", 0.0003 * 600 + 0.5),
        ("dapo_overlong", 0.0),
        ("laser", 1.0),
        ("laser_d", 1.0),
        ("grpo_lambda", -0.5),
        ("turn_count", 0.0),
        ("none", 0.0),
    ],
)
@pytest.mark.parametrize("answers", [1, 4])
def test_right_answers_of_equal_length_get_what_the_formula_says(name: str, expected: float, answers: int) -> None:
    assert values(name, group_of([400] * answers)) == [[pytest.approx(expected)] * answers]


# Kimi k1.5


def test_kimi_goes_from_one_half_to_minus_one_half_and_a_wrong_answer_never_above_zero() -> None:
    group = group_of([10, 20, 30, 15], [True, False, True, True])
    assert values("kimi", group) == [[0.5, 0.0, -0.5, 0.25]]
    assert values("kimi", group_of([10, 30], [False, False])) == [[0.0, -0.5]]


@given(ANSWERS)
def test_kimi_stays_within_one_half(answers: list[Any]) -> None:
    group = group_from(answers)
    (each,) = values("kimi", group)
    assert each == kimi_length_rewards(group.lengths, group.correct)
    assert all(-0.5 <= value <= (0.5 if right else 0.0) for value, right in zip(each, group.correct, strict=True))


def test_kimi_refuses_lengths_and_verdicts_of_different_number() -> None:
    with pytest.raises(ValueError, match="3 lengths but 2 verdicts"):
        kimi_length_rewards([1, 2, 3], [True, False])


# ThinkPrune


def test_clip_pays_right_answers_that_ended_by_themselves_within_the_limit() -> None:
    group = group_of([100, 101, 50, 50, 0], [True, True, True, False, True], [True, True, False, True, True])
    assert values("clip", group, limit=100) == [[1.0, 0.0, 0.0, 0.0, 1.0]]
    assert values("clip", group_of([100, 101], limit=100)) == [[1.0, 0.0]]


# L1


def test_l1_exact_loses_alpha_per_token_on_either_side_of_the_target() -> None:
    group = group_of([1000, 700, 2000], [True, False, True], limit=4000)
    assert values("l1_exact", group, target=1000) == [pytest.approx([0.0, -0.09, -0.3])]
    assert values("l1_exact", group, alpha=0.001) == [pytest.approx([-3.0, -3.3, -2.0])]


def test_l1_max_is_a_clipped_slope_around_delta_for_right_answers() -> None:
    lengths = [1000, 500, 2000, 3000, 0, 500]
    group = group_of(lengths, [True] * 5 + [False], limit=4000)
    assert values("l1_max", group, target=1000) == [pytest.approx([0.5, 0.65, 0.2, 0.0, 0.8, 0.0])]
    assert values("l1_max", group, target=1000, alpha=0.001, delta=0.0) == [
        pytest.approx([0.0, 0.5, 0.0, 0.0, 1.0, 0.0])
    ]
    assert values("l1_max", group_of([4000, 3000], limit=4000)) == [pytest.approx([0.5, 0.8])]


# DAPO


def test_dapo_punishes_over_the_cache_before_the_limit_whether_right_or_wrong() -> None:
    lengths, correct = [0, 800, 850, 900, 1000, 1100], [True, False, True, False, True, False]
    expected = [0.0, 0.0, -0.25, -0.5, -1.0, -1.0]
    assert values("dapo_overlong", group_of(lengths, correct)) == [expected]
    assert values("dapo_overlong", group_of([600, 700, 800, 1000]), cache=400) == [[0.0, -0.25, -0.5, -1.0]]
    assert values("dapo_overlong", group_of([2, 3, 4], limit=3)) == [[0.0, -1.0, -1.0]]


def test_dapo_refuses_a_cache_larger_than_the_limit() -> None:
    with pytest.raises(ValueError, match="cache is 1001 but answers have at most 1000 tokens; lower it"):
        values("dapo_overlong", group_of([1]), cache=1001)


# LASER


def test_laser_adds_a_bonus_within_the_target_and_takes_nothing_beyond_it() -> None:
    group = group_of([500, 501, 10, 300], [True, True, False, True])
    assert values("laser", group) == [[1.0, 0.0, 0.0, 1.0]]
    assert values("laser", group, target=299) == [[0.0, 0.0, 0.0, 0.0]]


# LASER-D, with candidates 250, 312, 374, 436, 498, ... where the settings say nothing


def easy(lengths: Sequence[int]) -> Group:
    return group_of(lengths)


def medium(lengths: Sequence[int]) -> Group:
    return group_of(lengths, [i < len(lengths) / 2 for i in range(len(lengths))])


def hard(lengths: Sequence[int]) -> Group:
    return group_of(lengths, [False] * len(lengths))


def test_laser_d_finds_the_shortest_target_that_should_hold_one_right_answer() -> None:
    reward = LaserD(lowest=100, interval=100)
    eight = [50, 150, 250, 350, 450, 550, 650, 750]
    batch_values = reward([easy(eight), medium(eight), hard(eight)])
    # Of 8: 5 right make a problem easy, so 2/8 answers within the target (1/8 * 5 < 1 <= 2/8 * 5); 2 make it medium, so
    # 4/8; a hard one asks for all 8.
    assert reward.targets == {"easy": 200, "medium": 400, "hard": 800}
    assert batch_values == [
        [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0],
        [0.0] * 8,
    ]


def test_laser_d_takes_two_thirds_for_easy_and_one_third_for_medium() -> None:
    verdicts = {"easy": [True, True, False], "medium": [True, False, False], "hard": [False] * 3}
    for level, correct in verdicts.items():
        reward = LaserD()
        reward([group_of([300] * 3, correct)])
        assert list(reward.targets) == [level]


def test_laser_d_asks_for_the_answers_that_the_smallest_group_needs() -> None:
    reward = LaserD(lowest=100, interval=100)
    reward([easy([50, 150, 250, 350, 450, 550]), easy([650, 750, 850]), easy([])])
    # 2 right of 3 make a problem easy, so half of all answers within the target: 5 of 9.
    assert reward.targets == {"easy": 500}


def test_laser_d_counts_a_cut_answer_as_one_at_the_limit() -> None:
    lengths = [300, 300, 300, 10]
    reward = LaserD(lowest=100, interval=100)
    reward([group_of(lengths, [False] * 4, [True, True, True, False])])
    assert reward.targets == {"hard": LIMIT}
    reward = LaserD(lowest=100, interval=100)
    reward([group_of(lengths, [False] * 4)])
    assert reward.targets == {"hard": 300}


def test_laser_d_takes_the_papers_share_of_the_limit_where_no_grid_is_given_and_ends_at_the_limit() -> None:
    for length, target in [(1, 250), (250, 250), (251, 312), (312, 312), (313, 374), (999, LIMIT), (LIMIT, LIMIT)]:
        reward = LaserD()
        reward([easy([length])])
        assert reward.targets == {"easy": target}
    tiny = LaserD()
    tiny([group_of([2], limit=3)])
    assert tiny.targets == {"easy": 2}


def test_laser_d_searches_at_first_and_then_after_every_batches_on_what_came_since() -> None:
    reward = LaserD(lowest=100, interval=100, every=2)
    targets = []
    for length in [900, 500, 300, 300, 100, 100]:
        reward([easy([length])])
        targets.append(reward.targets["easy"])
    # The third search (batch 4 and 5 from 0) has 300 and 100: of two answers to groups of one, both must be held.
    assert targets == [900, 900, 500, 500, 300, 300]


def test_laser_d_keeps_the_target_of_a_difficulty_that_did_not_come_and_gives_an_unknown_one_the_limit() -> None:
    reward = LaserD(lowest=100, interval=100, every=1)
    reward([easy([300])])
    assert reward([medium([400, 200])]) == [[1.0, 0.0]]
    assert reward.targets == {"easy": 300, "medium": 400}
    waiting = LaserD(every=9)
    waiting([hard([10])])
    assert waiting([easy([LIMIT])]) == [[1.0]]


@given(st.lists(st.lists(ANSWERS, max_size=3), min_size=1, max_size=8), st.integers(0, 8), st.integers(1, 4))
def test_laser_d_goes_on_from_its_saved_state_as_if_it_had_not_stopped(batches: Any, stop: int, every: int) -> None:
    steps = [[group_from(answers) for answers in batch] for batch in batches]
    whole, first = LaserD(every=every), LaserD(every=every)
    expected = [whole(groups) for groups in steps]
    before = [first(groups) for groups in steps[:stop]]
    saved = json.dumps(first.state_dict())
    second = LaserD(every=every)
    second.load_state_dict(json.loads(saved))
    assert json.dumps(second.state_dict()) == saved
    assert before + [second(groups) for groups in steps[stop:]] == expected
    assert second.state_dict() == whole.state_dict()


def test_a_saved_state_is_a_copy() -> None:
    reward = LaserD(every=1)
    reward([easy([10])])
    state = reward.state_dict()
    saved = json.dumps(state)
    other = LaserD(every=1)
    other.load_state_dict(state)
    other([easy([900]), hard([800])])
    reward([easy([900]), hard([800])])
    assert json.dumps(state) == saved


def test_a_state_of_another_reward_is_refused() -> None:
    with pytest.raises(ValueError, match=r"kimi keeps no state but is given .*'targets'.*resume with"):
        make_length_reward("kimi", {}).load_state_dict(LaserD().state_dict())
    with pytest.raises(ValueError, match=r"the state of length reward laser_d lacks .*'targets'.*resume with"):
        LaserD().load_state_dict(make_length_reward("kimi", {}).state_dict())


@pytest.mark.parametrize("name", [name for name in NAMES if name != "laser_d"])
def test_the_others_keep_no_state(name: str) -> None:
    reward = make_length_reward(name, {})
    first = reward([group_of([5, 9])])
    assert reward.state_dict() == {}
    reward.load_state_dict({})
    assert reward([group_of([5, 9])]) == first


# GRPO-lambda


def test_grpo_lambda_presses_the_groups_with_the_highest_pass_rate_alone() -> None:
    half = group_of([10, 20], [True, False])
    most = group_of([100, 300, 50], [True, True, False])
    none = group_of([10, 20], [False, False])
    # Right answers 100 and 300: mean 200, standard deviation 100.
    low, high = -1 / (1 + math.exp(1)), -1 / (1 + math.exp(-1))
    assert values("grpo_lambda", half, most, none) == [[0.0, 0.0], pytest.approx([low, high, 0.0]), [0.0, 0.0]]
    assert values("grpo_lambda", half, most, none, share=0.5) == [
        [-0.5, 0.0],
        pytest.approx([low, high, 0.0]),
        [0.0, 0.0],
    ]


@pytest.mark.parametrize(("groups", "share", "pressed"), [(5, 0.2, 1), (6, 0.2, 2), (100, 0.07, 7), (3, 1.0, 3)])
def test_grpo_lambda_rounds_the_number_of_groups_up(groups: int, share: float, pressed: int) -> None:
    given_values = values("grpo_lambda", *[group_of([7])] * groups, share=share)
    assert given_values == [[-0.5]] * pressed + [[0.0]] * (groups - pressed)


@given(st.lists(ANSWERS, min_size=1, max_size=6), st.floats(0.01, 1.0))
def test_grpo_lambda_never_presses_a_group_below_one_it_leaves_alone(batch: list[Any], share: float) -> None:
    groups = [group_from(answers) for answers in batch if answers]
    rates = [sum(group.correct) / len(group.correct) for group in groups]
    pressed = [any(each) for each in values("grpo_lambda", *groups, share=share)]
    left = [rate for rate, hit in zip(rates, pressed, strict=True) if not hit]
    assert all(rate >= max(left, default=0.0) for rate, hit in zip(rates, pressed, strict=True) if hit)


@given(st.lists(ANSWERS, max_size=4))
def test_grpo_lambda_takes_less_than_the_weight_of_one_right_answer(batch: list[Any]) -> None:
    for each in values("grpo_lambda", *[group_from(answers) for answers in batch], share=1.0):
        assert all(-1.0 < value <= 0.0 for value in each)


# Ours


def test_turn_count_scales_the_turns_of_right_answers_and_leaves_wrong_ones_out() -> None:
    group = group_of([9, 1, 5, 7], [True, True, True, False], turns=[2, 6, 3, 1])
    assert values("turn_count", group) == [[0.5, -0.5, 0.25, 0.0]]
    assert values("turn_count", group_of([1, 2], [False, False], turns=[2, 9])) == [[0.0, 0.0]]


@given(ANSWERS)
def test_turn_count_gives_fewer_turns_no_less_and_stays_within_one_half(answers: list[Any]) -> None:
    group = group_from(answers)
    (each,) = values("turn_count", group)
    right = sorted((turns, -value) for turns, value, ok in zip(group.turns, each, group.correct, strict=True) if ok)
    assert [loss for _, loss in right] == sorted(loss for _, loss in right)
    assert all(-0.5 <= value <= 0.5 for value in each)


def test_none_gives_zero() -> None:
    assert values("none", group_of([1, 900], [True, False])) == [[0.0, 0.0]]


# Groups


def test_a_group_of_uneven_parts_or_without_a_limit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 1, 2, 2\) lengths, verdicts.*give one of each per answer"):
        group_of([1, 2], [True])
    with pytest.raises(ValueError, match="limit is 0 tokens; give at least 1"):
        group_of([1], limit=0)


# Registry


def test_the_registry_holds_every_reward_under_its_name() -> None:
    assert NAMES == [
        "clip",
        "dapo_overlong",
        "grpo_lambda",
        "kimi",
        "l1_exact",
        "l1_max",
        "laser",
        "laser_d",
        "none",
        "turn_count",
    ]
    assert all(make_length_reward(name, {}).name == name for name in NAMES)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no length reward is named 'brief'; give one of clip, .*, turn_count"):
        make_length_reward("brief", {})


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("l1_max", {"alfa": 1}, "l1_max has no setting alfa=1; it has target, alpha, delta"),
        ("kimi", {"alpha": 1}, "kimi has no setting alpha=1; leave it out, this one has no settings"),
        ("laser_d", {"_batches": 3}, "laser_d has no setting _batches=3; it has lowest, interval, every"),
        ("clip", {"limit": 0}, "clip: limit is 0; give a whole number of at least 1, or null for the default"),
        ("laser", {"target": 1.5}, "laser: target is 1.5; give a whole number"),
        ("laser", {"target": True}, "laser: target is True; give a whole number"),
        ("l1_exact", {"alpha": "much"}, "l1_exact: alpha is 'much'; give a number of at least 0"),
        ("l1_exact", {"alpha": math.nan}, "l1_exact: alpha is nan; give a number"),
        ("l1_exact", {"alpha": -1}, "l1_exact: alpha is -1; give a number of at least 0"),
        ("l1_max", {"delta": 1.1}, "l1_max: delta is 1.1; give a number of at least 0 and of at most 1"),
        ("dapo_overlong", {"cache": "x"}, "dapo_overlong: cache is 'x'; give a whole number"),
        ("laser_d", {"every": None}, "laser_d: every is None; give a whole number of at least 1$"),
        ("laser_d", {"interval": -1}, "laser_d: interval is -1; give a whole number"),
        ("grpo_lambda", {"share": 0}, "grpo_lambda: share is 0; give a number above 0 and of at most 1"),
        ("grpo_lambda", {"share": True}, "grpo_lambda: share is True; give a number"),
    ],
)
def test_an_unknown_setting_or_a_bad_value_is_refused_with_a_remedy(
    name: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_length_reward(name, settings)


def test_a_users_own_reward_can_be_registered_and_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longshort.length_rewards.registry.LENGTH_REWARDS", dict(LENGTH_REWARDS))

    @register("brief")
    @dataclass(frozen=True)
    class Brief(GroupReward):
        scale: float = 1000.0

        def of_group(self, group: Group) -> list[float]:
            return [-length / self.scale for length in group.lengths]

    reward = make_length_reward("brief", {"scale": 10})
    assert isinstance(reward, LengthReward)
    assert reward([group_of([5, 20])]) == [[-0.5, -2.0]]


def test_a_taken_name_and_a_class_that_is_no_dataclass_are_refused() -> None:
    class Plain(GroupReward):
        def of_group(self, group: Group) -> list[float]:
            return [0.0] * len(group.lengths)

    with pytest.raises(ValueError, match="'kimi' is registered already; give Plain another name"):
        register("kimi")(Plain)
    with pytest.raises(ValueError, match=r"'plain' is no dataclass; put @dataclass under @register"):
        register("plain")(Plain)
    assert sorted(LENGTH_REWARDS) == NAMES
