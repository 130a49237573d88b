"""A run in which nothing comes to its end any more: said, with the stacks of all its processes in a file.

A thread of its own, so that it also sees a driver whose event loop hangs.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from pathlib import Path

from workers.naming import run_id
from workers.node_processes import on_every_node
from workers.stacks import stacks_here, stacks_of_driver

log = logging.getLogger(__name__)

# Looks within the time after which a run counts as stalled.
LOOKS = 10


class Watchdog:
    """Looks whether turns, worker calls and restarts still end.

    Args:
        stall_s: seconds without any, after which it reports; once, until there is one again.
        folder: where reports go; made when there is one.
    """

    def __init__(self, stall_s: float, folder: Path) -> None:
        self.stall_s = stall_s
        self.folder = folder
        self._last = time.monotonic()
        self._closed = threading.Event()
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def beat(self) -> None:
        """Something came to its end."""
        self._last = time.monotonic()

    def close(self) -> None:
        """Look no more."""
        self._closed.set()

    def _watch(self) -> None:
        reported = 0.0
        while not self._closed.wait(self.stall_s / LOOKS):
            last = self._last
            if last != reported and time.monotonic() - last > self.stall_s:
                reported = last
                self._report(time.monotonic() - last)

    def _report(self, waited: float) -> None:
        parts = {"driver": stacks_of_driver(self._loop)}
        try:
            for node, stacks in on_every_node(stacks_here, run_id()).items():
                parts |= {f"{name} on {node}": text for name, text in stacks.items()}
        except Exception as error:  # a stall's own cause may be why they cannot answer
            parts["nodes"] = f"could not be asked: {error}"
        file = self.folder / time.strftime("%Y%m%d-%H%M%S.txt")
        said = f"no turn, update or restart ended for {waited:.0f} s"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(f"== {name}\n{text}\n" for name, text in parts.items()))
        except OSError as error:
            log.warning("%s; the stacks of all processes could not be written (%s)", said, error)
        else:
            log.warning("%s; the stacks of all processes are in %s", said, file)
