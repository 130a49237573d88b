"""Does a turn find its conversation in the engine's prefix cache? Cached over ideal prompt tokens, from turn 2 on.

The playground's pair plays on its real engines, all episodes of a row at once, with the local recipe. Before a role's
later turn its engine has computed keys and values for the prompt of the role's turn before and for the tokens sampled
there, all but the last, which was sampled but never read. ``ideal`` is what of that is a prefix of the new prompt,
rounded down to whole blocks of the engine and at most all but one of the prompt's tokens, since the last must be
computed to sample from. ``cached`` is what the engine says it took from its cache, counted up to the ideal of the turn:
a lucky hit on another conversation makes up for no miss. ``ideal_to_prompt`` says what there is to gain.

    python -m benchmarks.prefix_cache [--quick]

Prints JSON; exit code 1 where a target falls short.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from rich.console import Console

from longshort.config import build_config
from longshort.display import Display
from longshort.episode import Episode, Ids
from longshort.run import Run

# Smallest cached / ideal.
LEAST = 0.95


@dataclass(frozen=True)
class LaterTurn:
    """A role's turn after its first: lengths in tokens."""

    prompt: int
    ideal: int
    cached: int


def ideal_tokens(computed: Ids, prompt: Ids, block: int) -> int:
    """Tokens of ``prompt`` that a cache of whole blocks can hold, where ``computed`` were read before."""
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(computed, prompt, strict=False)))
    return min(common, len(prompt) - 1) // block * block


def later_turns(episode: Episode, role: str, block: int) -> Iterator[LaterTurn]:
    """The role's turns from its second on."""
    computed: Ids | None = None
    for i, turn in enumerate(episode.turns):
        if turn.role != role:
            continue
        prompt = replace(episode, turns=episode.turns[:i]).context(role)
        assert len(prompt) == turn.prompt_tokens, "the prompt is the role's context"
        if computed is not None:
            assert turn.cached_tokens is not None, "the engine does not say what its cache held"
            yield LaterTurn(len(prompt), ideal_tokens(computed, prompt, block), turn.cached_tokens)
        computed = prompt + turn.token_ids[:-1]


def row_of(name: str, role: str, episodes: list[Episode], block: int) -> dict[str, Any]:
    """One row of the result."""
    turns = [turn for episode in episodes for turn in later_turns(episode, role, block)]
    ideal = sum(turn.ideal for turn in turns)
    return {
        "recipe": name,
        "role": role,
        "block": block,
        "episodes": len(episodes),
        "later_turns": len(turns),
        "ideal_to_prompt": round(ideal / max(sum(turn.prompt for turn in turns), 1), 3),
        "cached_to_ideal": round(sum(min(turn.cached, turn.ideal) for turn in turns) / max(ideal, 1), 3),
    }


def block_size(run: Run, role: str) -> int:
    """As the engine has it, whatever was asked for."""
    import ray

    policy: Any = run.trainer.policies[role]
    server = policy._replicas[0].server_handle
    return ray.get(server.__ray_call__.remote(lambda server: server.engine.vllm_config.cache_config.block_size))


async def measure(name: str, batches: list[int], overrides: list[str]) -> list[dict[str, Any]]:
    """Rows of one start of the engines: a batch of as many problems, each played n times, by role."""
    from longshort.assembly import open_run

    rows = []
    with tempfile.TemporaryDirectory() as folder, Display(Console(stderr=True)) as display:
        config = build_config("local", [f"trainer.default_local_dir={folder}", "data.val_files=[]", *overrides])
        async with open_run(config, display) as run:
            blocks = {role: block_size(run, role) for role in run.trainer.policies}
            for step, problems in enumerate(batches):
                sampling = replace(run.trainer.settings.sampling, step=step)
                graded = await run.trainer.player.play(
                    run.trainer.order.take(problems), run.trainer.settings.n, sampling
                )
                rows += [row_of(name, role, list(graded.episodes), block) for role, block in blocks.items()]
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one batch of the recipe's size")
    batches = [16] if parser.parse_args().quick else [16, 64]
    rows = asyncio.run(measure("local", batches, []))
    missed = {
        f"{row['recipe']}, {row['role']}, {row['episodes']} episodes": ["cached_to_ideal"]
        for row in rows
        if row["cached_to_ideal"] < LEAST
    }
    sys.stdout.write(json.dumps({"rows": rows, "missed": missed}, indent=1) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
