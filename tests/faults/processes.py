"""Commands that leave nothing running, however they end."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tests.killed_runs import children_of


def kill_with_children(process: subprocess.Popen[bytes], others: Iterable[psutil.Process] = ()) -> None:
    """SIGKILL of it while it runs, of all that it started, and of ``others``; stopped ones end as well."""
    # Once it is over, its number may be another's.
    found = [*others, *(children_of(process.pid) if process.poll() is None else ())]
    process.kill()
    process.wait()
    for each in found:
        with suppress(psutil.NoSuchProcess):
            each.kill()


def processes_with(text: str) -> list[str]:
    """Names of those that have ``text`` in their command, their environment or the name of a file that they hold.

    Ray's processes take another title, which overwrites what they were started with.
    """
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended since
            said = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            held = [os.readlink(file) for file in (process / "fd").iterdir()]
            if text.encode() in said or any(text in name for name in held):
                found.append(f"{process.name} {(process / 'comm').read_text().strip()}")
    return found


def in_a_session(command: Sequence[str], folder: Path, limit_s: float) -> subprocess.CompletedProcess[str]:
    """Run a command in ``folder``; when it is over, or after ``limit_s``, its group and its children are killed.

    Raises:
        TimeoutExpired: it took longer.
    """
    # A pipe would stay open as long as anything that it started lives.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=err, start_new_session=True)
        try:
            process.wait(limit_s)
        finally:
            kill_with_children(process)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(list(command), process.returncode, out.read(), err.read())
