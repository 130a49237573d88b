"""From the folder of a run to what is known of it; which kind of run it is shows in what is there.

- evaluation: ``summary.json`` with benchmarks;
- cold start: ``chains.jsonl`` or ``rollouts.jsonl``;
- training: ``metrics.jsonl`` or ``rounds.json``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from omegaconf import DictConfig, OmegaConf

from longshort.coldstart.distill import CHAINS
from longshort.coldstart.pipeline import SUMMARY as CHAINS_SUMMARY
from longshort.coldstart.score import ROLLOUTS
from longshort.coldstart.synthesize import TRAIN, VALIDATION
from longshort.episode import Episode, Turn
from longshort.evaluation.behaviour.run import read_behaviour
from longshort.evaluation.behaviour.words import numbers_of_texts
from longshort.evaluation.records import SUMMARY, Evaluated, benchmarks_of, read_summary
from longshort.report.pieces import Pieces, pieces_of, units
from longshort.report.problems import AVERAGE, files_digest, played_digest
from longshort.report.records import Measure, Origin, RoleFigures, Run, Sample, ShownTurn
from longshort.report.settings import shown_settings
from longshort.report.transcripts import correct_by, read_transcripts
from longshort.resuming import CONFIG
from longshort.rounds.record import FILE as ROUNDS
from longshort.rounds.record import Record
from longshort.thoughts.figures import AccuracyAndLength, ScoreCurve, ScoresByRollouts
from longshort.tracking import METRICS, read_metrics

TEST, VALIDATED = "test problems", "validation problems"

Divide = Mapping[str, Pieces]
Played = TypeVar("Played")


def read_run(folder: Path) -> Run:
    """What a run left behind.

    Raises:
        ValueError: the folder is none of a run, or a file in it is broken.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; give that of a run, as outputs/<experiment_name>")
    if _is_evaluation(folder):
        return _evaluation(folder)
    if any((folder / f"{name}.jsonl").is_file() for name in (CHAINS, ROLLOUTS)):
        return _coldstart(folder)
    if any((folder / name).is_file() for name in (METRICS, ROUNDS)):
        return _training(folder)
    raise ValueError(
        f"{folder} holds no run ({METRICS}, {ROUNDS}), no cold start ({CHAINS}.jsonl) and no evaluation ({SUMMARY}); "
        "give the folder that a command of longshort wrote"
    )


def named_apart(runs: Sequence[Run], folders: Sequence[Path]) -> list[Run]:
    """The runs, where two have a name in common with as much of their folders before it as tells them apart."""
    paths = [folder.resolve().parts for folder in folders]
    found = []
    for run, parts in zip(runs, paths, strict=True):
        depth = 1
        while depth < len(parts) and sum(other[-depth:] == parts[-depth:] for other in paths) > 1:
            depth += 1
        found.append(replace(run, name="/".join(parts[-depth:])))
    if len({run.name for run in found}) < len(found):
        raise ValueError("the same folder is given twice; give each run once")
    return found


def _is_evaluation(folder: Path) -> bool:
    return (folder / SUMMARY).is_file() and "benchmarks" in _json(folder / SUMMARY)


def _evaluation(folder: Path) -> Run:
    summary = read_summary(folder)
    divide = _pieces(
        {role: facts.get("path") for role, facts in summary["model"].items() if isinstance(facts, Mapping)}
    )
    numbers: Mapping[str, Mapping[str, Any]] = summary["benchmarks"]
    played: dict[str, list[Sample]] = {}
    for name in benchmarks_of(folder):
        if name in numbers:
            rows = _episodes(folder / f"{name}.jsonl", lambda row: Evaluated.from_record(row["record"]))
            played[name] = [_sample(each.episode, each.correct, "evaluation", divide) for _, each in rows]
    digests = {name: played_digest(played.get(name, ()), _stage(folder, name)) for name in numbers}
    samples = [replace(s, problem=replace(s.problem, source=name)) for name, some in played.items() for s in some]
    measures = [replace(_measure_of(name, each), digest=digests[name]) for name, each in numbers.items()]
    if len(numbers) > 1 and "pass@1" in summary.get("average", {}):
        measures.append(_measure_of(AVERAGE, summary["average"]))
    return Run(
        name=folder.name,
        kind="evaluation",
        settings=shown_settings(summary["settings"]),
        measures=tuple(measures),
        benchmarks=numbers,
        words=_words(samples, lambda sample: sample.problem.source),
        behaviour=read_behaviour(folder) or {},
        samples=tuple(samples),
        remarks=() if numbers else (f"{folder.name} has no benchmark that was played to its end.",),
    )


def _stage(folder: Path, name: str) -> dict[str, Any]:
    """What the stage that played a benchmark noted of itself."""
    file = folder / f"{name}.json"
    return _json(file) if file.is_file() else {}


