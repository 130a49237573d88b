"""``launch/ray_job.sh`` against a real ``ray start --head`` with token authentication.

The job runs from the sources that travelled. Not proved here: a cluster of several hosts.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.processes import processes_with
from tests.killed_runs import SMALL, environment_of_a_shell, text_of
from tests.planted import PLANTED
from tests.ports import free_port

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """The environment of who submits to it."""
    # Ray's sockets have long names; a folder of pytest is too deep.
    temp = Path(tempfile.mkdtemp(prefix="lsj-", dir="/tmp"))
    token = temp / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    dashboard = free_port()
    environment = {
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
        **{name: value for name, value in environment_of_a_shell().items() if name != "PYTHONPATH"},
        **PLANTED,
        "PATH": os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ["PATH"]]),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "OMP_NUM_THREADS": "1",
    }
    start = ["ray", "start", "--head", "--block", "--num-gpus=2", "--num-cpus=32", "--object-store-memory=200000000"]
    ports = ["port", "ray-client-server-port", "dashboard-agent-listen-port"]
    where = [f"--dashboard-port={dashboard}", f"--temp-dir={temp}/ray", *[f"--{each}={free_port()}" for each in ports]]
    with (temp / "log").open("w") as log:
        head = subprocess.Popen([*start, *where, "--disable-usage-stats"], env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 180
        while True:
            done = subprocess.run(
                ["ray", "job", "submit", "--", "true"], env=environment, capture_output=True, text=True
            )
            if done.returncode == 0:
                break
            assert head.poll() is None and time.monotonic() < deadline, text_of(temp / "log") + done.stderr
        yield environment
    finally:
        head.terminate()
        head.wait(60)
        shutil.rmtree(temp, ignore_errors=True)


def home_of(cluster: dict[str, str]) -> Path:
    """Its head's folder."""
    return Path(cluster["RAY_AUTH_TOKEN_PATH"]).parent


def parts_of_policies(cluster: dict[str, str]) -> list[str]:
    """Its trainers, servers and engines."""
    return [name for name in processes_with(str(home_of(cluster))) if "Policy" in name or "VLLM" in name]


def submit(cluster: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = [str(REPOSITORY / "launch" / "ray_job.sh"), *arguments]
    return subprocess.Popen(command, env=cluster, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_job_that_asks_for_more_than_the_cluster_has_says_so_and_its_exit_code_comes_back(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    process = submit(cluster, "train", "trainer.nnodes=4", f"trainer.default_local_dir={tmp_path / 'run'}")
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 2, output[-3000:]
    assert "trainer.nnodes=4" in output
    assert "Traceback" not in output


def test_the_doctor_asks_the_nodes_of_the_cluster(cluster: dict[str, str], tmp_path: Path) -> None:
    process = submit(cluster, "doctor", "trainer.logger=[]", f"trainer.default_local_dir={tmp_path / 'run'}")
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output[-3000:]
    for name in ("nodes", "models", "packages of the nodes"):
        assert re.search(rf"\bok +{name} ", output), output[-3000:]
    assert not list((tmp_path / "run").iterdir()), "what the nodes looked for is gone"


def test_a_job_is_stopped_and_the_same_command_goes_on_to_the_end(cluster: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = [
        "train",
        *SMALL,
        "trainer.total_training_steps=6",
        "trainer.save_freq=1",
        "trainer.logger=[tensorboard]",
        f"trainer.default_local_dir={folder}",
    ]
    process = submit(cluster, "--id", "stopped", *arguments)
    deadline = time.monotonic() + 400
    while '"step": 2' not in text_of(folder / "metrics.jsonl"):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0][-3000:]
        time.sleep(0.1)
    assert len(parts_of_policies(cluster)) >= 4, "two engines, two trainers"
    subprocess.run(["ray", "job", "stop", "stopped"], env=cluster, check=True, capture_output=True)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output[-3000:]
    deadline = time.monotonic() + 60
    while left := parts_of_policies(cluster):
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.5)
    taken = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    process = submit(cluster, *arguments)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output[-3000:]
    assert "resuming from" in output
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == list(range(1, 7))
    assert len(steps) - 6 <= 1, f"at most the step under way is taken again, after {taken}"
    listed = subprocess.run(["ray", "job", "list"], env=cluster, check=True, capture_output=True, text=True)
    assert "stopped" in listed.stdout + listed.stderr
    (tmp_path / "listed").write_text(output + listed.stdout + listed.stderr)
    files = [f for place in (tmp_path, home_of(cluster) / "ray") for f in place.rglob("*") if f.is_file()]
    assert {"gcs_server.out", "config.yaml", "manifest.json"} <= {file.name for file in files}
    written = {file: file.read_bytes() for file in files}
    assert not [(str(f), n) for f, text in written.items() for n, value in PLANTED.items() if value.encode() in text]
