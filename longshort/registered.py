"""What only verl can check: names in its registries and the thresholds it parses; done before any model is loaded."""

from __future__ import annotations

import os

from omegaconf import DictConfig

from longshort.correction import RolloutCorrection, correct
from longshort.episode import View
from longshort.policy import Sample
from longshort.validation import EXTERNAL_MODULES


def check_registered(config: DictConfig, correction: RolloutCorrection) -> None:
    """Raises ``ValueError`` where verl knows no such advantage estimator or policy loss, or refuses a threshold."""
    try:
        from verl.trainer.ppo.core_algos import get_adv_estimator_fn, get_policy_loss_fn
    except ImportError as error:
        modules = os.environ.get(EXTERNAL_MODULES)
        raise ValueError(f"verl does not import with {EXTERNAL_MODULES}={modules} ({error}); correct it") from error
    try:
        get_adv_estimator_fn(config.algorithm.adv_estimator)
    except ValueError as error:
        raise ValueError(
            f"algorithm.adv_estimator={config.algorithm.adv_estimator} is not registered; import the module that "
            f"registers it through the environment variable {EXTERNAL_MODULES}"
        ) from error
    for name, policy in config.policies.items():
        try:
            get_policy_loss_fn(policy.actor.policy_loss.loss_mode)
        except ValueError as error:
            raise ValueError(f"policies.{name}.actor.policy_loss.loss_mode: {error}; see {EXTERNAL_MODULES}") from error
    if correction.rollout_is is not None or correction.rollout_rs is not None:
        try:
            correct([Sample(View((0,), (0,), (1,), (0.0,)), 0.0, (0.0,))], correction)
        except (ValueError, TypeError) as error:
            raise ValueError(f"algorithm.rollout_correction: {error}") from error
