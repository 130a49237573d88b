"""The rounds of a run, as its recipe lists them: what each may change, and what must hold between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from omegaconf import DictConfig, OmegaConf

# A run without a list has one round, with the recipe's settings.
ONLY = ""
CARRIED = ("optimizer", "reference")
# Settings that a round may change, and all that lies below them.
CHANGEABLE = (
    "train",
    "team.max_turns",
    "team.max_turn_tokens",
    "team.max_episode_tokens",
    "team.close_cut_turns",
    "team.partner_temperature",
    "reward.eta",
    "reward.lambda",
    "reward.mu",
    "reward.length",
    "reward.format_of",
    "reward.length_of",
    "guard",
    "selection",
    "carry",
    "evaluation",
    "data.val_files",
    "trainer.total_training_steps",
    "trainer.total_epochs",
    "trainer.test_freq",
    "trainer.save_freq",
)
OPTIMISER = "actor.optim"


def rounds_of(config: DictConfig) -> dict[str, DictConfig]:
    """By name, the complete configuration of every round, in their order."""
    return {str(name): of_round(config, str(name)) for name in config.rounds} or {ONLY: config}


def of_round(config: DictConfig, name: str) -> DictConfig:
    """The complete configuration of one round."""
    changed = deepcopy(config)
    OmegaConf.set_struct(changed, False)
    changed.rounds = {}
    changed.merge_with(config.rounds[name])
    OmegaConf.set_struct(changed, True)
    return changed


def settings_of_round(config: DictConfig) -> DictConfig:
    """Of a complete configuration, what a round may change."""
    settings = OmegaConf.create({})
    for key in (*CHANGEABLE, *[f"policies.{name}.{OPTIMISER}" for name in config.policies]):
        OmegaConf.update(settings, key, OmegaConf.select(config, key), force_add=True)
    return settings


def settle_steps(config: DictConfig, problems: int) -> None:
    """Put numbers in the place of ``trainer.total_training_steps=null``: ``total_epochs`` of so many problems."""
    for settings in (config, *config.rounds.values()):
        if settings.trainer.total_training_steps is None:
            steps = settings.trainer.total_epochs * problems // config.data.train_batch_size
            settings.trainer.total_training_steps = steps
            if settings.reward.mu.ramp_steps is None:
                settings.reward.mu.ramp_steps = steps
            for policy in settings.policies.values():
                if policy.actor.optim.total_training_steps is None:
                    policy.actor.optim.total_training_steps = steps


def refuse_fixed_keys(name: str, part: DictConfig) -> None:
    """ValueError for a key of a round that does not differ between rounds."""
    for key, value in leaves(OmegaConf.to_container(part)):
        if value == {}:
            continue
        fixed = not any(f"{key}.".startswith(f"{changeable}.") for changeable in CHANGEABLE)
        if fixed and not _is_optimisers(key.split(".")):
            raise ValueError(
                f"rounds.{name}.{key} is the same in all rounds of a run; set {key} beside `rounds`, or choose of "
                f"{', '.join(CHANGEABLE)}, actor_rollout_ref.{OPTIMISER} and policies.<name>.{OPTIMISER}"
            )


def _is_optimisers(path: list[str]) -> bool:
    below = path[1:] if path[0] == "actor_rollout_ref" else path[2:] if path[0] == "policies" else []
    return ".".join(below[:2]) == OPTIMISER


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by their dotted keys; lists and empty mappings count as settings."""
    if isinstance(value, Mapping) and value:
        for key, child in value.items():
            yield from leaves(child, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def check_order(rounds: Mapping[str, DictConfig]) -> None:
    """ValueError where a limit rises from one round to the next."""
    before: tuple[str, DictConfig] | None = None
    for name, config in rounds.items():
        if before is not None:
            limits = zip(_limits(before[1]).items(), _limits(config).values(), strict=True)
            for (key, earlier), now in limits:
                if now > earlier:
                    raise ValueError(
                        f"rounds.{name}.{key}={now} is more than the {earlier} of round {before[0]}: a policy that "
                        "learned to be brief would not write longer again; let limits fall or stay"
                    )
        before = (name, config)


def _limits(config: DictConfig) -> dict[str, int]:
    turns = {f"team.max_turn_tokens.{role}": cap for role, cap in config.team.max_turn_tokens.items()}
    return {"team.max_episode_tokens": config.team.max_episode_tokens, **turns}
