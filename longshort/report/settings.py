"""Settings of a run that a report shows: those named here and no others, for reports are passed on."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from longshort.rounds.schedule import leaves

SHOWN = (
    *(
        "seed",
        "train",
        "protocol",
        "family",
        "team.protocol",
        "team.family",
        "team.max_turns",
        "team.max_turn_tokens.*",
    ),
    *("team.max_episode_tokens", "team.close_cut_turns", "limits.*", "sampling.*", "baseline.name", "baseline.budget"),
    *("algorithm.adv_estimator", "algorithm.norm_adv_by_std_in_grpo", "algorithm.use_kl_in_reward"),
    *("data.train_batch_size", "data.max_prompt_length", "data.seed"),
    *("reward.eta", "reward.lambda", "reward.mu.start", "reward.mu.end", "reward.mu.ramp_steps", "reward.length.name"),
    *("reward.format_of", "reward.length_of", "selection.rule", "selection.tolerance", "guard.action"),
    *("policies.*.actor.optim.lr", "policies.*.rollout.n", "policies.*.rollout.temperature"),
    *("policies.*.rollout.top_p", "evaluation.samples", "evaluation.temperature", "evaluation.top_p"),
    *("trainer.total_training_steps", "trainer.device"),
)


def shown_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """Of nested ``settings``, those in ``SHOWN`` by dotted key."""
    return {
        key: str(value)
        for key, value in leaves(settings)
        if value is not None and value != {} and any(fnmatchcase(key, pattern) for pattern in SHOWN)
    }
