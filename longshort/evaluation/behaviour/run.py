"""``longshort behaviour``: what `longshort evaluate` played, read again: phases by a judge, perplexity by a reference.

<folder>/behaviour/<benchmark>.phases-<settings>.jsonl      labels, see :mod:`longshort.evaluation.behaviour.phases`
<folder>/behaviour/<benchmark>.perplexity-<settings>.jsonl  scores under the reference
<folder>/behaviour.json                                     numbers by benchmark, and digests of its conversations

A record belongs to a sample and its text; ``<settings>`` is a digest of who reads, and of how the judge is asked.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
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
from longshort.evaluation.identity import facts_of, text_digest
from longshort.evaluation.records import Evaluated, benchmarks_of, read_benchmark, read_summary
from longshort.folders import write_whole
from longshort.model_folder import read_tokenizer
from longshort.stages import ItemsFailedError, Record, Stage, StageResult, open_stage

BEHAVIOUR = "behaviour.json"
FOLDER = "behaviour"
JUDGE, REFERENCE = "judge", "reference"
WORDS, PHASES, PERPLEXITY = "words", "phases", "perplexity"


async def behaviour(config: DictConfig, display: Display, open_model: OpenModel | None = None) -> None:
    """Write ``behaviour.json`` into ``evaluation.folder``.

    Words are counted in all conversations. ``models.judge`` and ``models.reference``, where the recipe has them, read
    the first sample of the first ``evaluation.behaviour.problems`` problems of each benchmark. Without them, what an
    earlier call found stays for benchmarks whose conversations are the same.

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
    judging = _judging(config)
    samples = {name: read_benchmark(folder, name) for name in names}
    chosen = {name: _first(found, config.evaluation.behaviour.problems) for name, found in samples.items()}
    digests = {name: _digest(found) for name, found in samples.items()}
    numbers: dict[str, dict[str, Any]] = {
        name: {WORDS: word_numbers([sample.episode for sample in found.values()]), **_kept(folder, name, digests[name])}
        for name, found in samples.items()
    }
    failures: list[ItemsFailedError] = []
    if JUDGE in config.models:
        for name, result in (await _judged(config, judging, folder, chosen, display, open_model)).items():
            if result.records:
                numbers[name][PHASES] = phase_numbers(result.records.values())
            if result.failed:
                failures.append(ItemsFailedError(name, result.failed))
    if REFERENCE in config.models:
        for name, found in (await _scored(config, folder, chosen, display)).items():
            numbers[name][PERPLEXITY] = perplexity_numbers(found)
    content = {"benchmarks": numbers, "conversations": digests}
    write_whole(folder / BEHAVIOUR, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
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


def _judging(config: DictConfig) -> Judging:
    given = OmegaConf.to_container(config.evaluation.behaviour.judge)
    assert isinstance(given, dict), "base.yaml has a mapping there"
    known = [field.name for field in fields(Judging)]
    for key in map(str, given):
        if key not in known:
            raise ValueError(f"evaluation.behaviour.judge.{key} is unknown; there are: {', '.join(known)}")
    return Judging(**given)  # type: ignore[arg-type]


def _digest(samples: Mapping[str, Evaluated]) -> str:
    return text_digest(json.dumps([_key(key, sample.episode) for key, sample in samples.items()]))


def _key(sample: str, episode: Episode) -> str:
    """Of a record: the sample, and a digest of its question and its turns."""
    text = json.dumps([episode.problem.question, *[turn.text for turn in episode.turns]])
    return f"{sample}#{text_digest(text)}"


def _kept(folder: Path, name: str, digest: str) -> dict[str, Any]:
    """What an earlier call found in the same conversations, but for words."""
    file = folder / BEHAVIOUR
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if before.get("conversations", {}).get(name) != digest:
        return {}
    return {key: found for key, found in before["benchmarks"][name].items() if key != WORDS}


def _first(samples: Mapping[str, Evaluated], problems: int | None) -> dict[str, Episode]:
    found = {_key(key, each.episode): each.episode for key, each in samples.items() if each.episode.sample == 0}
    return dict(list(found.items())[:problems])


async def _judged(
    config: DictConfig,
    judging: Judging,
    folder: Path,
    chosen: Mapping[str, Mapping[str, Episode]],
    display: Display,
    open_model: OpenModel | None,
) -> dict[str, StageResult]:
    settings = {**_reader(config, JUDGE), "asked": asdict(judging)}
    found = {}
    async with (open_model or opener(config, display))(JUDGE) as judge:

        async def label(episode: Episode) -> Record:
            return await label_phases(judge, episode, judging)

        for name, episodes in chosen.items():
            display.stage(f"labelling phases of {name}")
            with _stage(folder, f"{name}.{PHASES}", settings) as stage:
                await stage.run(episodes, label, display.advance)
                found[name] = _finished(stage, episodes)
    return found


async def _scored(
    config: DictConfig, folder: Path, chosen: Mapping[str, Mapping[str, Episode]], display: Display
) -> dict[str, list[Record]]:
    model = config.models[REFERENCE].model
    tokenizer = read_tokenizer(model, f"models.{REFERENCE}.model")
    # Loaded by the first batch that has no record.
    reference = cache(partial(Reference, str(model.path), str(config.trainer.device), tokenizer))

    def score(episodes: list[Episode]) -> list[Record]:
        return score_episodes(reference(), episodes)

    async def as_it_is(record: Record) -> Record:
        return record

    settings = _reader(config, REFERENCE)
    found = {}
    for name, episodes in chosen.items():
        display.stage(f"scoring {name} by the reference")
        with _stage(folder, f"{name}.{PERPLEXITY}", settings) as stage:
            missing = [key for key in episodes if key not in stage.records]
            done = len(episodes) - len(missing)
            for batch in batches([episodes[key] for key in missing]):
                keys = [missing[index] for index in batch]
                scores = await asyncio.to_thread(score, [episodes[key] for key in keys])
                await stage.run(dict(zip(keys, scores, strict=True)), as_it_is)
                done += len(keys)
                display.advance(done, len(episodes))
            found[name] = list(_finished(stage, episodes).records.values())
    return found


@contextmanager
def _stage(folder: Path, name: str, settings: Mapping[str, Any]) -> Iterator[Stage]:
    """A stage with files of its own for these settings."""
    digest = text_digest(json.dumps(settings, sort_keys=True))[:8]
    with open_stage(folder / FOLDER, f"{name}-{digest}", settings) as stage:
        yield stage


def _finished(stage: Stage, items: Mapping[str, Episode]) -> StageResult:
    """What the stage has of ``items``; records of other items, as of a call with more problems, stay in its files."""
    others = [key for key in stage.records if key not in items]
    result = stage.finish([*items, *others])
    return StageResult({key: result.records[key] for key in items if key in result.records}, result.failed)


def _reader(config: DictConfig, name: str) -> dict[str, Any]:
    model = config.models[name]
    return {name: model.endpoint.model if ENDPOINT in model else facts_of(model.model)}


def _show(folder: Path, numbers: Mapping[str, Mapping[str, Any]], display: Display) -> None:
    columns = ("benchmark", "reflection words per 1000 tokens", "aha", "judged", "refused", "skipped", "perplexity")
    rows = []
    for name, each in numbers.items():
        phases, perplexity = each.get(PHASES, {}), each.get(PERPLEXITY, {})
        rows.append(
            (
                name,
                f"{each[WORDS]['reflection_per_1000_tokens']:.2f}",
                f"{each[WORDS]['aha_share']:.1%}",
                phases.get("judged", ""),
                phases.get("refused", ""),
                phases.get("skipped", ""),
                "" if perplexity.get("perplexity") is None else f"{perplexity['perplexity']:.3g}",
            )
        )
    display.table(str(folder / BEHAVIOUR), columns, rows)
    for name, each in numbers.items():
        if shares := each.get(PHASES, {}).get("shares"):
            display.table(f"phases of {name}", ("phase", "share"), [(k, f"{v:.1%}") for k, v in shares.items()])
        if faults := each.get(PHASES, {}).get("faults"):
            display.table(f"answers of the judge refused on {name}", ("reason", "times"), list(faults.items()))
