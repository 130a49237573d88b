"""Steps of a run on disk: written under a temporary name, completed, renamed; a half-written one is never read.

<run>/global_step_40/
    long/  short/     one folder per trained policy, see :mod:`workers.checkpoint`
    state.json        step and data order; written last
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from longshort.policy import Policy

PREFIX = "global_step_"
STATE = "state.json"


class SaveFailedError(RuntimeError):
    """A checkpoint could not be written; those before it are whole."""


def save(run: Path, step: int, policies: Iterable[Policy], state: dict[str, Any]) -> Path:
    """Write the checkpoint of ``step`` and return its folder; all policies of a step are one unit.

    Raises:
        SaveFailedError: the disk refuses.
    """
    try:
        return _save(run, step, policies, state)
    except OSError as error:
        reason = error.strerror or str(error).strip().splitlines()[-1]
        newest = latest(run)
        raise SaveFailedError(
            f"the checkpoint of step {step} could not be written to {run} ({reason}); make room and start the same "
            f"command again, it goes on from {newest.name if newest else 'the beginning'}"
        ) from error


def _save(run: Path, step: int, policies: Iterable[Policy], state: dict[str, Any]) -> Path:
    target = folder_of(run, step)
    partial, replaced = run / f".{target.name}.partial", run / f".{target.name}.replaced"
    for leftover in (partial, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    for policy in policies:
        policy.save((partial / policy.name).absolute())
    with (partial / STATE).open("w") as file:
        json.dump({"step": step, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    if target.exists():
        target.rename(replaced)
    partial.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)
    return target


def folder_of(run: Path, step: int) -> Path:
    """Where the checkpoint of ``step`` is, or would be."""
    return run / f"{PREFIX}{step}"


def steps(run: Path) -> list[int]:
    """Steps of the complete checkpoints of a run, in order."""
    return sorted(int(folder.name.removeprefix(PREFIX)) for folder in _complete(run))


def keep_only(run: Path, wanted: Iterable[Path]) -> None:
    """Remove every complete checkpoint but the wanted ones."""
    for folder in set(_complete(run)) - set(wanted):
        shutil.rmtree(folder)


def latest(run: Path) -> Path | None:
    """The newest complete checkpoint of a run, or None."""
    return max(_complete(run), key=lambda folder: int(folder.name.removeprefix(PREFIX)), default=None)


def load(folder: Path, policies: Iterable[Policy]) -> dict[str, Any]:
    """Restore every policy and return the rest of the state.

    Raises:
        ValueError: other policies were saved than learn now. One that stands still now would go back to its first
            weights, one that was not saved has no optimiser.
    """
    policies = list(policies)
    saved, wanted = sorted(f.name for f in folder.iterdir() if f.is_dir()), sorted(policy.name for policy in policies)
    if saved != wanted:
        raise ValueError(
            f"checkpoint {folder} holds the policies {saved}, but `train` selects {wanted} now; "
            "use the run's former `train`, or another trainer.default_local_dir"
        )
    for policy in policies:
        policy.load((folder / policy.name).absolute())
    state: dict[str, Any] = json.loads((folder / STATE).read_text())
    return state


def _complete(run: Path) -> list[Path]:
    # A copy such as global_step_40.best is the user's own.
    return [f for f in run.glob(f"{PREFIX}*") if f.name.removeprefix(PREFIX).isdecimal() and (f / STATE).is_file()]
