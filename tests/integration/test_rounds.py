"""Rounds of a pair on the real stack, killed twice and resumed: what follows equals what an undisturbed run does.

In a deterministic configuration: a seed for every turn, one request at a time, no prefix cache, one torch thread.
Not proved here: that rounds shorten what models write (``docs/results.md``), a team of one and kills at any moment
(``tests/faults``), and resuming on other numbers of devices (``test_fsdp.py``).
"""

from __future__ import annotations

from pathlib import Path

from tests.killed_runs import check_exact, text_of

PAIR = [
    "trainer.total_training_steps=2",
    "data.val_files=[]",
    "actor_rollout_ref.actor.use_kl_loss=true",
    "+rounds.a={train: long}",
    "+rounds.b={train: both}",
]


def in_a_rollout(folder: Path) -> bool:
    """A step has been saved, and the next is played."""
    return (folder / "global_step_1").is_dir()


def between_rounds(folder: Path) -> bool:
    return '"name": "a"' in text_of(folder / "rounds.json")


def test_a_pairs_run_whose_driver_is_killed_goes_on_exactly(tmp_path: Path) -> None:
    check_exact(tmp_path, "local", PAIR, [in_a_rollout, between_rounds])
