"""The nodes of a cluster: do they answer, see the run's folder, and agree on the time?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from longshort.doctor.check import Check, Level
from longshort.doctor.machine import faults_of_this_node

if TYPE_CHECKING:
    from workers.nodes import Node

# Certificates and tokens fail, and logs lie, beyond it.
CLOCK_S = 2.0


def check_cluster(config: DictConfig, needed: int) -> list[Check]:
    """Join the cluster of ``RAY_ADDRESS`` and ask every node; ``needed`` GPUs of all nodes together.

    Models that are folders here have to be folders there.
    """
    from ray.exceptions import RayError

    from workers import team
    from workers.nodes import ask_nodes, seen_file

    folder = Path(config.trainer.default_local_dir).absolute()
    try:
        with seen_file(folder) as file:
            try:
                team.start_ray(config)
                examine = partial(faults_of_this_node, config.trainer.device)
                return judge(ask_nodes(file, _models(config), examine), folder, needed)
            except (OSError, RuntimeError, ValueError, RayError) as error:
                found = f"cannot be asked ({' '.join(str(error).split())[:200]})"
                remedy = "`ray status` on its head; RAY_ADDRESS and the token must be the cluster's"
                return [Check("cluster", Level.FAIL, found, remedy)]
            finally:
                team.stop()
    except OSError as error:
        found = f"{folder} cannot be written to ({error.strerror})"
        return [Check("shared folder", Level.FAIL, found, "choose another trainer.default_local_dir")]


def judge(nodes: Sequence[Node], folder: Path, needed: int) -> list[Check]:
    """Of what nodes said."""
    silent = [node.name for node in nodes if not node.answers]
    blind = [node.name for node in nodes if node.answers and not node.sees]
    lacking = [f"{' and '.join(node.lacks)} by {node.name}" for node in nodes if node.lacks and node.devices]
    faulty = [f"{what} on {node.name}" for node in nodes for _, what in node.faults]
    only_warns = faulty and all(level == Level.WARN.value for node in nodes for level, _ in node.faults)
    skewed = [f"{node.name} by {node.clock:+.1f} s" for node in nodes if abs(node.clock) > CLOCK_S]
    devices = sum(node.devices for node in nodes)
    return [
        _check("nodes", silent, f"{len(nodes)} answer", "no answer from", "look at Ray on them, or take them away"),
        _check(
            "shared folder",
            blind,
            f"all see {folder}",
            f"{folder} is not seen by",
            "put trainer.default_local_dir on a file system that every node mounts",
        ),
        _check("models", lacking, "all have them", "not seen:", "put them on a file system that every node mounts"),
        _check(
            "packages of the nodes",
            faulty,
            "as pinned",
            "",
            "run `longshort doctor` there, it says what to do",
            Level.WARN if only_warns else Level.FAIL,
        ),
        _check("clocks", skewed, f"within {CLOCK_S:g} s", "differs from here:", "start NTP or chrony on them"),
        Check(
            "devices of the cluster",
            Level.FAIL if devices < needed else Level.OK,
            f"{devices}",
            f"the recipe asks for {needed}: add nodes, or lower placement.n_gpus_per_node" if devices < needed else "",
        ),
    ]


def _models(config: DictConfig) -> list[Path]:
    paths = {Path(each.model.path).expanduser() for each in config.policies.values() if each.model.path}
    return sorted(path.absolute() for path in paths if path.is_dir())


def _check(name: str, wrong: Sequence[str], fine: str, words: str, remedy: str, level: Level = Level.FAIL) -> Check:
    if not wrong:
        return Check(name, Level.OK, fine)
    return Check(name, level, f"{words} {'; '.join(wrong)}".strip(), remedy)
