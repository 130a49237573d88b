"""``longshort train`` as a user runs it: processes of their own, frozen partners, a resumed run, user errors.

Not proven here: that training makes a policy better.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from longshort.folders import is_held
from longshort.tracking import read_metrics

# The frozen long model of the second run has two replicas.
SLOTS = {"long": [], "short": ["placement.n_gpus_per_node={long: 2, short: 1}"]}


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "longshort.cli", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def longshort(*arguments: str) -> tuple[int, str]:
    """Exit code and standard error of a command."""
    process = start(*arguments)
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


def small_run(folder: Path, *more: str) -> list[str]:
    return [
        "train",
        "data.train_files=[playground:train:64:0]",
        "data.val_files=[playground:test:16:0]",
        "data.train_batch_size=4",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        "actor_rollout_ref.rollout.n=4",
        "trainer.save_freq=1",
        "trainer.test_freq=1",
        "trainer.transcript_freq=1",
        f"trainer.default_local_dir={folder}",
        *more,
    ]


def test_two_runs_beside_each_other_train_with_a_frozen_partner_and_one_goes_on_where_it_stopped(
    tmp_path: Path,
) -> None:
    folders = {role: tmp_path / role for role in ("long", "short")}
    runs = {
        r: start(*small_run(f, f"train={r}", "trainer.total_training_steps=1", *SLOTS[r])) for r, f in folders.items()
    }
    while not is_held(folders["long"]):
        assert runs["long"].poll() is None, "it ended before it began"
        time.sleep(0.2)
    code, errors = longshort(*small_run(folders["long"], "train=long"))
    assert code == 2
    assert "in use by another run" in errors
    for role, process in runs.items():
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors
        frozen = "short" if role == "long" else "long"
        saved = folders[role] / "global_step_1"
        assert (saved / role / "huggingface" / "model.safetensors").is_file()
        assert not (saved / frozen).exists(), "a frozen policy is not trained, so it is not saved"
    code, errors = longshort(*small_run(folders["long"], "train=long", "trainer.total_training_steps=2"))
    assert code == 0, errors
    rows = read_metrics(folders["long"] / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:
        assert row["long/grad_norm"] > 0
        assert row["long/log_prob_gap_max"] < 1e-3, "the engine did not sample with the actor's weights"
        assert "short/grad_norm" not in row
        assert row["val/tokens_per_episode"] > 0
    states = [folders["long"] / f"global_step_{step}" / "state.json" for step in (1, 2)]
    orders = [json.loads(state.read_text())["order"] for state in states]
    assert [order["position"] for order in orders] == [4, 8], "no step's problems are skipped or trained twice"
    assert "Gold answer" in (folders["long"] / "transcripts" / "step-000002.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--config-name", "nowhere"], "nowhere"),
        (["actor_rollout_ref.actor.optim.lrr=1"], "lrr"),
        (["policies.judge.rollout.n=2"], "judge"),
        (["train=judge"], "train=judge"),
        (["actor_rollout_ref.rollout.n=1"], "rollout.n=1"),
        (["data.train_batch_size=5"], "train_batch_size=5"),
        (["data.train_files=[missing.jsonl]"], "missing.jsonl"),
    ],
)
def test_a_user_error_is_one_sentence_that_names_the_value_and_no_traceback(arguments: list[str], named: str) -> None:
    code, errors = longshort("train", *arguments)
    assert code == 2
    assert named in errors
    assert "Traceback" not in errors
    assert len(errors.strip().splitlines()) == 1


def test_a_broken_line_is_named_by_file_and_number_unless_told_to_skip(tmp_path: Path) -> None:
    file = tmp_path / "problems.jsonl"
    file.write_text('{"question": "1+1", "answer": "2"}\n{"question": \n')
    code, errors = longshort("train", f"data.train_files=[{file}]")
    assert code == 2
    assert f"{file}:2" in errors
    assert "skip" in errors
