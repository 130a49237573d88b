"""Rounds on the real stack, killed and resumed: what follows equals what an undisturbed run does.

In a deterministic configuration: a seed for every turn, one request at a time, no prefix cache, one torch thread.
Not proved here: that selection and limits shorten what models write (``longshort train --config-name
thinkprune_playground`` measures it), and resuming on other numbers of devices (``test_fsdp.py``).
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

# Ray's agents look for their raylet once a minute.
GONE_S = 150
DETERMINISTIC = [
    "actor_rollout_ref.rollout.max_num_seqs=1",
    "actor_rollout_ref.rollout.enable_prefix_caching=false",
    "actor_rollout_ref.rollout.n=4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=2",
    "data.train_batch_size=2",
    "trainer.save_freq=1",
]
PAIR = [
    "trainer.total_training_steps=2",
    "data.val_files=[]",
    "actor_rollout_ref.actor.use_kl_loss=true",
    "+rounds.a={train: long}",
    "+rounds.b={train: both}",
]
SOLO = [
    "trainer.total_training_steps=2",
    "trainer.test_freq=1",
    "data.val_files=['playground:test:6:3']",
    "data.test_files=[]",
    "~rounds.limit_90",
    "selection.tolerance=0.9",
]
CASES = {
    # In the middle of a rollout, after the first round's first step.
    "pair": ("local", PAIR, lambda folder: (folder / "global_step_1").is_dir()),
    # Between rounds.
    "solo": ("thinkprune_playground", SOLO, lambda folder: '"name": "limit_200"' in _text(folder / "rounds.json")),
}


def _text(file: Path) -> str:
    return file.read_text() if file.is_file() else ""


def start(folder: Path, recipe: str, overrides: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "longshort.train", "--config-name", recipe, *DETERMINISTIC, *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    log = (folder.parent / f"{folder.name}.log").open("a")
    command.append(f"trainer.default_local_dir={folder}")
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True, env=environment)


def kill_when(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    """SIGKILL of the driver; all that it started has to be gone soon after."""
    deadline = time.monotonic() + 300
    while not reached():
        assert process.poll() is None and time.monotonic() < deadline, "the run ended, or hangs, before the moment came"
        time.sleep(0.05)
    started = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(started, timeout=GONE_S)
    assert not alive, f"left behind: {[child.name() for child in alive]}"


def steps_of(folder: Path) -> dict[int, dict[str, float]]:
    """By step, the last line of the log, without times, speeds and memory."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        line["step"]: {key: value for key, value in line.items() if not re.search("time|per_s$|perf/|mfu$", key)}
        for line in lines
        if "reward/mu" in line
    }


@pytest.mark.parametrize("case", CASES)
def test_a_run_whose_driver_is_killed_goes_on_exactly(tmp_path: Path, case: str) -> None:
    recipe, overrides, reached = CASES[case]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole, recipe, overrides).wait() == 0, _text(tmp_path / "whole.log")[-3000:]
    kill_when(start(killed, recipe, overrides), lambda: reached(killed))
    assert start(killed, recipe, overrides).wait() == 0, _text(tmp_path / "killed.log")[-3000:]
    assert "resuming from" in _text(tmp_path / "killed.log")
    wanted, found = steps_of(whole), steps_of(killed)
    assert sorted(found) == sorted(wanted) == [1, 2, 3, 4]
    for step in wanted:
        assert found[step] == wanted[step], f"step {step}"
    records = [json.loads((folder / "rounds.json").read_text())["rounds"] for folder in (whole, killed)]
    assert records[0] == records[1]