def _coldstart(folder: Path) -> Run:
    samples = [
        _sample(episode, True, "cold start", {})
        for name in (TRAIN, VALIDATION)
        if (folder / name).is_file()
        for _, episode in _episodes(folder / name, Episode.from_dict)
    ]
    summary = folder / CHAINS_SUMMARY
    lengths, scores = (folder / "figures" / f"{name}.json" for name in ("accuracy_and_length", "scores"))
    remarks = [] if scores.is_file() else [f"{folder.name} has no scores of thoughts yet: run `longshort synthesize`."]
    return Run(
        name=folder.name,
        kind="cold start",
        chains=_json(summary) if summary.is_file() else {},
        by_thoughts=AccuracyAndLength(**_tuples(lengths)) if lengths.is_file() else None,
        scores=_scores(scores) if scores.is_file() else None,
        samples=tuple(samples),
        remarks=tuple(remarks),
    )


def _training(folder: Path) -> Run:
    config = OmegaConf.load(folder / CONFIG) if (folder / CONFIG).is_file() else OmegaConf.create({})
    assert isinstance(config, DictConfig), "a run writes a mapping"
    steps = read_metrics(folder / METRICS) if (folder / METRICS).is_file() else []
    steps = list({int(line["step"]): line for line in steps}.values())
    record = Record.load(folder)
    samples, remarks = _played(folder, config, steps)
    names = _rounds_by_step(record, steps)
    samples = [replace(s, round=names(s.step)) if s.step is not None else s for s in samples]
    settings: Any = OmegaConf.to_container(config)
    return Run(
        name=folder.name,
        kind="training",
        settings=shown_settings(settings),
        measures=tuple(_measures(record, steps, config)),
        steps=tuple(steps),
        record=record,
        words=_words([s for s in samples if s.origin != "validation"], lambda sample: sample.round),
        samples=tuple(samples),
        remarks=tuple(remarks),
    )


def _played(folder: Path, config: DictConfig, steps: Sequence[Mapping[str, float]]) -> tuple[list[Sample], list[str]]:
    """Episodes of a training run, of its data folders where it kept them and else of its transcripts."""
    roles = [str(name) for name in config.get("policies") or {}]
    trained = {int(line["step"]): {role for role in roles if f"{role}/trained_episodes" in line} for line in steps}
    divide = _pieces({role: OmegaConf.select(config, f"policies.{role}.model.path") for role in roles})
    samples: list[Sample] = []
    for key, origin in (("rollout_data_dir", "training"), ("validation_data_dir", "validation")):
        kept = OmegaConf.select(config, f"trainer.{key}")
        for file in _step_files(folder, kept) if kept else ():
            samples += _of_step(file, "training" if origin == "training" else "validation", trained, divide)
    if samples:
        return samples, []
    found = read_transcripts(folder / "transcripts")
    what = "a sample of its training episodes, without log-probabilities" if found else "no episodes"
    remark = f"{folder.name} shows {what}: trainer.rollout_data_dir and trainer.validation_data_dir keep all of them."
    return found, [remark]


def _step_files(folder: Path, kept: str) -> list[Path]:
    """``<step>.jsonl`` of a data folder by step; a run that was moved may have it within."""
    places = [place for place in (Path(kept).expanduser(), folder / Path(kept).name) if place.is_dir()]
    files = [file for file in places[0].glob("*.jsonl") if file.stem.isdecimal()] if places else []
    return sorted(files, key=lambda file: int(file.stem))


def _of_step(file: Path, origin: Origin, trained: Mapping[int, set[str]], divide: Divide) -> Iterator[Sample]:
    step = int(file.stem)
    for row, episode in _episodes(file, Episode.from_dict):
        rewards = row.get("rewards") or {}
        correct = _verdict(row, origin)
        learners = trained.get(step) if origin == "training" else set()
        sample = _sample(episode, correct, origin, divide, learners)
        yield replace(sample, step=step, rewards=rewards)


def _verdict(row: Mapping[str, Any], origin: Origin) -> bool | None:
    """As it is stored; else by the score, which of a validation's episode is nothing but the verdict."""
    if isinstance(stored := row.get("correct"), bool):
        return stored
    return bool(row["score"] > 0) if origin == "validation" else correct_by(row.get("rewards") or {})


def _sample(
    episode: Episode, correct: bool | None, origin: Origin, divide: Divide, trained: set[str] | None = None
) -> Sample:
    turns = tuple(
        _turn(turn, divide.get(turn.role), None if trained is None else turn.role in trained) for turn in episode.turns
    )
    return Sample(
        problem=episode.problem,
        number=episode.sample,
        correct=correct,
        outcome=episode.outcome,
        origin=origin,
        turns=turns,
        error=episode.error,
    )


