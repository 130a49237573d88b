"""The launchers without Ray or Slurm: what they would do, what they refuse, and the parts that are Python.

Not proved here: that Slurm and Ray take it (``tests/faults/test_slurm.py``, ``tests/faults/test_ray_job.py``).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from workers.cluster import missing
from workers.job_end import exit_code
from workers.upload import check_size, files_that_travel

LAUNCH = Path(__file__).parents[2] / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))


def launch(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """In an environment without a job or a cluster but for what is given."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "RAY_"))}
    return subprocess.run(
        [str(LAUNCH / script), *arguments], env={**plain, **environment}, capture_output=True, text=True, timeout=30
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_is_sound(script: Path) -> None:
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    shellcheck = Path(sys.executable).with_name("shellcheck")
    if not shellcheck.is_file():
        pytest.skip("shellcheck is not installed; the extra dev has it")
    done = subprocess.run([shellcheck, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_dry_run_shows_a_head_the_other_nodes_and_the_run() -> None:
    done = launch("slurm.sh", "--dry-run", "train", "a=b", SLURM_JOB_NUM_NODES="4", SLURM_JOB_ID="7", DEVICES="8")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    head = next(line for line in lines if "--head" in line)
    others = next(line for line in lines if "--address=" in line)
    assert "--nodes=1 " in head and "--nodelist=node1 " in head and "--num-gpus=8" in head
    assert "--nodes=3 " in others and "node2" in others and "node4" in others
    assert any(line.split()[-2:] == ["train", "a=b"] for line in lines)


def test_one_node_has_no_others() -> None:
    assert "--address=" not in launch("slurm.sh", "--dry-run", "train").stdout


def test_jobs_side_by_side_share_neither_ports_nor_files_and_no_port_is_ephemeral() -> None:
    plans = [
        launch("slurm.sh", "--dry-run", "train", SLURM_JOB_ID=str(job)).stdout.splitlines() for job in (87, 88, 89)
    ]
    words = [plan[1].replace(",", "").split() for plan in plans]
    blocks = [(int(each[1]), int(each[3])) for each in words]
    assert len({first for first, _ in blocks}) == 3
    assert all(10000 < first <= last < 32768 for first, last in blocks)
    assert sorted(blocks)[0][1] < sorted(blocks)[1][0]
    assert len({each[8] for each in words}) == 3


@pytest.mark.parametrize(
    ("image", "started"), [("a.sif", "apptainer exec"), ("nvcr.io/x:1", "--container-image=nvcr.io/x:1")]
)
def test_ray_and_the_run_start_inside_the_container_where_one_is_named(image: str, started: str) -> None:
    lines = launch("slurm.sh", "--dry-run", "train", "a=b", CONTAINER=image).stdout.splitlines()
    for line in lines:
        inside = "--head" in line or "longshort.cli" in line or "workers.cluster" in line
        assert (started in line) == inside, line


@pytest.mark.parametrize(
    ("script", "arguments", "environment", "named"),
    [
        ("slurm.sh", ["train"], {}, "sbatch"),
        ("slurm.sh", ["--dry-run"], {}, "says not what to run"),
        ("ray_job.sh", [], {}, "says not what to run"),
        ("ray_job.sh", ["train"], {}, "RAY_API_SERVER_ADDRESS="),
        ("ray_job.sh", ["train"], {"RAY_API_SERVER_ADDRESS": "head:6379"}, "head:6379"),
        ("ray_job.sh", ["train", "trainer.default_local_dir=a"], {"RAY_API_SERVER_ADDRESS": "http://h:1"}, "=a is not"),
        ("ray_job.sh", ["--id"], {}, "--id wants a name"),
    ],
)
def test_a_user_error_is_one_sentence(
    script: str, arguments: list[str], environment: dict[str, str], named: str
) -> None:
    done = launch(script, *arguments, **environment)
    assert done.returncode == 2
    assert named in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_only_the_package_and_its_recipes_travel() -> None:
    files = files_that_travel(LAUNCH.parent)
    tops = {path.parts[0] for path in files}
    assert tops == {"configs", "launch", "longshort", "pyproject.toml", "setup.py", "workers"}
    assert Path("configs/base.yaml") in files
    check_size(files)


def test_keys_and_checkpoints_do_not_travel_wherever_they_lie(tmp_path: Path) -> None:
    (tmp_path / ".rayignore").write_text((LAUNCH.parent / ".rayignore").read_text())
    wanted, kept = ["longshort/a.py", "configs/b.yaml"], ["longshort/.env", "workers/host.pem", "outputs/w.safetensors"]
    kept += [".git/config", ".venv/bin/python", "data/train.jsonl", "launch/job.log", "shared/x", "longshort/step.pt"]
    for name in [*wanted, *kept]:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    assert sorted(map(str, files_that_travel(tmp_path))) == sorted(wanted)


def test_too_large_a_folder_names_its_largest_files() -> None:
    with pytest.raises(ValueError, match=r"120 MiB.*the largest: b \(80.0 MiB\), a \(40.0 MiB\)"):
        check_size({Path("a"): 40 * 2**20, Path("b"): 80 * 2**20})


def test_nodes_that_do_not_come_are_named_in_order() -> None:
    seen = iter([["n2"], ["n2", "n3"]])
    assert missing(["n1", "n2", "n3"], lambda: next(seen, ["n2", "n3"]), timeout_s=0.02, pause_s=0.01) == ["n1"]
    assert missing(["n1"], lambda: ["n1", "other"], timeout_s=0.0) == []


@pytest.mark.parametrize(
    ("status", "driver", "code"),
    [("SUCCEEDED", 0, 0), ("FAILED", 2, 2), ("FAILED", -9, 137), ("FAILED", None, 1), ("STOPPED", -15, 143)],
)
def test_a_jobs_end_is_an_exit_code_of_the_shell(status: str, driver: int | None, code: int) -> None:
    assert exit_code(status, driver) == code
