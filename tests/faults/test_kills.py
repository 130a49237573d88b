"""SIGKILL of the driver at random moments of a run on the real stack, the same command again after each.

``make test-faults`` runs it; for ``make test`` it takes too long. ``LONGSHORT_KILLS`` is how often it kills.
Not proved here: that the steps equal those of an undisturbed run (``tests/integration/test_rounds.py``).
"""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from tests.killed_runs import check_trained_once, kill, start, text_of

KILLS = int(os.environ.get("LONGSHORT_KILLS", "20"))
# A start takes most of this, so both it and the steps are hit.
LONGEST_S = 80.0
STEPS, BATCH, PROBLEMS = 40, 2, 64
SETTINGS = [
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


@pytest.mark.timeout(3 * 3600)
def test_a_run_that_is_killed_again_and_again_ends_and_trains_every_step_once(tmp_path: Path) -> None:
    rng, folder = random.Random(0), tmp_path / "run"
    for _ in range(KILLS):
        process = start(folder, "local", SETTINGS)
        try:
            code = process.wait(rng.uniform(1.0, LONGEST_S))
        except subprocess.TimeoutExpired:
            kill(process)
        else:
            assert code == 0, text_of(tmp_path / "run.log")[-3000:]
    assert start(folder, "local", SETTINGS).wait() == 0, text_of(tmp_path / "run.log")[-3000:]
    check_trained_once(folder, PROBLEMS, BATCH, STEPS)
