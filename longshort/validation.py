"""Contradictions of a recipe, found before any model is loaded: each error names key, value and remedy."""

from __future__ import annotations

import os
from collections.abc import Mapping

from omegaconf import DictConfig, OmegaConf

from longshort.evaluation.baselines import BASELINES, BUDGET_FORCING, FIRST_THOUGHT, NO_BASELINE
from longshort.length_rewards import LENGTH_REWARDS, make_length_reward
from longshort.policy_checks import BY_DEMAND, check_policy, choice, count, engine_size, number
from longshort.protocols import TRAINABLE, roles_of
from longshort.rounds.collapse import CollapseSettings
from longshort.rounds.schedule import CARRIED, check_order, rounds_of
from longshort.rounds.selection import LAST, SELECTION_RULES
from longshort.solo import INSTRUCTIONS, SOLO

# Whole numbers, at least 1.
COUNTS = (
    "data.train_batch_size",
    "data.max_prompt_length",
    "team.max_turns",
    "team.max_episode_tokens",
    "reward.grading_workers",
    "trainer.nnodes",
    "trainer.total_epochs",
)
NUMBERS = ("reward.eta", "reward.lambda", "reward.mu.start", "reward.mu.end", "reward.max_error_fraction")
TIMES = (
    *(f"faults.{name}" for name in ("engine_timeout_s", "progress_timeout_s", "transition_timeout_s", "stall_s")),
    "reward.function_timeout_s",
)
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
SETTINGS_OF_THE_START = "(the recipe)"
BYPASS_LOSSES = ("ppo_clip", "reinforce")


def trained_policies(config: DictConfig) -> tuple[str, ...]:
    """Names of the policies that learn, in any of the rounds."""
    trains = [each.train for each in config.rounds.values()] or [config.train]
    names = {name for train in trains for name in TRAINABLE[config.team.protocol][train]}
    return tuple(name for name in map(str, config.policies) if name in names)


def require_learners(config: DictConfig) -> None:
    """ValueError where no policy learns in any of the rounds."""
    if not trained_policies(config):
        raise ValueError(f"train={config.train} trains nobody; choose long, short, both or solo")


def validate(config: DictConfig) -> None:
    """Raise ``ValueError`` for the first contradiction, of the whole or of a round."""
    choice("team.protocol", config.team.protocol, TRAINABLE)
    if not config.rounds:
        _check(config)
        return
    rounds = rounds_of(config)
    for name, each in rounds.items():
        try:
            _check(each)
        except ValueError as error:
            raise ValueError(f"rounds.{name}: {error}") from error
    check_order({SETTINGS_OF_THE_START: config, **rounds})
    _check_adapters(config, rounds)


