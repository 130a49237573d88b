"""The launchers without Ray or Slurm: what they would do, what they refuse, and the parts that are Python.

Not proved here: that Slurm and Ray take it (``tests/faults/test_slurm.py``, ``tests/faults/test_ray_job.py``).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import ray
from omegaconf import OmegaConf

from workers import job_end
from workers.cluster import missing
from workers.job_end import exit_code
from workers.upload import check_size, files_that_travel
from workers.upload import main as upload

LAUNCH = Path(__file__).parents[2] / "launch"
REPOSITORY = LAUNCH.parent
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
DASHBOARD = {"RAY_API_SERVER_ADDRESS": "http://h:1"}
COLDSTART = ("coldstart", "distill", "chunk", "score", "synthesize")
# Of slurm.sh, for job 7.
JOB, PORT = "7", 10240 + 7 * 256
SRUN = f"""#!{sys.executable}
import socket, sys, time
sys.stdin.read()
if "--head" in sys.argv:
    server = socket.create_server(("127.0.0.1", {PORT}))
    time.sleep(60)
"""


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
        ("ray_job.sh", ["train", "trainer.default_local_dir=a"], DASHBOARD, "=a is not"),
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


@pytest.mark.parametrize(
    "word",
    [
        "+policies.long.model.api_key=planted-0123",
        "data.train_files=[https://me:pw@host/a.json]",
        "x=planted-in-the-shell",
    ],
)
def test_a_secret_in_a_jobs_command_is_named_and_not_shown(
    word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_TOKEN", "planted-in-the-shell")
    assert upload([str(REPOSITORY), "train", "trainer.save_freq=1", word]) == 1
    said = capsys.readouterr().err
    assert "(hidden)" in said and "`ray job list` would show" in said
    assert "planted" not in said and "pw" not in said


def test_a_command_that_names_where_a_secret_is_travels(capsys: pytest.CaptureFixture[str]) -> None:
    assert upload([str(REPOSITORY), "train", "--config-name", "local", "+a.api_key='${oc.env:MY_KEY}'", "a.b=[c]"]) == 0
    assert "files travel" in capsys.readouterr().err


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


OUTPUTS = [
    *[(command, "trainer.default_local_dir=") for command in ("train", "sft", "demo")],
    *[(command, "coldstart.folder=") for command in COLDSTART],
    *[(command, "evaluation.folder=") for command in ("evaluate", "behaviour")],
    *[(command, "--out=") for command in ("reproduce", "data", "report")],
]


@pytest.mark.parametrize(("command", "key"), OUTPUTS)
def test_a_job_writes_nowhere_but_where_it_outlives_the_job(command: str, key: str) -> None:
    for given, last in (([], ""), (["outputs/a"], "outputs/a"), (["/shared/a", "a"], "a"), ([""], "")):
        done = launch("ray_job.sh", "--dry-run", command, *[f"{key}{each}" for each in given], **DASHBOARD)
        assert done.returncode == 2
        assert f" {key}{last} is not an absolute path; " in done.stderr
    assert launch("ray_job.sh", "--dry-run", command, f"x{key}/shared/a", **DASHBOARD).returncode == 2
    assert launch("ray_job.sh", "--dry-run", command, f"{key}a", f"{key}/shared/a", **DASHBOARD).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "+trainer.default_local_dir=/shared/a=b"],
        ["coldstart", "++coldstart.folder=/shared/a", "--config-name", "mine"],
        ["reproduce", "playground", "--out", "a", "--out", "/shared/a b"],
        ["doctor"],
        ["status", "outputs/a"],
    ],
)
def test_a_job_may_spell_its_folder_as_hydra_and_argparse_do_and_others_need_none(arguments: list[str]) -> None:
    done = launch("ray_job.sh", "--dry-run", *arguments, **DASHBOARD)
    assert done.returncode == 0, done.stderr


def test_the_folders_that_a_job_must_name_are_those_of_the_recipes_and_of_the_command_line() -> None:
    from longshort.cli import _parser
    from longshort.config import build_config

    config = build_config("local")
    for key in {key.rstrip("=") for _, key in OUTPUTS if not key.startswith("--")}:
        assert str(OmegaConf.select(config, key)).startswith("outputs/"), key
    for command in (["reproduce", "playground"], ["data", "math"], ["report", "a"]):
        assert str(_parser().parse_args([*command, "--out", "b"]).out) == "b"


@pytest.fixture
def slurm_of_one_node(tmp_path: Path) -> dict[str, str]:
    """A Slurm whose srun starts nothing, but for a head that listens; no node ever joins."""
    programs = {"scontrol": "#!/bin/sh\necho n1\n", "srun": SRUN, "python": "#!/bin/sh\nexit 1\n"}
    (tmp_path / "bin").mkdir()
    for name, content in programs.items():
        (tmp_path / "bin" / name).write_text(content)
        (tmp_path / "bin" / name).chmod(0o755)
    job = {"SLURM_JOB_ID": JOB, "SLURM_JOB_NODELIST": "n1", "ADDRESS": "127.0.0.1", "TMP_ROOT": str(tmp_path)}
    return {**job, "VENV": str(tmp_path), "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}


def test_a_job_whose_port_is_taken_says_so_and_starts_nothing(slurm_of_one_node: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", PORT)):
        done = launch("slurm.sh", "train", **slurm_of_one_node)
    assert done.returncode == 1
    assert done.stderr == f"slurm.sh: port {PORT} of n1 is taken by another program; submit the job again\n"


def test_a_job_whose_nodes_do_not_join_says_so_and_leaves_nothing(slurm_of_one_node: dict[str, str]) -> None:
    done = launch("slurm.sh", "train", **slurm_of_one_node)
    assert done.returncode == 1
    (last,) = done.stderr.splitlines()[1:]
    assert last == f"slurm.sh: the nodes did not join Ray at 127.0.0.1:{PORT}; the output above says why"
    with socket.socket() as free:
        assert free.connect_ex(("127.0.0.1", PORT)) != 0


class Dashboard(ThreadingHTTPServer):
    """Ray's, of one job; ``answer`` gives the job's status, None where there is no such job, or fails."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: Callable[[], str | None] = lambda: "RUNNING"
        self.asked = 0

    def go_away(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Dashboard

    def do_GET(self) -> None:
        code, content = 200, {"ray_version": ray.__version__}
        if self.path.startswith("/api/jobs/"):
            self.server.asked += 1
            status = self.server.answer()
            code = 200 if status else 404
            content = {"type": "SUBMISSION", "entrypoint": "x", "status": str(status), "message": "why"}
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def dashboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dashboard]:
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(job_end, "ANSWER_S", 0.5)
    monkeypatch.setattr(job_end, "PATIENCE_S", 2.0)
    with Dashboard() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", f"http://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()


