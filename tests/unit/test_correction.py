"""Rollout correction: importance weights and rejection against their formulas by hand.

Not proved here: verl's sequence-level statistics, which are its own.
"""

from __future__ import annotations

from math import exp

import pytest

from longshort.correction import RolloutCorrection, correct
from longshort.episode import View
from longshort.policy import Sample


def sample(log_probs: list[float], mask: list[int], drift: list[float]) -> Sample:
    ids = tuple(range(len(log_probs)))
    view = View((7,), ids, tuple(mask), tuple(log_probs))
    return Sample(view, 1.0, tuple(p + d for p, d in zip(log_probs, drift, strict=True)))


SAMPLES = [
    sample([-1.0, 0.0, -2.0], [1, 0, 1], [0.1, 9.0, 2.0]),
    sample([-1.0], [1], [-0.5]),
]


def test_weights_are_truncated_ratios_on_sampled_tokens_in_rows_of_the_right_length() -> None:
    corrected, metrics = correct(SAMPLES, RolloutCorrection(rollout_is="token", rollout_is_threshold=2.0))
    assert corrected[0].rollout_is_weights == pytest.approx((exp(0.1), 0.0, 2.0))
    assert corrected[1].rollout_is_weights == pytest.approx((exp(-0.5),))
    assert [c.view for c in corrected] == [s.view for s in SAMPLES]
    assert metrics["rollout_corr/rollout_is_mean"] > 0.0


def test_rejected_tokens_are_masked_and_counted() -> None:
    settings = RolloutCorrection(rollout_rs="token_k1", rollout_rs_threshold="0.5_2.0")
    corrected, metrics = correct(SAMPLES, settings)
    assert [c.view.mask for c in corrected] == [(1, 0, 0), (1,)]
    assert all(c.rollout_is_weights is None for c in corrected)
    assert metrics["rollout_corr/rollout_rs_masked_fraction"] == pytest.approx(1 / 3)


def test_only_decoupled_settings_change_samples() -> None:
    assert not RolloutCorrection().weighs_or_rejects
    assert not RolloutCorrection(bypass_mode=True, rollout_is="token").weighs_or_rejects
    assert RolloutCorrection(rollout_rs="token_k1", rollout_rs_threshold=2.0).weighs_or_rejects
