"""The playground pair on two Ray nodes in network namespaces: a policy on each, then each policy across both.

Losses are those of one node. Not proved here: more nodes, a slow network, nodes that differ.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.killed_runs import steps_of, text_of
from tests.two_nodes import TwoNodes, two_nodes, why_not

pytestmark = [pytest.mark.skipif(why_not() is not None, reason=str(why_not())), pytest.mark.timeout(1800)]
SETTINGS = [
    "data.train_files=[playground:train:64:0]",
    "data.val_files=[]",
    "data.train_batch_size=2",
    "actor_rollout_ref.actor.ppo_mini_batch_size=2",
    "actor_rollout_ref.rollout.n=4",
    # What an engine writes does not depend on what it writes beside it.
    "actor_rollout_ref.rollout.max_num_seqs=1",
    "actor_rollout_ref.rollout.enable_prefix_caching=false",
    "trainer.save_freq=1",
]


def train(nodes: TwoNodes | None, folder: Path, *overrides: str, steps: int = 2) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "longshort.train", "--config-name", "local", *SETTINGS, *overrides]
    command += [f"trainer.default_local_dir={folder}", f"trainer.total_training_steps={steps}"]
    with (folder.parent / f"{folder.name}.log").open("a") as log:
        if nodes is None:
            return subprocess.Popen(command, stdout=log, stderr=log)
        return subprocess.Popen(nodes.within(0, command), env=dict(nodes.environment), stdout=log, stderr=log)


def losses(folder: Path) -> dict[tuple[int, str], float]:
    """Of every step and policy: what was played and what came of it."""
    names = [f"{role}/actor/{name}" for role in ("long", "short") for name in ("pg_loss", "grad_norm")]
    found = steps_of(folder)
    return {(step, name): found[step][name] for step in found for name in names if name in found[step]}


def test_a_policy_on_each_node_then_across_both_has_the_losses_of_one_node(tmp_path: Path) -> None:
    one = train(None, tmp_path / "one")
    assert one.wait(600) == 0, text_of(tmp_path / "one.log")[-3000:]
    expected = losses(tmp_path / "one")
    assert len(expected) >= 4
    with two_nodes() as nodes:
        apart = train(nodes, tmp_path / "apart")
        assert apart.wait(600) == 0, text_of(tmp_path / "apart.log")[-3000:]
    assert losses(tmp_path / "apart") == pytest.approx(expected, rel=1e-4, abs=1e-6)
    with two_nodes(devices=2) as nodes:
        across = train(nodes, tmp_path / "across", "trainer.nnodes=2")
        assert across.wait(900) == 0, text_of(tmp_path / "across.log")[-3000:]
    assert losses(tmp_path / "across") == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_the_loss_of_a_node_ends_the_run_and_it_goes_on_on_others(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with two_nodes() as nodes:
        run, deadline = train(nodes, folder, steps=5), time.monotonic() + 400
        while '"step": 2,' not in text_of(folder / "metrics.jsonl"):
            assert run.poll() is None and time.monotonic() < deadline, text_of(tmp_path / "run.log")[-3000:]
            time.sleep(0.1)
        nodes.lose(1)
        assert run.wait(300) == 1, text_of(tmp_path / "run.log")[-3000:]
        assert "policy" in text_of(tmp_path / "run.log").splitlines()[-1]
    again = train(None, folder, steps=5)
    assert again.wait(600) == 0, text_of(tmp_path / "run.log")[-3000:]
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == [1, 2, 3, 4, 5]
