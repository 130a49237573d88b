"""From a configuration to a run that can start: data, tokenizers, Ray, workers, engines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import fields
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from longshort.controller import Limits, Member, Sampling, SynergyController
from longshort.correction import RolloutCorrection
from longshort.custom_reward import custom_rewards
from longshort.data import ProblemOrder
from longshort.demand import settle_placement
from longshort.display import Display
from longshort.folders import sole_use_of
from longshort.grading_pool import GradingPool
from longshort.lengths import ExpectedLengths
from longshort.model_folder import context_length, load_tokenizer
from longshort.policy import Policy
from longshort.protocol import PROTOCOLS
from longshort.registered import check_registered
from longshort.rewards import HybridReward, Ramp
from longshort.run import Run
from longshort.trackers import make_trackers
from longshort.trainer import Trainer, TrainerSettings
from longshort.usable import check_sources, usable_problems, warn_of_overlap
from longshort.validation import trained_policies


@asynccontextmanager
async def open_run(config: DictConfig, display: Display) -> AsyncIterator[Run]:
    """Load data and tokenizers, start Ray, workers and engines; on leaving, take them down."""
    from workers import team

    team.configure_environment(config.trainer.device)
    settle_placement(config)
    folder = Path(config.trainer.default_local_dir)
    display.stage("loading data and tokenizers")
    protocol = PROTOCOLS[config.team.protocol]
    tokenizers = {name: load_tokenizer(config.policies[name], name, protocol) for name in config.policies}
    rewards = custom_rewards(config)
    check_registered(config, _correction(config))
    contexts = {name: context_length(config, name) for name in config.policies}
    with (
        sole_use_of(folder),
        ExitStack() as open_trackers,
        GradingPool(config.reward.grading_workers, config.reward.grading_timeout_s) as grader,
    ):
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(config))
        names = trained_policies(config)
        files = config.data.train_files if names else []
        training = usable_problems(config, files, tokenizers, grader, rewards, display)
        validation = usable_problems(config, config.data.val_files, tokenizers, grader, rewards, display)
        check_sources(config, training, validation)
        warn_of_overlap(training, validation, display)
        order = ProblemOrder(training, config.data.seed)
        if names and config.data.train_batch_size > len(training):
            raise ValueError(
                f"data.train_batch_size={config.data.train_batch_size} is more than the {len(training)} usable "
                "problems of data.train_files; lower it or add problems"
            )
        display.stage("starting Ray")
        team.start_ray(config)
        try:
            policies = await team.start_policies(config, names, tokenizers, display.stage)
            lengths = ExpectedLengths()
            controller = _controller(config, policies, contexts, lengths)
            trainer = Trainer(_settings(config), policies, controller, order, grader, lengths, rewards)
            trackers = make_trackers(config, folder, open_trackers)
            yield Run(config, trainer, tuple(validation), display, folder, trackers)
        finally:
            team.stop()


def _controller(
    config: DictConfig, policies: Mapping[str, Policy], contexts: Mapping[str, int], lengths: ExpectedLengths
) -> SynergyController:
    members = {
        name: Member(
            policy.generator,
            policy.tokenizer,
            contexts[name],
            rollout.temperature,
            rollout.top_p,
            rollout.top_k,
        )
        for name, policy in policies.items()
        for rollout in [config.policies[name].rollout]
    }
    limits = Limits(
        max_turns=config.team.max_turns,
        max_turn_tokens=dict(config.team.max_turn_tokens),
        max_episode_tokens=config.team.max_episode_tokens,
        close_cut_turns=config.team.close_cut_turns,
    )
    return SynergyController(PROTOCOLS[config.team.protocol], members, limits, lengths)


def _settings(config: DictConfig) -> TrainerSettings:
    reward = config.reward
    return TrainerSettings(
        train_batch_size=config.data.train_batch_size,
        n=config.policies[next(iter(config.policies))].rollout.n,
        reward=HybridReward(
            eta=reward.eta,
            format_weight=reward["lambda"],
            mu=Ramp(**reward.mu),
            format_of=reward.format_of,
            length_of=reward.length_of,
        ),
        sampling=Sampling(run=config.seed),
        adv_estimator=config.algorithm.adv_estimator,
        norm_adv_by_std_in_grpo=config.algorithm.norm_adv_by_std_in_grpo,
        max_error_fraction=reward.max_error_fraction,
        learn_together=config.placement.mode == "split",
        rollout_correction=_correction(config),
    )


def _correction(config: DictConfig) -> RolloutCorrection:
    settings = config.algorithm.rollout_correction
    return RolloutCorrection(**{field.name: settings[field.name] for field in fields(RolloutCorrection)})
