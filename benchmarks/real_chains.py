"""Chains of the playground's reasoner with all rollouts of each prefix, for comparisons that need the whole streams."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from rich.console import Console

from longshort.coldstart.chunk import THOUGHTS
from longshort.coldstart.distill import CHAINS
from longshort.coldstart.pipeline import run_stages
from longshort.coldstart.score import scored_chains
from longshort.config import build_config
from longshort.display import Display
from longshort.stages import read_stage
from longshort.thoughts.scored import ScoredChain

# Problems that are thought about for each chain that is long enough.
PROBLEMS_PER_CHAIN = 5


def sample_chains(folder: Path, chains: int, fewest: int, rollouts: int) -> list[ScoredChain]:
    """``chains`` right chains of at least ``fewest`` thoughts; what ``folder`` holds is not sampled again."""
    settings = [
        f"data.train_files=[playground:train:{PROBLEMS_PER_CHAIN * chains}:11]",
        f"coldstart.score.rollouts={rollouts}",
        "coldstart.score.adaptive.enabled=false",
    ]
    whole, chosen = folder / "all", folder / "chosen"
    with Display(Console(stderr=True)) as display:
        thinking = build_config("coldstart_playground", [*settings, f"coldstart.folder={whole}"])
        asyncio.run(run_stages(thinking, display, ("distill", "chunk")))
        _choose(whole, chosen, chains, fewest)
        scoring = build_config("coldstart_playground", [*settings, f"coldstart.folder={chosen}"])
        asyncio.run(run_stages(scoring, display, ("score",)))
    return scored_chains(scoring)


def _choose(source: Path, target: Path, chains: int, fewest: int) -> None:
    """Copy the records of the first chains that are right and long enough."""
    thought, divided = read_stage(source, CHAINS), read_stage(source, THOUGHTS)
    keys = [key for key, record in divided.items() if thought[key]["correct"] and len(record["thoughts"]) >= fewest]
    if len(keys) < chains:
        raise ValueError(f"{len(keys)} chains have {fewest} thoughts or more, not {chains}; think about more problems")
    target.mkdir(parents=True, exist_ok=True)
    for name, records in ((CHAINS, thought), (THOUGHTS, divided)):
        lines = [json.dumps({"id": key, "record": records[key]}) + "\n" for key in keys[:chains]]
        (target / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
