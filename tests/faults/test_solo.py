"""A team of one on the real stack, killed between rounds with a checkpoint to select, goes on exactly.

As ``tests/integration/test_rounds.py`` does for a pair. Not proved here: kills at other moments (``test_kills.py``).
"""

from __future__ import annotations

from pathlib import Path

from tests.killed_runs import check_exact, text_of

SOLO = [
    "trainer.total_training_steps=2",
    "trainer.test_freq=1",
    "data.val_files=['playground:test:6:3']",
    "data.test_files=[]",
    "~rounds.limit_90",
    "selection.tolerance=0.9",
]


def test_a_solo_run_whose_driver_is_killed_goes_on_exactly(tmp_path: Path) -> None:
    check_exact(tmp_path, "thinkprune_playground", SOLO, [lambda f: '"limit_200"' in text_of(f / "rounds.json")])
