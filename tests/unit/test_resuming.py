"""What a resumed run may change of its recipe, and what its folder says of it.

Not proved here: that the same settings give the same steps (``test_run.py`` and the integration tests do).
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from longshort import checkpoints, manifest
from longshort.assembly import open_run
from longshort.cli import main
from longshort.config import build_config
from longshort.display import Display
from longshort.folders import is_held, sole_use_of
from longshort.resuming import CONFIG, refuse_changes
from longshort.rounds.record import FinishedRound, Record
from longshort.status import show_status
from longshort.tracking import MetricsLog

ROUNDS = ["+rounds.a={train: long}", "+rounds.b={train: short, trainer: {total_training_steps: 5}}"]


def begun(folder: Path, *overrides: str) -> None:
    (folder / CONFIG).write_text(OmegaConf.to_yaml(build_config("local", overrides)))


@pytest.mark.parametrize(
    ("key", "override"),
    [
        ("seed=0", "seed=1"),
        ("team.max_turns=6", "team.max_turns=5"),
        ("reward.eta=1.0", "reward.eta=2"),
        ("reward.mu.ramp_steps=0", "reward.mu.ramp_steps=5"),
        ("train=both", "train=long"),
        ("policies.long.actor.optim.lr=0.00025", "policies.long.actor.optim.lr=1"),
        ("policies.short.rollout.temperature=1.0", "policies.short.rollout.temperature=0.5"),
        ("data.train_batch_size=16", "data.train_batch_size=32"),
    ],
)
def test_a_change_that_decides_what_is_learned_is_named_and_can_be_accepted(
    tmp_path: Path, key: str, override: str
) -> None:
    begun(tmp_path)
    with pytest.raises(ValueError, match=rf"begun with .*{key}.*trainer\.resume_changed=true"):
        refuse_changes(tmp_path, build_config("local", [override]))
    refuse_changes(tmp_path, build_config("local", [override, "trainer.resume_changed=true"]))


@pytest.mark.parametrize(
    "override",
    [
        "trainer.total_training_steps=999",
        "trainer.save_freq=3",
        "trainer.logger=[]",
        "reward.grading_workers=1",
        "actor_rollout_ref.rollout.max_num_seqs=8",
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=20000",
        "data.val_files=[]",
    ],
)
def test_what_does_not_may_change(tmp_path: Path, override: str) -> None:
    begun(tmp_path)
    refuse_changes(tmp_path, build_config("local", [override]))


def test_a_changed_round_is_named(tmp_path: Path) -> None:
    begun(tmp_path, *ROUNDS)
    with pytest.raises(ValueError, match=r"rounds\.a\.train=long, and it is both now"):
        refuse_changes(tmp_path, build_config("local", ["+rounds.a={train: both}", ROUNDS[1]]))
    refuse_changes(tmp_path, build_config("local", [*ROUNDS, "trainer.total_training_steps=50"]))


async def started(folder: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> None:
    """``open_run`` up to the moment at which Ray would start."""

    def refuse(config: DictConfig) -> None:
        raise RaysTurnError

    monkeypatch.setattr("workers.team.start_ray", refuse)
    files = ["data.train_files=[playground:train:64:0]", "data.val_files=[]", f"trainer.default_local_dir={folder}"]
    with Display(Console(file=io.StringIO())) as display, pytest.raises(RaysTurnError):
        async with open_run(build_config("local", [*files, *overrides]), display):
            pass


class RaysTurnError(Exception):
    """All that comes before it is done."""


async def test_a_folder_with_checkpoints_is_left_as_it_is_by_a_run_that_does_not_go_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await started(tmp_path, monkeypatch)
    before = (tmp_path / CONFIG).read_text()
    # Nothing is there to be mixed with yet.
    await started(tmp_path, monkeypatch, "trainer.resume_mode=disable", "seed=1")
    await started(tmp_path, monkeypatch)
    checkpoint = tmp_path / "global_step_1"
    checkpoint.mkdir()
    (checkpoint / checkpoints.STATE).write_text('{"step": 1}')
    manifest.write(checkpoint)
    with pytest.raises(ValueError, match=r"holds checkpoints of an earlier run; .*trainer\.resume_mode=auto"):
        await started(tmp_path, monkeypatch, "trainer.resume_mode=disable")
    with pytest.raises(ValueError, match=r"begun with data\.seed=0, and it is 1 now"):
        await started(tmp_path, monkeypatch, "seed=1")
    assert (tmp_path / CONFIG).read_text() == before


async def test_the_reasoner_is_measured_in_a_folder_that_is_held_and_only_for_who_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[bool] = []

    async def measure(config: DictConfig, *_: object) -> None:
        held.append(is_held(tmp_path))

    monkeypatch.setattr("longshort.assembly.measure_reasoner", measure)
    await started(tmp_path, monkeypatch, "train=none")
    assert held == []
    await started(tmp_path, monkeypatch)
    assert held == [True]


def test_training_nobody_is_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "train=none", f"trainer.default_local_dir={tmp_path / 'run'}"]) == 2
    assert "train=none trains nobody; choose long, short, both or solo" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


async def test_the_status_has_the_steps_of_a_recipe_that_counts_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await started(tmp_path, monkeypatch, "trainer.total_training_steps=null", "trainer.total_epochs=2", ROUNDS[0])
    assert ["a", "long", "0/8", "under", "way"] in [line.split() for line in shown(tmp_path).splitlines()]


def test_the_status_is_read_from_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no run"):
        shown(tmp_path)
    begun(tmp_path, *ROUNDS, "trainer.total_training_steps=3")
    assert "a                trains" not in shown(tmp_path)
    over = FinishedRound("a", 3, None, (), 3, "the last step", {"long": 3, "short": None})
    Record(began=True, rounds=(over,)).save(tmp_path)
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in range(1, 6):
        log.log(step, {"accuracy": 0.5, "reward/mu": 1.0})
    text = shown(tmp_path)
    lines = [line.split() for line in text.splitlines()]
    assert ["a", "long", "3/3", "finished", "3"] in lines
    assert ["b", "short", "2/5", "under", "way"] in lines
    assert ["running", "no"] in lines and ["newest", "step", "5"] in lines
    Record(began=True, rounds=(replace(over, selected=None, stopped="no"),)).save(tmp_path)
    with sole_use_of(tmp_path):
        text = shown(tmp_path)
    assert "stopped by the guard" in text and "its start" in text
    assert ["running", "yes"] in [line.split() for line in text.splitlines()]


def shown(folder: Path) -> str:
    text = io.StringIO()
    with Display(Console(file=text, width=200)) as display:
        show_status(folder, display)
    return text.getvalue()
