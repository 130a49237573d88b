"""Two Ray nodes on this host, each in a network namespace of its own, with a cable between them. Needs root."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.killed_runs import environment_of_a_shell, name_of, text_of

# The same name on both, as GLOO_SOCKET_IFNAME wants it.
CABLE = "cable"
PORT = 6379
# For Ray's head to listen, and for a node's processes to end.
STARTED_S, ENDED_S = 90.0, 30.0


def why_not() -> str | None:
    """Why there can be no namespaces here, or None."""
    if shutil.which("ip") is None:
        return "ip not found: apt-get install iproute2"
    probe = f"longshort-{secrets.token_hex(3)}"
    cable = ["-n", probe, "link", "add", "one", "type", "veth", "peer", "name", "other"]
    try:
        _ip("netns", "add", probe)
        _ip(*cable)
    except subprocess.CalledProcessError as error:
        return f"network namespaces cannot be made here: {error.stderr.decode().strip()}"
    finally:
        subprocess.run(["ip", "netns", "del", probe], check=False, capture_output=True)
    return None


@dataclass(frozen=True)
class TwoNodes:
    """Names of the namespaces; the first has Ray's head, and is where runs start."""

    names: tuple[str, str]
    environment: Mapping[str, str]

    def within(self, node: int, command: Sequence[str]) -> list[str]:
        """The command, in a node's namespace."""
        return ["ip", "netns", "exec", self.names[node], *command]

    def processes(self, node: int) -> list[str]:
        """Names of the processes of a node."""
        names = []
        for pid in _pids(self.names[node]):
            with suppress(psutil.NoSuchProcess):
                names.append(name_of(psutil.Process(pid)))
        return names

    def lose(self, node: int) -> None:
        """The node is gone at once, with all its processes."""
        _end_all_in(self.names[node])


@contextmanager
def two_nodes(devices: int = 1) -> Iterator[TwoNodes]:
    """A Ray cluster of two nodes with so many device slots each, and a token that both have."""
    # Ray's sockets have long names; a folder of pytest is too deep.
    temp = Path(tempfile.mkdtemp(prefix="lsn-", dir="/tmp"))
    names = tuple(f"lsn{secrets.token_hex(2)}{number}" for number in range(2))
    addresses = ("10.77.0.1", "10.77.0.2")
    token = temp / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    environment = {
        **environment_of_a_shell(),
        "PATH": os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ["PATH"]]),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ADDRESS": f"{addresses[0]}:{PORT}",
        "GLOO_SOCKET_IFNAME": CABLE,
        "OMP_NUM_THREADS": "1",
    }
    parts: list[subprocess.Popen[bytes]] = []
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("link", "add", CABLE, "netns", names[0], "type", "veth", "peer", "name", CABLE, "netns", names[1])
        for name, address in zip(names, addresses, strict=True):
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", CABLE)
            _ip("-n", name, "link", "set", CABLE, "up")
        for number, (name, address) in enumerate(zip(names, addresses, strict=True)):
            role = ["--head", f"--port={PORT}", "--include-dashboard=false"]
            role = [*role, f"--temp-dir={temp}/ray"] if number == 0 else [f"--address={environment['RAY_ADDRESS']}"]
            ray = ["ray", "start", "--block", f"--node-ip-address={address}", f"--node-name=node-{number}", *role]
            ray += [
                f"--num-gpus={devices}",
                "--num-cpus=32",
                "--object-store-memory=200000000",
                "--disable-usage-stats",
            ]
            joining = {k: v for k, v in environment.items() if k != "RAY_ADDRESS"}
            with (temp / f"log-{number}").open("w") as log:
                command = ["ip", "netns", "exec", name, *ray]
                parts.append(subprocess.Popen(command, env=joining, stdout=log, stderr=log))
            if number == 0:
                _wait_for_head(name, address, parts[0], temp / "log-0")
        nodes = TwoNodes((names[0], names[1]), environment)
        waiting = [sys.executable, "-m", "workers.cluster", "--timeout", "120", "node-0", "node-1"]
        there = subprocess.run(nodes.within(0, waiting), env=environment, capture_output=True, text=True, timeout=240)
        assert there.returncode == 0, there.stderr + text_of(temp / "log-0") + text_of(temp / "log-1")
        yield nodes
    finally:
        for name in names:
            _end_all_in(name)
        for part in parts:
            part.kill()
            part.wait()
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        shutil.rmtree(temp, ignore_errors=True)


def _wait_for_head(namespace: str, address: str, head: subprocess.Popen[bytes], log: Path) -> None:
    probe = f"import socket; socket.create_connection(({address!r}, {PORT}), 2).close()"
    deadline = time.monotonic() + STARTED_S
    while subprocess.run(
        ["ip", "netns", "exec", namespace, sys.executable, "-c", probe], capture_output=True
    ).returncode:
        assert head.poll() is None and time.monotonic() < deadline, f"no head: {text_of(log)}"
        time.sleep(0.2)


def _pids(namespace: str) -> list[int]:
    found = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def _end_all_in(namespace: str) -> None:
    """Again and again, as what is about to end may start something."""
    deadline = time.monotonic() + ENDED_S
    while (pids := _pids(namespace)) and time.monotonic() < deadline:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
