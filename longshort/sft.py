"""``longshort sft``: fine-tune the policies that ``train`` selects on written conversations.

The recipe is one like any other: ``data.train_files`` and ``data.val_files`` are files of episodes, one JSON line each;
``data.train_batch_size`` counts conversations an optimiser step; ``trainer.total_epochs`` and the policies' ``actor``
settings do the rest. Every policy has a folder of its own with its checkpoints, ``best`` pointing to the one with the
lowest validation loss.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from longshort import checkpoints
from longshort.config import as_list
from longshort.conversation import as_episode
from longshort.demand import settle_placement
from longshort.display import Display
from longshort.episode import Episode, View
from longshort.folders import sole_use_of
from longshort.generation import Tokenizer
from longshort.hiding import as_yaml
from longshort.model_folder import context_length, load_tokenizer
from longshort.policy import Policy
from longshort.protocols import protocol_of
from longshort.supervised import LOSS, Schedule, fit
from longshort.trackers import Tracker, make_trackers
from longshort.tracking import METRICS, MetricsLog
from longshort.validation import trained_policies

BEST = "best"


async def sft(config: DictConfig, display: Display) -> None:
    """Train, validate and save; go on from the newest checkpoint where there is one.

    Concurrency: policies on devices of their own learn beside each other, on shared ones one after another.

    Raises:
        ValueError: a file is broken, or conversations do not fit a model.
    """
    from workers import team

    team.configure_environment(config.trainer.device)
    settle_placement(config)
    display.stage("loading data and tokenizers")
    protocol = protocol_of(config.team)
    tokenizers = {name: load_tokenizer(config.policies[name], name, protocol) for name in config.policies}
    contexts = {name: context_length(config, name) for name in config.policies}
    training = load_conversations(as_list(config.data.train_files), tokenizers, config)
    validation = load_conversations(as_list(config.data.val_files), tokenizers, config)
    names = trained_policies(config)
    folder = Path(config.trainer.default_local_dir)
    schedule = Schedule(len(training), config.data.train_batch_size, config.trainer.total_epochs, config.data.seed)
    _make_supervised(config, names, schedule.steps)
    with sole_use_of(folder), ExitStack() as stack:
        (folder / "config.yaml").write_text(as_yaml(config))
        trackers = make_trackers(config, folder, stack)
        display.stage("starting Ray")
        team.start_ray(config)
        try:
            policies = await team.start_learners(config, names, tokenizers, display.stage)
            steps = _Steps(display, len(names) * schedule.steps)
            fits = []
            for name in names:
                views = {
                    kind: views_of(episodes, name, contexts[name], display)
                    for kind, episodes in (("training", training), ("validation", validation))
                }
                if len(views["training"]) != schedule.examples:
                    raise ValueError(
                        f"{schedule.examples - len(views['training'])} of {schedule.examples} conversations of "
                        f"data.train_files do not fit policy {name}; leave them out or lengthen its context"
                    )
                run = _PolicyRun(config, policies[name], folder / name, schedule, steps, trackers)
                fits.append(partial(run.fit, views["training"], views["validation"]))
            if config.placement.mode == "split":
                await asyncio.gather(*[fit() for fit in fits])
            else:
                for fit in fits:
                    await fit()
        finally:
            team.stop()


def load_conversations(paths: Sequence[str], tokenizers: Mapping[str, Tokenizer], config: DictConfig) -> list[Episode]:
    """Episodes of JSONL files, tokenised anew: a file may come from other models' tokenizers.

    Raises:
        ValueError: a line is no episode, or its turns are not the protocol's; which file and line.
    """
    episodes = []
    for path in paths:
        file = Path(path).expanduser()
        if not file.is_file():
            raise ValueError(f"{path} is no file; data.train_files and data.val_files name files of episodes")
        for number, line in enumerate(file.read_bytes().split(b"\n"), start=1):
            if line.strip():
                try:
                    read = Episode.from_json(line.decode())
                    turns = [(turn.role, turn.text) for turn in read.turns]
                    episodes.append(as_episode(read.problem, turns, tokenizers, protocol_of(config.team)))
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(f"{path}:{number} is no conversation ({error}); correct or remove it") from error
    return episodes


def views_of(episodes: Sequence[Episode], role: str, context: int, display: Display) -> list[View]:
    """What ``role`` learns from; conversations beyond its context are left out, counted and shown."""
    views = [view for episode in episodes if (view := episode.view(role)) is not None]
    fitting = [view for view in views if len(view.prompt_ids) + len(view.response_ids) <= context]
    if len(fitting) < len(episodes):
        display.table(
            f"{role}: {len(episodes) - len(fitting)} of {len(episodes)} conversations left out",
            ("reason", "conversations"),
            [
                (f"{role} says nothing", len(episodes) - len(views)),
                (f"longer than {context} tokens", len(views) - len(fitting)),
            ],
        )
    return fitting


def _make_supervised(config: DictConfig, names: Sequence[str], steps: int) -> None:
    """What makes a policy update a supervised one, whatever the recipe says.

    Raises:
        ValueError: a batch does not divide over the ranks.
    """
    OmegaConf.set_struct(config, False)
    config.trainer.total_training_steps = steps
    for name in names:
        policy = config.policies[name]
        ranks = config.placement.n_gpus_per_node[name] * config.trainer.nnodes
        ranks //= policy.actor.ulysses_sequence_parallel_size
        if config.data.train_batch_size % ranks:
            raise ValueError(
                f"data.train_batch_size={config.data.train_batch_size} conversations do not divide over the {ranks} "
                f"data-parallel ranks of policy {name}; change either"
            )
        for key, value in LOSS.items():
            OmegaConf.update(policy, key, value)
        policy.actor.optim.total_training_steps = steps
        policy.actor.ppo_mini_batch_size, policy.rollout.n = config.data.train_batch_size, 1
        policy.rollout.temperature = 1.0
    OmegaConf.set_struct(config, True)


@dataclass
class _Steps:
    """Optimiser steps of all policies together, as they are shown."""

    display: Display
    total: int
    done: int = 0

    def advance(self, metrics: Mapping[str, float]) -> None:
        self.done += 1
        self.display.step(self.done, self.total, metrics)


@dataclass
class _PolicyRun:
    """One policy's training: its folder, its checkpoints, its best one."""

    config: DictConfig
    policy: Policy
    folder: Path
    schedule: Schedule
    steps: _Steps
    trackers: Sequence[Tracker]
    losses: dict[int, float] = field(default_factory=dict)

    async def fit(self, training: Sequence[View], validation: Sequence[View]) -> None:
        settings = self.config.trainer
        self.folder.mkdir(parents=True, exist_ok=True)
        newest = checkpoints.newest_intact(self.folder, self._tell) if settings.resume_mode == "auto" else None
        done = 0
        if newest is not None:
            self.steps.display.stage(f"resuming from {newest}")
            state = await checkpoints.load(newest, [self.policy])
            done, self.losses = state["step"], {int(step): loss for step, loss in state["losses"].items()}
            self.steps.done += done
        log = MetricsLog(self.folder / METRICS)

        async def on_step(step: int, metrics: dict[str, float]) -> None:
            log.log(step, metrics)
            for tracker in self.trackers:
                tracker.log(step, {f"{self.policy.name}/{name}": value for name, value in metrics.items()})
            self.steps.advance(metrics)
            if "val/loss" in metrics:
                self.losses[step] = metrics["val/loss"]
            last = step == self.schedule.steps
            if last or "val/loss" in metrics or (settings.save_freq > 0 and step % settings.save_freq == 0):
                await self._save(step)

        await fit(self.policy, training, validation, self.schedule, done + 1, settings.test_freq, on_step)

    def _tell(self, sentence: str) -> None:
        self.steps.display.table(f"resuming {self.policy.name}", ("",), [(sentence,)])

    async def _save(self, step: int) -> None:
        """Keep this checkpoint and the best one."""
        saved = await checkpoints.save(self.folder, step, [self.policy], {"losses": self.losses})
        best = min(self.losses, key=lambda step: (self.losses[step], step)) if self.losses else step
        kept = checkpoints.folder_of(self.folder, best)
        _point(self.folder / BEST, kept)
        checkpoints.keep_only(self.folder, {saved, kept})


def _point(link: Path, target: Path) -> None:
    """Make ``link`` a symbolic link to its neighbour ``target``, at once."""
    temporary = link.with_name(f".{link.name}.new")
    temporary.unlink(missing_ok=True)
    os.symlink(target.name, temporary)
    temporary.replace(link)


def read_best(folder: Path) -> dict[str, Any]:
    """Step and validation loss of the checkpoint that ``best`` points to."""
    state = json.loads((folder / BEST / checkpoints.STATE).read_text())
    return {"step": state["step"], "val/loss": state["losses"].get(str(state["step"]))}
