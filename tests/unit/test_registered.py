"""Names in verl's registries and thresholds it parses: refused before any model is loaded, in one sentence."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, register_adv_est

from longshort.advantages import group_advantages
from longshort.config import build_config
from longshort.correction import AS_COMPUTED_AGAIN, RolloutCorrection
from longshort.registered import check_registered


def test_known_names_pass_and_unknown_ones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = build_config("local", ["policies.long.actor.policy_loss.loss_mode=gspo"])
    check_registered(config, AS_COMPUTED_AGAIN)
    monkeypatch.setenv("VERL_USE_EXTERNAL_MODULES", "my_module")
    mine = build_config("local", ["algorithm.adv_estimator=mine"])
    with pytest.raises(ValueError, match=r"algorithm\.adv_estimator=mine is not registered"):
        check_registered(mine, AS_COMPUTED_AGAIN)
    OmegaConf.update(config, "policies.short.actor.policy_loss.loss_mode", "mine")
    with pytest.raises(ValueError, match=r"policies\.short\.actor\.policy_loss\.loss_mode.*mine"):
        check_registered(config, AS_COMPUTED_AGAIN)


@pytest.mark.parametrize(
    "correction",
    [
        RolloutCorrection(rollout_rs="token_k1"),
        RolloutCorrection(rollout_rs="tokens", rollout_rs_threshold=2.0),
        RolloutCorrection(rollout_is="token", rollout_is_threshold="many"),
        RolloutCorrection(rollout_is="word"),
    ],
)
def test_corrections_that_verl_refuses(correction: RolloutCorrection) -> None:
    with pytest.raises(ValueError, match=r"algorithm\.rollout_correction: "):
        check_registered(build_config("local"), correction)


def test_an_estimator_of_ones_own_sees_one_reward_an_episode_and_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def centred(token_level_rewards, response_mask, index, config=None, **kwargs):  # type: ignore[no-untyped-def]
        seen.update(shape=tuple(token_level_rewards.shape), groups=list(index), config=config)
        return token_level_rewards - token_level_rewards.mean(), None

    monkeypatch.setitem(ADV_ESTIMATOR_REGISTRY, "centred", None)
    monkeypatch.delitem(ADV_ESTIMATOR_REGISTRY, "centred")
    register_adv_est("centred")(centred)
    assert group_advantages([1.0, 3.0], ["p", "p"], "centred", False) == [-1.0, 1.0]
    assert seen["shape"] == (2, 1)
    assert seen["groups"] == ["p", "p"]
    assert seen["config"]["norm_adv_by_std_in_grpo"] is False
