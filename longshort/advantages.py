"""Group advantages through verl's registered estimators."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any


def group_advantages(
    rewards: Sequence[float], groups: Sequence[Hashable], estimator: str = "grpo", normalise_by_std: bool = True
) -> list[float]:
    """One advantage per episode, from the rewards of its group only.

    Args:
        rewards: one scalar per episode.
        groups: the problem of each episode; statistics never cross problems.
        estimator: name in verl's registry of outcome estimators, e.g. ``grpo``, or one registered there by the user.
        normalise_by_std: divide by the group's standard deviation (GRPO) or not (Dr. GRPO).

    The estimator sees one token per episode, so that no padding can enter its statistics.
    """
    import numpy as np
    import torch
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn

    arguments: dict[str, Any] = {
        "token_level_rewards": torch.tensor(rewards, dtype=torch.float64).unsqueeze(-1),
        "response_mask": torch.ones(len(rewards), 1, dtype=torch.float64),
        "index": np.array([str(group) for group in groups], dtype=object),
        "config": {"adv_estimator": estimator, "norm_adv_by_std_in_grpo": normalise_by_std},
    }
    if estimator == "grpo":  # reads it from here and not from its config
        arguments["norm_adv_by_std_in_grpo"] = normalise_by_std
    advantages, _ = get_adv_estimator_fn(estimator)(**arguments)
    return advantages.squeeze(-1).tolist()
