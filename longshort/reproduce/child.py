"""A command as a process of its own, which this one does not leave behind.

Concurrency: this process does nothing but wait for its child. SIGTERM is passed on to the child, a Ctrl-C of a terminal
reaches both; either way this process ends after the child has, so that nothing goes on unseen.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Sequence
from types import FrameType
from typing import IO, Any


def run_child(arguments: Sequence[str], output: IO[Any]) -> int:
    """The code that the command ended with; both of its outputs go to ``output``.

    Raises:
        asyncio.CancelledError: this process got SIGTERM meanwhile.
        KeyboardInterrupt: likewise SIGINT.
    """
    child: subprocess.Popen[bytes] | None = None
    terminated = interrupted = False

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal terminated
        terminated = True
        if child is not None:
            child.terminate()

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        child = subprocess.Popen(arguments, stdout=output, stderr=output)
        if terminated:
            child.terminate()
        while True:
            try:
                code = child.wait()
                break
            except KeyboardInterrupt:
                interrupted = True
    finally:
        signal.signal(signal.SIGTERM, before)
    if terminated:
        raise asyncio.CancelledError(signal.SIGTERM.name)
    if interrupted:
        raise KeyboardInterrupt
    return code
