"""Steps on disk: complete or not there, all policies of a step as one.

Not proved here: what a real policy writes and restores (the integration tests do), and that a disk keeps what it said
it had written.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import FakeGenerator, FakePolicy, FakeTokenizer

from longshort import checkpoints

ORDER = {"seed": 0, "position": 7, "deferred": [1, 2]}


def policies(*names: str) -> list[FakePolicy]:
    log: list[tuple[str, str]] = []
    return [FakePolicy(name, FakeGenerator(FakeTokenizer(), []), log=log) for name in names]


def weights(folder: Path) -> dict[str, str]:
    return {file.parent.name: file.read_text() for file in folder.glob("*/weights")}


def test_what_was_saved_is_what_is_loaded(tmp_path: Path) -> None:
    folder = checkpoints.save(tmp_path, 4, policies("long", "short"), {"order": ORDER})
    assert folder == tmp_path / "global_step_4"
    assert checkpoints.latest(tmp_path) == folder
    restored = policies("long", "short")
    assert checkpoints.load(folder, restored) == {"step": 4, "order": ORDER}
    assert restored[0].log == [("long", "load long 0"), ("short", "load short 0")]


def test_the_newest_step_is_the_highest_number(tmp_path: Path) -> None:
    for step in (9, 100, 10):
        checkpoints.save(tmp_path, step, policies("long"), {})
    assert checkpoints.latest(tmp_path) == tmp_path / "global_step_100"


def test_a_run_without_checkpoint_has_no_latest(tmp_path: Path) -> None:
    assert checkpoints.latest(tmp_path) is None
    assert checkpoints.latest(tmp_path / "never made") is None


def test_folders_that_are_no_complete_step_are_ignored(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, 3, policies("long"), {})
    (tmp_path / "global_step_5" / "long").mkdir(parents=True)
    for name in ("global_step_7.best", "global_step_", "global_step_x", ".global_step_9.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.json").write_text(json.dumps({"step": 99}))
    (tmp_path / "global_step_8").write_text("a file")
    assert checkpoints.latest(tmp_path) == tmp_path / "global_step_3"


def test_a_save_that_fails_leaves_the_last_step_the_newest_and_can_be_repeated(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, 1, policies("long", "short"), {})
    pair = policies("long", "short")
    pair[1].saves = False
    with pytest.raises(checkpoints.SaveFailedError, match=r"step 2 .*\(disk full\); make room.* from global_step_1"):
        checkpoints.save(tmp_path, 2, pair, {})
    assert checkpoints.latest(tmp_path) == tmp_path / "global_step_1"
    pair[1].saves = True
    checkpoints.save(tmp_path, 2, pair, {})
    assert checkpoints.latest(tmp_path) == tmp_path / "global_step_2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["global_step_1", "global_step_2"]


def test_a_state_that_json_cannot_hold_leaves_no_step(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        checkpoints.save(tmp_path, 1, policies("long"), {"order": object()})
    assert checkpoints.latest(tmp_path) is None


def test_saving_a_step_again_replaces_it_whole(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, 2, policies("long", "short"), {"order": 1})
    (again,) = policies("long")
    again.updates.append([])
    folder = checkpoints.save(tmp_path, 2, [again], {"order": 2})
    assert weights(folder) == {"long": "long 1"}
    assert checkpoints.load(folder, policies("long")) == {"step": 2, "order": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["global_step_2"]


def test_a_step_that_is_to_be_replaced_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    folder = checkpoints.save(tmp_path, 2, policies("long"), {"order": 1})
    (broken,) = policies("long")
    broken.saves = False
    with pytest.raises(checkpoints.SaveFailedError, match="disk full"):
        checkpoints.save(tmp_path, 2, [broken], {"order": 2})
    assert checkpoints.latest(tmp_path) == folder
    assert checkpoints.load(folder, policies("long")) == {"step": 2, "order": 1}


@pytest.mark.parametrize(("saved", "wanted"), [(["long"], ["long", "short"]), (["long", "short"], ["long"])])
def test_loading_other_policies_than_were_saved_loads_none_and_names_the_remedy(
    tmp_path: Path, saved: list[str], wanted: list[str]
) -> None:
    folder = checkpoints.save(tmp_path, 2, policies(*saved), {})
    learners = policies(*wanted)
    with pytest.raises(ValueError, match=r"holds the policies .*former `train`, or another trainer\.default") as caught:
        checkpoints.load(folder, learners)
    assert f"{saved}, but `train` selects {wanted} now" in str(caught.value)
    assert learners[0].log == []


def test_policies_get_absolute_folders_for_their_workers_run_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[Path] = []

    class Spy(FakePolicy):
        def save(self, folder: Path) -> None:
            seen.append(folder)
            super().save(folder)

        def load(self, folder: Path) -> None:
            seen.append(folder)

    spy = Spy("long", FakeGenerator(FakeTokenizer(), []))
    checkpoints.load(checkpoints.save(Path("run"), 1, [spy], {}), [spy])
    assert [folder.is_absolute() for folder in seen] == [True, True]
