"""The collapse watch: each sign on a series made by hand, silence where training is healthy, and exact resuming.

Not proved here: that these signs come early enough to save a round of a large model, or that lowering mu does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshort.rounds.collapse import Action, Alarm, CollapseSettings, CollapseWatch

HEALTHY = {
    "accuracy": 0.8,
    "tokens_per_episode": 1000.0,
    "outcome/malformed": 0.02,
    "long/turns": 1.2,
    "long/well_formed_turns": 0.97,
    "long/cut_turns": 0.01,
    "long/entropy": 0.3,
    "short/turns": 1.2,
    "short/well_formed_turns": 0.99,
    "short/cut_turns": 0.0,
    "reward/mu": 0.5,
}
Metrics = dict[str, float]


def step_of(accuracy: float = 0.8, tokens: float = 1000.0, **others: float) -> Metrics:
    """A healthy step but for these; ``long_entropy`` stands for ``long/entropy``."""
    renamed = {name.replace("_", "/", 1): value for name, value in others.items()}
    assert renamed.keys() <= HEALTHY.keys()
    return {**HEALTHY, "accuracy": accuracy, "tokens_per_episode": tokens, **renamed}


def settings_of(**changes: Any) -> CollapseSettings:
    """Windows of two steps and no silence, so that series stay short."""
    return CollapseSettings(**{"window": 2, "cooldown": 0, **changes})


def alarms(watch: CollapseWatch, series: Iterable[Metrics], first: int = 1) -> list[Alarm]:
    seen = [watch.observe(step, metrics) for step, metrics in enumerate(series, start=first)]
    return [alarm for alarm in seen if alarm is not None]


# Signs


def test_accuracy_that_falls_while_episodes_get_shorter() -> None:
    series = [step_of(0.7, 1000), step_of(0.8, 900), step_of(0.8, 800), step_of(0.6, 500), step_of(0.5, 300)]
    (alarm,) = alarms(CollapseWatch(settings_of(accuracy_drop=0.2)), series)
    assert alarm == Alarm(
        5,
        (
            "accuracy fell from 0.800 (steps 2 to 3) to 0.550 (steps 4 to 5), by more than guard.accuracy_drop=0.2, "
            "while tokens per episode fell from 850.0 to 400.0",
        ),
        "warn",
    )


def test_a_slow_fall_is_seen_as_well() -> None:
    series = [step_of(0.8 - 0.01 * i, 1000 - 10 * i) for i in range(40)]
    assert alarms(CollapseWatch(settings_of(accuracy_drop=0.2)), series)[0].step == 23


def test_near_zero_entropy_of_the_role_that_has_it() -> None:
    watch = CollapseWatch(settings_of(min_entropy=0.01))
    (alarm,) = alarms(watch, [step_of(), step_of(long_entropy=0.016), step_of(long_entropy=0.002)])
    assert alarm.signs == (
        "the tokens of long have 0.009 nats of entropy (steps 2 to 3), less than guard.min_entropy=0.01",
    )


def test_episodes_of_hardly_any_token() -> None:
    (alarm,) = alarms(CollapseWatch(settings_of(min_tokens=8)), [step_of(tokens=9), step_of(tokens=4)])
    assert alarm.signs == ("episodes have 6.5 tokens (steps 1 to 2), fewer than guard.min_tokens=8",)


def test_malformed_episodes() -> None:
    series = [step_of(outcome_malformed=0.3), step_of(outcome_malformed=0.5)]
    (alarm,) = alarms(CollapseWatch(settings_of(max_malformed=0.3)), series)
    assert alarm.signs == (
        "a share of 0.400 of the episodes ends malformed (steps 1 to 2), more than guard.max_malformed=0.3",
    )


def test_turns_that_break_the_template_though_the_episode_goes_on() -> None:
    series = [step_of(long_well_formed_turns=0.5, long_cut_turns=0.0)] * 2
    (alarm,) = alarms(CollapseWatch(settings_of(max_malformed=0.3)), series)
    assert alarm.signs == (
        "a share of 0.500 of the turns of long breaks the template (steps 1 to 2), more than guard.max_malformed=0.3",
    )


def test_all_signs_of_a_step_are_in_one_alarm() -> None:
    bad = step_of(0.1, 3, long_entropy=0.0, outcome_malformed=0.9, short_well_formed_turns=0.1)
    (alarm,) = alarms(CollapseWatch(settings_of(window=1)), [step_of(), bad])
    assert len(alarm.signs) == 5
    assert "(step 1) to 0.100 (step 2)" in alarm.signs[0]


# No signs


@given(st.lists(st.floats(-0.04, 0.04), min_size=30, max_size=30))
def test_healthy_shortening_is_left_alone(noise: list[float]) -> None:
    series = [step_of(0.8 + n, 1000 * 0.9**i, long_entropy=0.3 * 0.95**i) for i, n in enumerate(noise)]
    assert alarms(CollapseWatch(settings_of(window=5)), series) == []


def test_accuracy_that_falls_while_episodes_get_longer_is_another_trouble() -> None:
    assert alarms(CollapseWatch(settings_of()), [step_of(0.8 - 0.05 * i, 1000 + 10 * i) for i in range(10)]) == []


def test_the_fall_is_measured_from_where_accuracy_was_last_at_its_best() -> None:
    series = [step_of(0.8, 1000), step_of(0.8, 300), step_of(0.5, 350)]
    assert alarms(CollapseWatch(settings_of(window=1)), series) == []


def test_one_bad_step_does_not_fill_a_window() -> None:
    bad = step_of(0.65, 700, long_entropy=0.0, outcome_malformed=0.9)
    assert alarms(CollapseWatch(settings_of(window=5)), [*[step_of()] * 5, bad, *[step_of()] * 5]) == []


def test_nothing_is_said_before_the_window_is_full() -> None:
    series = [step_of(tokens=1.0)] * 3
    assert [alarm.step for alarm in alarms(CollapseWatch(settings_of(window=3)), series)] == [3]


def test_turns_at_their_cap_are_not_broken() -> None:
    series = [step_of(long_well_formed_turns=0.1, long_cut_turns=0.88)] * 3
    assert alarms(CollapseWatch(settings_of()), series) == []


def test_a_role_that_never_spoke_has_broken_nothing() -> None:
    series = [step_of(short_turns=0.0, short_well_formed_turns=0.0)] * 3
    assert alarms(CollapseWatch(settings_of()), series) == []


def test_entropy_is_optional_in_the_metrics_and_in_the_settings() -> None:
    without = {name: value for name, value in HEALTHY.items() if name != "long/entropy"}
    assert alarms(CollapseWatch(settings_of()), [without, step_of(long_entropy=0.0), without]) == []
    assert alarms(CollapseWatch(settings_of(min_entropy=None)), [step_of(long_entropy=0.0)] * 3) == []


def test_figures_of_validation_and_of_the_update_are_not_taken_for_training() -> None:
    others = {"val/accuracy": 0.0, "val/long/well_formed_turns": 0.0, "long/actor/entropy": 0.0}
    assert alarms(CollapseWatch(settings_of()), [HEALTHY | others] * 3) == []


def test_off_looks_at_nothing() -> None:
    assert CollapseWatch(settings_of(action="off")).observe(1, {}) is None


# Silence, mu and rounds


@pytest.mark.parametrize(("cooldown", "steps"), [(0, [1, 2, 3, 4, 5, 6, 7]), (1, [1, 3, 5, 7]), (3, [1, 5])])
def test_it_is_silent_for_so_many_steps_after_an_alarm(cooldown: int, steps: list[int]) -> None:
    watch = CollapseWatch(settings_of(window=1, cooldown=cooldown))
    assert [alarm.step for alarm in alarms(watch, [step_of(tokens=1.0)] * 7)] == steps


def test_the_best_accuracy_is_kept_through_silence() -> None:
    watch = CollapseWatch(settings_of(window=1, cooldown=2))
    series = [step_of(0.5, tokens=5), step_of(0.9, 800), step_of(0.9, 700), step_of(0.7, 600)]
    assert [alarm.signs[0][:29] for alarm in alarms(watch, series)][1] == "accuracy fell from 0.900 (ste"


@pytest.mark.parametrize(("action", "scale"), [("lower_mu", 0.125), ("warn", 1.0), ("stop", 1.0)])
def test_every_alarm_lowers_mu_where_asked_to(action: Action, scale: float) -> None:
    watch = CollapseWatch(settings_of(window=1, action=action, mu_factor=0.5))
    assert [alarm.action for alarm in alarms(watch, [step_of(tokens=1.0)] * 3)] == [action] * 3
    assert watch.mu_scale == scale


def test_a_new_round_knows_nothing_of_the_one_before() -> None:
    watch = CollapseWatch(settings_of(action="lower_mu", cooldown=5))
    series = [step_of(0.9, 900)] * 2 + [step_of(0.2, 3)] * 2
    first = alarms(watch, series)
    assert first and watch.mu_scale == 0.5
    watch.reset()
    assert watch.mu_scale == 1.0
    assert watch.state_dict() == CollapseWatch(watch.settings).state_dict()
    assert alarms(watch, series) == first


# Resuming

STEPS = st.builds(
    step_of,
    accuracy=st.floats(0, 1),
    tokens=st.floats(1, 100),
    long_entropy=st.floats(0, 0.05),
    outcome_malformed=st.floats(0, 1),
    long_well_formed_turns=st.floats(0, 1),
)


@given(st.lists(STEPS, max_size=20), st.integers(0, 20), st.integers(1, 4), st.integers(0, 4))
def test_a_watch_that_is_saved_and_loaded_says_the_same(
    series: list[Metrics], cut: int, window: int, cooldown: int
) -> None:
    settings = settings_of(window=window, cooldown=cooldown, action="lower_mu")
    whole, before, after = (CollapseWatch(settings) for _ in range(3))
    expected = alarms(whole, series)
    said = alarms(before, series[:cut])
    state = json.dumps(before.state_dict(), allow_nan=False)
    # What goes on after the save does not change what was saved.
    alarms(before, series[cut:], cut + 1)
    after.load_state_dict(json.loads(state))
    assert said + alarms(after, series[cut:], cut + 1) == expected
    assert (after.mu_scale, after.state_dict()) == (whole.mu_scale, whole.state_dict())


def test_a_saved_state_replaces_the_present_one_and_fits_a_shorter_window() -> None:
    saved, other = CollapseWatch(settings_of(window=4)), CollapseWatch(settings_of(window=2))
    alarms(saved, [step_of(tokens=1.0)] * 3 + [step_of(tokens=100.0)])
    alarms(other, [step_of(tokens=1.0)] * 9)
    other.load_state_dict(saved.state_dict())
    assert [span["last"] for span in other.state_dict()["recent"]] == [3, 4]


# Settings


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("action", "panic", "choose one of warn, stop, lower_mu, off"),
        ("action", False, "in quotes"),
        ("window", 0, "at least 1"),
        ("window", 2.5, "whole number"),
        ("cooldown", -1, "at least 0"),
        ("accuracy_drop", 0.0, "above 0 and up to 1"),
        ("accuracy_drop", 10, "above 0 and up to 1"),
        ("min_entropy", -0.1, "nats, 0 or more, or null"),
        ("min_entropy", float("nan"), "nats, 0 or more, or null"),
        ("min_tokens", "8", "a number of tokens"),
        ("min_tokens", float("inf"), "a number of tokens"),
        ("max_malformed", 1.5, "a share from 0 to 1"),
        ("max_malformed", True, "a share from 0 to 1"),
        ("mu_factor", 1.0, "less than 1"),
    ],
)
def test_a_setting_out_of_range_is_named_with_value_and_remedy(name: str, value: object, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy) as caught:
        settings_of(**{name: value})
    assert str(caught.value).lower().startswith(f"guard.{name}={value}".lower())
