"""What each node of a cluster sees, asked by a small task on every one."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

# A busy node answers late.
PATIENCE_S = 60.0
Faults = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One node.

    Attributes:
        name: its host name, or Ray's address where it did not answer.
        answers: within a minute.
        sees: whether it has the file that was asked for.
        clock: seconds by which its clock is ahead of the driver's, good to half the time that the answer took.
        devices: GPUs that Ray counts there.
        lacks: the folders that were asked for and are not there.
        faults: what is wrong with it: ``warn`` or ``fail``, and what it is.
    """

    name: str
    answers: bool
    sees: bool
    clock: float
    devices: int
    lacks: tuple[str, ...] = ()
    faults: Faults = ()


@contextmanager
def seen_file(folder: Path) -> Iterator[Path]:
    """An empty file in ``folder`` for the nodes to look for, gone afterwards. Raises ``OSError`` without permission."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder.absolute() / f".seen-{secrets.token_hex(4)}"
    file.touch()
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)


def require_shared(folder: Path) -> None:
    """Raise ``ValueError`` that names nodes with devices that do not see ``folder``: what they save would be lost."""
    with seen_file(folder) as file:
        blind = [node.name for node in ask_nodes(file) if node.devices and node.answers and not node.sees]
    if blind:
        raise ValueError(
            f"{folder} is not seen by {', '.join(blind)}; put trainer.default_local_dir on a file system that every "
            "node mounts"
        )


def ask_nodes(file: Path, folders: Sequence[Path] = (), examine: Callable[[], Faults] | None = None) -> list[Node]:
    """Of the cluster that Ray has joined.

    Args:
        file: the driver wrote it.
        folders: that nodes with devices need too, looked for where they are examined.
        examine: what is wrong with a node with devices, called there.
    """

    def look(path: str) -> tuple[str, bool, float]:
        # Network file systems keep what they know of a folder; listing it asks again.
        os.listdir(Path(path).parent) if Path(path).parent.is_dir() else []
        return socket.gethostname(), Path(path).is_file(), time.time()

    def look_closer(paths: Sequence[str]) -> tuple[tuple[str, ...], Faults]:
        return tuple(path for path in paths if not Path(path).is_dir()), examine() if examine else ()

    remote, closer = ray.remote(num_cpus=0)(look), ray.remote(num_cpus=0)(look_closer)
    names = [str(folder) for folder in folders]
    nodes = []
    for each in ray.nodes():
        if not each["Alive"]:
            continue
        devices = int(each["Resources"].get("GPU", 0))
        where = {"scheduling_strategy": NodeAffinitySchedulingStrategy(each["NodeID"], soft=False), "max_retries": 0}
        placed = remote.options(**where)
        # The first call starts a process, the second is timed.
        try:
            ray.get(placed.remote(str(file)), timeout=PATIENCE_S)
            asked = time.time()
            name, sees, theirs = ray.get(placed.remote(str(file)), timeout=PATIENCE_S)
            clock = theirs - (asked + time.time()) / 2
        except (ray.exceptions.RayError, TimeoutError):
            nodes.append(Node(each["NodeManagerAddress"], False, False, 0.0, devices))
            continue
        lacks: tuple[str, ...] = ()
        faults: Faults = ()
        # A node without devices gets no part of a policy.
        if devices and examine:
            try:
                lacks, faults = ray.get(closer.options(**where).remote(names), timeout=PATIENCE_S)
            except (ray.exceptions.RayError, TimeoutError) as error:
                faults = (("fail", f"it cannot run the project ({str(error).strip().splitlines()[-1]})"),)
        nodes.append(Node(name, True, sees, clock, devices, lacks, faults))
    return nodes
