"""Which problems a run was measured on, and names for them that say where they are not the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from longshort.config import as_list
from longshort.episode import Problem
from longshort.evaluation.identity import problems_digest, text_digest
from longshort.report.records import Run, Sample

# Of all benchmarks of an evaluation.
AVERAGE = "average"


def played_digest(samples: Sequence[Sample], stage: Mapping[str, Any]) -> str | None:
    """Of a benchmark's problems: what its ``stage`` noted, else of the problems of its samples; None without either."""
    noted = stage.get("settings", {}).get("problems")
    if isinstance(noted, str):
        return noted
    problems: dict[Problem, None] = dict.fromkeys(sample.problem for sample in samples)
    return problems_digest(list(problems)) if problems else None


def files_digest(config: DictConfig, key: str) -> str | None:
    """Of the files that ``data.<key>`` names, in every round where rounds differ; None where there are none.

    Training notes no problems, so a file that was changed between two runs goes unseen.
    """
    rounds = OmegaConf.select(config, "rounds") or {}
    places = [f"data.{key}", *[f"rounds.{name}.data.{key}" for name in rounds]]
    files = [as_list(OmegaConf.select(config, place)) for place in places if OmegaConf.select(config, place)]
    return text_digest(json.dumps(files)) if files else None


def told_apart(runs: Sequence[Run]) -> list[Run]:
    """The runs, with the same name for problems exactly where these are the same.

    A name that stands for several sets of problems gets a number, as ``math500 (set 2)``; problems that are not known
    are a set of their own. Averages over different benchmarks name these.
    """
    sets: dict[str, dict[str, int]] = {}
    for run in runs:
        for name, known in _measured(run).items():
            numbers = sets.setdefault(name, {})
            numbers.setdefault(known, len(numbers) + 1)
    labels = [
        {name: f"{name} (set {sets[name][known]})" if len(sets[name]) > 1 else name for name, known in found.items()}
        for found in map(_measured, runs)
    ]
    averaged = [tuple(sorted(found.values())) for run, found in zip(runs, labels, strict=True) if _has_average(run)]
    for run, found in zip(runs, labels, strict=True):
        if _has_average(run) and len(set(averaged)) > 1:
            found[AVERAGE] = f"{AVERAGE} of {', '.join(sorted(found.values()))}"
    return [_renamed(run, found) for run, found in zip(runs, labels, strict=True)]


def _measured(run: Run) -> dict[str, str]:
    """By name, what is the same where the problems are."""
    return {
        measure.problems: measure.digest or f"only {run.name}"
        for measure in run.measures
        if not (run.kind == "evaluation" and measure.problems == AVERAGE)
    }


def _has_average(run: Run) -> bool:
    return run.kind == "evaluation" and any(measure.problems == AVERAGE for measure in run.measures)


def _renamed(run: Run, labels: Mapping[str, str]) -> Run:
    if all(name == label for name, label in labels.items()):
        return run
    measures = tuple(replace(m, problems=labels.get(m.problems, m.problems)) for m in run.measures)
    if run.kind != "evaluation":
        return replace(run, measures=measures)
    benchmarks, words, behaviour = (
        {labels.get(name, name): value for name, value in found.items()}
        for found in (run.benchmarks, run.words, run.behaviour)
    )
    samples = tuple(
        replace(s, problem=replace(s.problem, source=labels.get(s.problem.source, s.problem.source)))
        for s in run.samples
    )
    return replace(run, measures=measures, benchmarks=benchmarks, words=words, behaviour=behaviour, samples=samples)
