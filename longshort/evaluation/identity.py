"""What an evaluation measured, so that a folder holds one model under one set of conditions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from longshort.episode import Problem
from longshort.evaluation.baselines import BUDGET_FORCING, FIRST_THOUGHT, NO_BASELINE, TALE_EP
from longshort.evaluation.records import SUMMARY, read_summary
from longshort.model_folder import WEIGHTS
from longshort.rounds.schedule import leaves

# Of a file of weights, so many bytes at its beginning and its end are read.
READ = 1 << 20
# What each baseline depends on beside its name; of budget_forcing also its budget.
OWN_KEYS = {
    TALE_EP: ("estimate_tokens",),
    BUDGET_FORCING: ("cue", "answer_tokens"),
    FIRST_THOUGHT: ("cue", "answer_tokens", "thought_end"),
}


def model_facts(config: DictConfig) -> dict[str, dict[str, str | None]]:
    """By policy, where its model is and, of a folder, a digest of its weights."""
    return {
        str(name): {"path": str(policy.model.path), "weights": weights_digest(Path(policy.model.path).expanduser())}
        for name, policy in config.policies.items()
    }


def weights_digest(folder: Path) -> str | None:
    """Of names, sizes, and the ends of the files of weights; None where ``folder`` is none.

    Training changes every tensor, so the ends tell two checkpoints apart without reading all of them.
    """
    if not folder.is_dir():
        return None
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(folder.glob(WEIGHTS)):
        size = file.stat().st_size
        digest.update(f"{file.name}/{size}/".encode())
        with file.open("rb") as weights:
            digest.update(weights.read(READ))
            weights.seek(max(size - READ, 0))
            digest.update(weights.read(READ))
    return digest.hexdigest()


def problems_digest(problems: Sequence[Problem]) -> str:
    """Of ids, questions and answers, in their order."""
    digest = hashlib.blake2b(digest_size=8)
    for problem in problems:
        digest.update(json.dumps([problem.id, problem.question, problem.answer]).encode())
    return digest.hexdigest()


def play_settings(config: DictConfig, budget: int | None) -> dict[str, Any]:
    """How every benchmark is played; ``budget`` of budget forcing."""
    team, evaluation = config.team, config.evaluation
    baseline = evaluation.baseline
    own: dict[str, Any] = {"name": baseline.name, **{key: baseline[key] for key in OWN_KEYS.get(baseline.name, ())}}
    if budget is not None:
        own["budget"] = budget
    return {
        "protocol": team.protocol,
        **({} if baseline.name == NO_BASELINE else {"baseline": own}),
        "family": team.family,
        "limits": {
            "max_turns": team.max_turns,
            "max_turn_tokens": OmegaConf.to_container(team.max_turn_tokens),
            "max_episode_tokens": team.max_episode_tokens,
            "close_cut_turns": team.close_cut_turns,
        },
        "sampling": {key: evaluation[key] for key in ("temperature", "top_p", "top_k")},
        "seed": config.seed,
    }


def refuse_others(folder: Path, model: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """ValueError where ``folder`` holds the evaluation of another model, or one that was played otherwise."""
    if not (folder / SUMMARY).is_file():
        return
    summary = read_summary(folder)
    before, now = _facts(summary["model"], summary["settings"]), _facts(model, settings)
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise ValueError(
                f"{folder} holds an evaluation with {key}={before.get(key)!r}, and it is {now.get(key)!r} now; choose "
                "another evaluation.folder, or go back to that"
            )


def flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted keys, as JSON gives them back."""
    return dict(leaves(json.loads(json.dumps(facts))))


def _facts(model: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    return flat({"model": model, **settings})
