"""``longshort status RUN``: where a run stands, from its folder alone."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from longshort import checkpoints
from longshort.display import Display
from longshort.folders import is_held
from longshort.resuming import CONFIG
from longshort.rounds.record import FinishedRound, Record
from longshort.rounds.schedule import rounds_of
from longshort.tracking import METRICS, read_metrics

SHOWN = ("accuracy", "tokens_per_episode", "reward/mean")


def show_status(folder: Path, display: Display) -> None:
    """Print rounds, step, latest metrics and checkpoints.

    Raises:
        ValueError: the folder holds no run.
    """
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} holds no run ({CONFIG}); give the folder of one, as outputs/<experiment_name>")
    config = OmegaConf.load(folder / CONFIG)
    assert isinstance(config, DictConfig), "a run writes a mapping"
    record, first = Record.load(folder), 0
    over = {each.name: each for each in record.rounds}
    lines = read_metrics(folder / METRICS) if (folder / METRICS).is_file() else []
    steps = [line for line in lines if "reward/mu" in line]
    now = int(steps[-1]["step"]) if steps else 0
    rows: list[tuple[object, ...]] = []
    for name, each in rounds_of(config).items():
        total = int(each.trainer.total_training_steps or 0)
        if name in over:
            done, state = over[name].last_step - first, "stopped by the guard" if over[name].stopped else "finished"
        else:
            done = min(max(now - first, 0), total)
            state = "under way" if len(rows) == len(record.rounds) else "to come"
        rows.append((name or "(the only one)", str(each.train), f"{done}/{total}", state, _selected(over.get(name))))
        first += total
    display.table(str(folder), ("round", "trains", "steps", "state", "selected"), rows)
    saved = checkpoints.steps(folder)
    facts: list[tuple[object, ...]] = [
        ("running", "yes" if is_held(folder) else "no"),
        ("newest step", now),
        ("newest checkpoint", f"{checkpoints.PREFIX}{saved[-1]}" if saved else "none"),
    ]
    facts += [(name, f"{steps[-1][name]:.4g}") for name in SHOWN if steps and name in steps[-1]]
    display.table("now", ("", ""), facts)


def _selected(over: FinishedRound | None) -> object:
    if over is None:
        return ""
    return "its start" if over.selected is None else over.selected
