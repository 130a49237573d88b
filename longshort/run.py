"""A training run: steps, checkpoints, evaluations, and what people see of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from omegaconf import DictConfig

from longshort import checkpoints
from longshort.controller import Sampling
from longshort.display import Display
from longshort.episode import Problem
from longshort.metrics import episode_metrics
from longshort.policy import Policy
from longshort.trackers import Tracker, TranscriptTracker
from longshort.tracking import MetricsLog, TranscriptLog, write_episodes
from longshort.trainer import NonFiniteUpdateError, StepResult, Trainer

# Evaluation draws its seeds apart from every training step.
EVALUATION_STEP = -1
METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Run:
    """A trainer with everything around it; made by :func:`longshort.assembly.open_run`."""

    config: DictConfig
    trainer: Trainer
    validation: tuple[Problem, ...]
    display: Display
    folder: Path
    trackers: tuple[TranscriptTracker, ...] = ()

    @property
    def learners(self) -> list[Policy]:
        return [policy for policy in self.trainer.policies.values() if policy.trainable]

    async def fit(self) -> None:
        """All steps that are left, with checkpoints, transcripts and evaluations at their cadence.

        Raises:
            ValueError: no policy learns, or the folder holds another run's checkpoints.
        """
        settings = self.config.trainer
        if not self.learners:
            raise ValueError(f"train={self.config.train} trains nobody; choose long, short or both")
        if settings.resume_mode == "disable":
            self._start_anew()
        trackers: list[Tracker] = [MetricsLog(self.folder / METRICS), *self.trackers]
        transcripts = TranscriptLog(self.folder, settings.transcript_freq, settings.transcripts)
        first, total = await self._resume() + 1, settings.total_training_steps
        if settings.val_before_train and first == 1:
            _log(trackers, 0, _prefixed("val/", await self.evaluate("evaluating before training", 0)))
        for step in range(first, total + 1):
            try:
                result = await self.trainer.step(step)
            except NonFiniteUpdateError as error:
                self._keep_for_inspection(step, error)
                raise
            metrics = dict(result.metrics)
            if settings.test_freq > 0 and (step % settings.test_freq == 0 or step == total):
                metrics |= _prefixed("val/", await self.evaluate("evaluating", step))
            _log(trackers, step, metrics)
            self.display.step(step, total, metrics)
            parts = _reward_parts(result)
            shown = transcripts.write(step, result.graded.episodes, parts)
            if settings.rollout_data_dir:
                write_episodes(settings.rollout_data_dir, step, result.graded.episodes, result.scores, rewards=parts)
            for tracker in self.trackers if shown else ():
                tracker.transcripts(step, shown)
            if settings.save_freq > 0 and (step % settings.save_freq == 0 or step == total):
                self._save(step)

    async def evaluate(self, stage: str, step: int) -> dict[str, float]:
        """Accuracy, tokens and turns on the validation problems after ``step``, the same seeds every time."""
        self.display.stage(stage)
        settings = self.config.evaluation
        sampling = Sampling(settings.temperature, settings.top_p, settings.top_k, self.config.seed, EVALUATION_STEP)
        graded = await self.trainer.play(self.validation, settings.samples, sampling, self.display.advance)
        metrics = episode_metrics(graded.episodes, graded.correct)
        if folder := self.config.trainer.validation_data_dir:
            write_episodes(folder, step, graded.episodes, [float(right) for right in graded.correct])
        metrics["tokens_per_s"] = sum(episode.tokens for episode in graded.episodes) / graded.seconds
        return metrics

    def _start_anew(self) -> None:
        """Raises ``ValueError`` rather than mix two runs' checkpoints."""
        if checkpoints.latest(self.folder) is not None:
            raise ValueError(
                f"trainer.default_local_dir={self.folder} holds checkpoints of an earlier run; choose another folder, "
                "or trainer.resume_mode=auto to go on with it"
            )
        (self.folder / METRICS).unlink(missing_ok=True)

    def _save(self, step: int) -> None:
        checkpoints.save(self.folder, step, self.learners, self._state())

    def _state(self) -> dict[str, object]:
        return {"order": self.trainer.order.state_dict(), "lengths": self.trainer.lengths.state_dict()}

    async def _resume(self) -> int:
        """Go on from the newest checkpoint, where asked to; returns the steps done."""
        newest = checkpoints.latest(self.folder) if self.config.trainer.resume_mode == "auto" else None
        if newest is None:
            return 0
        self.display.stage(f"resuming from {newest}")
        policies = self.trainer.policies.values()
        for policy in policies:
            await policy.sleep()
        state = checkpoints.load(newest, self.learners)
        self.trainer.order.load_state_dict(state["order"])
        self.trainer.lengths.load_state_dict(state["lengths"])
        for policy in self.learners:
            await policy.sync_weights(state["step"])
        for policy in policies:
            await policy.wake_up()
        return int(state["step"])

    def _keep_for_inspection(self, step: int, error: NonFiniteUpdateError) -> None:
        file = self.folder / "failed_updates" / f"step-{step:06d}-{error.policy}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        samples = [asdict(sample) for sample in error.samples]
        file.write_text(json.dumps({"metrics": {k: str(v) for k, v in error.metrics.items()}, "samples": samples}))
        error.add_note(f"what it was computed from is in {file}")


def _log(trackers: Sequence[Tracker], step: int, metrics: Mapping[str, float]) -> None:
    for tracker in trackers:
        tracker.log(step, metrics)


def _prefixed(prefix: str, metrics: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}{name}": value for name, value in metrics.items()}


def _reward_parts(result: StepResult) -> list[dict[str, float]]:
    """Per episode, the parts of every learner's reward."""
    return [
        {
            f"{role}/{name}": value
            for role, rewards in result.rewards.items()
            for name, value in rewards[i].parts().items()
        }
        for i in range(len(result.graded.episodes))
    ]