def _turn(turn: Turn, divide: Pieces | None, trained: bool | None) -> ShownTurn:
    closing = divide.text(turn.closing_ids) if divide and turn.closing_ids else ""
    return ShownTurn(
        role=turn.role,
        text=turn.text,
        tokens=len(turn.token_ids),
        cut=turn.finish_reason == "length",
        well_formed=turn.well_formed,
        trained=trained,
        closing=units(closing) if turn.text.endswith(closing) else 0,
        surprise=_tenths(turn.log_probs),
        pieces=divide(turn.token_ids, turn.text) if divide else (),
        prompt_tokens=turn.prompt_tokens or None,
        cached_tokens=turn.cached_tokens,
    )


def _tenths(log_probs: Sequence[float]) -> bytes:
    tenths = np.nan_to_num(-10 * np.asarray(log_probs, dtype=float), nan=255)
    return np.clip(np.rint(tenths), 0, 255).astype(np.uint8).tobytes()


def _pieces(models: Mapping[str, str | None]) -> dict[str, Pieces]:
    by_path = {path: pieces_of(path) for path in set(models.values()) if path}
    return {role: pieces for role, path in models.items() if path and (pieces := by_path[path])}


def _measures(record: Record, steps: Sequence[Mapping[str, float]], config: DictConfig) -> Iterator[Measure]:
    """On the test problems; of a run without any, its first and last validation."""
    digest = files_digest(config, "test_files")
    if record.reasoner:
        yield _measure("reasoner", TEST, record.reasoner, digest)
    if record.start:
        yield _measure("start", TEST, record.start, digest)
        for each in record.rounds:
            if each.test:
                yield _measure(each.name or "end", TEST, each.test, digest)
        return
    digest = files_digest(config, "val_files")
    validated = [line for line in steps if "val/accuracy" in line]
    for stage, line in zip(("start", "end"), validated[:1] + validated[1:][-1:], strict=False):
        name = stage if stage == "end" or line["step"] == 0 else f"step {line['step']:.0f}"
        metrics = {key[4:]: value for key, value in line.items() if key.startswith("val/")}
        yield _measure(name, VALIDATED, metrics, digest)


def _measure(stage: str, problems: str, metrics: Mapping[str, float], digest: str | None) -> Measure:
    """Of :func:`longshort.metrics.episode_metrics`."""
    roles = [key.removesuffix("/turns") for key in metrics if key.endswith("/turns")]
    return Measure(
        stage=stage,
        problems=problems,
        accuracy=metrics["accuracy"],
        error=metrics.get("standard_error"),
        tokens=metrics["tokens_per_episode"],
        turns=metrics["turns_per_episode"],
        outcomes={key.removeprefix("outcome/"): value for key, value in metrics.items() if key.startswith("outcome/")},
        roles={
            role: RoleFigures(
                *(metrics[f"{role}/{key}"] for key in ("turns", "tokens", "cut_turns", "well_formed_turns"))
            )
            for role in roles
        },
        digest=digest,
    )


def _measure_of(name: str, numbers: Mapping[str, Any]) -> Measure:
    """Of :func:`longshort.evaluation.numbers.benchmark_numbers`."""
    return Measure(
        stage="",
        problems=name,
        accuracy=numbers["pass@1"],
        error=numbers.get("standard_error"),
        tokens=numbers["tokens"],
        turns=numbers["turns"]["mean"],
        outcomes=numbers["outcomes"],
        roles={
            role: RoleFigures(each["turns"], each["tokens"], each.get("cut_turns"), each.get("well_formed_turns"))
            for role, each in numbers["roles"].items()
        },
        aes=numbers.get("aes"),
    )


def _rounds_by_step(record: Record, steps: Sequence[Mapping[str, float]]) -> Callable[[int], str]:
    """The name of the round that a step belongs to; of one that is not over yet, its number."""
    numbers = {int(line["step"]): int(line["round"]) for line in steps if "round" in line}

    def name(step: int) -> str:
        number = numbers.get(step)
        if number is None:
            return next((each.name for each in record.rounds if step <= each.last_step), "")
        return record.rounds[number - 1].name if number <= len(record.rounds) else f"round {number}"

    return name


def _words(samples: Sequence[Sample], group: Callable[[Sample], str]) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[tuple[str, int]]] = {}
    for sample in samples:
        groups.setdefault(group(sample), []).append((sample.text, sample.tokens))
    return {name: {"conversations": len(found), **numbers_of_texts(found)} for name, found in groups.items()}


def _scores(file: Path) -> ScoresByRollouts:
    data = _tuples(file)
    curves = tuple(ScoreCurve(**{**curve, "scores": tuple(curve["scores"])}) for curve in data["curves"])
    return ScoresByRollouts(**{**data, "curves": curves})


def _tuples(file: Path) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in _json(file).items()}


def _json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_bytes())
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise ValueError(f"{file} is not a JSON object: write it anew, or remove it")
    return data


def _episodes(file: Path, read: Callable[[dict[str, Any]], Played]) -> Iterator[tuple[dict[str, Any], Played]]:
    """Lines of a file, each with what ``read`` makes of it."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                yield row, read(row)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{file}:{number} is no episode ({error!r}): remove that line") from error
