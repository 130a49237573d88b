"""Where each process of a run stands: every one writes the stacks of its threads to a file when it is asked."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from workers.naming import run_id, user_folder

SIGNAL = signal.SIGUSR2
# What a process may take to write.
ANSWER_S = 2.0


def register(name: str) -> None:
    """Let this process write its stacks when :func:`stacks_here` asks; ``name`` says which it is."""
    _register(_folder(run_id()), name)


def register_engine(socket: str) -> None:
    """As :func:`register`, for a process of vLLM's, which knows the socket of its weights only."""
    path = Path(socket.removeprefix("ipc://"))
    run, name = path.name.split("-", 1)
    _register(_folder(run), f"vLLM {name.strip('-')}")


def _register(folder: Path, name: str) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    # The time of its start tells this process from a later one with the same number.
    started = psutil.Process().create_time()
    file = (folder / f"{name}.{os.getpid()}.{started:.2f}").open("a")
    faulthandler.register(SIGNAL, file=file, all_threads=True, chain=False)


def _folder(run: str) -> Path:
    return user_folder() / f"{run}-stacks"


def stacks_here(run: str) -> dict[str, str]:
    """By name and number, the stacks of a run's registered processes on this node."""
    asked = {}
    for file, name, process in _living(_folder(run)):
        os.truncate(file, 0)
        with suppress(psutil.Error):  # gone since
            process.send_signal(SIGNAL)
            asked[name] = file, process
    deadline = time.monotonic() + ANSWER_S
    while time.monotonic() < deadline and not all(file.stat().st_size for file, _ in asked.values()):
        time.sleep(0.05)
    # The last of them may still be writing.
    time.sleep(0.1)
    return {name: file.read_text() or f"no answer; it is {_state(process)}" for name, (file, process) in asked.items()}


def _state(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.Error:
        return "gone"


def _living(folder: Path) -> Iterator[tuple[Path, str, psutil.Process]]:
    for file in sorted(folder.glob("*")):
        name, number, *started = file.name.rsplit(".", 3)
        with suppress(psutil.Error):
            process = psutil.Process(int(number))
            if f"{process.create_time():.2f}" == ".".join(started):
                yield file, f"{name} {number}", process


def stacks_of_driver(loop: asyncio.AbstractEventLoop) -> str:
    """Where the threads of this process stand, and where coroutines wait, the most frequent place first."""
    frames = sys._current_frames().items()
    threads = [f"thread {number}\n{''.join(traceback.format_stack(frame))}" for number, frame in frames]
    waiting = Counter(
        " <- ".join(f"{frame.f_code.co_qualname} line {frame.f_lineno}" for frame in reversed(task.get_stack(limit=8)))
        for task in asyncio.all_tasks(loop)
    )
    return "\n".join([*threads, *[f"{count} x {place or 'about to run'}" for place, count in waiting.most_common()]])
