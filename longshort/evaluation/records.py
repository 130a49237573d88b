"""What an evaluation leaves in its folder: one stage a benchmark, and a summary of all.

<folder>/<benchmark>.jsonl   records by "<problem id>/<sample>": the episode, and whether its answer is right
<folder>/summary.json        model, settings, numbers of each benchmark and their average
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from longshort.episode import Episode
from longshort.stages import Record, read_stage

SUMMARY = "summary.json"


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One sample: what was played, and whether its answer is right (never where it was cut or malformed)."""

    episode: Episode
    correct: bool

    def to_record(self) -> Record:
        """What a stage holds of it."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Record) -> Evaluated:
        """Inverse of :meth:`to_record`, also after JSON."""
        return cls(Episode.from_dict(record["episode"]), record["correct"])


def sample_id(problem: str, sample: int) -> str:
    """Id of a record: ``"aime2024-3/7"``."""
    return f"{problem}/{sample}"


def read_benchmark(folder: Path, name: str) -> dict[str, Evaluated]:
    """Records of a benchmark by id, problem by problem where every sample was played.

    Raises:
        ValueError: there are none.
    """
    return {key: Evaluated.from_record(record) for key, record in read_stage(folder, name).items()}


def benchmarks_of(folder: Path) -> list[str]:
    """Names of the benchmarks that were played to their end, in alphabetical order."""
    return sorted(file.stem for file in folder.glob("*.jsonl") if not file.name.startswith("."))


def read_summary(folder: Path) -> dict[str, Any]:
    """``summary.json`` of an evaluation.

    Raises:
        ValueError: the folder holds none.
    """
    file = folder / SUMMARY
    if not file.is_file():
        raise ValueError(f"{folder} holds no evaluation ({SUMMARY}); give the folder that `longshort evaluate` wrote")
    summary: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if "benchmarks" not in summary or "settings" not in summary:
        raise ValueError(f"{file} is no summary of an evaluation; give the folder that `longshort evaluate` wrote")
    return summary


def by_problem(samples: Iterable[Evaluated]) -> dict[str, list[Evaluated]]:
    """Samples of each problem, by its id, in the order in which they come."""
    found: dict[str, list[Evaluated]] = {}
    for sample in samples:
        found.setdefault(sample.episode.problem.id, []).append(sample)
    return found