def _check(config: DictConfig) -> None:
    _check_team(config)
    for key in ("format_of", "length_of"):
        choice(f"reward.{key}", config.reward[key], ("own", "all"))
    estimator = config.algorithm.adv_estimator
    if estimator in REFUSED_ESTIMATORS or EXTERNAL_MODULES not in os.environ:
        choice("algorithm.adv_estimator", estimator, ESTIMATORS)
    if config.algorithm.use_kl_in_reward:
        raise ValueError(
            "algorithm.use_kl_in_reward=true is not supported, because rewards here are of whole episodes; "
            "set it to false and actor_rollout_ref.actor.use_kl_loss=true instead"
        )
    choice("algorithm.rollout_correction.loss_type", config.algorithm.rollout_correction.loss_type, BYPASS_LOSSES)
    choice("placement.mode", config.placement.mode, ("split", "colocated"))
    choice("data.on_error", config.data.on_error, ("raise", "skip"))
    choice("trainer.device", config.trainer.device, ("cpu", "cuda"))
    choice("trainer.resume_mode", config.trainer.resume_mode, ("auto", "disable"))
    for key in COUNTS:
        count(key, OmegaConf.select(config, key))
    for key in ("total_training_steps", "max_actor_ckpt_to_keep"):
        if config.trainer[key] is not None:
            count(f"trainer.{key}", config.trainer[key])
    for key in NUMBERS:
        number(key, OmegaConf.select(config, key))
    if config.team.limit_in_prompt is not None:
        count("team.limit_in_prompt", config.team.limit_in_prompt)
    if config.team.partner_temperature is not None:
        number("team.partner_temperature", config.team.partner_temperature)
    for key in TIMES:
        number(key, OmegaConf.select(config, key), above=0.0)
    count("faults.max_engine_restarts", config.faults.max_engine_restarts, least=0)
    if config.reward.mu.ramp_steps is not None:
        count("reward.mu.ramp_steps", config.reward.mu.ramp_steps, least=0)
    for name in config.policies:
        count(f"team.max_turn_tokens.{name}", config.team.max_turn_tokens.get(name))
    given = not OmegaConf.is_missing(config.data, "train_files") and config.data.train_files
    if trained_policies(config) and not given:
        raise ValueError("data.train_files is not set; give a .json, .jsonl or .parquet file or a list of them")
    if not config.data.val_files and (config.trainer.test_freq > 0 or config.trainer.val_before_train):
        raise ValueError(
            f"trainer.test_freq={config.trainer.test_freq} and val_before_train={config.trainer.val_before_train} ask "
            "for evaluations, but data.val_files is empty; give problems or set them to -1 and false"
        )
    _check_rounds_end(config)
    _check_evaluation(config)
    length = dict(config.reward.length)
    name = str(length.pop("name", None))
    if name in LENGTH_REWARDS or EXTERNAL_MODULES not in os.environ:
        make_length_reward(name, length)
    try:
        CollapseSettings(**config.guard)
    except TypeError as error:
        raise ValueError(f"guard: {error}; see longshort/rounds/collapse.py for its settings") from error
    _check_placement(config)
    _check_models(config)
    for name in config.policies:
        check_policy(config, str(name), name in trained_policies(config))


def _check_team(config: DictConfig) -> None:
    team, protocol = config.team, config.team.protocol
    choice("train", config.train, TRAINABLE[protocol])
    if sorted(config.policies) != sorted(roles_of(protocol)):
        raise ValueError(
            f"policies={list(config.policies)} are not the roles of team.protocol={protocol}; "
            f"name them {', '.join(roles_of(protocol))}"
        )
    if protocol != SOLO:
        return
    choice("team.family", team.family, INSTRUCTIONS)
    if team.max_turn_tokens[SOLO] != team.max_episode_tokens:
        raise ValueError(
            f"team.max_turn_tokens.{SOLO}={team.max_turn_tokens[SOLO]} is not "
            f"team.max_episode_tokens={team.max_episode_tokens}; set the latter only"
        )


def _check_evaluation(config: DictConfig) -> None:
    evaluation = config.evaluation
    if evaluation.samples is not None:
        count("evaluation.samples", evaluation.samples)
    baseline = evaluation.baseline
    choice("evaluation.baseline.name", baseline.name, BASELINES)
    if baseline.name != NO_BASELINE and config.team.protocol != SOLO:
        raise ValueError(
            f"evaluation.baseline.name={baseline.name} is for a team of one; set team.protocol={SOLO}, or the name to "
            f"{NO_BASELINE}"
        )
    if baseline.name == BUDGET_FORCING and not baseline.budgets:
        raise ValueError("evaluation.baseline.budgets is empty; give the budgets of thinking, as in [500,1000,2000]")
    for budget in baseline.budgets:
        count("evaluation.baseline.budgets", budget)
    for key in ("answer_tokens", "estimate_tokens"):
        count(f"evaluation.baseline.{key}", baseline[key])
    if evaluation.behaviour.problems is not None:
        count("evaluation.behaviour.problems", evaluation.behaviour.problems)
    for key, least in (("retries", 0), ("max_tokens", 1)):
        count(f"evaluation.behaviour.judge.{key}", evaluation.behaviour.judge[key], least)
    if baseline.name == FIRST_THOUGHT and not baseline.thought_end:
        raise ValueError("evaluation.baseline.thought_end is empty; give what a thought ends with, as a blank line")


