"""From a configuration to a run that can start: data, tokenizers, Ray, workers, engines."""

from __future__ import annotations

import fcntl
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from longshort.config import as_list
from longshort.controller import Limits, Member, Sampling, SynergyController, render_prompt
from longshort.correction import RolloutCorrection
from longshort.custom_reward import CustomRewards, custom_rewards
from longshort.data import ProblemOrder, Reader, load_problems
from longshort.demand import place_by_demand
from longshort.display import Display
from longshort.episode import Problem
from longshort.extern import load_object
from longshort.generation import Tokenizer
from longshort.grading_pool import GradingPool
from longshort.lengths import ExpectedLengths
from longshort.overlap import shared_questions
from longshort.policy import Policy
from longshort.policy_checks import BY_DEMAND
from longshort.protocol import PROTOCOLS, TAGS, Protocol
from longshort.registered import check_registered
from longshort.rewards import HybridReward, Ramp
from longshort.run import Run
from longshort.trackers import make_trackers
from longshort.trainer import Trainer, TrainerSettings
from longshort.validation import trained_policies, validate


@asynccontextmanager
async def open_run(config: DictConfig, display: Display) -> AsyncIterator[Run]:
    """Load data and tokenizers, start Ray, workers and engines; on leaving, take them down."""
    from workers import team

    team.configure_environment(config.trainer.device)
    if config.placement.n_gpus_per_node == BY_DEMAND:
        config.placement.n_gpus_per_node = place_by_demand(config, trained_policies(config))
        validate(config)
    folder = Path(config.trainer.default_local_dir)
    display.stage("loading data and tokenizers")
    protocol = PROTOCOLS[config.team.protocol]
    tokenizers = {name: _load_tokenizer(config.policies[name], name, protocol) for name in config.policies}
    rewards = custom_rewards(config)
    check_registered(config, _correction(config))
    contexts = {name: _context_length(config, name) for name in config.policies}
    with (
        _sole_use_of(folder),
        ExitStack() as open_trackers,
        GradingPool(config.reward.grading_workers, config.reward.grading_timeout_s) as grader,
    ):
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(config))
        training = usable_problems(config, config.data.train_files, tokenizers, grader, rewards, display)
        validation = usable_problems(config, config.data.val_files, tokenizers, grader, rewards, display)
        _check_sources(config, training, validation)
        warn_of_overlap(training, validation, display)
        order = ProblemOrder(training, config.data.seed)
        if config.data.train_batch_size > len(training):
            raise ValueError(
                f"data.train_batch_size={config.data.train_batch_size} is more than the {len(training)} usable "
                "problems of data.train_files; lower it or add problems"
            )
        display.stage("starting Ray")
        team.start_ray(config)
        try:
            policies = await team.start_policies(config, trained_policies(config), tokenizers, display.stage)
            lengths = ExpectedLengths()
            controller = _controller(config, policies, contexts, lengths)
            trainer = Trainer(_settings(config), policies, controller, order, grader, lengths, rewards)
            trackers = make_trackers(config, folder, open_trackers)
            yield Run(config, trainer, tuple(validation), display, folder, trackers)
        finally:
            team.stop()


