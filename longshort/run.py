"""A training run from its configuration: data, engines, steps, evaluation, and what people see of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from longshort import checkpoints
from longshort.config import as_list
from longshort.controller import Limits, Member, Sampling, SynergyController
from longshort.data import ProblemOrder, load_problems
from longshort.display import Display
from longshort.episode import Problem
from longshort.grading_pool import GradingPool
from longshort.metrics import episode_metrics
from longshort.policy import Policy
from longshort.protocol import PROTOCOLS
from longshort.rewards import HybridReward, Ramp
from longshort.tracking import MetricsLog, TranscriptLog
from longshort.trainer import NonFiniteUpdateError, Trainer, TrainerSettings
from longshort.validation import trained_policies

# Evaluation draws its seeds apart from every training step.
EVALUATION_STEP = -1


@dataclass(frozen=True)
class Run:
    """A trainer with everything around it; made by :func:`open_run`."""

    config: DictConfig
    trainer: Trainer
    validation: tuple[Problem, ...]
    display: Display
    folder: Path

    @property
    def learners(self) -> list[Policy]:
        return [policy for policy in self.trainer.policies.values() if policy.trainable]

    async def fit(self) -> None:
        """All steps that are left, with checkpoints, transcripts and evaluations at their cadence."""
        settings, log = self.config.trainer, MetricsLog(self.folder / "metrics.jsonl")
        transcripts = TranscriptLog(self.folder, settings.transcript_freq, settings.transcripts)
        first, total = self._resume() + 1, settings.total_training_steps
        if settings.val_before_train and first == 1:
            log.log(0, _prefixed("val/", await self.evaluate("evaluating before training")))
        for step in range(first, total + 1):
            try:
                result = await self.trainer.step(step)
            except NonFiniteUpdateError as error:
                self._keep_for_inspection(step, error)
                raise
            metrics = dict(result.metrics)
            if settings.test_freq > 0 and (step % settings.test_freq == 0 or step == total):
                metrics |= _prefixed("val/", await self.evaluate("evaluating"))
            log.log(step, metrics)
            self.display.step(step, total, metrics)
            parts = [
                {f"{role}/{name}": value for role, rs in result.rewards.items() for name, value in rs[i].parts().items()}
                for i in range(len(result.graded.episodes))
            ]
            transcripts.write(step, result.graded.episodes, parts)
            if settings.save_freq > 0 and (step % settings.save_freq == 0 or step == total):
                self._save(step)

    async def evaluate(self, stage: str) -> dict[str, float]:
        """Accuracy, tokens and turns on the validation problems, the same seeds every time."""
        self.display.stage(stage)
        graded = await self.trainer.play(
            self.validation, self.config.evaluation.samples, EVALUATION_STEP, self.display.advance
        )
        metrics = episode_metrics(graded.episodes, graded.correct)
        metrics["tokens_per_s"] = sum(episode.tokens for episode in graded.episodes) / graded.seconds
        return metrics

    def _save(self, step: int) -> None:
        checkpoints.save(self.folder, step, self.learners, {"order": self.trainer.order.state_dict()})

    def _resume(self) -> int:
        """Go on from the newest checkpoint, where asked to; returns the steps done."""
        newest = checkpoints.latest(self.folder) if self.config.trainer.resume_mode == "auto" else None
        if newest is None:
            return 0
        self.display.stage(f"resuming from {newest}")
        state = checkpoints.load(newest, self.learners)
        self.trainer.order.load_state_dict(state["order"])
        return int(state["step"])

    def _keep_for_inspection(self, step: int, error: NonFiniteUpdateError) -> None:
        file = self.folder / "failed_updates" / f"step-{step:06d}-{error.policy}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        samples = [asdict(sample) for sample in error.samples]
        file.write_text(json.dumps({"metrics": {k: str(v) for k, v in error.metrics.items()}, "samples": samples}))
        error.add_note(f"what it was computed from is in {file}")


@asynccontextmanager
async def open_run(config: DictConfig, display: Display) -> AsyncIterator[Run]:
    """Load data and tokenizers, start Ray, workers and engines; on leaving, take them down."""
    from workers import team

    team.configure_environment(config.trainer.device)
    folder = Path(config.trainer.default_local_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config))
    display.stage("loading data and tokenizers")
    tokenizers = {name: _load_tokenizer(config.policies[name], name) for name in config.policies}
    with GradingPool(config.reward.grading_workers, config.reward.grading_timeout_s) as grader:
        controller = _controller(config, tokenizers, {})
        train = _load(config, config.data.train_files, controller, grader, display)
        validation = _load(config, config.data.val_files, controller, grader, display)
        order = ProblemOrder(train, config.data.seed)
        if config.data.train_batch_size > len(train):
            raise ValueError(
                f"data.train_batch_size={config.data.train_batch_size} is more than the {len(train)} usable problems of "
                "data.train_files; lower it or add problems"
            )
        display.stage("starting Ray")
        team.start_ray(config)
        try:
            policies = await team.start_policies(config, trained_policies(config), tokenizers, display.stage)
            controller = _controller(config, tokenizers, policies)
            trainer = Trainer(_settings(config), policies, controller, order, grader)
            yield Run(config, trainer, tuple(validation), display, folder)
        finally:
            team.stop()


async def train(config: DictConfig) -> None:
    """``longshort train``."""
    with Display() as display:
        async with open_run(config, display) as run:
            await run.fit()


def _load_tokenizer(policy: DictConfig, name: str) -> Any:
    from transformers import AutoTokenizer

    path = policy.model.tokenizer_path or policy.model.path
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=policy.model.trust_remote_code)
    if policy.model.custom_chat_template:
        tokenizer.chat_template = policy.model.custom_chat_template
    if not tokenizer.chat_template:
        raise ValueError(
            f"the tokenizer of policies.{name}.model.path={path} has no chat template; "
            f"set policies.{name}.model.custom_chat_template"
        )
    return tokenizer


def _controller(config: DictConfig, tokenizers: dict[str, Any], policies: dict[str, Any]) -> SynergyController:
    members = {
        name: Member(
            policies[name].generator if name in policies else None,
            tokenizers[name],
            config.policies[name].rollout.max_model_len or config.data.max_prompt_length + config.team.max_episode_tokens,
        )
        for name in config.policies
    }
    limits = Limits(
        max_turns=config.team.max_turns,
        max_turn_tokens=dict(config.team.max_turn_tokens),
        max_episode_tokens=config.team.max_episode_tokens,
        close_cut_turns=config.team.close_cut_turns,
    )
    return SynergyController(PROTOCOLS[config.team.protocol], members, limits)


def _load(
    config: DictConfig, files: Any, controller: SynergyController, grader: GradingPool, display: Display
) -> list[Problem]:
    """Problems that can be trained on: prompts within the limit, answers that can be graded; the rest is counted."""
    paths = as_list(files)
    if not paths:
        return []
    loaded = load_problems(paths, config.data.on_error)
    limit = config.data.max_prompt_length
    roles = controller.protocol.roles
    short = [p for p in loaded.problems if all(len(controller.prompt(role, p.question)) <= limit for role in roles)]
    gradable = grader.gradable_many([problem.answer for problem in short])
    usable = [problem for problem, good in zip(short, gradable, strict=True) if good]
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


def _settings(config: DictConfig) -> TrainerSettings:
    first = config.policies[next(iter(config.policies))].rollout
    reward = config.reward
    return TrainerSettings(
        train_batch_size=config.data.train_batch_size,
        n=first.n,
        reward=HybridReward(
            eta=reward.eta,
            format_weight=reward["lambda"],
            mu=Ramp(**reward.mu),
            format_of=reward.format_of,
            length_of=reward.length_of,
        ),
        sampling=Sampling(first.temperature, first.top_p, first.top_k, run=config.seed),
        adv_estimator=config.algorithm.adv_estimator,
        norm_adv_by_std_in_grpo=config.algorithm.norm_adv_by_std_in_grpo,
        max_error_fraction=reward.max_error_fraction,
        learn_together=config.placement.mode == "split",
    )


def _prefixed(prefix: str, metrics: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}{name}": value for name, value in metrics.items()}


def summarise(before: dict[str, float], after: dict[str, float], **facts: Any) -> dict[str, Any]:
    """Before and after of a run, as ``summary.json`` holds them."""

    def side(metrics: dict[str, float]) -> dict[str, float]:
        return {
            "accuracy": metrics["accuracy"],
            "tokens_per_episode": metrics["tokens_per_episode"],
            "turns": metrics["turns_per_episode"],
        }

    reduction = 1 - after["tokens_per_episode"] / before["tokens_per_episode"]
    return {"before": side(before), "after": side(after), "token_reduction": reduction, **facts}


def rows(summary: dict[str, Any]) -> Sequence[Sequence[object]]:
    """The table of a summary."""
    return [
        (name, f"{summary['before'][key]:.3f}", f"{summary['after'][key]:.3f}")
        for name, key in (("accuracy", "accuracy"), ("tokens per episode", "tokens_per_episode"), ("turns", "turns"))
    ]
