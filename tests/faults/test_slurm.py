"""``sbatch launch/slurm.sh`` on a real Slurm with two nodes, both on this host.

Not proved here: GPUs of Slurm, containers, nodes with an address each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.faults.processes import processes_with
from tests.killed_runs import SMALL, beyond_loopback, steps_of, text_of
from tests.local_slurm import ENDED, LocalSlurm, local_slurm, why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

REPOSITORY = Path(__file__).parents[2]
SCRIPT = "launch/slurm.sh"
SETTINGS = {"VENV": str(Path(sys.prefix)), "DEVICES": "1", "OBJECT_STORE": "200000000", "OMP_NUM_THREADS": "1"}
SHOW_CLUSTER = """
import os, sys
from pathlib import Path
import ray
ray.init(address="auto", log_to_driver=False)
print("NODES", *sorted(node["NodeName"] for node in ray.nodes() if node["Alive"]))
print("MODE", oct(Path(os.environ["RAY_AUTH_TOKEN_PATH"]).stat().st_mode & 0o777))
sys.exit(7)
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSlurm]:
    with local_slurm(tmp_path_factory.mktemp("slurm") / "s") as started:
        yield started


def files_of(job: str) -> str:
    """The folder of its Ray."""
    return f"/tmp/longshort-{os.getuid()}-{job}"


def check_nothing_is_left(job: str) -> None:
    """No process of the job's Ray, and none of its files."""
    folder = files_of(job)
    deadline = time.monotonic() + 60
    while alive := processes_with(folder):
        assert time.monotonic() < deadline, f"left behind: {alive}"
        time.sleep(1)
    assert not Path(folder).exists()


def wait_until(reached: Callable[[], bool], slurm: LocalSlurm, job: str, log: Path) -> None:
    """While the job goes on."""
    deadline = time.monotonic() + 600
    while not reached():
        assert slurm.fields(job)["JobState"] not in ENDED, text_of(log)[-3000:]
        assert time.monotonic() < deadline, text_of(log)[-3000:]
        time.sleep(0.1)


def test_every_node_joins_with_the_jobs_own_token_and_the_exit_code_comes_back(
    slurm: LocalSlurm, tmp_path: Path
) -> None:
    program = tmp_path / "show.py"
    program.write_text(SHOW_CLUSTER)
    log = tmp_path / "job.log"
    job = slurm.submit(REPOSITORY, log, "--nodes=2", SCRIPT, PROGRAM=f"python {program}", **SETTINGS)
    fields = slurm.wait(job, 300)
    assert fields["ExitCode"] == "7:0", text_of(log)[-3000:]
    assert "NODES n1 n2" in text_of(log)
    assert "MODE 0o600" in text_of(log)
    check_nothing_is_left(job)


def test_a_job_of_one_node_listens_on_loopback_only(slurm: LocalSlurm, tmp_path: Path) -> None:
    folder, log = tmp_path / "run", tmp_path / "job.log"
    overrides = [*SMALL, "trainer.total_training_steps=3", f"trainer.default_local_dir={folder}"]
    settings = {**SETTINGS, "DEVICES": "2"}
    job = slurm.submit(REPOSITORY, log, "--nodes=1", SCRIPT, "train", *overrides, **settings)
    wait_until(lambda: '"step": 1' in text_of(folder / "metrics.jsonl"), slurm, job, log)
    # Slurm's own programs are reached by its controller.
    numbers = [int(line.split()[0]) for line in processes_with(files_of(job)) if "srun" not in line]
    listening = [psutil.Process(number) for number in numbers if psutil.pid_exists(number)]
    assert {"gcs_server", "raylet"} <= {process.name() for process in listening}
    assert not beyond_loopback(listening)
    fields = slurm.wait(job, 600)
    assert (fields["JobState"], fields["ExitCode"]) == ("COMPLETED", "0:0"), text_of(log)[-3000:]
    check_nothing_is_left(job)


def test_a_run_that_is_asked_to_stop_saves_requeues_itself_and_goes_on(slurm: LocalSlurm, tmp_path: Path) -> None:
    folder, log = tmp_path / "run", tmp_path / "job.log"
    overrides = [
        *SMALL,
        "trainer.total_training_steps=6",
        f"trainer.default_local_dir={folder}",
    ]
    job = slurm.submit(REPOSITORY, log, "--nodes=2", SCRIPT, "train", *overrides, **SETTINGS)
    wait_until(lambda: '"step": 1' in text_of(folder / "metrics.jsonl"), slurm, job, log)
    assert len(processes_with(files_of(job))) > 8, "two nodes, two engines, two trainers and the run itself"
    # As --signal=B:USR1@… has it sent ahead of the time limit.
    subprocess.run(["scancel", "--batch", "--signal=USR1", job], env=slurm.environment, check=True)
    fields = slurm.wait(job, 600)
    assert (fields["JobState"], fields["ExitCode"]) == ("COMPLETED", "0:0"), text_of(log)[-3000:]
    assert fields["Restarts"] == "1"
    assert "as asked" in text_of(log)
    assert "resuming from" in text_of(log)
    lines = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines == list(range(1, 7)), "no step is lost, and none is taken twice"
    assert sorted(steps_of(folder)) == lines
    check_nothing_is_left(job)


def test_ahead_of_its_time_limit_a_run_requeues_itself_and_goes_on_with_the_same_wandb_run(
    slurm: LocalSlurm, tmp_path: Path
) -> None:
    folder, log = tmp_path / "run", tmp_path / "job.log"
    overrides = [
        *SMALL,
        "trainer.total_training_steps=1000",
        "trainer.logger=[wandb]",
        f"trainer.default_local_dir={folder}",
    ]
    # Slurm counts in minutes, and signals up to one of them early: 180 to 240 s after the start. A slow machine needs
    # two minutes for its first step, and where there is none, another allocation of as long has none either.
    limits = ("--time=5", "--signal=B:USR1@60")
    offline = {"WANDB_MODE": "offline", **SETTINGS}
    job = slurm.submit(REPOSITORY, log, "--nodes=2", *limits, SCRIPT, "train", *overrides, **offline)
    wait_until(lambda: "requeues itself" in text_of(log), slurm, job, log)
    before = len(steps_of(folder))
    wait_until(lambda: len(steps_of(folder)) > before, slurm, job, log)
    subprocess.run(["scancel", job], env=slurm.environment, check=True)
    fields = slurm.wait(job, 200)
    assert (fields["JobState"], fields["Restarts"]) == ("CANCELLED", "1"), text_of(log)[-3000:]
    lines = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines == list(range(1, len(lines) + 1)), "no step is lost, and none is taken twice"
    written = sorted((folder / "wandb").glob("offline-run-*"))
    assert len(written) == 2
    assert len({run.name.rpartition("-")[2] for run in written}) == 1, "they are one run of wandb"
    check_nothing_is_left(job)
