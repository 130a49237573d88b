"""The playground pair on two Ray nodes in network namespaces: a policy on each, then each policy across both.

Losses are those of one node. Not proved here: more nodes, a slow network, nodes that differ.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.processes import kill_with_children
from tests.killed_runs import steps_of, text_of
from tests.two_nodes import TwoNodes, two_nodes, why_not

pytestmark = [pytest.mark.skipif(why_not() is not None, reason=str(why_not())), pytest.mark.timeout(4200)]
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


@contextmanager
def training(
    nodes: TwoNodes | None, folder: Path, *overrides: str, steps: int = 2
) -> Iterator[subprocess.Popen[bytes]]:
    """A run, on two nodes or here; it does not outlive the block."""
    command = [sys.executable, "-m", "longshort.train", "--config-name", "local", *SETTINGS, *overrides]
    command += [f"trainer.default_local_dir={folder}", f"trainer.total_training_steps={steps}"]
    with (folder.parent / f"{folder.name}.log").open("a") as log:
        command = command if nodes is None else nodes.within(0, command)
        environment = None if nodes is None else dict(nodes.environment)
        run = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield run
    finally:
        kill_with_children(run)


def wait_for_step(step: int, run: subprocess.Popen[bytes], folder: Path) -> None:
    """While the run goes on."""
    deadline = time.monotonic() + 600
    while f'"step": {step},' not in text_of(folder / "metrics.jsonl"):
        log = folder.parent / f"{folder.name}.log"
        assert run.poll() is None and time.monotonic() < deadline, text_of(log)[-3000:]
        time.sleep(0.1)


def workers(nodes: TwoNodes) -> list[int]:
    """How many ranks of the trainers each node has."""
    return [sum(name.startswith("ray::PolicyWorker") for name in nodes.processes(node)) for node in (0, 1)]


def losses(folder: Path) -> dict[tuple[int, str], float]:
    """Of every step and policy: its loss and the norm of its gradient."""
    names = [f"{role}/{name}" for role in ("long", "short") for name in ("actor/pg_loss", "grad_norm")]
    return {(step, name): values[name] for step, values in steps_of(folder).items() for name in names}


def test_a_policy_on_each_node_then_across_both_has_the_losses_of_one_node(tmp_path: Path) -> None:
    with training(None, tmp_path / "one") as one:
        assert one.wait(600) == 0, text_of(tmp_path / "one.log")[-3000:]
    expected = losses(tmp_path / "one")
    with two_nodes() as nodes, training(nodes, tmp_path / "apart") as apart:
        wait_for_step(1, apart, tmp_path / "apart")
        assert workers(nodes) == [1, 1], "a policy on each"
        assert apart.wait(600) == 0, text_of(tmp_path / "apart.log")[-3000:]
    assert losses(tmp_path / "apart") == pytest.approx(expected, rel=1e-4, abs=1e-6)
    with two_nodes(devices=2) as nodes, training(nodes, tmp_path / "across", "trainer.nnodes=2") as across:
        wait_for_step(1, across, tmp_path / "across")
        assert workers(nodes) == [2, 2], "each policy across both"
        assert across.wait(900) == 0, text_of(tmp_path / "across.log")[-3000:]
    assert losses(tmp_path / "across") == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_the_loss_of_a_node_ends_the_run_and_it_goes_on_on_others(tmp_path: Path) -> None:
    folder, log = tmp_path / "run", tmp_path / "run.log"
    with two_nodes() as nodes, training(nodes, folder, steps=5) as run:
        wait_for_step(2, run, folder)
        nodes.lose(1)
        assert run.wait(300) == 1, text_of(log)[-3000:]
        assert "policy" in text_of(log).splitlines()[-1]
        assert "Traceback" not in text_of(log), text_of(log)[-3000:]
    with training(None, folder, steps=5) as again:
        assert again.wait(600) == 0, text_of(log)[-3000:]
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == [1, 2, 3, 4, 5]
