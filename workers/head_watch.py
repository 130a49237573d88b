"""Ray's head, watched by the driver: once it is gone, Ray may end the driver without a word."""

from __future__ import annotations

import logging
import socket
import threading

log = logging.getLogger(__name__)

CONNECT_S = 30.0


class HeadWatch:
    """Says that the head is gone as soon as it ends; the run itself is ended by Ray.

    It holds a connection, which ends with the head. A network that falls silent is found by Ray, which says so after a
    minute.

    Args:
        address: ``host:port`` of Ray's global control service.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="head watch", daemon=True).start()

    def close(self) -> None:
        """Say no more."""
        self._closed.set()

    def _watch(self) -> None:
        host, _, port = self.address.rpartition(":")
        while not self._closed.is_set():
            try:
                with socket.create_connection((host.strip("[]"), int(port)), CONNECT_S) as held:
                    held.settimeout(None)
                    # Ray's server hangs up on who asks nothing; only one that cannot be reached again is gone.
                    while held.recv(1024):
                        pass
            except (TimeoutError, ConnectionResetError):
                self._closed.wait(1)
            except OSError as error:
                if not self._closed.is_set():
                    log.error(
                        "Ray's head at %s is gone (%s), and the run ends with it; once Ray is there again, the same "
                        "command goes on from the newest checkpoint",
                        self.address,
                        error.strerror or error,
                    )
                return
