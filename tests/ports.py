"""Ports for servers that are started a moment later."""

from __future__ import annotations

import random
import socket
from contextlib import suppress


def free_port() -> int:
    """Above those that ``ray start`` gives its workers, below those that the kernel gives out to Ray."""
    while True:
        port = random.randrange(20000, 32000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
