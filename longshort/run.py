"""A training run: rounds of steps, checkpoints, evaluations, and what people see of them.

:meth:`Run.fit` is the schedule; each round takes steps, has its checkpoints validated, selects one of them, and hands
its weights to the next.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from omegaconf import DictConfig

from longshort.controller import Sampling
from longshort.display import Display
from longshort.episode import Problem
from longshort.evaluation.metrics import clustered_standard_error
from longshort.metrics import episode_metrics
from longshort.player import Player
from longshort.policy import Policy
from longshort.rounds.keeping import Keeper
from longshort.rounds.record import FinishedRound
from longshort.rounds.round import Round, State
from longshort.rounds.selection import LAST, Candidate, choose
from longshort.rounds.summary import write_summary
from longshort.stopping import StoppedEarlyError, StopRequest
from longshort.trackers import Tracker, TranscriptTracker
from longshort.tracking import METRICS, MetricsLog, TranscriptLog, write_episodes
from longshort.trainer import NonFiniteUpdateError, StepResult, Trainer
from longshort.validation import require_learners

# Evaluation draws its seeds apart from every training step.
EVALUATION_STEP = -1
STANDARD_ERROR = "standard_error"


@dataclass(frozen=True)
class Run:
    """Rounds with everything around them; made by :func:`longshort.assembly.open_run`.

    Attributes:
        start: plays as the recipe says outside its rounds: what the run begins with is measured by it.
        test: problems of ``data.test_files``: played before the first round and after every one, for the summary.
        stop: once made, the run saves after the step under way and ends.
    """

    config: DictConfig
    rounds: tuple[Round, ...]
    start: Player
    test: tuple[Problem, ...]
    display: Display
    folder: Path
    trackers: tuple[TranscriptTracker, ...] = ()
    stop: StopRequest = field(default_factory=StopRequest)

    @property
    def trainer(self) -> Trainer:
        """That of the first round."""
        return self.rounds[0].trainer

    @property
    def validation(self) -> tuple[Problem, ...]:
        """Of the first round."""
        return self.rounds[0].validation

    @property
    def learners(self) -> list[Policy]:
        """The policies that learn in any round."""
        return self.keeper.learners

    @property
    def keeper(self) -> Keeper:
        """Of the weights that rounds hand on."""
        return Keeper(self.folder, self.rounds, self.config.trainer.max_actor_ckpt_to_keep, self.display)

    async def fit(self) -> None:
        """All rounds and steps that are left.

        Raises:
            ValueError: no policy learns, or more rounds of the folder are over than the recipe has.
            StoppedEarlyError: it was asked to stop and steps are left.
        """
        require_learners(self.config)
        log: list[Tracker] = [MetricsLog(self.folder / METRICS), *self.trackers]
        anew = self.config.trainer.resume_mode == "disable"
        state = self._start_anew() if anew else await self.keeper.resume()
        for number, each in enumerate(self.rounds):
            if number < len(state.record.rounds):
                continue
            for tracker in self.trackers:
                tracker.begin_round(number, each.name)
            if not state.record.began:
                await self._measure_start(state, log)
            if state.step <= each.first:
                await self.keeper.begin(number, state)
            await self._take_steps(each, number, state, log)
            await self._finish(each, state)
        write_summary(self.folder, self.config, self.rounds, state.record, len(self.test), self.display)

    async def evaluate(
        self,
        stage: str,
        step: int,
        player: Player | None = None,
        problems: Sequence[Problem] | None = None,
        config: DictConfig | None = None,
    ) -> dict[str, float]:
        """Accuracy, tokens and turns after ``step``, the same seeds every time; by default of the first round."""
        self.display.stage(stage)
        config = config or self.rounds[0].config
        samples = evaluation_samples(config)
        problems = self.validation if problems is None else problems
        player = player or self.trainer.player
        graded = await player.play(problems, samples, evaluation_sampling(config), self.display.advance)
        metrics = episode_metrics(graded.episodes, graded.correct)
        if folder := config.trainer.validation_data_dir:
            # Both may be played after one step.
            kept = Path(folder) / "test" if problems is self.test else folder
            write_episodes(kept, step, graded.episodes, [float(right) for right in graded.correct])
        metrics["tokens_per_s"] = sum(episode.tokens for episode in graded.episodes) / graded.seconds
        if len(problems) > 1:
            groups = [graded.correct[i : i + samples] for i in range(0, len(graded.correct), samples)]
            metrics[STANDARD_ERROR] = clustered_standard_error(groups)
        return metrics

    async def _take_steps(self, each: Round, number: int, state: State, log: Sequence[Tracker]) -> None:
        """The steps that are left of a round, as long as its guard does not stop it."""
        settings = each.config.trainer
        transcripts = TranscriptLog(self.folder, settings.transcript_freq, settings.transcripts)
        total = self.rounds[-1].last
        for step in range(max(state.step, each.first) + 1, each.last + 1):
            if state.stopped is not None:
                return
            if self.stop.made:
                raise StoppedEarlyError(
                    f"stopped after step {state.step} of {total}, as asked; the same command goes on from there"
                )
            self.display.stage("training")
            try:
                result = await each.trainer.step(step, self.display.advance, each.guard.mu_scale)
            except NonFiniteUpdateError as error:
                self._keep_for_inspection(step, error)
                raise
            metrics = dict(result.metrics)
            alarm = each.guard.observe(step, metrics)
            if alarm is not None:
                metrics["guard/alarms"] = 1.0
                self.display.table(
                    f"step {step}: guard, action {alarm.action}", ("sign",), [(sign,) for sign in alarm.signs]
                )
                if alarm.action == "stop":
                    state.stopped = "; ".join(alarm.signs)
            if each.is_due(settings.test_freq, step):
                validated = await self.evaluate("evaluating", step, each.trainer.player, each.validation, each.config)
                metrics |= _prefixed("val/", validated)
                if each.is_due(settings.save_freq, step):
                    state.candidates.append(_candidate(step, validated))
            if each.name:
                metrics["round"] = float(number + 1)
            _log(log, step, metrics)
            self.display.step(step, total, metrics, each.name)
            self._show(each, result, step, transcripts)
            state.step = step
            ends = state.stopped is not None or step == each.last
            kept = ends and (len(self.rounds) > 1 or settings.save_freq > 0)
            if each.is_due(settings.save_freq, step) or kept or self.stop.made:
                await self.keeper.save(each, state)

    def _show(self, each: Round, result: StepResult, step: int, transcripts: TranscriptLog) -> None:
        parts = _reward_parts(result)
        shown = transcripts.write(step, result.graded.episodes, parts)
        if folder := each.config.trainer.rollout_data_dir:
            right = result.graded.correct
            write_episodes(folder, step, result.graded.episodes, result.scores, rewards=parts, correct=right)
        for tracker in self.trackers if shown else ():
            tracker.transcripts(step, shown)

    async def _measure_start(self, state: State, log: Sequence[Tracker]) -> None:
        """What the run begins with: on the test problems, and on the validation problems that rounds compare with."""
        config, record = self.config, state.record
        if config.trainer.val_before_train:
            before = await self.evaluate("evaluating before training", 0, self.start, config=config)
            _log(log, 0, _prefixed("val/", before))
        if self.test:
            start = await self.evaluate("testing the start", 0, self.start, self.test, config)
            record = replace(record, start=_lasting(start))
        comparing = [each for each in self.rounds if each.config.selection.rule != LAST]
        measured: dict[tuple[Problem, ...], Candidate] = {}
        for each in comparing:
            if each.validation not in measured:
                metrics = await self.evaluate("evaluating the start", 0, self.start, each.validation, config)
                measured[each.validation] = _candidate(0, metrics)
        if comparing:
            await self.keeper.save_start(state)
        baselines = {each.name: measured[each.validation] for each in comparing}
        state.record = replace(record, began=True, baselines=baselines)
        state.record.save(self.folder)

    async def _finish(self, each: Round, state: State) -> None:
        """Select a checkpoint, give its weights to the learners, note and test it."""
        learners = each.trainer.learners
        selected, reason = _selected(each, state)
        if selected is not None:
            state.weights = {**state.weights, **{policy.name: selected for policy in learners}}
        if selected != state.step:
            await self.keeper.go_back(learners, state.weights, len(state.record.rounds) + 1)
        # A round that keeps its start leaves weights and limits as they were.
        test = state.record.rounds[-1].test if state.record.rounds else state.record.start
        if self.test and selected is not None:
            test = await self.evaluate("testing", state.step, each.trainer.player, self.test, each.config)
        finished = FinishedRound(
            each.name,
            state.step,
            state.stopped,
            tuple(state.candidates),
            selected,
            reason,
            state.weights,
            _lasting(test),
        )
        state.record = replace(state.record, rounds=(*state.record.rounds, finished))
        state.record.save(self.folder)
        if each.name:
            self.display.table(
                f"round {each.name}: {reason}", ("", ""), [(k, v) for k, v in test.items() if "/" not in k]
            )
        # One line a step is the rule of metrics.jsonl; rounds.json has the same.
        handed_on = float(-1 if selected is None else selected)
        _log(self.trackers, state.step, {**_prefixed("test/", test), "round/selected": handed_on})
        self.keeper.remove_old(state)

    def _start_anew(self) -> State:
        """Forget what a run without checkpoints left here."""
        (self.folder / METRICS).unlink(missing_ok=True)
        state = self.keeper.start()
        state.record.save(self.folder)
        return state

    def _keep_for_inspection(self, step: int, error: NonFiniteUpdateError) -> None:
        file = self.folder / "failed_updates" / f"step-{step:06d}-{error.policy}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        samples = [asdict(sample) for sample in error.samples]
        file.write_text(json.dumps({"metrics": {k: str(v) for k, v in error.metrics.items()}, "samples": samples}))
        error.add_note(f"what it was computed from is in {file}")


def evaluation_samples(config: DictConfig) -> int:
    """Samples of a problem where no benchmark says how many."""
    return int(config.evaluation.samples or 1)


def evaluation_sampling(config: DictConfig) -> Sampling:
    """How ``evaluation`` samples: with the same seeds after every step."""
    settings = config.evaluation
    return Sampling(settings.temperature, settings.top_p, settings.top_k, config.seed, EVALUATION_STEP)


def _selected(each: Round, state: State) -> tuple[int | None, str]:
    """Step whose checkpoint the round hands on, None for what it started from, and why."""
    settings = each.config.selection
    if settings.rule == LAST:
        return state.step, "the last step"
    if not state.candidates:
        return None, "it was stopped before a checkpoint was validated, so the round's start is kept"
    choice = choose(settings.rule, state.candidates, state.record.baselines[each.name], settings.tolerance)
    return None if choice.selected is None else choice.selected.step, choice.reason


def _lasting(metrics: Mapping[str, float]) -> dict[str, float]:
    """Without what another run of the same models would have otherwise."""
    return {name: value for name, value in metrics.items() if not name.endswith("per_s")}


def _candidate(step: int, metrics: Mapping[str, float]) -> Candidate:
    return Candidate(step, metrics["accuracy"], metrics["tokens_per_episode"], metrics.get(STANDARD_ERROR, math.nan))


def _log(trackers: Sequence[Tracker], step: int, metrics: Mapping[str, float]) -> None:
    for tracker in trackers:
        tracker.log(step, metrics)


def _prefixed(prefix: str, metrics: Mapping[str, float]) -> dict[str, float]:
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
