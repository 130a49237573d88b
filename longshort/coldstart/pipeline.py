"""``longshort coldstart``: all stages, then a look at the pair that they made."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from longshort.assembly import open_run
from longshort.coldstart.chunk import THOUGHTS, chunk
from longshort.coldstart.distill import CHAINS, distill
from longshort.coldstart.score import ROLLOUTS, prompt_tokens, score
from longshort.coldstart.setting import Setting, folder_of, opener
from longshort.coldstart.synthesize import CONVERSATIONS, TRAIN, VALIDATION, dropped_chains, synthesize
from longshort.display import Display
from longshort.grading_pool import GradingPool
from longshort.sft import BEST, sft
from longshort.stages import ItemsFailedError, StageResult, read_stage

STAGES: Mapping[str, Callable[[Setting], Awaitable[StageResult]]] = {
    "distill": distill,
    "chunk": chunk,
    "score": score,
    "synthesize": synthesize,
}
SUMMARY = "summary.json"


async def run_stages(config: DictConfig, display: Display, names: tuple[str, ...] = tuple(STAGES)) -> None:
    """Run stages of the cold start, each on what the one before it has written.

    Raises:
        ItemsFailedError: at the end, where items of a stage failed; the other items went on.
    """
    reward = config.reward
    failures: list[ItemsFailedError] = []
    with GradingPool(reward.grading_workers, reward.grading_timeout_s) as grader:
        setting = Setting(config, display, grader, opener(config, display))
        for name in names:
            result = await STAGES[name](setting)
            if result.failed:
                failures.append(ItemsFailedError(name, result.failed))
    if failures:
        raise failures[0]


async def coldstart(config: DictConfig, display: Display) -> None:
    """All stages, the fine-tuning of both models, and ``summary.json``.

    Raises:
        ItemsFailedError: see :func:`run_stages`.
    """
    await run_stages(config, display)
    folder = folder_of(config)
    await sft(_changed(config, _tuning(folder)), display)
    figures = await _play(_changed(config, _playing(folder, config)), display)
    summary = summarise(config) | figures
    (folder / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n")
    display.table(str(folder / SUMMARY), ("", ""), [(name, json.dumps(value)) for name, value in summary.items()])


def summarise(config: DictConfig) -> dict[str, Any]:
    """What became of the chains, and what scoring them cost."""
    folder = folder_of(config)
    chains, thoughts = read_stage(folder, CHAINS), read_stage(folder, THOUGHTS)
    rollouts, records = read_stage(folder, ROLLOUTS), read_stage(folder, CONVERSATIONS)
    sent, computed = prompt_tokens(rollouts.values())
    return {
        "chains": len(chains),
        "chunked": len(thoughts),
        "fallback": sum(record["made_by"] == "rules" for record in thoughts.values()),
        "scored": len(records),
        "kept": sum(record["conversation"] is not None for record in records.values()),
        "dropped": dropped_chains(folder),
        "completer": config.coldstart.synthesize.completer,
        "rollouts": len(rollouts),
        "prompt_tokens_sent": sent,
        "prompt_tokens_computed": computed,
    }


def pair_folder(folder: Path, name: str) -> Path:
    """Hugging Face folder of a fine-tuned policy's best checkpoint."""
    return folder / "sft" / name / BEST / name / "huggingface"


def _tuning(folder: Path) -> dict[str, Any]:
    return {
        "data.train_files": [str(folder / TRAIN)],
        "data.val_files": [str(folder / VALIDATION)],
        "trainer.default_local_dir": str(folder / "sft"),
    }


def _playing(folder: Path, config: DictConfig) -> dict[str, Any]:
    paths = {f"policies.{name}.model.path": str(pair_folder(folder, str(name))) for name in config.policies}
    return {"train": "none", "trainer.default_local_dir": str(folder / "played"), **paths}


def _changed(config: DictConfig, changes: Mapping[str, Any]) -> DictConfig:
    changed = deepcopy(config)
    for key, value in changes.items():
        OmegaConf.update(changed, key, value)
    return changed


async def _play(config: DictConfig, display: Display) -> dict[str, Any]:
    """The fine-tuned pair on the held-out problems: shares of well-formed turns, accuracy, tokens and turns."""
    async with open_run(config, display) as run:
        metrics = await run.evaluate("playing the pair", 0)
    return {
        "problems": len(run.validation),
        "well_formed": {name: metrics[f"{name}/well_formed_turns"] for name in config.policies},
        "accuracy": metrics["accuracy"],
        "tokens_per_episode": metrics["tokens_per_episode"],
        "turns": metrics["turns_per_episode"],
    }
