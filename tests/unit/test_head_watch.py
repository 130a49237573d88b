"""The watch of Ray's head and node against servers of sockets.

Not proved here: that a real head is told apart (``python -m tests.faults --only "head killed"``).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from workers import head_watch
from workers.head_watch import HeadWatch


class Server:
    """Accepts connections, and ends with those it has as a process does."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.settimeout(20)
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.held: list[socket.socket] = []

    def accept(self) -> socket.socket:
        self.held.append(self.socket.accept()[0])
        return self.held[-1]

    def end(self) -> None:
        self.socket.close()
        for each in self.held:
            each.close()


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    both = Server(), Server()
    yield both
    for each in both:
        each.end()


def said(capfd: pytest.CaptureFixture[str], within_s: float) -> str:
    text, deadline = "", time.monotonic() + within_s
    while not text and time.monotonic() < deadline:
        time.sleep(0.02)
        text = capfd.readouterr().err
    return text


@pytest.mark.parametrize("which", [0, 1])
def test_what_hangs_up_is_asked_again_and_what_ends_is_named(
    which: int, servers: tuple[Server, Server], capfd: pytest.CaptureFixture[str]
) -> None:
    watch = HeadWatch(servers[0].address, servers[1].address)
    first = [server.accept() for server in servers][which]
    first.sendall(b"settings")
    first.close()
    servers[which].accept()
    assert not said(capfd, 0.5), "it still answers"
    servers[which].end()
    name = ("head", "node")[which]
    assert f"Ray's {name} at {servers[which].address} is gone (Connection refused)" in said(capfd, 20)
    watch.close()


def test_it_is_silent_once_it_is_closed(servers: tuple[Server, Server], capfd: pytest.CaptureFixture[str]) -> None:
    watch = HeadWatch(servers[0].address, servers[1].address)
    for server in servers:
        server.accept()
    watch.close()
    for server in servers:
        server.end()
    assert not said(capfd, 0.5)


def test_a_driver_that_ray_ended_with_its_head_is_explained(
    servers: tuple[Server, Server], capfd: pytest.CaptureFixture[str]
) -> None:
    watch = HeadWatch(servers[0].address, servers[1].address)
    for server in servers:
        server.accept()
    # It gets no processor before both have happened.
    watch._process.send_signal(signal.SIGSTOP)
    servers[0].end()
    assert watch._process.stdin is not None
    watch._process.stdin.close()
    watch._process.send_signal(signal.SIGCONT)
    assert f"Ray's head at {servers[0].address} is gone" in said(capfd, 20)
    assert watch._process.wait(20) == 0


def test_a_driver_that_ends_by_itself_takes_the_watch_along_and_its_own_ray_is_not_missed(
    servers: tuple[Server, Server], capfd: pytest.CaptureFixture[str]
) -> None:
    code = "import sys, time; from workers.head_watch import HeadWatch; HeadWatch(*sys.argv[1:]); time.sleep(600)"
    command = [sys.executable, "-c", code, *[server.address for server in servers]]
    driver = subprocess.Popen(command, cwd=os.path.dirname(os.path.dirname(head_watch.__file__)))
    for server in servers:
        server.accept()
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 20
    # Its end of the connection is closed.
    while any(server.held[0].recv(1024) for server in servers) and time.monotonic() < deadline:
        pass
    for server in servers:
        server.end()
    assert not said(capfd, 0.5)
