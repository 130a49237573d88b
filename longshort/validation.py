"""Contradictions of a recipe, found before any model is loaded: each error names key, value and remedy."""

from __future__ import annotations

import math
import os

from omegaconf import DictConfig, OmegaConf

# Whole numbers, at least 1.
COUNTS = (
    "data.train_batch_size",
    "data.max_prompt_length",
    "team.max_turns",
    "team.max_episode_tokens",
    "evaluation.samples",
    "reward.grading_workers",
    "trainer.nnodes",
    "trainer.total_training_steps",
)
NUMBERS = ("reward.eta", "reward.lambda", "reward.mu.start", "reward.mu.end", "reward.max_error_fraction")
# verl's estimators that keep to one problem at a time and need nothing but one reward an episode.
ESTIMATORS = ("grpo", "grpo_passk", "rloo", "rloo_vectorized")
# Its others: statistics across problems, values, lengths, or (grpo_vectorized) float32, in which a group of equal
# rewards gets advantages of up to 0.01.
REFUSED_ESTIMATORS = (
    *("gae", "gdpo", "gpg", "grpo_vectorized", "opo", "optimal_token_baseline", "reinforce_plus_plus"),
    *("reinforce_plus_plus_baseline", "remax", "tir_optimal_token_baseline"),
)
# Names of one's own are registered by the modules of this variable, so only verl knows them (longshort/registered.py).
EXTERNAL_MODULES = "VERL_USE_EXTERNAL_MODULES"
BYPASS_LOSSES = ("ppo_clip", "reinforce")
TRAINABLE = {"long_short": {"long": ("long",), "short": ("short",), "both": ("long", "short")}}


def trained_policies(config: DictConfig) -> tuple[str, ...]:
    """Names of the policies that ``train`` selects."""
    return TRAINABLE[config.team.protocol][config.train]


def validate(config: DictConfig) -> None:
    """Raise ``ValueError`` for the first contradiction."""
    protocol = config.team.protocol
    _choice("team.protocol", protocol, TRAINABLE)
    _choice("train", config.train, TRAINABLE[protocol])
    roles = sorted({role for trained in TRAINABLE[protocol].values() for role in trained})
    if sorted(config.policies) != roles:
        raise ValueError(
            f"policies={list(config.policies)} are not the roles of team.protocol={protocol}; "
            f"name them {', '.join(roles)}"
        )
    for key in ("format_of", "length_of"):
        _choice(f"reward.{key}", config.reward[key], ("own", "all"))
    estimator = config.algorithm.adv_estimator
    if estimator in REFUSED_ESTIMATORS or EXTERNAL_MODULES not in os.environ:
        _choice("algorithm.adv_estimator", estimator, ESTIMATORS)
    if config.algorithm.use_kl_in_reward:
        raise ValueError(
            "algorithm.use_kl_in_reward=true is not supported, because rewards here are of whole episodes; "
            "set it to false and actor_rollout_ref.actor.use_kl_loss=true instead"
        )
    _choice("algorithm.rollout_correction.loss_type", config.algorithm.rollout_correction.loss_type, BYPASS_LOSSES)
    _choice("placement.mode", config.placement.mode, ("split", "colocated"))
    _choice("data.on_error", config.data.on_error, ("raise", "skip"))
    _choice("trainer.device", config.trainer.device, ("cpu", "cuda"))
    _choice("trainer.resume_mode", config.trainer.resume_mode, ("auto", "disable"))
    for key in COUNTS:
        _count(key, OmegaConf.select(config, key))
    for key in NUMBERS:
        _number(key, OmegaConf.select(config, key))
    _count("reward.mu.ramp_steps", config.reward.mu.ramp_steps, least=0)
    for name in config.policies:
        _count(f"team.max_turn_tokens.{name}", config.team.max_turn_tokens.get(name))
        _count(f"placement.n_gpus_per_node.{name}", config.placement.n_gpus_per_node.get(name))
    if OmegaConf.is_missing(config.data, "train_files") or not config.data.train_files:
        raise ValueError("data.train_files is not set; give a .json, .jsonl or .parquet file or a list of them")
    if not config.data.val_files and (config.trainer.test_freq > 0 or config.trainer.val_before_train):
        raise ValueError(
            f"trainer.test_freq={config.trainer.test_freq} and val_before_train={config.trainer.val_before_train} ask "
            "for evaluations, but data.val_files is empty; give problems or set them to -1 and false"
        )
    if config.placement.mode == "colocated" and len(set(config.placement.n_gpus_per_node.values())) > 1:
        raise ValueError(
            f"placement.n_gpus_per_node={dict(config.placement.n_gpus_per_node)} differs between policies that are "
            "colocated; give them the same number or use placement.mode=split"
        )
    for name in config.policies:
        _validate_policy(config, str(name))