def _check_rounds_end(config: DictConfig) -> None:
    """What the selection of a round's checkpoint needs, and what the next round takes over."""
    choice("selection.rule", config.selection.rule, SELECTION_RULES)
    number("selection.tolerance", config.selection.tolerance)
    for carried in config.carry:
        choice("carry", carried, CARRIED)
    test, save = config.trainer.test_freq, config.trainer.save_freq
    if config.selection.rule != LAST and (test < 1 or save < 1 or test % save):
        raise ValueError(
            f"selection.rule={config.selection.rule} compares validated checkpoints, but trainer.test_freq={test} and "
            f"trainer.save_freq={save}; set both, the first to a multiple of the second"
        )


def _check_adapters(config: DictConfig, rounds: Mapping[str, DictConfig]) -> None:
    """With LoRA the reference is the model without its adapter, so no round can renew it."""
    for name in trained_policies(config):
        policy = config.policies[name]
        later = [each for each in list(rounds)[1:] if "reference" not in rounds[each].carry]
        if policy.model.lora_rank > 0 and policy.actor.use_kl_loss and later:
            raise ValueError(
                f"policies.{name}.model.lora_rank={policy.model.lora_rank} with use_kl_loss keeps the base model as "
                f"reference in round {later[0]} too; set carry=[reference], or use_kl_loss=false"
            )


def _check_models(config: DictConfig) -> None:
    """Models that only generate: a path, or an endpoint with address and name; engines that divide the GPUs."""
    for name, model in config.models.items():
        key = f"models.{name}"
        if "endpoint" in model:
            for part in ("url", "model"):
                if not model.endpoint.get(part):
                    raise ValueError(f"{key}.endpoint.{part} is not set; give the server's, as in docs/coldstart.md")
            continue
        if model.model.path is None:
            raise ValueError(f"{key}.model.path is not set; give a folder or a name on the hub, or {key}.endpoint")
        if config.trainer.n_gpus_per_node % engine_size(model):
            raise ValueError(
                f"{key}.rollout: an engine of {engine_size(model)} GPUs does not divide trainer.n_gpus_per_node="
                f"{config.trainer.n_gpus_per_node}; change either"
            )


def _check_placement(config: DictConfig) -> None:
    placement, colocated = config.placement, config.placement.mode == "colocated"
    if placement.n_gpus_per_node == BY_DEMAND:
        if colocated:
            raise ValueError(
                f"placement.n_gpus_per_node={BY_DEMAND} divides GPUs, but placement.mode=colocated shares them; "
                "choose placement.mode=split"
            )
        count("trainer.n_gpus_per_node", config.trainer.n_gpus_per_node, least=len(config.policies))
        for name in config.policies:
            if placement.demand[name] is not None:
                number(f"placement.demand.{name}", placement.demand[name], above=0)
        return
    if not isinstance(placement.n_gpus_per_node, DictConfig):
        raise ValueError(
            f"placement.n_gpus_per_node={placement.n_gpus_per_node} is unknown; give a number for each policy or "
            f"choose {BY_DEMAND}"
        )
    for name in config.policies:
        count(f"placement.n_gpus_per_node.{name}", placement.n_gpus_per_node.get(name))
    if colocated and len(set(placement.n_gpus_per_node.values())) > 1:
        raise ValueError(
            f"placement.n_gpus_per_node={dict(placement.n_gpus_per_node)} differs between policies that are "
            "colocated; give them the same number or choose placement.mode=split"
        )
    shares = {str(name): policy.rollout.gpu_memory_utilization for name, policy in config.policies.items()}
    if colocated and config.trainer.device == "cuda" and sum(shares.values()) >= 1:
        raise ValueError(
            f"policies.*.rollout.gpu_memory_utilization={shares} leave nothing of the GPU to the trainers, which "
            "colocated engines share it with; set them to less than 1 together"
        )
