"""What one policy's settings must agree on; checked when a recipe is built, before any model is loaded."""

from __future__ import annotations

import math
from typing import Any

from omegaconf import DictConfig

# In place of numbers: GPUs are divided by the policies' work (longshort/demand.py).
BY_DEMAND = "demand"
ENGINE_SIZES = ("tensor_model_parallel_size", "data_parallel_size", "pipeline_model_parallel_size")


def check_policy(config: DictConfig, name: str, learns: bool) -> None:
    """Raise ``ValueError`` for the first contradiction in the settings of policy ``name``."""
    policy, key = config.policies[name], f"policies.{name}"
    if not policy.model.path or policy.model.path == "???":
        raise ValueError(f"{key}.model.path is not set; give a model folder or a hub id")
    count(f"{key}.rollout.n", policy.rollout.n)
    if policy.rollout.n < 2:
        raise ValueError(f"{key}.rollout.n={policy.rollout.n} makes groups of one; GRPO compares at least 2 episodes")
    if len({config.policies[other].rollout.n for other in config.policies}) > 1:
        raise ValueError(
            f"{key}.rollout.n={policy.rollout.n} differs between policies that play together; make it equal"
        )
    if config.trainer.device == "cpu" and policy.rollout.enable_chunked_prefill:
        raise ValueError(
            f"{key}.rollout.enable_chunked_prefill=true does not work with seeded turns on trainer.device=cpu; "
            "set it to false"
        )
    count(f"{key}.actor.ppo_mini_batch_size", policy.actor.ppo_mini_batch_size)
    batch, mini = config.data.train_batch_size, policy.actor.ppo_mini_batch_size
    if batch % mini:
        raise ValueError(
            f"data.train_batch_size={batch} is no multiple of {key}.actor.ppo_mini_batch_size={mini}; change either"
        )
    _check_lora(config, key, policy, learns)
    _check_tokens(config, key, policy)
    if config.placement.n_gpus_per_node != BY_DEMAND:
        slots = config.placement.n_gpus_per_node[name] * config.trainer.nnodes
        _check_slots(key, policy, slots, f"{slots} device slots (placement.n_gpus_per_node.{name} * trainer.nnodes)")


def engine_size(policy: DictConfig) -> int:
    """GPUs of one rollout engine."""
    return math.prod(policy.rollout[size] for size in ENGINE_SIZES)


def _check_lora(config: DictConfig, key: str, policy: DictConfig, learns: bool) -> None:
    model = policy.model
    if model.lora_adapter_path and not learns:
        raise ValueError(
            f"{key}.model.lora_adapter_path={model.lora_adapter_path} would not be played, because a policy that does "
            "not learn loads model.path alone; give the path of a merged model"
        )
    if model.lora_adapter_path and model.lora_rank < 1:
        raise ValueError(
            f"{key}.model.lora_adapter_path={model.lora_adapter_path} needs {key}.model.lora_rank; set it to the "
            "adapter's rank"
        )
    as_adapter = model.lora_rank > 0 and not model.lora.merge
    if learns and as_adapter and config.trainer.device == "cpu" and policy.rollout.load_format == "dummy":
        raise ValueError(
            f"{key}.rollout.load_format=dummy leaves the engine without the weights under its adapter on "
            "trainer.device=cpu; set it to auto"
        )


def _check_tokens(config: DictConfig, key: str, policy: DictConfig) -> None:
    """Micro-batches and contexts hold the longest conversation."""
    actor, rollout = policy.actor, policy.rollout
    needed = config.data.max_prompt_length + config.team.max_episode_tokens
    if actor.use_dynamic_bsz != rollout.log_prob_use_dynamic_bsz:
        raise ValueError(
            f"{key}.actor.use_dynamic_bsz={actor.use_dynamic_bsz} and {key}.rollout.log_prob_use_dynamic_bsz="
            f"{rollout.log_prob_use_dynamic_bsz} must be equal; change either"
        )
    limits = {
        f"{key}.actor.ppo_max_token_len_per_gpu": actor.ppo_max_token_len_per_gpu,
        f"{key}.rollout.log_prob_max_token_len_per_gpu": rollout.log_prob_max_token_len_per_gpu,
    }
    sizes = {
        f"{key}.actor.ppo_micro_batch_size_per_gpu": actor.ppo_micro_batch_size_per_gpu,
        f"{key}.rollout.log_prob_micro_batch_size_per_gpu": rollout.log_prob_micro_batch_size_per_gpu,
    }
    for limit, tokens in limits.items() if actor.use_dynamic_bsz else ():
        if tokens * actor.ulysses_sequence_parallel_size < needed:
            raise ValueError(
                f"{limit}={tokens} holds no conversation of data.max_prompt_length + team.max_episode_tokens = "
                f"{needed}; raise it or lower those"
            )
    for size, rows in sizes.items() if not actor.use_dynamic_bsz else ():
        if rows is None:
            raise ValueError(f"{size} is not set; give it, or set actor.use_dynamic_bsz=true")
        count(size, rows)
    if rollout.max_model_len and rollout.max_model_len < needed:
        raise ValueError(
            f"{key}.rollout.max_model_len={rollout.max_model_len} is below data.max_prompt_length + "
            f"team.max_episode_tokens = {needed}; raise it or lower those"
        )


def _check_slots(key: str, policy: DictConfig, slots: int, where: str) -> None:
    """Engines and data-parallel ranks divide the policy's device slots, and its mini-batch divides over them."""
    ulysses = policy.actor.ulysses_sequence_parallel_size
    if slots % ulysses:
        raise ValueError(f"{key}.actor.ulysses_sequence_parallel_size={ulysses} does not divide {where}; change either")
    if ulysses > 1 and not policy.model.use_remove_padding:
        raise ValueError(
            f"{key}.actor.ulysses_sequence_parallel_size={ulysses} splits packed sequences only; "
            f"set it to 1 or {key}.model.use_remove_padding=true"
        )
    episodes = policy.actor.ppo_mini_batch_size * policy.rollout.n
    if episodes % (slots // ulysses):
        raise ValueError(
            f"{key}.actor.ppo_mini_batch_size * rollout.n = {episodes} does not divide over the "
            f"{slots // ulysses} data-parallel ranks of {where}; change either"
        )
    if slots % engine_size(policy):
        raise ValueError(
            f"{key}.rollout: an engine of {' * '.join(ENGINE_SIZES)} = {engine_size(policy)} does not divide {where}; "
            "change either"
        )


def choice(key: str, value: object, choices: Any) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``choices``."""
    names = [str(one) for one in choices]
    if str(value) not in names:
        raise ValueError(f"{key}={value} is unknown; choose one of {', '.join(names)}")


def count(key: str, value: object, least: int = 1) -> None:
    """Raise ``ValueError`` unless ``value`` is a whole number, at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{key}={value} must be a whole number, at least {least}")


def number(key: str, value: object, above: float = -math.inf) -> None:
    """Raise ``ValueError`` unless ``value`` is a number above ``above``."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > above:
        raise ValueError(f"{key}={value} must be a number" + (f" above {above}" if above > -math.inf else ""))