def _validate_policy(config: DictConfig, name: str) -> None:
    policy, key = config.policies[name], f"policies.{name}"
    if not policy.model.path or policy.model.path == "???":
        raise ValueError(f"{key}.model.path is not set; give a model folder or a hub id")
    _count(f"{key}.rollout.n", policy.rollout.n)
    _count(f"{key}.actor.ppo_mini_batch_size", policy.actor.ppo_mini_batch_size)
    if policy.rollout.n < 2:
        raise ValueError(f"{key}.rollout.n={policy.rollout.n} makes groups of one; GRPO compares at least 2 episodes")
    if len({config.policies[other].rollout.n for other in config.policies}) > 1:
        raise ValueError(
            f"{key}.rollout.n={policy.rollout.n} differs between policies that play together; make it equal"
        )
    batch, mini = config.data.train_batch_size, policy.actor.ppo_mini_batch_size
    if batch % mini:
        raise ValueError(
            f"data.train_batch_size={batch} is no multiple of {key}.actor.ppo_mini_batch_size={mini}; change either"
        )
    if config.trainer.device == "cpu" and policy.rollout.enable_chunked_prefill:
        raise ValueError(
            f"{key}.rollout.enable_chunked_prefill=true does not work with seeded turns on trainer.device=cpu; "
            "set it to false"
        )
    slots = config.placement.n_gpus_per_node[name] * config.trainer.nnodes
    if mini * policy.rollout.n % slots:
        raise ValueError(
            f"{key}.actor.ppo_mini_batch_size * rollout.n = {mini * policy.rollout.n} does not divide over {slots} "
            f"data-parallel ranks (placement.n_gpus_per_node.{name} * trainer.nnodes); change either"
        )
    sizes = [f"{kind}_parallel_size" for kind in ("tensor_model", "data", "pipeline_model")]
    per_replica = math.prod(policy.rollout[size] for size in sizes)
    if slots % per_replica:
        raise ValueError(
            f"{key}.rollout: an engine of {' * '.join(sizes)} = {per_replica} does not divide {slots} device slots "
            f"(placement.n_gpus_per_node.{name} * trainer.nnodes); change either"
        )
    needed = config.data.max_prompt_length + config.team.max_episode_tokens
    packed = policy.actor.ppo_max_token_len_per_gpu * policy.actor.ulysses_sequence_parallel_size
    if policy.actor.use_dynamic_bsz and packed < needed:
        raise ValueError(
            f"{key}.actor.ppo_max_token_len_per_gpu={policy.actor.ppo_max_token_len_per_gpu} holds no conversation of "
            f"data.max_prompt_length + team.max_episode_tokens = {needed}; raise it or lower those"
        )
    if policy.rollout.max_model_len and policy.rollout.max_model_len < needed:
        raise ValueError(
            f"{key}.rollout.max_model_len={policy.rollout.max_model_len} is below data.max_prompt_length + "
            f"team.max_episode_tokens = {needed}; raise it or lower those"
        )


def _choice(key: str, value: object, choices: object) -> None:
    names = [str(choice) for choice in choices]  # type: ignore[attr-defined]
    if str(value) not in names:
        raise ValueError(f"{key}={value} is unknown; choose one of {', '.join(names)}")


def _count(key: str, value: object, least: int = 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{key}={value} must be a whole number, at least {least}")


def _number(key: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{key}={value} must be a number")
