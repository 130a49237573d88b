"""``longshort demo``: evaluate the playground pair, train it, evaluate it again on the same held-out problems."""

from __future__ import annotations

import json
import time

from omegaconf import DictConfig

from longshort.display import Display
from longshort.run import open_run, rows, summarise


async def demo(config: DictConfig) -> None:
    """Writes ``summary.json`` into the run's folder and prints it as a table."""
    started = time.perf_counter()
    with Display() as display:
        async with open_run(config, display) as run:
            before = await run.evaluate("evaluating before training")
            await run.fit()
            after = await run.evaluate("evaluating after training")
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
