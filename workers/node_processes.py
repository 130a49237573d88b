"""Work that has to be done on every node of the cluster, whoever lives or hangs there."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, TypeVar

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

Result = TypeVar("Result")


# For a node to do it.
ANSWER_S = 60.0


def on_every_node(work: Callable[..., Result], *arguments: Any) -> dict[str, Result]:
    """``work(*arguments)`` once on each node that is alive; by the node's name.

    Raises:
        RayError: a node did not do it, or not in time.
    """
    task = ray.remote(num_cpus=0, max_retries=0)(work)
    asked = {}
    for node in ray.nodes():
        if node["Alive"]:
            place = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
            asked[node["NodeName"]] = task.options(scheduling_strategy=place).remote(*arguments)
    return dict(zip(asked, ray.get(list(asked.values()), timeout=ANSWER_S), strict=True))


def end_processes(variable: str, values: Collection[str]) -> None:
    """SIGKILL of every process of this user that was started with one of these values of a variable, on any node.

    A child whose parent died cannot be found by it any more; what it was started with stays.
    """
    on_every_node(_end_here, variable, list(values))


def _end_here(variable: str, values: Collection[str]) -> None:
    for process in psutil.process_iter():
        # One that is gone, or another user's.
        with suppress(psutil.Error):
            if process.uids().real == os.getuid() and process.environ().get(variable) in values:
                process.send_signal(signal.SIGKILL)
