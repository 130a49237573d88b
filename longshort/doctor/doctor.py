"""All checks in a row; and those that a run makes by itself before it starts anything."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import psutil
from omegaconf import DictConfig

from longshort.demand import settle_placement
from longshort.display import Display
from longshort.doctor.check import Check, Level
from longshort.doctor.cluster import check_cluster
from longshort.doctor.fit import GIB, Member, check_fit, read_members
from longshort.doctor.machine import (
    Gpu,
    check_disk,
    check_gpus,
    check_packages,
    check_ports,
    check_python,
    check_wandb,
    find_gpus,
)

log = logging.getLogger(__name__)

COLUMNS = ("", "check", "found", "remedy")


def doctor(config: DictConfig, display: Display, gpu_gib: float | None = None) -> bool:
    """Show every check; whether none failed. ``gpu_gib``: memory of a GPU to reckon with instead of this machine's."""
    from workers import team

    team.configure_environment(config.trainer.device)
    device, gpus = config.trainer.device, find_gpus()
    display.stage("looking at this machine")
    checks = [check_python()]
    if gpu_gib is None:
        checks += check_packages(device)
    members: list[Member] = []
    try:
        settle_placement(config)
        members = read_members(config)
    except (OSError, ValueError) as error:
        remedy = "correct policies.<name>.model.path, or bring the model here"
        checks.append(Check("models", Level.FAIL, " ".join(str(error).split())[:200], remedy))
    except Exception as error:  # a model may lack whatever the estimate asks of it
        found = f"memory cannot be estimated ({type(error).__name__}: {error})"
        checks.append(Check("models", Level.WARN, found, "look whether policies.<name>.model.path is what was meant"))
    needed = slots(config) if members else 0
    joins = team.joins_a_cluster()
    if gpu_gib is None and not joins:
        checks += check_gpus(device, needed, gpus)
    ports = check_ports(os.environ)
    checks += [*ports, *check_disk(config, members), check_wandb(config)]
    if members:
        checks += _memory(config, members, gpus, gpu_gib)
    # Where its port does not answer, joining it would fail later and say less.
    if joins and all(check.level is not Level.FAIL for check in ports):
        display.stage("asking the nodes of the cluster")
        checks += check_cluster(config, needed * config.trainer.nnodes)
    show(checks, display)
    return all(check.level is not Level.FAIL for check in checks)


def warn_before_start(config: DictConfig, display: Display) -> None:
    """Show what may not fit, where the GPUs are known; an estimate stops no run. Without GPUs it costs nothing."""
    if config.trainer.device == "cpu":
        return
    gpus = find_gpus()
    if not gpus:
        return
    try:
        members = read_members(config)
        checks = [*_memory(config, members, gpus, None), *check_disk(config, members)]
    except Exception as error:
        log.warning("no estimate of memory and disk (%s: %s); the run starts without", type(error).__name__, error)
        return
    doubts = [check for check in checks if check.level is not Level.OK]
    if doubts:
        show(doubts, display, "an estimate before anything starts")


def slots(config: DictConfig) -> int:
    """GPUs of one node that the policies need together."""
    counts = config.placement.n_gpus_per_node.values()
    return int(max(counts) if config.placement.mode == "colocated" else sum(counts))


def show(checks: Sequence[Check], display: Display, title: str = "doctor") -> None:
    """As a table."""
    display.table(title, COLUMNS, [(check.level.value, check.name, check.found, check.remedy) for check in checks])


def _memory(config: DictConfig, members: Sequence[Member], gpus: Sequence[Gpu], gib: float | None) -> list[Check]:
    if gib is not None:
        memory = gib * GIB
    elif config.trainer.device == "cpu":
        # Device slots are processes that share what the machine has.
        memory = psutil.virtual_memory().total / slots(config)
    elif gpus:
        memory = float(min(gpu.memory for gpu in gpus))
    else:
        return [Check("memory", Level.WARN, "no GPU here to reckon with", "say how large one is: --gpu-memory GIB")]
    return check_fit(config, members, memory)
