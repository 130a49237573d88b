"""Runs of their own that faults happen to: started with planted secrets, and looked at while they live and after."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.killed_runs import GONE_S, RAYS_AGENTS, beyond_loopback, check_trained_once, start, text_of
from tests.planted import PLANTED

STEPS, BATCH, PROBLEMS = 6, 2, 64
SETTINGS = (
    f"data.train_files=['playground:train:{PROBLEMS}:1']",
    "data.val_files=[]",
    f"data.train_batch_size={BATCH}",
    f"actor_rollout_ref.actor.ppo_mini_batch_size={BATCH}",
    "trainer.save_freq=1",
    "trainer.logger=[tensorboard]",
    "faults.engine_timeout_s=10",
)
# For a start or an end on two busy cores.
LONG_S = 420.0


@dataclass
class Findings:
    """What no fault may leave behind or open."""

    orphans: list[str] = field(default_factory=list)
    listening: set[str] = field(default_factory=set)
    secrets: set[str] = field(default_factory=set)

    def look_for_secrets(self, folder: Path) -> None:
        """In every file below ``folder``."""
        for file in folder.rglob("*"):
            if file.is_file() and not file.is_symlink():
                data = file.read_bytes()
                self.secrets |= {f"{name} in {file.name}" for name, value in PLANTED.items() if value.encode() in data}


class FreshRun:
    """One output folder, and the processes that train into it one after another."""

    def __init__(self, parent: Path, name: str, findings: Findings, variables: Mapping[str, str] | None = None) -> None:
        self.folder, self.log = parent / name, parent / f"{name}.log"
        self.findings = findings
        self.variables = variables or {}
        self._started: dict[psutil.Process, str] = {}
        self.process: subprocess.Popen[bytes]

    def start(self, *overrides: str, steps: int = STEPS) -> FreshRun:
        settings = [*SETTINGS, f"trainer.total_training_steps={steps}", *overrides]
        self.process = start(self.folder, "local", settings, {**PLANTED, **self.variables})
        return self

    def output(self) -> str:
        """What it has said so far."""
        return text_of(self.log)

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
        driver = psutil.Process(self.process.pid)
        found = {child: child.name().strip() for child in driver.children(recursive=True)}
        self._started |= found
        self.findings.listening |= beyond_loopback([driver, *found])
        return found

    def end(self) -> int:
        """Its exit code, once all that it started is gone."""
        code = self.process.wait(LONG_S)
        ours = [child for child, name in self._started.items() if name not in RAYS_AGENTS]
        _, alive = psutil.wait_procs(ours, timeout=GONE_S)
        self.findings.orphans += [self._started[child] for child in alive]
        for child in alive:
            child.kill()
        self.findings.look_for_secrets(self.folder)
        if self.log.is_file():
            self.findings.look_for_secrets(self.log.parent)
        self._started.clear()
        return code

    def ends_with(self, *codes: int, saying: str = "") -> None:
        code = self.end()
        assert code in codes, f"exit code {code} for {codes}: {self.output()[-1500:]}"
        assert saying in self.output(), f"it does not say {saying!r}: {self.output()[-1500:]}"

    def goes_on(self, steps: int = STEPS) -> None:
        """The same command again finishes, and every step's data was trained on once, in order."""
        self.start(steps=steps).ends_with(0)
        self.trained_once(steps)

    def trained_once(self, steps: int = STEPS) -> None:
        check_trained_once(self.folder, PROBLEMS, BATCH, steps)

    def kill(self) -> None:
        """SIGKILL of the driver."""
        self.look()
        self.process.send_signal(signal.SIGKILL)
        self.end()


@dataclass
class Scene:
    """What a fault has to happen in: a folder, chance, and what it may not leave behind."""

    folder: Path
    rng: random.Random
    findings: Findings

    def run(self, name: str = "run", **variables: str) -> FreshRun:
        return FreshRun(self.folder, name, self.findings, variables)

    def finished(self, steps: int = 3) -> FreshRun:
        """A run of so many steps, with a checkpoint of each; made once, and copied since."""
        model = self.folder.parent / f"finished-{steps}"
        if not (model / "run").is_dir():
            model.mkdir(parents=True, exist_ok=True)
            FreshRun(model, "run", self.findings).start(steps=steps).ends_with(0)
        run = self.run()
        shutil.copytree(model / "run", run.folder)
        return run
