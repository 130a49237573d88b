"""From a configuration to a run that can start: data, tokenizers, Ray, workers, engines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import fields
from functools import cache, partial
from pathlib import Path

from omegaconf import DictConfig

from longshort.config import as_list
from longshort.controller import Limits, Member, Sampling, SynergyController
from longshort.correction import RolloutCorrection
from longshort.custom_reward import custom_rewards
from longshort.data import ProblemOrder
from longshort.demand import settle_placement
from longshort.display import Display
from longshort.doctor.doctor import warn_before_start
from longshort.episode import Problem
from longshort.folders import sole_use_of, write_whole
from longshort.generation import Generator, Tokenizer
from longshort.grading_pool import GradingPool
from longshort.hiding import as_yaml
from longshort.length_rewards import LengthReward, make_length_reward
from longshort.lengths import ExpectedLengths
from longshort.model_folder import context_length, load_tokenizer
from longshort.player import Player
from longshort.policy import Policy
from longshort.protocols import protocol_of
from longshort.registered import check_registered
from longshort.resuming import CONFIG, refuse_mixing
from longshort.rewards import HybridReward, Ramp
from longshort.rounds.collapse import CollapseSettings, CollapseWatch
from longshort.rounds.reasoner import measure_reasoner
from longshort.rounds.round import Round
from longshort.rounds.schedule import rounds_of, settle_steps
from longshort.run import Run
from longshort.stopping import StopRequest
from longshort.trackers import make_trackers
from longshort.trainer import Trainer, TrainerSettings
from longshort.usable import check_sources, usable_problems, warn_of_overlap
from longshort.validation import trained_policies


@asynccontextmanager
async def open_run(config: DictConfig, display: Display, stop: StopRequest | None = None) -> AsyncIterator[Run]:
    """Load data and tokenizers, start Ray, workers and engines; on leaving, take them down.

    ``stop`` ends the run after the step in which it is made.
    """
    from workers import team

    team.configure_environment(config.trainer.device)
    settle_placement(config)
    folder = Path(config.trainer.default_local_dir)
    display.stage("loading data and tokenizers")
    protocol = protocol_of(config.team)
    tokenizers = {name: load_tokenizer(config.policies[name], name, protocol) for name in config.policies}
    rewards = custom_rewards(config)
    check_registered(config, _correction(config))
    contexts = {name: context_length(config, name) for name in config.policies}
    warn_before_start(config, display)
    with (
        sole_use_of(folder),
        ExitStack() as open_trackers,
        GradingPool(config.reward.grading_workers, config.reward.grading_timeout_s) as grader,
    ):

        @cache
        def problems(files: tuple[str, ...]) -> tuple[Problem, ...]:
            return tuple(usable_problems(config, list(files), tokenizers, grader, rewards, display))

        names = trained_policies(config)
        training = problems(tuple(as_list(config.data.train_files)) if names else ())
        if names and config.data.train_batch_size > len(training):
            raise ValueError(
                f"data.train_batch_size={config.data.train_batch_size} is more than the {len(training)} usable "
                "problems of data.train_files; lower it or add problems"
            )
        settle_steps(config, len(training))
        refuse_mixing(folder, config)
        write_whole(folder / CONFIG, as_yaml(config))
        schedule = rounds_of(config)
        test = problems(tuple(as_list(config.data.test_files)))
        validation = {name: problems(tuple(as_list(each.data.val_files))) for name, each in schedule.items()}
        held_out = [problem for some in {*validation.values(), test} for problem in some]
        check_sources(config, training, held_out)
        warn_of_overlap(training, held_out, display)
        order, lengths = ProblemOrder(training, config.data.seed), ExpectedLengths()
        if names:
            await measure_reasoner(config, grader, display)
        display.stage("starting Ray")
        team.start_ray(config)
        try:
            policies = await team.start_policies(config, names, tokenizers, display.stage)

            def player(each: DictConfig) -> Player:
                return Player(_controller(each, policies, contexts, lengths), grader, rewards)

            rounds, first = [], 0
            for name, each in schedule.items():
                trainer = Trainer(
                    _settings(each, first),
                    policies,
                    player(each),
                    order,
                    lengths,
                    partial(_length_reward, each),
                )
                guard = CollapseWatch(CollapseSettings(**each.guard))
                rounds.append(Round(name, each, trainer, validation[name], first, guard))
                first = rounds[-1].last
            trackers = make_trackers(config, folder, open_trackers)
            yield Run(config, tuple(rounds), player(config), test, display, folder, trackers, stop or StopRequest())
        finally:
            team.stop()


def _length_reward(config: DictConfig) -> LengthReward:
    settings = dict(config.reward.length)
    return make_length_reward(settings.pop("name"), settings)


def _controller(
    config: DictConfig, policies: Mapping[str, Policy], contexts: Mapping[str, int], lengths: ExpectedLengths
) -> SynergyController:
    generators = {name: policy.generator for name, policy in policies.items()}
    tokenizers = {name: policy.tokenizer for name, policy in policies.items()}
    members = make_members(config, generators, tokenizers, contexts)
    return SynergyController(protocol_of(config.team), members, make_limits(config), lengths)


def make_members(
    config: DictConfig,
    generators: Mapping[str, Generator],
    tokenizers: Mapping[str, Tokenizer],
    contexts: Mapping[str, int],
) -> dict[str, Member]:
    """The policies at the table, each sampled as its ``rollout`` says, or as ``team.partner_temperature``."""
    fixed, learners = config.team.partner_temperature, trained_policies(config)
    return {
        str(name): Member(
            generators[name],
            tokenizers[name],
            contexts[name],
            policy.rollout.temperature if fixed is None or name in learners else fixed,
            policy.rollout.top_p,
            policy.rollout.top_k,
        )
        for name, policy in config.policies.items()
    }


def make_limits(config: DictConfig) -> Limits:
    """The caps of ``team``."""
    return Limits(
        max_turns=config.team.max_turns,
        max_turn_tokens=dict(config.team.max_turn_tokens),
        max_episode_tokens=config.team.max_episode_tokens,
        close_cut_turns=config.team.close_cut_turns,
    )


def _settings(config: DictConfig, first_step: int) -> TrainerSettings:
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
        learners=trained_policies(config),
        first_step=first_step,
    )


def _correction(config: DictConfig) -> RolloutCorrection:
    settings = config.algorithm.rollout_correction
    return RolloutCorrection(**{field.name: settings[field.name] for field in fields(RolloutCorrection)})