def test_a_job_is_waited_for_over_answers_that_fail(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # More time than the answers need on a busy machine.
    monkeypatch.setattr(job_end, "ANSWER_S", 15.0)
    monkeypatch.setattr(job_end, "PATIENCE_S", 60.0)

    def answer() -> str:
        if dashboard.asked == 2:
            raise ConnectionAbortedError
        return "RUNNING" if dashboard.asked < 3 else "FAILED"

    monkeypatch.setattr(dashboard, "handle_error", lambda *arguments: None)
    dashboard.answer = answer
    assert job_end.main(["j"]) == 1
    assert capsys.readouterr().err == "job j: FAILED, exit code 1: why\n"


@pytest.mark.parametrize("how", ["goes away", "falls silent", "forgets the job"])
def test_a_cluster_that_is_lost_ends_the_wait_for_a_job_with_a_sentence(
    dashboard: Dashboard, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = threading.Event()

    def answer() -> str | None:
        if dashboard.asked > 1:
            if how == "falls silent":
                lost.wait(60)
            return None
        if how == "goes away":
            threading.Thread(target=dashboard.go_away).start()
        return "RUNNING"

    dashboard.answer = answer
    assert job_end.main(["j"]) == 1
    lost.set()
    assert capsys.readouterr().err == (
        f"job j: the cluster at http://127.0.0.1:{dashboard.server_port} does not answer; the job may go on: "
        "ray job status j\n"
    )
