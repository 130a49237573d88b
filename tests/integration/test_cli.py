"""``longshort train`` as a user runs it: a process of its own, a frozen partner, a resumed run, and user errors.

Not proven here: that training makes a policy better.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from longshort.tracking import read_metrics


def longshort(*arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "longshort.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def test_a_run_with_a_frozen_partner_trains_saves_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    base = [
        "train=long",
        "data.train_files=[playground:train:64:0]",
        "data.val_files=[playground:test:16:0]",
        "data.train_batch_size=4",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        "actor_rollout_ref.rollout.n=4",
        "trainer.save_freq=1",
        "trainer.test_freq=1",
        "trainer.transcript_freq=1",
        f"trainer.default_local_dir={tmp_path}",
    ]
    first = longshort("train", *base, "trainer.total_training_steps=1")
    assert first.returncode == 0, first.stderr
    assert (tmp_path / "global_step_1" / "long" / "huggingface" / "model.safetensors").is_file()
    assert not (tmp_path / "global_step_1" / "short").exists(), "a frozen policy is not trained, so it is not saved"
    second = longshort("train", *base, "trainer.total_training_steps=2")
    assert second.returncode == 0, second.stderr
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:
        assert row["long/grad_norm"] > 0
        assert row["long/log_prob_gap_max"] < 1e-3, "the engine did not sample with the actor's weights"
        assert "short/grad_norm" not in row
        assert row["val/tokens_per_episode"] > 0
    orders = [json.loads((tmp_path / f"global_step_{n}" / "state.json").read_text())["order"] for n in (1, 2)]
    assert [order["position"] for order in orders] == [4, 8], "no step's problems are skipped or trained twice"
    assert "Gold answer" in (tmp_path / "transcripts" / "step-000002.md").read_text()


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
    result = longshort("train", *arguments, timeout=60)
    assert result.returncode == 2
    assert named in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_broken_line_is_named_by_file_and_number_unless_told_to_skip(tmp_path: Path) -> None:
    file = tmp_path / "problems.jsonl"
    file.write_text('{"question": "1+1", "answer": "2"}\n{"question": \n')
    result = longshort("train", f"data.train_files=[{file}]", timeout=60)
    assert result.returncode == 2
    assert f"{file}:2" in result.stderr
    assert "skip" in result.stderr
