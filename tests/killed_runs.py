"""Runs in processes of their own that are killed, and what they left."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from zlib import crc32

import psutil

from longshort.data import ProblemOrder
from longshort.playground import generate_problems
from workers.naming import SOCKET_VARIABLE

# They look for their raylet once a minute, and leave then.
RAYS_AGENTS = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}
GONE_S = 60
OF_THIS_PROCESS = {"RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"}
DETERMINISTIC = [
    "actor_rollout_ref.rollout.max_num_seqs=1",
    "actor_rollout_ref.rollout.enable_prefix_caching=false",
    "actor_rollout_ref.rollout.n=4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=2",
    "data.train_batch_size=2",
    "trainer.save_freq=1",
]
# A run whose steps take a second or two.
SMALL = [
    "data.train_files=[playground:train:64:0]",
    "data.val_files=[]",
    "data.train_batch_size=4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    "actor_rollout_ref.rollout.n=4",
]
Moment = Callable[[Path], bool]


def environment_of_a_shell() -> dict[str, str]:
    """Without the cluster of this process, and without what importing ``workers`` set for its own."""
    return {name: value for name, value in os.environ.items() if name not in OF_THIS_PROCESS}


def text_of(file: Path) -> str:
    """Its text, empty where it is not there yet."""
    return file.read_text() if file.is_file() else ""


def start(
    folder: Path, recipe: str, overrides: Sequence[str], variables: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """``longshort train`` into ``folder``, its output in a file beside it; ``variables`` join the environment."""
    command = [sys.executable, "-m", "longshort.train", "--config-name", recipe, *overrides]
    with (folder.parent / f"{folder.name}.log").open("a") as log:
        return subprocess.Popen(
            [*command, f"trainer.default_local_dir={folder}"],
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(variables or {})},
        )


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL of the driver; all that it started has to be gone soon after."""
    started = children_of(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = left_behind(started)
    assert not left, f"left behind: {left}"


def name_of(process: psutil.Process) -> str:
    """Empty where it has just ended."""
    try:
        return process.name().strip()
    except psutil.NoSuchProcess:
        return ""


def children_of(pid: int) -> dict[psutil.Process, str]:
    """All that ``pid`` started and what that started, by name; empty where it has ended."""
    try:
        return {child: name_of(child) for child in psutil.Process(pid).children(recursive=True)}
    except psutil.NoSuchProcess:
        return {}


def still_alive(processes: Iterable[psutil.Process], within_s: float) -> list[psutil.Process]:
    """Those that have not ended by then, whether anybody has asked for their exit code or not."""
    deadline, alive = time.monotonic() + within_s, list(processes)
    while (alive := [each for each in alive if _lives(each)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return alive


def left_behind(started: Mapping[psutil.Process, str], within_s: float = GONE_S) -> list[str]:
    """Names of those that have not ended by then, Ray's agents left out; they are killed."""
    names = []
    for process in still_alive([each for each, name in started.items() if name not in RAYS_AGENTS], within_s):
        # An agent may not have had its name yet.
        if (name := name_of(process)) and name not in RAYS_AGENTS:
            names.append(name)
            with suppress(psutil.NoSuchProcess):
                process.kill()
    return names


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def beyond_loopback(processes: Iterable[psutil.Process]) -> set[str]:
    """Listening sockets that another machine could reach."""
    found = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            for connection in process.net_connections("inet"):
                if connection.status != psutil.CONN_LISTEN:
                    continue
                address = ipaddress.ip_address(connection.laddr.ip)
                address = getattr(address, "ipv4_mapped", None) or address
                if not address.is_loopback:
                    found.add(f"{name_of(process)} on {connection.laddr.ip}:{connection.laddr.port}")
    return found


def engine_cores(pid: int, policy: str = "") -> list[psutil.Process]:
    """The processes of vLLM's cores that ``pid`` has started, all or one policy's."""
    found = []
    for child, name in children_of(pid).items():
        with suppress(psutil.NoSuchProcess):
            if "EngineCore" not in " ".join([name, *child.cmdline()]):
                continue
            if not policy or f"-{policy}-" in child.environ().get(SOCKET_VARIABLE, ""):
                found.append(child)
    return found


def check_trained_once(folder: Path, problems: int, batch: int, steps: int) -> None:
    """Every step was trained on its own data: of ``playground:train:<problems>:1``, in their order."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    # Where a step appears twice, the last line is the valid one.
    trained = {line["step"]: line["data/checksum"] for line in lines if "data/checksum" in line}
    order = ProblemOrder(generate_problems(problems, 1, "train"), seed=0)
    expected = [crc32(" ".join(problem.id for problem in order.take(batch)).encode()) for _ in range(steps)]
    assert [trained[step] for step in sorted(trained)] == expected, f"steps {sorted(trained)}"


def steps_of(folder: Path) -> dict[int, dict[str, float]]:
    """By step, the last line of the log, without times, speeds and memory."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        line["step"]: {key: value for key, value in line.items() if not re.search("time|per_s$|perf/|mfu$", key)}
        for line in lines
        if "reward/mu" in line
    }


def check_exact(tmp_path: Path, recipe: str, overrides: Sequence[str], moments: Sequence[Moment]) -> None:
    """A run that is killed at every moment and started again writes what an undisturbed one beside it writes."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    settings = [*DETERMINISTIC, *overrides]
    undisturbed = start(whole, recipe, settings)
    for reached in moments:
        process, deadline = start(killed, recipe, settings), time.monotonic() + 400
        while not reached(killed):
            assert process.poll() is None, text_of(tmp_path / "killed.log")[-3000:]
            assert time.monotonic() < deadline, "the moment does not come"
            time.sleep(0.05)
        kill(process)
    assert start(killed, recipe, settings).wait() == 0, text_of(tmp_path / "killed.log")[-3000:]
    assert undisturbed.wait() == 0, text_of(tmp_path / "whole.log")[-3000:]
    assert text_of(tmp_path / "killed.log").count("resuming from") >= len(moments)
    wanted, found = steps_of(whole), steps_of(killed)
    assert sorted(found) == sorted(wanted) == list(range(1, len(wanted) + 1))
    for step in wanted:
        assert found[step] == wanted[step], f"step {step}"
    records = [json.loads((folder / "rounds.json").read_text())["rounds"] for folder in (whole, killed)]
    assert records[0] == records[1]
