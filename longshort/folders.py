"""The folder of a run: one process at a time, and files that are whole or not there."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOCK = ".lock"


@contextmanager
def sole_use_of(folder: Path) -> Iterator[None]:
    """Make and hold the run's folder; the kernel lets go of it however the process ends.

    Raises:
        ValueError: another run holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"the folder {folder} is in use by another run; choose another or wait for it") from None
        yield


def is_held(folder: Path) -> bool:
    """Whether a run holds ``folder`` now."""
    if not (folder / _LOCK).is_file():
        return False
    with (folder / _LOCK).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def write_whole(file: Path, text: str) -> None:
    """Write ``text`` at once: a reader finds the former content or this."""
    temporary = file.with_name(f".{file.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)
