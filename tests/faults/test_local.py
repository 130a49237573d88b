"""A run with a Ray of its own on this machine: who can reach it, and how SIGTERM ends it."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psutil

from tests.killed_runs import SMALL, beyond_loopback, children_of, left_behind, start, text_of


def test_a_run_listens_on_loopback_only_and_sigterm_ends_it_with_143_and_all_it_started(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = start(folder, "local", [*SMALL, "trainer.total_training_steps=1000"])
    deadline = time.monotonic() + 400
    while '"step": 2' not in text_of(folder / "metrics.jsonl"):
        assert run.poll() is None and time.monotonic() < deadline, text_of(tmp_path / "run.log")[-3000:]
        time.sleep(0.2)
    children = children_of(run.pid)
    reachable = beyond_loopback([psutil.Process(run.pid), *children])
    run.send_signal(signal.SIGTERM)
    assert run.wait(60) == 143, text_of(tmp_path / "run.log")[-3000:]
    assert "longshort: terminated" in text_of(tmp_path / "run.log")
    left = left_behind(children)
    assert not left, f"left behind: {left}"
    assert not reachable
