"""Stages go on where they were: no item is worked on twice, none is lost, and the output does not tell.

Not proved here: that a file system keeps what was written when the machine itself goes down.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from longshort.generation import GenerationFailedError
from longshort.stages import Record, run_stage

ITEMS = {f"i{n}": n for n in range(60)}
SETTINGS = {"rollouts": 8}


async def square(item: int) -> Record:
    await asyncio.sleep(0)
    return {"square": item * item, "text": "\u2028é"}


async def test_records_come_in_the_order_of_the_items_whoever_finishes_first(tmp_path: Path) -> None:
    async def slow_first(item: int) -> Record:
        await asyncio.sleep(0.001 * (len(ITEMS) - item))
        return await square(item)

    seen: list[tuple[int, int]] = []
    result = await run_stage(tmp_path, "s", ITEMS, slow_first, SETTINGS, lambda *counts: seen.append(counts))
    assert list(result.records) == list(ITEMS)
    rows = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert [row["record"]["square"] for row in rows] == [n * n for n in ITEMS.values()]
    assert seen == [(done, len(ITEMS)) for done in range(len(ITEMS) + 1)]


async def test_what_failed_is_noted_and_alone_tried_again(tmp_path: Path) -> None:
    calls: list[int] = []

    async def work(item: int) -> Record:
        calls.append(item)
        if item % 7 == 0 and calls.count(item) == 1:
            raise GenerationFailedError("http://h/v1", 500, 3, "nobody answered")
        return await square(item)

    first = await run_stage(tmp_path, "s", ITEMS, work, SETTINGS)
    assert set(first.failed) == {f"i{n}" for n in range(0, 60, 7)}
    assert len(first.records) == len(ITEMS) - len(first.failed)
    assert not (tmp_path / "s.jsonl").exists()
    assert "nobody answered" in json.loads((tmp_path / "s.json").read_text())["failed"]["i7"]
    second = await run_stage(tmp_path, "s", ITEMS, work, SETTINGS)
    assert not second.failed
    assert list(second.records) == list(ITEMS)
    assert sorted(calls) == sorted([*ITEMS.values(), *range(0, 60, 7)])
    assert (tmp_path / "s.jsonl").is_file()


async def test_other_settings_are_refused_by_name_and_new_items_are_added(tmp_path: Path) -> None:
    await run_stage(tmp_path, "s", {"i1": 1}, square, SETTINGS)
    with pytest.raises(ValueError, match=r"was made with rollouts=8, and it is 9 now"):
        await run_stage(tmp_path, "s", ITEMS, square, {"rollouts": 9})
    assert list((await run_stage(tmp_path, "s", ITEMS, square, SETTINGS)).records) == list(ITEMS)


async def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    async def again(item: int) -> Record:
        await run_stage(tmp_path, "s", ITEMS, square, SETTINGS)
        return {}

    with pytest.raises(ExceptionGroup) as caught:
        await run_stage(tmp_path, "s", {"i0": 0}, again, SETTINGS)
    assert caught.group_contains(ValueError, match="in use by another run")


KILLED = """
import asyncio, sys
from pathlib import Path
from longshort.stages import run_stage

log = Path(sys.argv[1]) / "worked"

async def work(item):
    await asyncio.sleep(0.002 * (item % 13))
    return {"square": item * item}

async def main():
    items = {f"i{n}": n for n in range(400)}
    await run_stage(Path(sys.argv[1]), "s", items, work, {"a": 1})

asyncio.run(main())
"""


def test_a_killed_stage_ends_as_if_it_had_not_been_killed(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = [sys.executable, "-c", KILLED]
    subprocess.run([*command, str(whole)], check=True)
    rng, kills, had = random.Random(0), 0, 0
    for _ in range(20):
        process = subprocess.Popen([*command, str(killed)])
        partial = killed / ".s.partial.jsonl"
        began = time.monotonic()
        while process.poll() is None and time.monotonic() - began < 20:
            lines = partial.read_bytes().count(b"\n") if partial.is_file() else 0
            if lines > had:
                break
        time.sleep(rng.uniform(0.0, 0.01))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        rows = partial.read_bytes().splitlines()[:-1] if partial.is_file() else []
        ids = [json.loads(row)["id"] for row in rows]
        assert len(ids) == len(set(ids)), "an item was worked on twice"
        had = len(ids)
    subprocess.run([*command, str(killed)], check=True)
    assert kills >= 3
    assert (killed / "s.jsonl").read_bytes() == (whole / "s.jsonl").read_bytes()
