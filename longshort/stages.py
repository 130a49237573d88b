"""A stage over items: one record each, written as it comes, so that a stage that was stopped goes on where it was.

    <folder>/<name>.jsonl           all records in the order of the items, once every item has one
    <folder>/.<name>.partial.jsonl  until then: records in the order in which they came
    <folder>/<name>.json            settings, counts, and what failed the last time

Concurrency: every item is a coroutine; it waits for its own work and for nothing else. What bounds them is the
generator. An item that failed has no record, and the next run works on it again; a finished one never is.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from longshort.folders import sole_use_of
from longshort.generation import GenerationFailedError

Item = TypeVar("Item")
Record = dict[str, Any]
Work = Callable[[Item], Awaitable[Record]]
# Done and total.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class StageResult:
    """What a stage has: records by item id in the items' order, and the reason of each failure."""

    records: Mapping[str, Record]
    failed: Mapping[str, str]


async def run_stage(
    folder: Path,
    name: str,
    items: Mapping[str, Item],
    work: Work[Item],
    settings: Mapping[str, Any],
    progress: Progress = lambda done, total: None,
) -> StageResult:
    """Give every item its record, with those that former runs made.

    Args:
        items: by id; ids are unique and the same in every run.
        work: makes an item's record, anything that JSON holds; :class:`GenerationFailedError` marks the item as
            failed, and the rest goes on.
        settings: what records depend on; a stage is not continued under other settings.

    Raises:
        ValueError: another run uses the folder, or made records there under other settings.
    """
    with sole_use_of(folder):
        files = _Files(folder, name)
        files.check(settings)
        records = {key: record for key, record in files.read().items() if key in items}
        failed: dict[str, str] = {}
        progress(len(records), len(items))

        async def one(key: str, item: Item) -> None:
            try:
                record = await work(item)
            except GenerationFailedError as error:
                failed[key] = str(error)
            else:
                files.append(key, record)
                records[key] = record
            progress(len(records) + len(failed), len(items))

        async with asyncio.TaskGroup() as group:
            for key, item in items.items():
                if key not in records:
                    group.create_task(one(key, item))
        ordered = {key: records[key] for key in items if key in records}
        files.note(settings, len(items), failed)
        if not failed:
            files.complete(ordered)
        return StageResult(ordered, failed)


class _Files:
    """The files of one stage."""

    def __init__(self, folder: Path, name: str) -> None:
        self.final = folder / f"{name}.jsonl"
        self.partial = folder / f".{name}.partial.jsonl"
        self.about = folder / f"{name}.json"

    def check(self, settings: Mapping[str, Any]) -> None:
        if not self.about.is_file():
            self.note(settings, None, {})
            return
        before = json.loads(self.about.read_text())["settings"]
        now = json.loads(json.dumps(dict(settings)))
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key):
                raise ValueError(
                    f"{self.final} was made with {key}={before.get(key)!r}, and it is {now.get(key)!r} now; "
                    f"choose another folder, or remove {self.about} and {self.final} to make them anew"
                )

    def read(self) -> dict[str, Record]:
        """Records of former runs; half a line, left by a killed run, is dropped."""
        found: dict[str, Record] = {}
        if self.partial.is_file():
            content = self.partial.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if whole != content:
                with self.partial.open("r+b") as file:
                    file.truncate(len(whole))
            found = {row["id"]: row["record"] for row in map(json.loads, whole.splitlines())}
        if self.final.is_file():
            with self.final.open("rb") as lines:
                found |= {row["id"]: row["record"] for row in map(json.loads, lines)}
        return found

    def append(self, key: str, record: Record) -> None:
        # Opening for each line leaves nothing in a buffer when the process is killed.
        with self.partial.open("a", encoding="utf-8") as file:
            file.write(_line(key, record))

    def complete(self, records: Mapping[str, Record]) -> None:
        """All records under the final name, at once."""
        temporary = self.final.with_name(f".{self.final.name}.new")
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(_line(key, record) for key, record in records.items())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.final)
        self.partial.unlink(missing_ok=True)

    def note(self, settings: Mapping[str, Any], items: int | None, failed: Mapping[str, str]) -> None:
        temporary = self.about.with_name(f".{self.about.name}.new")
        temporary.write_text(json.dumps({"settings": dict(settings), "items": items, "failed": dict(failed)}, indent=2))
        temporary.replace(self.about)


def _line(key: str, record: Record) -> str:
    return json.dumps({"id": key, "record": record}) + "\n"
