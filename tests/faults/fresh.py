"""Faults that end a run, or that it finds when it begins."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from longshort import checkpoints, manifest
from tests.faults.processes import in_a_session, kill_with_children
from tests.faults.runs import LONG_S, STEPS, Scene, SkippedError
from tests.killed_runs import children_of, left_behind, text_of
from tests.ports import free_port

REPOSITORY = Path(__file__).parents[2]


def trainer_rank_killed(scene: Scene) -> str:
    run = scene.run().start()
    run.until_step(scene.rng.randint(1, 3))
    time.sleep(scene.rng.uniform(0, 2))
    ranks = [process for process, name in run.look().items() if name.startswith("ray::PolicyWorker")]
    assert ranks, "it has no training workers"
    scene.rng.choice(ranks).kill()
    run.fails_with_a_sentence("of policy")
    assert "of policy" in run.output().splitlines()[-1], run.output()[-1500:]
    run.goes_on()
    return "ended with the policy's name, code 1; went on"


def driver_killed(scene: Scene) -> str:
    run = scene.run().start()
    run.until(lambda: run.folder.is_dir())
    time.sleep(scene.rng.uniform(0, 75))
    if run.process.poll() is None:
        run.kill()
    run.goes_on()
    return "went on from the last complete pair"


def killed_in_a_save(scene: Scene) -> str:
    run, step = scene.run().start(), scene.rng.randint(1, STEPS)
    partial, whole = run.folder / f".global_step_{step}.partial", run.folder / f"global_step_{step}"
    windows: dict[str, Callable[[], bool]] = {
        "as it begins": partial.is_dir,
        "between the policies": lambda: (partial / "short").is_dir() or whole.is_dir(),
        "before the manifest": lambda: (partial / "state.json").is_file() or whole.is_dir(),
        "after the rename": whole.is_dir,
    }
    name = scene.rng.choice(sorted(windows))
    run.until(windows[name])
    time.sleep(scene.rng.uniform(0, 0.02))
    run.kill()
    run.goes_on()
    return f"killed {name}: went on"


def one_policy_saved(scene: Scene) -> str:
    run = scene.finished()
    policy = scene.rng.choice(["long", "short"])
    shutil.rmtree(run.folder / "global_step_3" / policy)
    run.goes_on(4)
    assert "global_step_2" in run.output(), "it did not go back to the complete pair"
    return f"without {policy}: went back to the complete pair"


def shard_truncated(scene: Scene) -> str:
    run = scene.finished()
    shards = sorted((run.folder / "global_step_3").rglob("*.safetensors")) + sorted(
        (run.folder / "global_step_3").rglob("*.distcp")
    )
    shard = scene.rng.choice(shards)
    os.truncate(shard, scene.rng.randrange(shard.stat().st_size))
    run.goes_on(4)
    assert "global_step_2" in run.output(), "it did not go back to the whole checkpoint"
    return "went back to the whole checkpoint"


def byte_flipped(scene: Scene) -> str:
    run = scene.finished()
    shard = scene.rng.choice(sorted((run.folder / "global_step_3").rglob("*.safetensors")))
    data = bytearray(shard.read_bytes())
    data[scene.rng.randrange(len(data))] ^= 1 << scene.rng.randrange(8)
    shard.write_bytes(data)
    run.goes_on(4)
    assert "damaged" in run.output(), "it did not say so"
    return "found by its checksum; went back"


def manifest_truncated(scene: Scene) -> str:
    run = scene.finished()
    (manifest,) = (run.folder / "global_step_3").glob("manifest*")
    os.truncate(manifest, scene.rng.randrange(manifest.stat().st_size))
    run.goes_on(4)
    assert "global_step_2" in run.output(), "it did not go back to the whole checkpoint"
    return "went back to the whole checkpoint"


def disk_full(scene: Scene) -> str:
    checkpoint = scene.finished().folder / "global_step_1"
    size = sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file())
    full = scene.run("full")
    full.folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={int(2.5 * size)}", "tmpfs", str(full.folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        raise SkippedError("a tmpfs cannot be mounted here")
    try:
        full.start().fails_with_a_sentence("could not be written")
        assert not list(full.folder.glob("*.partial")), "a partial checkpoint is left"
        kept = checkpoints.latest(full.folder)
        assert kept is not None, "no complete checkpoint is left"
        for each in checkpoints.steps(full.folder):
            wrong = manifest.damage(checkpoints.folder_of(full.folder, each), checksums=True)
            assert wrong is None, f"step {each}: {wrong}"
        return f"ended with a sentence, code 1; {kept.name} intact"
    finally:
        subprocess.run(["umount", "--lazy", str(full.folder)], check=False)


def terminated(scene: Scene) -> str:
    run = scene.run().start()
    run.until_step(scene.rng.randint(1, 3))
    time.sleep(scene.rng.uniform(0, 2))
    run.look()
    run.process.send_signal(signal.SIGTERM)
    run.ends_with(143, saying="terminated")
    run.goes_on()
    return "code 143; went on"


def asked_to_stop(scene: Scene) -> str:
    run = scene.run().start(steps=30)
    run.until_step(scene.rng.randint(1, 3))
    time.sleep(scene.rng.uniform(0, 2))
    run.look()
    run.process.send_signal(signal.SIGUSR1)
    run.ends_with(75)
    steps = max(int(folder.name.rsplit("_", 1)[1]) for folder in run.folder.glob("global_step_*"))
    run.goes_on(steps + 1)
    return "saved, code 75; went on"


def wandb_unreachable(scene: Scene) -> str:
    run = scene.run(WANDB_BASE_URL="http://127.0.0.1:9", WANDB_INIT_TIMEOUT="10").start(
        "trainer.logger=[wandb]", steps=2
    )
    run.ends_with(0, saying="the run is written offline")
    assert list((run.folder / "wandb").glob("offline-run-*")), "nothing was written offline"
    run.trained_once(2)
    return "trained on, written offline"


def two_runs_on_one_machine(scene: Scene) -> str:
    runs = [scene.run(name).start(steps=2) for name in ("a", "b")]
    for run in runs:
        run.ends_with(0)
        run.trained_once(2)
    return "both finished"


def two_runs_on_one_folder(scene: Scene) -> str:
    first = scene.run().start(steps=2)
    first.until(lambda: (first.folder / "config.yaml").is_file())
    second = scene.run("second")
    second.folder = first.folder
    second.log = scene.folder / "run.log"
    second.start(steps=2).ends_with(2)
    first.ends_with(0)
    first.trained_once(2)
    return "the second was refused, code 2; the first finished"


def head_killed(scene: Scene) -> str:
    temp = Path("/tmp") / f"lsf-{secrets.token_hex(3)}"
    temp.mkdir(mode=0o700)
    token = temp / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    # Else Ray replaces 127.0.0.1 by the address of a network card.
    loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), **loopback}
    port, clients = free_port(), free_port()
    ray = [str(Path(sys.prefix) / "bin" / "ray"), "start", "--head", "--block", f"--port={port}"]
    ray += ["--node-ip-address=127.0.0.1", f"--ray-client-server-port={clients}", f"--temp-dir={temp}/ray"]
    ray += ["--num-gpus=2", "--num-cpus=32", "--include-dashboard=false"]
    ray += ["--object-store-memory=200000000", "--disable-usage-stats"]
    with (temp / "log").open("w") as log:
        head = subprocess.Popen(ray, env={**os.environ, "OMP_NUM_THREADS": "1", **own}, stdout=log, stderr=log)
    parts: dict[psutil.Process, str] = {}
    try:
        _until_it_listens(port, head, temp / "log")
        run = scene.run(RAY_ADDRESS=f"127.0.0.1:{port}", **own).start()
        run.until_step(2)
        parts = children_of(head.pid)
        servers = [process for process, name in parts.items() if name == "gcs_server"]
        assert servers, f"the head has no gcs_server: {sorted(parts.values())}"
        for server in servers:
            server.kill()
        assert run.end() != 0, "it did not notice"
        assert run.says("Ray's head at") and run.says("is gone"), f"it does not say what died: {run.output()[-1500:]}"
        head.wait(LONG_S)
        scene.findings.orphans += left_behind(parts, LONG_S)
        run.variables = {}
        run.goes_on()
        return "ended with a sentence, code not 0; went on with another Ray"
    finally:
        kill_with_children(head, parts)
        shutil.rmtree(temp, ignore_errors=True)


def _until_it_listens(port: int, head: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + LONG_S
    while True:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        assert head.poll() is None and time.monotonic() < deadline, text_of(log)[-1500:]
        time.sleep(0.2)


def _by_test(node: str, limit_s: float) -> Callable[[Scene], str]:
    """A fault that a test of its own injects; ``limit_s`` is above the limits of the tests in its file."""

    def case(scene: Scene) -> str:
        command = [sys.executable, "-m", "pytest", f"tests/faults/{node}", "-rs", f"--basetemp={scene.folder}/t"]
        done = in_a_session(command, REPOSITORY, limit_s)
        assert done.returncode == 0, done.stdout[-1500:]
        if re.search(r"\d+ passed", done.stdout) is None:
            reason = re.search(r"^SKIPPED \[\d+\] \S+ (.*)", done.stdout, re.MULTILINE)
            raise SkippedError(reason[1] if reason else done.stdout[-300:])
        return "as its test says"

    return case


# By name, with how often they are among the fresh ones when all are drawn.
CASES: dict[str, tuple[Callable[[Scene], str], int]] = {
    "trainer rank killed": (trainer_rank_killed, 2),
    "controller killed": (driver_killed, 3),
    "killed in a save": (killed_in_a_save, 4),
    "one policy of a pair saved": (one_policy_saved, 1),
    "shard truncated": (shard_truncated, 1),
    "shard with another bit": (byte_flipped, 1),
    "manifest truncated": (manifest_truncated, 1),
    "disk full": (disk_full, 1),
    "SIGTERM": (terminated, 1),
    "SIGUSR1": (asked_to_stop, 1),
    "ray job stop": (_by_test("test_ray_job.py", 1500), 1),
    "Ray head killed": (head_killed, 1),
    "Slurm: two nodes, stop, requeue": (_by_test("test_slurm.py", 2100), 1),
    "node of two lost": (_by_test("test_two_nodes.py", 8700), 1),
    "wandb unreachable": (wandb_unreachable, 1),
    "two runs on one machine": (two_runs_on_one_machine, 1),
    "two runs on one folder": (two_runs_on_one_folder, 1),
}
