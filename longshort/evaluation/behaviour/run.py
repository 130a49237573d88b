"""``longshort behaviour``: what `longshort evaluate` played, read again: phases by a judge, perplexity by a reference.

<folder>/behaviour/<benchmark>.phases.jsonl      labels by sample, see :mod:`longshort.evaluation.behaviour.phases`
<folder>/behaviour/<benchmark>.perplexity.jsonl  scores of batches of samples
<folder>/behaviour.json                          numbers by benchmark
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from longshort.coldstart.setting import OpenModel, opener
from longshort.config import ENDPOINT
from longshort.display import Display
from longshort.episode import Episode
from longshort.evaluation.behaviour.perplexity import Reference, batches, perplexity_numbers, score_episodes
from longshort.evaluation.behaviour.phases import Judging, label_phases, phase_numbers
from longshort.evaluation.behaviour.words import word_numbers
from longshort.evaluation.records import Evaluated, benchmarks_of, read_benchmark, read_summary
from longshort.folders import write_whole
from longshort.model_folder import read_tokenizer
from longshort.stages import ItemsFailedError, Record, StageResult, run_stage

BEHAVIOUR = "behaviour.json"
FOLDER = "behaviour"
JUDGE, REFERENCE = "judge", "reference"


async def behaviour(config: DictConfig, display: Display, open_model: OpenModel | None = None) -> None:
    """Write ``behaviour.json`` into ``evaluation.folder``.

    Words are counted in all conversations. ``models.judge`` and ``models.reference``, where the recipe has them, read
    the first sample of the first ``evaluation.behaviour.problems`` problems of each benchmark.

    Args:
        open_model: opens the judge; by default as in the cold start.

    Raises:
        ValueError: the folder holds no evaluation, or a model is described wrongly.
        ItemsFailedError: at the end, where the judge's endpoint failed.
    """
    folder = Path(config.evaluation.folder)
    read_summary(folder)
    names = benchmarks_of(folder)
    if not names:
        raise ValueError(f"{folder} holds no benchmark that was played to its end; run `longshort evaluate` first")
    samples = {name: read_benchmark(folder, name) for name in names}
    chosen = {name: _first(found, config.evaluation.behaviour.problems) for name, found in samples.items()}
    numbers: dict[str, dict[str, Any]] = {
        name: {"words": word_numbers([sample.episode for sample in found.values()])} for name, found in samples.items()
    }
    failures: list[ItemsFailedError] = []
    if JUDGE in config.models:
        for name, result in (await _judged(config, folder, chosen, display, open_model)).items():
            numbers[name]["phases"] = phase_numbers(result.records.values())
            if result.failed:
                failures.append(ItemsFailedError(name, result.failed))
    if REFERENCE in config.models:
        for name, found in (await _scored(config, folder, chosen, display)).items():
            numbers[name]["perplexity"] = perplexity_numbers(found)
    write_whole(folder / BEHAVIOUR, json.dumps({"benchmarks": numbers}, indent=2, ensure_ascii=False) + "\n")
    _show(folder, numbers, display)
    if failures:
        raise failures[0]


def read_behaviour(folder: Path) -> dict[str, Any] | None:
    """Numbers by benchmark, or None where ``longshort behaviour`` did not run."""
    file = folder / BEHAVIOUR
    if not file.is_file():
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["benchmarks"]
    return found


def _first(samples: Mapping[str, Evaluated], problems: int | None) -> dict[str, Episode]:
    found = {key: sample.episode for key, sample in samples.items() if sample.episode.sample == 0}
    return dict(list(found.items())[:problems])


async def _judged(
    config: DictConfig,
    folder: Path,
    chosen: Mapping[str, Mapping[str, Episode]],
    display: Display,
    open_model: OpenModel | None,
) -> dict[str, StageResult]:
    judging = Judging(**OmegaConf.to_container(config.evaluation.behaviour.judge))  # type: ignore[arg-type]
    asked = {"asked": OmegaConf.to_container(config.evaluation.behaviour.judge)}
    found = {}
    async with (open_model or opener(config, display))(JUDGE) as judge:
        for name, episodes in chosen.items():
            display.stage(f"labelling phases of {name}")

            async def label(episode: Episode) -> Record:
                return await label_phases(judge, episode, judging)

            settings = _identity(config, JUDGE, episodes) | asked
            found[name] = await run_stage(folder / FOLDER, f"{name}.phases", episodes, label, settings, display.advance)
    return found


async def _scored(
    config: DictConfig, folder: Path, chosen: Mapping[str, Mapping[str, Episode]], display: Display
) -> dict[str, list[Record]]:
    model = config.models[REFERENCE].model
    tokenizer = read_tokenizer(model, f"models.{REFERENCE}.model")
    # Loaded by the first batch that has no record.
    reference = cache(partial(Reference, str(model.path), str(config.trainer.device), tokenizer))

    async def score(episodes: list[Episode]) -> Record:
        return {"scores": await asyncio.to_thread(lambda: score_episodes(reference(), episodes))}

    found = {}
    for name, named in chosen.items():
        episodes = list(named.values())
        items = {
            f"batch-{number}": [episodes[index] for index in indices]
            for number, indices in enumerate(batches(episodes))
        }
        settings = _identity(config, REFERENCE, named)
        display.stage(f"scoring {name} by the reference")
        result = await run_stage(
            folder / FOLDER, f"{name}.perplexity", items, score, settings, display.advance, concurrency=1
        )
        found[name] = [scored for record in result.records.values() for scored in record["scores"]]
    return found


def _identity(config: DictConfig, name: str, episodes: Mapping[str, Episode]) -> dict[str, Any]:
    """Who reads, and what."""
    model = config.models[name]
    digest = hashlib.blake2b(digest_size=8)
    for key, episode in episodes.items():
        digest.update(json.dumps([key, [turn.text for turn in episode.turns]]).encode())
    return {name: model.endpoint.model if ENDPOINT in model else model.model.path, "conversations": digest.hexdigest()}


def _show(folder: Path, numbers: Mapping[str, Mapping[str, Any]], display: Display) -> None:
    columns = ("benchmark", "reflection words per 1000 tokens", "aha", "judged", "refused", "perplexity")
    rows = []
    for name, each in numbers.items():
        phases, perplexity = each.get("phases", {}), each.get("perplexity", {})
        rows.append(
            (
                name,
                f"{each['words']['reflection_per_1000_tokens']:.2f}",
                f"{each['words']['aha_share']:.1%}",
                phases.get("judged", ""),
                phases.get("refused", ""),
                "" if perplexity.get("perplexity") is None else f"{perplexity['perplexity']:.3g}",
            )
        )
    display.table(str(folder / BEHAVIOUR), columns, rows)
    for name, each in numbers.items():
        if shares := each.get("phases", {}).get("shares"):
            display.table(f"phases of {name}", ("phase", "share"), [(k, f"{v:.1%}") for k, v in shares.items()])
        if faults := each.get("phases", {}).get("faults"):
            display.table(f"answers of the judge refused on {name}", ("reason", "times"), list(faults.items()))
