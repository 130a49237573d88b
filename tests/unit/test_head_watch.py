"""The watch of Ray's head against a server of sockets.

Not proved here: that a real head is told apart (``python -m tests.faults --only "head killed"``).
"""

from __future__ import annotations

import logging
import socket
import time

import pytest

from workers.head_watch import HeadWatch


def accept(server: socket.socket) -> socket.socket:
    server.settimeout(10)
    held, _ = server.accept()
    return held


def said(caplog: pytest.LogCaptureFixture, within_s: float) -> str:
    deadline = time.monotonic() + within_s
    while not caplog.text and time.monotonic() < deadline:
        time.sleep(0.02)
    return caplog.text


def test_a_head_that_hangs_up_is_asked_again_and_one_that_ends_is_named(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    server = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{server.getsockname()[1]}"
    HeadWatch(address)
    first = accept(server)
    first.sendall(b"settings")
    first.close()
    second = accept(server)
    assert not caplog.text, "it still answers"
    server.close()
    second.close()
    assert f"Ray's head at {address} is gone" in said(caplog, 10)


def test_it_is_silent_once_it_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    server = socket.create_server(("127.0.0.1", 0))
    watch = HeadWatch(f"127.0.0.1:{server.getsockname()[1]}")
    held = accept(server)
    watch.close()
    server.close()
    held.close()
    assert not said(caplog, 0.5)
