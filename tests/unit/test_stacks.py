"""Stacks of processes that are asked, stopped, or gone, on this machine.

Not proved here: that a run's workers, servers and engines are registered (``tests/integration/test_stack.py``).
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workers import stacks

WAITS = """
import sys, time
from pathlib import Path
from workers import stacks

stacks._register(Path(sys.argv[1]), sys.argv[2])
def waits_for_good():
    print("up", flush=True)
    time.sleep(600)
waits_for_good()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stacks, "user_folder", lambda: tmp_path)
    return tmp_path / "run-stacks"


def test_every_process_that_lives_is_shown_by_name_and_a_stopped_one_as_that(folder: Path) -> None:
    running = []
    for name in ("trainer long 0", "vLLM short-0", "gone"):
        process = subprocess.Popen([sys.executable, "-c", WAITS, str(folder), name], stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        running.append(process)
    trainer, engine, gone = running
    gone.kill()
    gone.wait()
    engine.send_signal(signal.SIGSTOP)
    try:
        found = stacks.stacks_here("run")
        again = stacks.stacks_here("run")
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert sorted(found) == sorted([f"trainer long 0 {trainer.pid}", f"vLLM short-0 {engine.pid}"])
    assert "waits_for_good" in found[f"trainer long 0 {trainer.pid}"]
    assert found[f"vLLM short-0 {engine.pid}"] == "no answer; it is stopped"
    assert again[f"trainer long 0 {trainer.pid}"].count("waits_for_good") == 1


def test_another_process_with_the_number_of_one_that_is_gone_gets_no_signal(folder: Path) -> None:
    folder.mkdir()
    bystander = subprocess.Popen(["sleep", "600"])
    (folder / f"trainer long 0.{bystander.pid}.12.34").touch()
    assert stacks.stacks_here("run") == {}
    time.sleep(0.1)
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


async def test_the_driver_shows_threads_and_counts_coroutines_that_wait_at_the_same_place() -> None:
    async def waits() -> None:
        await asyncio.Event().wait()

    tasks = [asyncio.create_task(waits()) for _ in range(3)]
    await asyncio.sleep(0)
    text = stacks.stacks_of_driver(asyncio.get_running_loop())
    for task in tasks:
        task.cancel()
    assert "3 x " in text and "waits line" in text
    assert f"{Path(__file__).name}" in text