@contextmanager
def _sole_use_of(folder: Path) -> Iterator[None]:
    """Hold the run's folder; the kernel lets go of it however the process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"trainer.default_local_dir={folder} is in use by another run; choose another folder or wait for it"
            ) from None
        yield


def _load_tokenizer(policy: DictConfig, name: str, protocol: Protocol) -> Any:
    from transformers import AutoTokenizer

    path = policy.model.tokenizer_path or policy.model.path
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=policy.model.trust_remote_code)
    except OSError as error:
        raise ValueError(
            f"policies.{name}.model.path={path} has no tokenizer: {' '.join(str(error).split())}"
        ) from error
    if policy.model.custom_chat_template:
        tokenizer.chat_template = policy.model.custom_chat_template
    if not tokenizer.chat_template:
        raise ValueError(
            f"the tokenizer of policies.{name}.model.path={path} has no chat template; "
            f"set policies.{name}.model.custom_chat_template"
        )
    opened = tokenizer.decode(render_prompt(protocol, name, tokenizer, "1+1=?")).rstrip()
    if opened.endswith(TAGS):
        raise ValueError(
            f"the chat template of policies.{name}.model.path={path} writes the model's opening tag itself, as in "
            f"{opened[-20:]!r}, so no turn could be well formed; set policies.{name}.model.custom_chat_template"
        )
    return tokenizer


def _context_length(config: DictConfig, name: str) -> int:
    """Tokens that a policy's context holds: ``rollout.max_model_len``, or the model's own where that is null."""
    from transformers import AutoConfig

    policy, needed = config.policies[name], config.data.max_prompt_length + config.team.max_episode_tokens
    model = AutoConfig.from_pretrained(policy.model.path, trust_remote_code=policy.model.trust_remote_code)
    own = int(getattr(model.get_text_config(), "max_position_embeddings", None) or needed)
    wanted = int(policy.rollout.max_model_len or own)
    if wanted > own or wanted < needed:
        raise ValueError(
            f"policies.{name} needs a context of {max(needed, wanted)} tokens (data.max_prompt_length + "
            f"team.max_episode_tokens, or rollout.max_model_len), but model.path={policy.model.path} holds {own}; "
            "lower those or choose another model"
        )
    return wanted


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


def usable_problems(
    config: DictConfig,
    files: Any,
    tokenizers: Mapping[str, Tokenizer],
    grader: GradingPool,
    rewards: CustomRewards,
    display: Display,
) -> list[Problem]:
    """Problems to play: prompts within the limit, answers that can be graded; what is left out is counted and shown.

    What a user's own function takes for an answer is its own affair.

    Raises:
        ValueError: a file is broken, or nothing is left.
    """
    paths = as_list(files)
    if not paths:
        return []
    loaded = load_problems(paths, config.data.on_error, _custom_dataset(config, tokenizers))
    limit = config.data.max_prompt_length
    protocol = PROTOCOLS[config.team.protocol]
    short = [
        problem
        for problem in loaded.problems
        if all(len(render_prompt(protocol, r, t, problem.question)) <= limit for r, t in tokenizers.items())
    ]
    by_mathematics = [problem for problem in short if rewards.of(problem) is None]
    gradable = grader.gradable_many([problem.answer for problem in by_mathematics])
    ungradable = {problem.id for problem, good in zip(by_mathematics, gradable, strict=True) if not good}
    usable = [problem for problem in short if problem.id not in ungradable]
    if len(usable) < len(loaded.problems) or loaded.skipped:
        display.table(
            f"left out of {', '.join(paths)}",
            ("reason", "problems"),
            [
                ("could not be read", len(loaded.skipped)),
                (f"prompt longer than data.max_prompt_length={limit} tokens", len(loaded.problems) - len(short)),
                ("gold answer cannot be graded", len(short) - len(usable)),
            ],
        )
    if not usable:
        raise ValueError(f"no problem of {', '.join(paths)} can be used; see what was left out above")
    return usable


def _custom_dataset(config: DictConfig, tokenizers: Mapping[str, Tokenizer]) -> Reader | None:
    """verl's ``data.custom_cls``, constructed with verl's arguments; its tokenizer is that of the first policy."""
    named = config.data.custom_cls
    if not named.path:
        return None
    dataset, tokenizer = load_object("data.custom_cls", named), next(iter(tokenizers.values()))

    def read(paths: Sequence[str]) -> Sequence[object]:
        return dataset(data_files=list(paths), tokenizer=tokenizer, processor=None, config=config.data)

    return read


def _check_sources(config: DictConfig, *problems: Sequence[Problem]) -> None:
    sources = {problem.source for some in problems for problem in some}
    for source in config.reward.functions:
        if source not in sources:
            raise ValueError(
                f"reward.functions.{source} would never be called: the data's sources are {', '.join(sorted(sources))}"
            )


def warn_of_overlap(training: Sequence[Problem], validation: Sequence[Problem], display: Display) -> None:
    if shared := shared_questions(training, validation):
        display.table(
            f"warning: {len(shared)} of {len(training)} training questions are also in data.val_files, such as",
            ("training problem", "validation problem"),
            [*shared.items()][:5],
        )


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
