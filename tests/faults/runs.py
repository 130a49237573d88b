"""Runs of their own that faults happen to: started with planted secrets, and looked at while they live and after."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.faults.processes import kill_with_children
from tests.killed_runs import beyond_loopback, check_trained_once, children_of, left_behind, start, text_of
from tests.planted import PLANTED, SEARCHED, SETTING

STEPS, BATCH, PROBLEMS = 6, 2, 64
SETTINGS = (
    f"data.train_files=['playground:train:{PROBLEMS}:1']",
    "data.val_files=[]",
    f"data.train_batch_size={BATCH}",
    f"actor_rollout_ref.actor.ppo_mini_batch_size={BATCH}",
    "trainer.save_freq=1",
    "trainer.logger=[tensorboard]",
    "faults.engine_timeout_s=10",
    SETTING,
)
# For a start or an end on two busy cores.
LONG_S = 420.0


@dataclass
class Findings:
    """What no fault may leave behind or open."""

    orphans: list[str] = field(default_factory=list)
    listening: set[str] = field(default_factory=set)
    secrets: set[str] = field(default_factory=set)

    def look_for_secrets(self, place: Path) -> None:
        """In a file, or in every file below a folder, which may be in use."""
        below = [Path(folder) / name for folder, _, names in os.walk(place) for name in names]
        for file in [place] if place.is_file() else below:
            try:
                data = b"" if file.is_symlink() or not file.is_file() else file.read_bytes()
            except FileNotFoundError:
                continue
            self.secrets |= {f"{name} in {file.name}" for name, value in SEARCHED.items() if value.encode() in data}


class FreshRun:
    """One output folder, and the processes that train into it one after another."""

    def __init__(self, parent: Path, name: str, findings: Findings, variables: Mapping[str, str] | None = None) -> None:
        self.folder, self.log = parent / name, parent / f"{name}.log"
        self.findings = findings
        self.variables = variables or {}
        self._started: dict[psutil.Process, str] = {}
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The latest driver."""
        return self._processes[-1]

    def start(self, *overrides: str, steps: int = STEPS) -> FreshRun:
        settings = [*SETTINGS, f"trainer.total_training_steps={steps}", *overrides]
        self._processes.append(start(self.folder, "local", settings, {**PLANTED, **self.variables}))
        return self

    def output(self) -> str:
        """What it has said so far."""
        return text_of(self.log)

    def says(self, sentence: str) -> bool:
        """Whether it has said so, on one line or several."""
        return sentence in " ".join(self.output().split())

    def until(self, reached: Callable[[], bool]) -> None:
        """Wait while it runs."""
        deadline = time.monotonic() + LONG_S
        while not reached():
            assert self.process.poll() is None, f"it ended before its moment: {self.output()[-1500:]}"
            assert time.monotonic() < deadline, f"its moment does not come: {self.output()[-1500:]}"
            time.sleep(0.002)

    def until_step(self, step: int) -> None:
        self.until(lambda: f'"step": {step},' in text_of(self.folder / "metrics.jsonl"))
        self.look()

    def look(self) -> dict[psutil.Process, str]:
        """Its processes by name, noted for the end."""
        found = children_of(self.process.pid)
        self._started |= found
        with suppress(psutil.NoSuchProcess):
            self.findings.listening |= beyond_loopback([psutil.Process(self.process.pid), *found])
        return found

    def end(self) -> int:
        """Its exit code, once all that it started is gone."""
        deadline = time.monotonic() + LONG_S
        while (code := self.process.poll()) is None:
            assert time.monotonic() < deadline, f"it does not end: {self.output()[-1500:]}"
            self._started |= children_of(self.process.pid)
            time.sleep(0.5)
        self.findings.orphans += left_behind(self._started)
        self._started.clear()
        for place in (self.folder, self.log):
            self.findings.look_for_secrets(place)
        return code

    def ends_with(self, *codes: int, saying: str = "") -> None:
        code = self.end()
        assert code in codes, f"exit code {code} for {codes}: {self.output()[-1500:]}"
        assert self.says(saying), f"it does not say {saying!r}: {self.output()[-1500:]}"

    def fails_with_a_sentence(self, saying: str) -> None:
        """Code 1 and no traceback."""
        self.ends_with(1, saying=saying)
        assert "Traceback" not in self.output(), self.output()[-1500:]

    def goes_on(self, steps: int = STEPS) -> None:
        """The same command again finishes, and every step's data was trained on once, in order."""
        self.start(steps=steps).ends_with(0)
        self.trained_once(steps)

    def trained_once(self, steps: int = STEPS) -> None:
        check_trained_once(self.folder, PROBLEMS, BATCH, steps)

    def kill(self) -> None:
        """SIGKILL of the driver at this moment, which stands still for it while its processes are noted."""
        self.process.send_signal(signal.SIGSTOP)
        self.look()
        self.process.send_signal(signal.SIGKILL)
        self.end()

    def end_now(self) -> None:
        """SIGKILL of all of it, whatever became of it."""
        for process in self._processes:
            kill_with_children(process, self._started)


class SkippedError(Exception):
    """The fault cannot be injected here, for a reason."""


@dataclass
class Scene:
    """What a fault has to happen in: a folder, chance, and what it may not leave behind."""

    folder: Path
    rng: random.Random
    findings: Findings
    runs: list[FreshRun] = field(default_factory=list)

    def run(self, name: str = "run", **variables: str) -> FreshRun:
        return self._made(FreshRun(self.folder, name, self.findings, variables))

    def finished(self, steps: int = 3) -> FreshRun:
        """A run of so many steps, with a checkpoint of each; made once, and copied since."""
        model = self.folder.parent / f"finished-{steps}"
        whole = model / "whole"
        if not whole.is_file():
            shutil.rmtree(model, ignore_errors=True)
            model.mkdir(parents=True)
            self._made(FreshRun(model, "run", self.findings)).start(steps=steps).ends_with(0)
            whole.touch()
        run = self.run()
        shutil.copytree(model / "run", run.folder)
        return run

    def end(self) -> None:
        """Whatever became of its runs, none lives on."""
        for run in self.runs:
            run.end_now()

    def _made(self, run: FreshRun) -> FreshRun:
        self.runs.append(run)
        return run
