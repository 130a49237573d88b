"""What an evaluation leaves in its folder: one stage a benchmark, and a summary of all.

<folder>/<benchmark>.jsonl   records by "<problem id>/<sample>": the episode, and whether its answer is right
<folder>/<benchmark>.json    what these depend on
<folder>/summary.json        model, settings, numbers of each benchmark and their average, and the base of their AES
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from longshort.episode import Episode
from longshort.stages import Record, read_stage

SUMMARY = "summary.json"
# What has to be equal for an AES: a digest of the problems, the samples of each, and the room that an answer has.
COMPARABLE = ("problems", "samples", "limits.max_episode_tokens")


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


def stage_settings(folder: Path, name: str) -> dict[str, Any]:
    """What the records of a benchmark depend on, by dotted keys.

    Raises:
        ValueError: the folder does not say it.
    """
    file = folder / f"{name}.json"
    if not file.is_file():
        raise ValueError(f"{file} is missing, which says how {name} was played; evaluate {name} into {folder} again")
    settings: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["settings"]
    return settings


@dataclass(frozen=True, slots=True)
class Base:
    """The evaluation that AES is measured against; ``benchmarks`` are the numbers of each."""

    folder: Path
    benchmarks: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> Base:
        """Raises ValueError where ``folder`` holds no evaluation."""
        return cls(folder, read_summary(folder)["benchmarks"])

    def refuse_others(self, name: str, settings: Mapping[str, Any]) -> None:
        """ValueError where the base has the benchmark ``name``, but not as ``settings`` of a stage say."""
        if name not in self.benchmarks:
            return
        own = stage_settings(self.folder, name)
        differing = [
            f"{key}={own.get(key)!r}, here {settings.get(key)!r}"
            for key in COMPARABLE
            if own.get(key) != settings.get(key)
        ]
        if differing:
            raise ValueError(
                f"evaluation.base={self.folder} played {name} with {', and '.join(differing)}; give a base that is "
                "comparable, or none"
            )


def by_problem(samples: Iterable[Evaluated]) -> dict[str, list[Evaluated]]:
    """Samples of each problem, by its id, in the order in which they come."""
    found: dict[str, list[Evaluated]] = {}
    for sample in samples:
        found.setdefault(sample.episode.problem.id, []).append(sample)
    return found
