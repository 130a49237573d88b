"""Steps on disk: complete or not there, all policies of a step as one.

Not proved here: what a real policy writes and restores (the integration tests do), and that a disk keeps what it said
it had written; only that it was asked to.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import FakeGenerator, FakePolicy, FakeTokenizer

from longshort import checkpoints, manifest

ORDER = {"seed": 0, "position": 7, "deferred": [1, 2]}


def policies(*names: str) -> list[FakePolicy]:
    log: list[tuple[str, str]] = []
    return [FakePolicy(name, FakeGenerator(FakeTokenizer(), []), log=log) for name in names]


def weights(folder: Path) -> dict[str, str]:
    return {file.parent.name: file.read_text() for file in folder.glob("*/weights")}


async def test_what_was_saved_is_what_is_loaded(tmp_path: Path) -> None:
    folder = await checkpoints.save(tmp_path, 4, policies("long", "short"), {"order": ORDER})
    assert folder == tmp_path / "global_step_4"
    assert checkpoints.latest(tmp_path) == folder
    restored = policies("long", "short")
    assert await checkpoints.load(folder, restored) == {"step": 4, "order": ORDER}
    assert restored[0].log == [("long", "load long 0"), ("short", "load short 0")]


async def test_what_was_written_to_another_machines_disk_is_no_checkpoint(tmp_path: Path) -> None:
    long, short = policies("long", "short")

    async def elsewhere(folder: Path) -> None:
        pass

    await checkpoints.save(tmp_path, 3, [long, short], {})
    short.save = elsewhere  # type: ignore[method-assign]
    with pytest.raises(checkpoints.SaveFailedError, match=r"step 4 is not complete: the workers of short do not see"):
        await checkpoints.save(tmp_path, 4, [long, short], {})
    assert checkpoints.steps(tmp_path) == [3]


async def test_the_newest_step_is_the_highest_number(tmp_path: Path) -> None:
    for step in (9, 100, 10):
        await checkpoints.save(tmp_path, step, policies("long"), {})
    assert checkpoints.latest(tmp_path) == tmp_path / "global_step_100"


def test_a_run_without_checkpoint_has_no_latest(tmp_path: Path) -> None:
    assert checkpoints.latest(tmp_path) is None
    assert checkpoints.latest(tmp_path / "never made") is None


async def test_folders_that_are_no_complete_step_are_ignored(tmp_path: Path) -> None:
    await checkpoints.save(tmp_path, 3, policies("long"), {})
    (tmp_path / "global_step_5" / "long").mkdir(parents=True)
    for name in ("global_step_7.best", "global_step_", "global_step_x", ".global_step_9.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.json").write_text(json.dumps({"step": 99}))
        (tmp_path / name / "manifest.json").write_text(json.dumps({"files": {"state.json": {"size": 12}}}))
    (tmp_path / "global_step_8").write_text("a file")
    assert checkpoints.latest(tmp_path) == tmp_path / "global_step_3"


async def test_a_save_that_fails_leaves_the_last_step_the_newest_and_can_be_repeated(tmp_path: Path) -> None:
    await checkpoints.save(tmp_path, 1, policies("long", "short"), {})
    pair = policies("long", "short")
    pair[1].saves = False
    with pytest.raises(checkpoints.SaveFailedError, match=r"step 2 .*\(disk full\); make room.* from global_step_1"):
        await checkpoints.save(tmp_path, 2, pair, {})
    assert checkpoints.latest(tmp_path) == tmp_path / "global_step_1"
    pair[1].saves = True
    await checkpoints.save(tmp_path, 2, pair, {})
    assert checkpoints.latest(tmp_path) == tmp_path / "global_step_2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["global_step_1", "global_step_2"]


async def test_a_state_that_json_cannot_hold_leaves_no_step(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        await checkpoints.save(tmp_path, 1, policies("long"), {"order": object()})
    assert checkpoints.latest(tmp_path) is None


async def test_saving_a_step_again_replaces_it_whole(tmp_path: Path) -> None:
    await checkpoints.save(tmp_path, 2, policies("long", "short"), {"order": 1})
    (again,) = policies("long")
    again.updates.append([])
    folder = await checkpoints.save(tmp_path, 2, [again], {"order": 2})
    assert weights(folder) == {"long": "long 1"}
    assert await checkpoints.load(folder, policies("long")) == {"step": 2, "order": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["global_step_2"]


async def test_a_step_that_is_to_be_replaced_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    folder = await checkpoints.save(tmp_path, 2, policies("long"), {"order": 1})
    (broken,) = policies("long")
    broken.saves = False
    with pytest.raises(checkpoints.SaveFailedError, match="disk full"):
        await checkpoints.save(tmp_path, 2, [broken], {"order": 2})
    assert checkpoints.latest(tmp_path) == folder
    assert await checkpoints.load(folder, policies("long")) == {"step": 2, "order": 1}


@pytest.mark.parametrize(("saved", "wanted"), [(["long"], ["long", "short"]), (["long", "short"], ["long"])])
async def test_loading_other_policies_than_were_saved_loads_none_and_names_the_remedy(
    tmp_path: Path, saved: list[str], wanted: list[str]
) -> None:
    folder = await checkpoints.save(tmp_path, 2, policies(*saved), {})
    learners = policies(*wanted)
    with pytest.raises(ValueError, match=r"holds the policies .*former `train`, or another trainer\.default") as caught:
        await checkpoints.load(folder, learners)
    assert f"{saved}, but `train` selects {wanted} now" in str(caught.value)
    assert learners[0].log == []


async def test_policies_get_absolute_folders_for_their_workers_run_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[Path] = []

    class Spy(FakePolicy):
        async def save(self, folder: Path) -> None:
            seen.append(folder)
            await super().save(folder)

        async def load(self, folder: Path) -> None:
            seen.append(folder)

    spy = Spy("long", FakeGenerator(FakeTokenizer(), []))
    await checkpoints.load(await checkpoints.save(Path("run"), 1, [spy], {}), [spy])
    assert [folder.is_absolute() for folder in seen] == [True, True]


def _half_written(folder: Path) -> None:
    """As if a copy had been stopped."""
    (folder / "manifest.json").unlink()
    shutil.rmtree(folder / "short")


def _flipped(folder: Path) -> None:
    content = bytearray((folder / "long" / "weights").read_bytes())
    content[0] ^= 1
    (folder / "long" / "weights").write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated shard": (lambda f: (f / "long" / "weights").write_text("lon"), "long/weights has 3 bytes instead of 6"),
    "missing policy": (lambda f: shutil.rmtree(f / "short"), "short/weights is missing"),
    "flipped byte": (_flipped, "long/weights has other content than was written"),
    "changed state": (lambda f: (f / "state.json").write_text('{"step": 3}'), "state.json has other content"),
    "truncated manifest": (
        lambda f: (f / "manifest.json").write_text((f / "manifest.json").read_text()[:-9]),
        "its manifest.json cannot be read",
    ),
    "empty manifest": (lambda f: (f / "manifest.json").write_text(""), "its manifest.json cannot be read"),
    "manifest of nothing": (lambda f: (f / "manifest.json").write_text('{"files": {}}'), "cannot be read"),
    "manifest of another kind": (lambda f: (f / "manifest.json").write_text("[]"), "cannot be read"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "it has no manifest.json"),
    "half written": (_half_written, "it has no manifest.json"),
}


@pytest.mark.parametrize("name", DAMAGES)
async def test_a_damaged_newest_checkpoint_is_told_and_set_aside_and_the_one_before_is_used(
    tmp_path: Path, name: str
) -> None:
    damage, sentence = DAMAGES[name]
    good = await checkpoints.save(tmp_path, 1, policies("long", "short"), {})
    bad = await checkpoints.save(tmp_path, 2, policies("long", "short"), {})
    damage(bad)
    told: list[str] = []
    assert checkpoints.newest_intact(tmp_path, told.append) == good
    (line,) = told
    assert line.startswith("checkpoint global_step_2 is damaged (") and sentence in line
    assert checkpoints.was_set_aside(tmp_path, 2) and not checkpoints.was_set_aside(tmp_path, 1)
    assert checkpoints.steps(tmp_path) == [1] and checkpoints.latest(tmp_path) == good
    # What is set aside is neither in the way of a new one nor told again.
    await checkpoints.save(tmp_path, 2, policies("long", "short"), {})
    assert checkpoints.newest_intact(tmp_path, told.append) == bad
    assert len(told) == 1


@pytest.mark.parametrize("name", [name for name in DAMAGES if name not in {"flipped byte", "changed state"}])
async def test_nothing_is_loaded_of_a_checkpoint_with_a_missing_or_cut_file(tmp_path: Path, name: str) -> None:
    folder = await checkpoints.save(tmp_path, 2, policies("long", "short"), {})
    DAMAGES[name][0](folder)
    pair = policies("long", "short")
    with pytest.raises(checkpoints.DamagedCheckpointError, match=r"global_step_2 is needed and damaged \(.*a copy"):
        await checkpoints.load(folder, pair)
    assert pair[0].log == []
    assert checkpoints.latest(tmp_path) is None


async def test_where_all_checkpoints_are_damaged_there_is_none(tmp_path: Path) -> None:
    for step in (1, 2):
        DAMAGES["truncated shard"][0](await checkpoints.save(tmp_path, step, policies("long", "short"), {}))
    told: list[str] = []
    assert checkpoints.newest_intact(tmp_path, told.append) is None
    assert [line.split()[1] for line in told] == ["global_step_2", "global_step_1"]


async def test_a_manifest_names_every_file_with_size_and_sha256(tmp_path: Path) -> None:
    folder = await checkpoints.save(tmp_path, 2, policies("long", "short"), {})
    files = {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    del files["manifest.json"]
    assert json.loads((folder / "manifest.json").read_text()) == {
        "files": {
            name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in sorted(files.items())
        }
    }


async def test_everything_is_on_the_disk_before_the_checkpoint_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []
    target = tmp_path / "global_step_2"

    def fsync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").resolve()
        synced.append((name.relative_to(tmp_path).as_posix(), target.exists()))

    monkeypatch.setattr("os.fsync", fsync)
    await checkpoints.save(tmp_path, 2, policies("long", "short"), {})
    partial = ".global_step_2.partial"
    before = {name for name, named in synced if not named}
    assert before == {partial} | {
        f"{partial}/{name}"
        for name in ("long", "short", "long/weights", "short/weights", "state.json", "manifest.json")
    }
    assert synced.index((f"{partial}/manifest.json", False)) > synced.index((f"{partial}/state.json", False))
    assert [name for name, named in synced if named] == ["."]


async def test_a_checkpoint_whose_removal_was_cut_short_is_no_step_and_is_removed(tmp_path: Path) -> None:
    kept = await checkpoints.save(tmp_path, 2, policies("long"), {})
    (tmp_path / ".global_step_1.removed" / "long").mkdir(parents=True)
    await checkpoints.save(tmp_path, 1, policies("long"), {})
    checkpoints.keep_only(tmp_path, [kept])
    assert [path.name for path in tmp_path.iterdir()] == ["global_step_2"]


async def test_what_cannot_be_removed_yet_ends_no_run_and_goes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await checkpoints.save(tmp_path, 2, policies("long"), {})
    await checkpoints.save(tmp_path, 1, policies("long"), {})
    held = os.rmdir

    def busy(path: object, **arguments: object) -> None:
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    monkeypatch.setattr("os.rmdir", busy)
    checkpoints.keep_only(tmp_path, [kept])
    assert checkpoints.steps(tmp_path) == [2]
    await checkpoints.save(tmp_path, 1, policies("long"), {})
    checkpoints.keep_only(tmp_path, [kept])
    monkeypatch.setattr("os.rmdir", held)
    checkpoints.keep_only(tmp_path, [kept])
    assert [path.name for path in tmp_path.iterdir()] == ["global_step_2"]


def _unreadable(monkeypatch: pytest.MonkeyPatch, which: Path, code: int) -> None:
    """As root may read everything, the fault is made by hand."""
    digest = manifest._digest

    def refuse(file: Path, on_disk: bool = False) -> str:
        if file == which:
            raise OSError(code, os.strerror(code))
        return digest(file, on_disk)

    monkeypatch.setattr(manifest, "_digest", refuse)


async def test_a_checkpoint_with_a_file_that_the_disk_does_not_give_back_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = await checkpoints.save(tmp_path, 1, policies("long", "short"), {})
    bad = await checkpoints.save(tmp_path, 2, policies("long", "short"), {})
    _unreadable(monkeypatch, bad / "short" / "weights", errno.EIO)
    told: list[str] = []
    assert checkpoints.newest_intact(tmp_path, told.append) == good
    assert "(short/weights cannot be read (Input/output error))" in told[0]
    assert checkpoints.was_set_aside(tmp_path, 2)


async def test_a_checkpoint_that_may_not_be_read_is_left_as_it_is_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await checkpoints.save(tmp_path, 1, policies("long"), {})
    newest = await checkpoints.save(tmp_path, 2, policies("long"), {})
    _unreadable(monkeypatch, newest / "long" / "weights", errno.EACCES)
    told: list[str] = []
    with pytest.raises(checkpoints.DamagedCheckpointError, match=r"global_step_2 may not be read \(Permission "):
        checkpoints.newest_intact(tmp_path, told.append)
    assert told == [] and checkpoints.latest(tmp_path) == newest
    refused = PermissionError(errno.EACCES, "Permission denied", "there/manifest.json")

    def closed(path: Path, *arguments: object, **named: object) -> bool:
        raise refused

    for call in ("read_text", "is_file"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, call, closed)
            with pytest.raises(checkpoints.DamagedCheckpointError, match=r"^there/manifest\.json may not be read"):
                checkpoints.latest(tmp_path)
