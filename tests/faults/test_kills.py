"""SIGKILL of the driver at random moments of a run on the real stack, the same command again after each.

``make test-faults`` runs it, ``make test`` does not: it takes a quarter of an hour. ``LONGSHORT_KILLS`` is how often
it kills.
Not proved here: that the steps equal those of an undisturbed run (``tests/integration/test_rounds.py``).
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from zlib import crc32

import psutil

from longshort.data import ProblemOrder
from longshort.playground import generate_problems

# Ray's agents look for their raylet once a minute.
GONE_S = 150
KILLS = int(os.environ.get("LONGSHORT_KILLS", "20"))
STEPS, BATCH, PROBLEMS = 40, 2, 64
COMMAND = [
    *(sys.executable, "-m", "longshort.train", "--config-name", "local"),
    f"data.train_files=['playground:train:{PROBLEMS}:1']",
    "data.val_files=[]",
    f"data.train_batch_size={BATCH}",
    f"actor_rollout_ref.actor.ppo_mini_batch_size={BATCH}",
    f"trainer.total_training_steps={STEPS // 2}",
    "trainer.save_freq=1",
    "trainer.max_actor_ckpt_to_keep=1",
    "+rounds.a={train: long}",
    "+rounds.b={train: both}",
]


def test_a_run_that_is_killed_again_and_again_ends_and_trains_every_step_once(tmp_path: Path) -> None:
    rng, kills = random.Random(0), 0
    while True:
        with (tmp_path / "log").open("a") as log:
            command = [*COMMAND, f"trainer.default_local_dir={tmp_path / 'run'}"]
            process = subprocess.Popen(command, stdout=log, stderr=log)
            try:
                # A start takes most of this, so both it and the steps are hit.
                process.wait(rng.uniform(1.0, 80.0) if kills < KILLS else None)
                break
            except subprocess.TimeoutExpired:
                kills += 1
                started = psutil.Process(process.pid).children(recursive=True)
                process.send_signal(signal.SIGKILL)
                process.wait()
                _, alive = psutil.wait_procs(started, timeout=GONE_S)
                assert not alive, f"kill {kills} left behind {[child.name() for child in alive]}"
    assert process.returncode == 0, (tmp_path / "log").read_text()[-3000:]
    assert kills == KILLS, "the run was over before it was killed often enough"
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    # Where a step appears twice, the last line is the valid one.
    trained = {line["step"]: line["data/checksum"] for line in lines if "data/checksum" in line}
    order = ProblemOrder(generate_problems(PROBLEMS, 1, "train"), seed=0)
    expected = [crc32(" ".join(problem.id for problem in order.take(BATCH)).encode()) for _ in range(STEPS)]
    assert [trained[step] for step in sorted(trained)] == expected
