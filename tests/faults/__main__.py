"""Faults on the real stack, at random moments: ``python -m tests.faults --seed 0 --count 100``.

A quarter of them are of runs of their own, the others happen to one running stack. Prints a table and, last, a line of
JSON; exit code 1 unless everything was as expected and nothing was left behind, open, or told.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.faults import fresh, live
from tests.faults.runs import Findings, Scene

FRESH_SHARE = 0.25


@dataclass(frozen=True)
class Injected:
    """What was done, what came of it, and whether that is as it should be."""

    name: str
    seen: str
    expected: bool
    seconds: float


def drawn(count: int, rng: random.Random) -> tuple[list[str], list[str]]:
    """Names of the live and of the fresh faults, in the order in which they happen."""
    pool = [name for name, (_, times) in fresh.CASES.items() for _ in range(times)]
    few = round(FRESH_SHARE * count)
    own = rng.sample(pool, min(few, len(pool))) + rng.choices(pool, k=max(0, few - len(pool)))
    names = list(live.CASES)
    # Each once, as far as they reach; then by weight.
    rest = count - few
    shared = names[:rest] + rng.choices(
        names, [live.WEIGHTS.get(name, 1.0) for name in names], k=max(0, rest - len(names))
    )
    rng.shuffle(shared)
    return shared, own


def faults(seed: int, count: int, only: str | None, console: Console) -> tuple[list[Injected], Findings]:
    """Inject them one after another."""
    rng, findings, done = random.Random(seed), Findings(), list[Injected]()
    shared, own = drawn(count, rng)
    if only is not None:
        shared, own = [n for n in live.CASES if only in n][:count], [n for n in fresh.CASES if only in n][:count]
    parent = Path(tempfile.mkdtemp(prefix="longshort-faults-"))

    def note(name: str, began: float, seen: str, expected: bool) -> None:
        done.append(Injected(name, seen, expected, time.monotonic() - began))
        mark = "as expected" if expected else "NOT AS EXPECTED"
        console.print(f"{len(done)}/{len(shared) + len(own)} {name}: {seen} ({mark})", markup=False)

    async def on_one_stack() -> None:
        async with live.stage(parent / "live", rng, findings) as stage:
            for name in shared:
                began = time.monotonic()
                try:
                    note(name, began, await live.CASES[name](stage), True)
                except Exception as error:  # whatever it is, it was not expected
                    note(name, began, _short(error), False)

    if shared:
        asyncio.run(on_one_stack())
    for number, name in enumerate(own):
        scene, began = Scene(parent / f"{number}", rng, findings), time.monotonic()
        scene.folder.mkdir()
        try:
            note(name, began, fresh.CASES[name][0](scene), True)
        except Exception as error:  # whatever it is, it was not expected
            note(name, began, _short(error), False)
        if done[-1].expected:
            shutil.rmtree(scene.folder)
    if all(each.expected for each in done):
        shutil.rmtree(parent)
    else:
        console.print(f"what is left of them is in {parent}")
    return done, findings


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[-600:]}"


def rows(done: list[Injected]) -> Iterator[tuple[str, str, str, str]]:
    for name in dict.fromkeys(each.name for each in done):
        own = [each for each in done if each.name == name]
        good = sum(each.expected for each in own)
        yield name, str(len(own)), str(good), own[-1].seen[:90]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--only", metavar="TEXT", help="each fault once whose name has it, instead of drawing")
    options = parser.parse_args()
    console = Console(stderr=True, soft_wrap=True)
    done, findings = faults(options.seed, options.count, options.only, console)
    table = Table("fault", "times", "as expected", "seen last")
    for row in rows(done):
        table.add_row(*row)
    Console().print(table)
    for kind, found in (("left behind", findings.orphans), ("open", findings.listening), ("told", findings.secrets)):
        for each in sorted(found):
            console.print(f"{kind}: {each}", markup=False)
    summary = {
        "injected": len(done),
        "as_expected": sum(each.expected for each in done),
        "orphans": len(findings.orphans),
        "listening_beyond_loopback": len(findings.listening),
        "secrets_found": len(findings.secrets),
    }
    sys.stdout.write(json.dumps(summary) + "\n")
    clean = not (summary["orphans"] or summary["listening_beyond_loopback"] or summary["secrets_found"])
    return 0 if clean and summary["as_expected"] == summary["injected"] else 1


if __name__ == "__main__":
    sys.exit(main())
