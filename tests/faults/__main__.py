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
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.faults import fresh, live
from tests.faults.runs import Findings, Scene, SkippedError

FRESH_SHARE = 0.25


@dataclass(frozen=True)
class Injected:
    """What was done, what came of it, and whether that is as it should be: None where it cannot be done here."""

    name: str
    seen: str
    expected: bool | None


class Record:
    """All of them in their order, each told at once."""

    def __init__(self, total: int, console: Console) -> None:
        self.done: list[Injected] = []
        self._total = total
        self._console = console

    def note(self, name: str, seen: str, expected: bool | None = True) -> None:
        self.done.append(Injected(name, seen, expected))
        mark = {True: " (as expected)", False: " (NOT AS EXPECTED)", None: ""}[expected]
        self._console.print(f"{len(self.done)}/{self._total} {name}: {seen}{mark}", markup=False)

    def failed(self, name: str, error: Exception) -> None:
        self.note(name, f"{type(error).__name__}: {' '.join(str(error).split())[-600:]}", False)

    @property
    def happened(self) -> list[Injected]:
        return [each for each in self.done if each.expected is not None]

    @property
    def good(self) -> bool:
        return all(each.expected for each in self.happened)


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


def faults(seed: int, count: int, only: str | None, console: Console) -> tuple[Record, Findings]:
    """Inject them one after another."""
    rng, findings = random.Random(seed), Findings()
    shared, own = drawn(count, rng)
    if only is not None:
        shared, own = [n for n in live.CASES if only in n][:count], [n for n in fresh.CASES if only in n][:count]
    record = Record(len(shared) + len(own), console)
    parent = Path(tempfile.mkdtemp(prefix="longshort-faults-"))
    try:
        asyncio.run(on_stages(shared, parent, rng, findings, record))
    except Exception as error:  # what is known so far has to be told
        record.failed("end of the stack", error)
    for number, name in enumerate(own):
        on_its_own(name, Scene(parent / f"{number}", rng, findings), record)
    if record.good:
        shutil.rmtree(parent, ignore_errors=True)
    else:
        console.print(f"what is left of them is in {parent}")
    return record, findings


async def on_stages(names: list[str], parent: Path, rng: random.Random, findings: Findings, record: Record) -> None:
    """On one stack; one that a fault may have broken, as it did not end as expected, makes way for another."""
    waiting = deque(names)
    while waiting:
        left = len(waiting)
        try:
            async with live.stage(parent / f"live-{left}", rng, findings) as stage:
                while waiting and await on_stage(waiting.popleft(), stage, record):
                    pass
        except Exception as error:  # whatever it is, it was not expected
            record.failed(f"start, for {waiting.popleft()}" if len(waiting) == left else "end of the stack", error)


async def on_stage(name: str, stage: live.Stage, record: Record) -> bool:
    """Whether it was as expected."""
    try:
        async with asyncio.timeout(live.CASE_S):
            record.note(name, await live.CASES[name](stage))
    except Exception as error:  # whatever it is, it was not expected
        record.failed(name, error)
        return False
    return True


def on_its_own(name: str, scene: Scene, record: Record) -> None:
    try:
        scene.folder.mkdir()
        record.note(name, fresh.CASES[name][0](scene))
    except SkippedError as reason:
        record.note(name, f"skipped: {reason}", None)
    except Exception as error:  # whatever it is, it was not expected
        record.failed(name, error)
    finally:
        scene.end()
    if record.done[-1].expected is not False:
        shutil.rmtree(scene.folder, ignore_errors=True)


def rows(record: Record) -> Iterator[tuple[str, str, str, str]]:
    for name in dict.fromkeys(each.name for each in record.done):
        own = [each for each in record.done if each.name == name]
        happened = [each for each in own if each.expected is not None]
        yield name, str(len(happened)), str(sum(bool(each.expected) for each in happened)), own[-1].seen[:90]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--only", metavar="TEXT", help="each fault once whose name has it, instead of drawing")
    options = parser.parse_args()
    console = Console(stderr=True, soft_wrap=True)
    record, findings = faults(options.seed, options.count, options.only, console)
    table = Table("fault", "times", "as expected", "seen last")
    for row in rows(record):
        table.add_row(*row)
    Console().print(table)
    for kind, found in (("left behind", findings.orphans), ("open", findings.listening), ("told", findings.secrets)):
        for each in sorted(found):
            console.print(f"{kind}: {each}", markup=False)
    summary = {
        "injected": len(record.happened),
        "as_expected": sum(bool(each.expected) for each in record.happened),
        "orphans": len(findings.orphans),
        "listening_beyond_loopback": len(findings.listening),
        "secrets_found": len(findings.secrets),
    }
    sys.stdout.write(json.dumps(summary) + "\n")
    clean = not (summary["orphans"] or summary["listening_beyond_loopback"] or summary["secrets_found"])
    return 0 if clean and summary["as_expected"] == summary["injected"] else 1


if __name__ == "__main__":
    sys.exit(main())
