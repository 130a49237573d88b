"""wandb and tensorboard really write, offline.

Not proven: that a server takes what wandb wrote.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from longshort.trackers import RUN_ID, make_trackers


def config(*logger: str):
    return OmegaConf.create(
        {
            "seed": 0,
            "trainer": {"logger": list(logger), "project_name": "p", "experiment_name": "e", "group_name": "g"},
        }
    )


@pytest.fixture(autouse=True)
def no_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


def test_auto_tracks_with_wandb_only_where_it_is_set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        assert make_trackers(config("auto"), tmp_path, stack) == ()
    monkeypatch.setenv("WANDB_MODE", "offline")
    with ExitStack() as stack:
        (tracker,) = make_trackers(config("auto"), tmp_path, stack)
        tracker.log(1, {"accuracy": 0.5})
        tracker.transcripts(1, {"a/0": "hello"})
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_a_resumed_run_keeps_its_wandb_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    for step in range(2):
        with ExitStack() as stack:
            (tracker,) = make_trackers(config("wandb"), tmp_path, stack)
            tracker.log(step, {"accuracy": 0.5})
    run_id = (tmp_path / RUN_ID).read_text()
    assert wandb_ids(tmp_path) == {run_id}


def test_each_round_is_a_wandb_run_of_its_own_and_goes_on_under_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    for rounds in ((0, 1), (1,)):
        with ExitStack() as stack:
            (tracker,) = make_trackers(config("wandb"), tmp_path, stack)
            for number in rounds:
                tracker.begin_round(number, f"round {number}")
                tracker.log(number, {"accuracy": 0.5})
    run_id = (tmp_path / RUN_ID).read_text()
    assert wandb_ids(tmp_path) == {f"{run_id}-1", f"{run_id}-2"}


def test_a_server_that_cannot_be_reached_costs_nothing_that_was_logged(tmp_path: Path) -> None:
    code = """
import sys
from contextlib import ExitStack
from pathlib import Path
from longshort.trackers import make_trackers
from test_trackers import config
with ExitStack() as stack:
    (tracker,) = make_trackers(config("wandb"), Path(sys.argv[1]), stack)
    tracker.log(1, {"accuracy": 0.5})
    tracker.log(2, {"accuracy": 0.6})
"""
    # Nothing listens there; wandb would try for a minute and a half.
    unreachable = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40, "WANDB_INIT_TIMEOUT": "3"}
    command = [sys.executable, "-c", code, str(tmp_path)]
    # Not the helper process of another test's wandb.
    own = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    here, environment = Path(__file__).parent, {**own, **unreachable}
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "wandb cannot be used" in done.stderr and f"wandb sync {tmp_path}/wandb/offline-*" in done.stderr
    assert "0" * 40 not in done.stderr
    assert wandb_ids(tmp_path) == {(tmp_path / RUN_ID).read_text()}


def wandb_ids(folder: Path) -> set[str]:
    return {file.stem.removeprefix("run-") for file in folder.glob("wandb/offline-run-*/*.wandb")}


def test_tensorboard_gets_every_metric(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with ExitStack() as stack:
        (tracker,) = make_trackers(config("tensorboard"), tmp_path, stack)
        for step in (1, 2):
            tracker.log(step, {"reward/mean": float(step)})
        tracker.transcripts(2, {"a/0": "hello"})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("reward/mean")] == [(1, 1.0), (2, 2.0)]
