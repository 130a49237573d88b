"""A stage over items: one record each, written as it comes, so that a stage that was stopped goes on where it was.

    <folder>/<name>.jsonl           all records in the order of the items, once every item has one
    <folder>/.<name>.partial.jsonl  until then: records in the order in which they came
    <folder>/<name>.json            settings, counts, and what failed the last time

Concurrency: each of ``concurrency`` coroutines works on one item after the other and waits for nothing else. An item
that failed has no record, and the next run works on it again; a finished one never is.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from longshort.folders import sole_use_of, write_whole
from longshort.generation import GenerationFailedError

Item = TypeVar("Item")
Record = dict[str, Any]
Work = Callable[[Item], Awaitable[Record]]
# Done and total.
Progress = Callable[[int, int], None]

# Items at a time; enough to keep an engine's batch full, few enough for its queue and for memory.
CONCURRENCY = 1024


class ItemsFailedError(RuntimeError):
    """Items of a stage have no record; the same command again works on exactly those."""

    def __init__(self, stage: str, failed: Mapping[str, str]) -> None:
        super().__init__(stage, dict(failed))
        self.stage, self.failed = stage, dict(failed)

    def __str__(self) -> str:
        key, reason = next(iter(self.failed.items()))
        return (
            f"{len(self.failed)} items of {self.stage} failed, the first, {key}, because {reason}; "
            "the same command again retries exactly those"
        )


@dataclass(frozen=True, slots=True)
class StageResult:
    """What a stage has: records by item id in the items' order, and the reason of each failure."""

    records: Mapping[str, Record]
    failed: Mapping[str, str]


class Stage:
    """An open stage, for work whose items are only found while it goes; made by :func:`open_stage`.

    Attributes:
        records: by item id, those of former runs included.
        failed: the reason of each failure of this run.
    """

    def __init__(self, files: _Files, settings: Mapping[str, Any]) -> None:
        self._files = files
        self._settings = settings
        self.records = files.read()
        self.failed: dict[str, str] = {}

    async def run(
        self,
        items: Mapping[str, Item],
        work: Work[Item],
        progress: Progress = lambda done, total: None,
        concurrency: int = CONCURRENCY,
    ) -> None:
        """Give every item its record, unless it has one or has failed in this run."""
        missing = [key for key in items if key not in self.records and key not in self.failed]
        done = len(items) - len(missing)
        progress(done, len(items))
        # All coroutines take from the same iterator.
        queue = iter(missing)

        async def take() -> None:
            nonlocal done
            for key in queue:
                try:
                    record = await work(items[key])
                except GenerationFailedError as error:
                    self.failed[key] = str(error)
                else:
                    self._files.append(key, record)
                    self.records[key] = record
                done += 1
                progress(done, len(items))

        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(missing))):
                group.create_task(take())

    def finish(self, order: Iterable[str]) -> StageResult:
        """Note what came of the items ``order``; if all have a record, put them under the final name."""
        keys = list(order)
        ordered = {key: self.records[key] for key in keys if key in self.records}
        failed = {key: self.failed[key] for key in keys if key in self.failed}
        self._files.note(self._settings, len(keys), failed)
        if len(ordered) == len(keys):
            self._files.complete(ordered)
        return StageResult(ordered, failed)


@contextmanager
def open_stage(folder: Path, name: str, settings: Mapping[str, Any]) -> Iterator[Stage]:
    """Hold the folder and read what former runs made.

    Args:
        settings: what records depend on; a stage is not continued under other settings.

    Raises:
        ValueError: another run uses the folder, or made records there under other settings.
    """
    with sole_use_of(folder):
        files = _Files(folder, name)
        files.check(settings)
        yield Stage(files, settings)


async def run_stage(
    folder: Path,
    name: str,
    items: Mapping[str, Item],
    work: Work[Item],
    settings: Mapping[str, Any],
    progress: Progress = lambda done, total: None,
    concurrency: int = CONCURRENCY,
) -> StageResult:
    """Give every item its record, with those that former runs made.

    Args:
        items: by id; ids are unique and the same in every run.
        work: makes an item's record, anything that JSON holds; :class:`GenerationFailedError` marks the item as
            failed, and the rest goes on.
        settings: see :func:`open_stage`.

    Raises:
        ValueError: see :func:`open_stage`.
    """
    with open_stage(folder, name, settings) as stage:
        await stage.run(items, work, progress, concurrency)
        return stage.finish(items)


def read_stage(folder: Path, name: str) -> dict[str, Record]:
    """Records of a stage, in the items' order where every item has one.

    Raises:
        ValueError: there are none.
    """
    found = _Files(folder, name).read()
    if not found:
        raise ValueError(f"{folder / name}.jsonl holds nothing: run the stage that writes it first")
    return found


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
        facts = {"settings": dict(settings), "items": items, "failed": dict(failed)}
        write_whole(self.about, json.dumps(facts, indent=2))


def _line(key: str, record: Record) -> str:
    return json.dumps({"id": key, "record": record}) + "\n"
