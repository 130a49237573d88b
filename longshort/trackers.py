"""Where metrics go beside the run's own ``metrics.jsonl``: wandb and tensorboard, by verl's ``trainer.logger``."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol

from omegaconf import DictConfig

from longshort.hiding import hide, shown
from longshort.tracking import METRICS

log = logging.getLogger(__name__)

RUN_ID = "wandb_run_id"
FINISH_S = "300"


class Tracker(Protocol):
    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...


class TranscriptTracker(Tracker, Protocol):
    def begin_round(self, number: int, name: str) -> None:
        """What is logged from now on belongs to this round of the recipe, counted from 0."""
        ...

    def transcripts(self, step: int, shown: Mapping[str, str]) -> None:
        """Show some conversations by name."""
        ...


class WandbTracker:
    """One wandb run per folder, or per round in one group; a resumed one goes on under its id."""

    def __init__(self, folder: Path, config: DictConfig, stack: ExitStack) -> None:
        file = folder / RUN_ID
        if not file.exists():
            file.write_text(secrets.token_hex(4))
        self._folder, self._config = folder, config
        self._id, self._name = file.read_text().strip(), config.trainer.experiment_name
        self._run: Any = None
        self._lost = False
        stack.callback(self._finish)

    def begin_round(self, number: int, name: str) -> None:
        self._finish()
        self._lost = False
        if name:
            self._id = f"{(self._folder / RUN_ID).read_text().strip()}-{number + 1}"
            self._name = f"{self._config.trainer.experiment_name}/{name}"

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._track(lambda run: run.log(dict(metrics), step=step))

    def transcripts(self, step: int, shown: Mapping[str, str]) -> None:
        def write(run: Any) -> None:
            import wandb

            table = wandb.Table(columns=["episode", "conversation"], data=[list(item) for item in shown.items()])
            run.log({"transcripts": table}, step=step)

        self._track(write)

    def _track(self, write: Callable[[Any], None]) -> None:
        """What is measured is worth more than where it is shown: a fault of wandb ends the tracking of a round only."""
        if self._lost:
            return
        try:
            write(self._open())
        except Exception as error:  # a library's own, whatever it is
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        import wandb

        self._run, self._lost = None, True
        log.warning(
            "wandb failed (%s); what it lacks of this round is in %s, and `wandb sync` sends what it wrote",
            hide(" ".join(str(error).split()) or type(error).__name__),
            self._folder / METRICS,
        )
        with suppress(Exception):  # the next round tries with another helper process
            wandb.teardown()

    def _open(self) -> Any:
        if self._run is None:
            import wandb

            try:
                self._run = self._begin()
            except wandb.Error as error:
                reason = hide(" ".join(str(error).split()))
                log.warning(
                    "wandb cannot be used (%s); the run is written offline, for `wandb sync %s/wandb/offline-*`",
                    reason,
                    self._folder,
                )
                wandb.teardown()
                self._run = self._begin(mode="offline")
        return self._run

    def _begin(self, **more: Any) -> Any:
        import wandb

        # Else a run's end waits for a server that is lost. Not every version has the setting, so it is not one of init.
        os.environ.setdefault("WANDB_FINISH_TIMEOUT", FINISH_S)
        settings = self._config.trainer
        return wandb.init(
            project=hide(settings.project_name),
            name=hide(self._name),
            group=hide(settings.group_name or settings.experiment_name),
            id=self._id,
            resume="allow",
            dir=str(self._folder),
            config=shown(self._config, resolve=True),
            # wandb would note the command line.
            settings=wandb.Settings(x_disable_meta=any(hide(word) != word for word in sys.argv)),
            **more,
        )

    def _finish(self) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        try:
            run.finish()
        except Exception as error:  # as above
            self._lose(error)


class TensorboardTracker:
    """Event files in ``<run>/tensorboard``."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))
        stack.callback(self._close)

    def begin_round(self, number: int, name: str) -> None:
        """Steps are counted through all rounds, so one curve shows them."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def transcripts(self, step: int, shown: Mapping[str, str]) -> None:
        for name, conversation in shown.items():
            self._writer.add_text(f"transcripts/{name}", conversation, step)

    def _close(self) -> None:
        try:
            self._writer.close()
        except OSError as error:
            # It must not take the place of what ended the run; the metrics are in the run's own log.
            log.warning("the last figures for tensorboard could not be written: %s", error)


def wants_wandb() -> bool:
    """A key, a login or offline mode is set up."""
    login = Path.home() / ".netrc"
    known = login.is_file() and "wandb" in login.read_text()
    return bool(os.environ.get("WANDB_API_KEY")) or os.environ.get("WANDB_MODE") in {"offline", "online"} or known


def make_trackers(config: DictConfig, folder: Path, stack: ExitStack) -> tuple[TranscriptTracker, ...]:
    """Trackers of ``trainer.logger``; ``auto`` is wandb where it is set up. ``stack`` closes them."""
    names = set(config.trainer.logger)
    if "auto" in names and wants_wandb():
        names.add("wandb")
    trackers: list[TranscriptTracker] = []
    if "wandb" in names:
        trackers.append(WandbTracker(folder, config, stack))
    if "tensorboard" in names:
        trackers.append(TensorboardTracker(folder, stack))
    return tuple(trackers)
