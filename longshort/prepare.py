"""``longshort data``: a data set that the papers train on, as Parquet in verl's shape."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from longshort.chains import STATES
from longshort.data import load_problems, records
from longshort.display import Display
from longshort.grading_pool import GradingPool
from longshort.hub import split_of
from longshort.overlap import ids_by_question
from longshort.selection import Candidate, Tally, Validation, batches, candidates, draw, noted, without_shared
from longshort.sources import SOURCES, Source

# Rows after which a long reading says how far it is.
REPORT = 1_000_000
GRADING_WORKERS, GRADING_TIMEOUT_S = 2, 10.0


def prepare(
    name: str,
    display: Display,
    path: str | None = None,
    folder: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    validation: Sequence[str] = (),
    drop_overlap: bool = False,
) -> Path:
    """Write ``<folder>/<split>.parquet``, ``<split>-summary.json`` and, of chains, ``<split>-chains.jsonl``.

    Args:
        name: a key of ``SOURCES``.
        path: a file or data set in place of the source's own.
        folder: by default ``data/<name>``; files of the same names are replaced once all are complete.
        limit: draw so many problems; all where there are no more.
        seed: of the draw.
        validation: paths of problems to compare the questions with.
        drop_overlap: leave out problems whose question validation asks; else they are reported.

    Raises:
        ValueError: an argument or a file is wrong, or no problem is left.
    """
    source = SOURCES[name]
    path = path or source.path
    if path is None:
        raise ValueError(f"{name} has no default data set: name a file or a data set of the hub with --source")
    if limit is not None and limit < 1:
        raise ValueError(f"--limit is {limit}: give the number of problems to draw, at least 1")
    if drop_overlap and not validation:
        raise ValueError("--drop-overlap has nothing to compare with: name validation files with --validation")
    split = split_of(path)
    folder = folder or Path("data", name)
    parquet, summary, chains = (folder / f"{split}{end}" for end in (".parquet", "-summary.json", "-chains.jsonl"))
    if validation:
        display.stage("reading validation problems")
    known = [_read_validation(file) for file in validation]
    display.stage(f"reading {path}")
    tally = Tally()
    with (
        GradingPool(GRADING_WORKERS, GRADING_TIMEOUT_S) as grader,
        _replacing(parquet, summary, *([chains] if source.chains else [])) as partial,
    ):
        rows = _reporting(records(path, streaming=True), display)
        found = candidates(source, rows, f"{name}-{split}", tally)
        if drop_overlap:
            found = without_shared(found, known, tally)
        drawn = draw(found, limit, seed, grader.gradable_many, tally)
        _write(noted(drawn, known, tally), source, split, partial[parquet], partial.get(chains))
        if not tally.kept:
            reasons = ", ".join(
                f"{count} of {tally.read} rows: {reason}" for reason, count in tally.dropped.most_common()
            )
            raise ValueError(f"{path} holds no problem for {name} ({reasons or 'it is empty'}): check --source")
        facts = {
            "name": name,
            "source": path,
            "split": split,
            "limit": limit,
            "seed": seed,
            "validation": [file.path for file in known],
            "drop_overlap": drop_overlap,
            **_summary(tally, known, source),
        }
        partial[summary].write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    display.table(f"{path} in {parquet}", ("rows", ""), _rows(tally, known, source, drop_overlap))
    return parquet


def _read_validation(path: str) -> Validation:
    loaded = load_problems([path], on_error="skip")
    return Validation(path, ids_by_question(loaded.problems), len(loaded.problems), len(loaded.skipped))


def _reporting(rows: Iterable[tuple[int, object]], display: Display) -> Iterator[tuple[int, object]]:
    for count, row in enumerate(rows, start=1):
        yield row
        if count % REPORT == 0:
            display.stage(f"{count:,} rows read, reading on")


@contextmanager
def _replacing(*targets: Path) -> Iterator[Mapping[Path, Path]]:
    """Temporary files beside the targets, which take their places when the block ends well and vanish when not."""
    partial = {target: target.with_name(f".{target.name}.partial") for target in targets}
    for target in targets:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"--out {target.parent} is no folder ({error.strerror}): name another") from error
    try:
        yield partial
        for target in targets:
            partial[target].replace(target)
    finally:
        for file in partial.values():
            file.unlink(missing_ok=True)


def _write(chosen: Iterable[Candidate], source: Source, split: str, parquet: Path, chains: Path | None) -> None:
    """Write the table and, where ``chains`` is given, one line of JSON for each chain."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        {
            "id": pa.string(),
            "data_source": pa.string(),
            "prompt": pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
            "ability": pa.string(),
            "reward_model": pa.struct({"style": pa.string(), "ground_truth": pa.string()}),
            "extra_info": pa.struct(
                {"index": pa.int64(), "split": pa.string(), **dict.fromkeys(source.columns, pa.string())}
            ),
        }
    )
    with ExitStack() as files:
        table = files.enter_context(pq.ParquetWriter(parquet, schema))
        lines = files.enter_context(chains.open("w", encoding="utf-8")) if chains else None
        for batch in batches(chosen):
            table.write_table(pa.Table.from_pylist([_verl_row(candidate, split) for candidate in batch], schema))
            for candidate in batch:
                if lines and candidate.chain:
                    lines.write(json.dumps(asdict(candidate.chain), ensure_ascii=False) + "\n")


def _verl_row(candidate: Candidate, split: str) -> dict[str, Any]:
    # verl's index is unique within one file only; the id has a column of its own, which verl passes over.
    return {
        "id": candidate.problem.id,
        "data_source": candidate.problem.source,
        "prompt": [{"role": "user", "content": candidate.problem.question}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": candidate.problem.answer},
        "extra_info": {"index": candidate.index, "split": split, **candidate.columns},
    }


def _summary(tally: Tally, known: Sequence[Validation], source: Source) -> dict[str, Any]:
    overlap = {
        file.path: {
            "problems": file.problems,
            "unreadable": file.unreadable,
            "shared": len(tally.shared[file.path]),
            "ids": tally.shared[file.path],
        }
        for file in known
    }
    counts = {
        "read": tally.read,
        "kept": tally.kept,
        "not_drawn": tally.not_drawn,
        "dropped": dict(tally.dropped.most_common()),
        "overlap": overlap,
    }
    return {**counts, "chunking": {state: tally.chunking[state] for state in STATES}} if source.chains else counts


def _rows(tally: Tally, known: Sequence[Validation], source: Source, drop_overlap: bool) -> list[tuple[int, str]]:
    """The table that is shown: counts and what they count."""
    overlapping = "dropped" if drop_overlap else "kept"
    return [
        (tally.read, "read"),
        (tally.kept, "kept"),
        *((count, f"dropped: {reason}") for reason, count in tally.dropped.most_common()),
        *([(tally.not_drawn, "not drawn")] if tally.not_drawn else []),
        *((len(tally.shared[file.path]), f"{overlapping}, with a question of {file.path}") for file in known),
        *((file.unreadable, f"of {file.path} could not be read") for file in known if file.unreadable),
        *((tally.chunking[state], f"kept, chunking {state}") for state in STATES if source.chains),
    ]
