"""Ray's head and this node of it, watched by a process of its own: Ray may end the driver without a word.

Run as a script it is the watch, which needs nothing but Python.
"""

from __future__ import annotations

import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

CONNECT_S = 30.0
PAUSE_S = 0.2


class HeadWatch:
    """Says what is gone as soon as it ends; the run itself is ended by Ray.

    It holds a connection to each, which ends with it. A network that falls silent is found by Ray, which says so after
    a minute.

    Args:
        head: ``host:port`` of Ray's global control service.
        node: ``host:port`` of the raylet that the driver talks to.
    """

    def __init__(self, head: str, node: str) -> None:
        command = [sys.executable, "-I", __file__, head, node]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)

    def close(self) -> None:
        """Say no more."""
        self._process.kill()
        self._process.communicate()


class _Held:
    """A connection to something that lives as long as it can be reached."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address
        self.reason = ""
        self.socket: socket.socket | None = None

    def connect(self) -> bool:
        """Whether it lives."""
        host, _, port = self.address.rpartition(":")
        try:
            self.socket = socket.create_connection((host.strip("[]"), int(port)), CONNECT_S)
        except (TimeoutError, ConnectionResetError):
            self.socket = None
        except OSError as error:
            self.reason = error.strerror or str(error)
            return False
        return True

    def lives(self) -> bool:
        """Read what there is. Ray's servers hang up on who asks nothing; only what cannot be reached again is gone."""
        try:
            if self.socket is not None and self.socket.recv(1024):
                return True
        except OSError:
            pass
        if self.socket is not None:
            self.socket.close()
            # One that hangs up at once is not asked without end.
            time.sleep(PAUSE_S)
        return self.connect()


def watch(everything: Sequence[_Held], driver: int) -> None:
    """Until ``driver``, the end of a pipe that it holds, is closed, or one of ``everything`` is gone."""
    while True:
        sources: list[socket.socket | int] = [each.socket for each in everything if each.socket is not None]
        patience = None if len(sources) == len(everything) else PAUSE_S
        ready = select.select([*sources, driver], [], [], patience)[0]
        for each in everything:
            if (each.socket is None or each.socket in ready) and not each.lives():
                sys.stderr.write(
                    f"longshort: Ray's {each.name} at {each.address} is gone ({each.reason}), and the run ends with "
                    "it; once Ray is there again, the same command goes on from the newest checkpoint\n"
                )
                return
        # Asked last: Ray ends the driver because of them, and a local Ray ends because of the driver.
        if driver in ready:
            return


def main(head: str, node: str) -> None:
    # They are meant for the driver, whose end is heard.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(each, signal.SIG_IGN)
    watch([_Held("head", head), _Held("node", node)], sys.stdin.fileno())


if __name__ == "__main__":
    main(*sys.argv[1:])
