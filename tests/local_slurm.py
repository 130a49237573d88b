"""A real Slurm on this host: a controller and two nodes in processes of their own, as the user who runs the tests.

Needs Debian's packages slurmctld, slurmd and slurm-client, and root, as slurmd does.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.killed_runs import environment_of_a_shell

NEEDED = ("slurmctld", "slurmd", "sbatch", "srun", "scontrol")
NODES = ("n1", "n2")
# In any other state, as while it is sent a signal, a job goes on.
ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT")
}
CONFIG = """
ClusterName=longshort-tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/none
# A requeued job waits this long.
AuthInfo=cred_expire=5
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
MinJobAge=600
KillWait=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why Slurm cannot run here, or None."""
    absent = [name for name in NEEDED if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} not found: apt-get install slurmctld slurmd slurm-client"
    return None if os.geteuid() == 0 else "slurmd runs as root only"


@dataclass(frozen=True)
class LocalSlurm:
    folder: Path
    environment: Mapping[str, str]

    def ask(self, *command: str) -> str:
        """What a command of Slurm prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def submit(self, repository: Path, output: Path, *arguments: str, **environment: str) -> str:
        """``sbatch``, from ``repository``; returns the job's number."""
        done = subprocess.run(
            ["sbatch", "--parsable", f"--output={output}", *arguments],
            cwd=repository,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def fields(self, job: str) -> dict[str, str]:
        """What ``scontrol show job`` says, as JobState, ExitCode, Restarts."""
        pairs = (field.partition("=") for field in self.ask("scontrol", "show", "job", job).split())
        return {name: value for name, _, value in pairs}

    def wait(self, job: str, timeout_s: float) -> dict[str, str]:
        """Until it is over; its fields then."""
        deadline = time.monotonic() + timeout_s
        while (fields := self.fields(job))["JobState"] not in ENDED:
            assert time.monotonic() < deadline, f"job {job} is still {fields['JobState']}"
            time.sleep(1)
        return fields


@contextmanager
def local_slurm(folder: Path) -> Iterator[LocalSlurm]:
    """Start it, and end it with all its processes."""
    (folder / "state").mkdir(parents=True)
    ports = _free_ports(3)
    config = folder / "slurm.conf"
    config.write_text(
        CONFIG.format(
            host=socket.gethostname(),
            folder=folder,
            port=ports[0],
            first=ports[1],
            last=ports[2],
            cpus=os.cpu_count(),
        )
    )
    environment = {**environment_of_a_shell(), "SLURM_CONF": str(config)}
    daemons = [
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for command in (["slurmctld", "-D"], *(["slurmd", "-D", "-N", node] for node in NODES))
    ]
    slurm = LocalSlurm(folder, environment)
    try:
        _until_idle(slurm)
        yield slurm
    finally:
        _cancel_all(slurm)
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(30)


def _cancel_all(slurm: LocalSlurm) -> None:
    """A job that is left, as by a failed test, would outlive its nodes."""
    subprocess.run(["scancel", "--user=root"], env=slurm.environment, check=False)
    deadline = time.monotonic() + 60
    while slurm.ask("squeue", "--noheader").strip() and time.monotonic() < deadline:
        time.sleep(1)


def _until_idle(slurm: LocalSlurm) -> None:
    deadline = time.monotonic() + 60
    while True:
        done = subprocess.run(["sinfo", "-hNo", "%T"], env=slurm.environment, capture_output=True, text=True)
        if done.stdout.split() == ["idle"] * len(NODES):
            return
        assert time.monotonic() < deadline, f"no nodes: {done.stdout}{done.stderr}"
        time.sleep(0.5)


def _free_ports(count: int) -> list[int]:
    """Free ports in a row."""
    for first in range(17821, 20000, count):
        sockets = []
        try:
            for port in range(first, first + count):
                sockets.append(socket.create_server(("127.0.0.1", port)))
        except OSError:
            continue
        finally:
            for each in sockets:
                each.close()
        return list(range(first, first + count))
    raise AssertionError("no free ports")
