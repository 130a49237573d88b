"""Steps of a run on disk: written under a temporary name, completed, renamed; a half-written one is never read.

<run>/global_step_40/
    long/  short/     one folder per trained policy, see :mod:`workers.checkpoint`
    state.json        step and data order
    manifest.json     size and checksum of every file above, see :mod:`longshort.manifest`; written last
<run>/global_step_50.damaged/
    what a resumed run found to differ from its manifest, set aside
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from longshort import manifest
from longshort.policy import Policy

PREFIX = "global_step_"
STATE = "state.json"


class SaveFailedError(RuntimeError):
    """A checkpoint could not be written; those before it are whole."""


class DamagedCheckpointError(RuntimeError):
    """A checkpoint that is needed is not what was written, or may not be read."""


async def save(run: Path, step: int, policies: Iterable[Policy], state: dict[str, Any]) -> Path:
    """Write the checkpoint of ``step`` and return its folder; all policies of a step are one unit.

    Raises:
        SaveFailedError: the disk refuses.
    """
    try:
        return await _save(run, step, policies, state)
    except OSError as error:
        # What is half written would keep a full disk full.
        shutil.rmtree(_partial(run, step), ignore_errors=True)
        reason = error.strerror or str(error).strip().splitlines()[-1]
        newest = latest(run)
        raise SaveFailedError(
            f"the checkpoint of step {step} could not be written to {run} ({reason}); make room and start the same "
            f"command again, it goes on from {newest.name if newest else 'the beginning'}"
        ) from error


def _partial(run: Path, step: int) -> Path:
    return run / f".{folder_of(run, step).name}.partial"


async def _save(run: Path, step: int, policies: Iterable[Policy], state: dict[str, Any]) -> Path:
    target = folder_of(run, step)
    partial, replaced = _partial(run, step), run / f".{target.name}.replaced"
    for leftover in (partial, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    policies = list(policies)
    saves = [policy.save((partial / policy.name).absolute()) for policy in policies]
    for failure in await asyncio.gather(*saves, return_exceptions=True):
        # All have come to their end before the folder is given up.
        if failure is not None:
            raise failure
    if lacking := [policy.name for policy in policies if not _holds_files(partial / policy.name)]:
        raise SaveFailedError(
            f"the checkpoint of step {step} is not complete: the workers of {' and '.join(lacking)} do not see {run}; "
            "put trainer.default_local_dir on a file system that every node mounts"
        )
    (partial / STATE).write_text(json.dumps({"step": step, **state}))
    await asyncio.to_thread(manifest.write, partial)
    if target.exists():
        target.rename(replaced)
    partial.rename(target)
    manifest.sync_folder(run)
    shutil.rmtree(replaced, ignore_errors=True)
    return target


def _holds_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def folder_of(run: Path, step: int) -> Path:
    """Where the checkpoint of ``step`` is, or would be."""
    return run / f"{PREFIX}{step}"


def steps(run: Path) -> list[int]:
    """Steps of the complete checkpoints of a run, in order."""
    return [_step(folder) for folder in _complete(run)]


def keep_only(run: Path, wanted: Iterable[Path]) -> None:
    """Remove every complete checkpoint but the wanted ones.

    What cannot be removed yet, as a file on NFS that is still open, is for the next call: it is no reason to end a run.
    """
    for folder in set(_complete(run)) - set(wanted):
        # One that is half removed has another name.
        removed = run / f".{folder.name}.removed"
        shutil.rmtree(removed, ignore_errors=True)
        if not removed.exists():
            folder.rename(removed)
    for removed in run.glob(f".{PREFIX}*.removed"):
        shutil.rmtree(removed, ignore_errors=True)


def latest(run: Path) -> Path | None:
    """The newest checkpoint of a run whose files are all there in full size, or None."""
    return next((folder for folder in reversed(_complete(run)) if _damage(folder) is None), None)


def newest_intact(run: Path, tell: Callable[[str], None]) -> Path | None:
    """The newest checkpoint of a run that is byte for byte what was written, or None; it reads all of its files.

    Newer ones that are not are set aside, so that they count no more, and ``tell`` gets a sentence about each.

    Raises:
        DamagedCheckpointError: one may not be read.
    """
    for folder in reversed(_numbered(run)):
        wrong = _damage(folder, checksums=True)
        if wrong is None:
            return folder
        aside = _aside(run, _step(folder))
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        tell(f"checkpoint {folder.name} is damaged ({wrong}); it is {aside.name} now, and the one before it is used")
    return None


def was_set_aside(run: Path, step: int) -> bool:
    """Whether the checkpoint of ``step`` was found to be damaged."""
    return _aside(run, step).is_dir()


def require(
    folder: Path, checksums: bool = False, otherwise: str = "start anew in another trainer.default_local_dir"
) -> None:
    """Raise ``DamagedCheckpointError`` where ``folder`` is not what was written, or may not be read.

    Sizes are always compared. ``otherwise``: what to do without a copy.
    """
    if (wrong := _damage(folder, checksums)) is not None:
        raise DamagedCheckpointError(
            f"checkpoint {folder} is needed and damaged ({wrong}); bring it back from a copy, or {otherwise}"
        )


async def load(folder: Path, policies: Iterable[Policy]) -> dict[str, Any]:
    """Restore every policy and return the rest of the state.

    Raises:
        ValueError: other policies were saved than learn now. One that stands still now would go back to its first
            weights, one that was not saved has no optimiser.
        DamagedCheckpointError: a file is missing or has another size; nothing was loaded.
    """
    policies = list(policies)
    require(folder)
    saved, wanted = sorted(f.name for f in folder.iterdir() if f.is_dir()), sorted(policy.name for policy in policies)
    if saved != wanted:
        raise ValueError(
            f"checkpoint {folder} holds the policies {saved}, but `train` selects {wanted} now; "
            "use the run's former `train`, or another trainer.default_local_dir"
        )
    for policy in policies:
        await policy.load((folder / policy.name).absolute())
    state: dict[str, Any] = json.loads((folder / STATE).read_text())
    return state


def _damage(folder: Path, checksums: bool = False) -> str | None:
    with _allowed(folder):
        return manifest.damage(folder, checksums)


@contextmanager
def _allowed(folder: Path) -> Iterator[None]:
    """What may not be read may well be whole: it is neither set aside nor passed over."""
    try:
        yield
    except PermissionError as error:
        raise DamagedCheckpointError(
            f"{error.filename or folder} may not be read ({error.strerror}); ask its owner for the permission, or "
            "choose another trainer.default_local_dir"
        ) from error


def _aside(run: Path, step: int) -> Path:
    return run / f"{PREFIX}{step}.damaged"


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix(PREFIX))


def _numbered(run: Path) -> list[Path]:
    """Folders with the name of a step, in order; a copy such as global_step_40.best is the user's own."""
    named = [f for f in run.glob(f"{PREFIX}*") if f.name.removeprefix(PREFIX).isdecimal() and f.is_dir()]
    return sorted(named, key=_step)


def _complete(run: Path) -> list[Path]:
    with _allowed(run):
        return [folder for folder in _numbered(run) if (folder / manifest.FILE).is_file()]
