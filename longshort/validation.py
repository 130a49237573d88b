"""Contradictions of a recipe, found before any model is loaded: each error names key, value and remedy."""

from __future__ import annotations

from omegaconf import DictConfig

TRAINABLE = {"long_short": {"long": ("long",), "short": ("short",), "both": ("long", "short")}}


def trained_policies(config: DictConfig) -> tuple[str, ...]:
    """Names of the policies that ``train`` selects."""
    return TRAINABLE[config.team.protocol][config.train]


def validate(config: DictConfig) -> None:
    """Raise ``ValueError`` for the first contradiction."""
    protocol = config.team.protocol
    _choice("team.protocol", protocol, TRAINABLE)
    _choice("train", config.train, TRAINABLE[protocol])
    for key in ("format_of", "length_of"):
        _choice(f"reward.{key}", config.reward[key], ("own", "all"))
    _choice("placement.mode", config.placement.mode, ("split", "colocated"))
    _choice("data.on_error", config.data.on_error, ("raise", "skip"))
    _choice("trainer.device", config.trainer.device, ("cpu", "cuda"))
    _choice("trainer.resume_mode", config.trainer.resume_mode, ("auto", "disable"))
    _positive("data.train_batch_size", config.data.train_batch_size)
    _positive("trainer.total_training_steps", config.trainer.total_training_steps)
    _positive("team.max_turns", config.team.max_turns)
    _positive("team.max_episode_tokens", config.team.max_episode_tokens)
    for role, limit in config.team.max_turn_tokens.items():
        _positive(f"team.max_turn_tokens.{role}", limit)
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
    needed = config.data.max_prompt_length + config.team.max_episode_tokens
    if policy.rollout.max_model_len and policy.rollout.max_model_len < needed:
        raise ValueError(
            f"{key}.rollout.max_model_len={policy.rollout.max_model_len} is below data.max_prompt_length + "
            f"team.max_episode_tokens = {needed}; raise it or lower those"
        )


def _choice(key: str, value: object, choices: object) -> None:
    names = [str(choice) for choice in choices]  # type: ignore[attr-defined]
    if str(value) not in names:
        raise ValueError(f"{key}={value} is unknown; choose one of {', '.join(names)}")


def _positive(key: str, value: float) -> None:
    if value <= 0:
        raise ValueError(f"{key}={value} must be positive")
