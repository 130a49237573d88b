"""``longshort demo``: evaluate the playground pair, train it, evaluate it again on the same held-out problems."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig

from longshort.assembly import open_run
from longshort.display import Display


async def demo(config: DictConfig) -> None:
    """Writes ``summary.json`` into the run's folder and prints it as a table."""
    started = time.perf_counter()
    with Display() as display:
        async with open_run(config, display) as run:
            before = await run.evaluate("evaluating before training", 0)
            await run.fit()
            after = await run.evaluate("evaluating after training", config.trainer.total_training_steps)
        summary = {
            "problems": len(run.validation),
            **summarise(before, after, seed=config.seed, wall_seconds=time.perf_counter() - started),
        }
        (run.folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        display.table(
            f"{summary['problems']} held-out problems, {summary['token_reduction']:.1%} fewer tokens, "
            f"{summary['wall_seconds']:.0f} s",
            ("", "before", "after"),
            rows(summary),
        )


def summarise(before: dict[str, float], after: dict[str, float], **facts: Any) -> dict[str, Any]:
    """Before and after of a run, as ``summary.json`` holds them."""

    def side(metrics: dict[str, float]) -> dict[str, float]:
        return {
            "accuracy": metrics["accuracy"],
            "tokens_per_episode": metrics["tokens_per_episode"],
            "turns": metrics["turns_per_episode"],
        }

    reduction = 1 - after["tokens_per_episode"] / before["tokens_per_episode"]
    return {"before": side(before), "after": side(after), "token_reduction": reduction, **facts}


def rows(summary: dict[str, Any]) -> Sequence[Sequence[object]]:
    """The table of a summary."""
    return [
        (name, f"{summary['before'][key]:.3f}", f"{summary['after'][key]:.3f}")
        for name, key in (("accuracy", "accuracy"), ("tokens per episode", "tokens_per_episode"), ("turns", "turns"))
    ]
