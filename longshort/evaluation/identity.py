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
from longshort.extern import PACKAGE
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
    """By policy, what :func:`facts_of` knows of its model.

    A folder of weights keeps the spelling that it has in the evaluation which ``evaluation.folder`` holds, because the
    files there are compared with it.
    """
    before = _models_before(Path(config.evaluation.folder))
    found = {str(name): facts_of(policy.model) for name, policy in config.policies.items()}
    for name, facts in found.items():
        spelled = before.get(name, {}).get("path")
        if spelled and facts["weights"] and Path(spelled).expanduser().resolve() == Path(facts["path"] or "").resolve():
            facts["path"] = spelled
    return found


def facts_of(model: DictConfig) -> dict[str, str | None]:
    """Where a model is, of a folder a digest of its weights, and what else its prompts depend on, where that is set.

    Args:
        model: verl's settings of it.
    """
    facts = {"path": _absolute(model.path), "weights": weights_digest(Path(model.path).expanduser())}
    if model.tokenizer_path:
        facts["tokenizer_path"] = _absolute(model.tokenizer_path)
    if model.custom_chat_template:
        facts["chat_template"] = text_digest(model.custom_chat_template)
    return facts


def text_digest(text: str) -> str:
    """Sixteen hexadecimal digits."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


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
    grading = _grading(config)
    named = {} if team.limit_in_prompt is None else {"limit_in_prompt": team.limit_in_prompt}
    return {
        "protocol": team.protocol,
        **({} if baseline.name == NO_BASELINE else {"baseline": own}),
        "family": team.family,
        "limits": {
            "max_turns": team.max_turns,
            "max_turn_tokens": OmegaConf.to_container(team.max_turn_tokens),
            "max_episode_tokens": team.max_episode_tokens,
            "close_cut_turns": team.close_cut_turns,
            **named,
        },
        **({"grading": grading} if grading else {}),
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


def _grading(config: DictConfig) -> dict[str, Any]:
    """The user's own functions: for all problems, and by data source."""
    own, by_source = config.custom_reward_function, config.reward.functions
    found: dict[str, Any] = {"function": _function(own)} if own.path else {}
    if by_source:
        found["functions"] = {str(source): _function(named) for source, named in by_source.items()}
    return found


def _function(named: DictConfig) -> dict[str, str | None]:
    """Of a file also a digest of its bytes; of a package the name alone."""
    if named.path.startswith(PACKAGE):
        return {"path": named.path, "name": named.name}
    file = Path(named.path.removeprefix("file://")).expanduser().absolute()
    digest = hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest() if file.is_file() else None
    return {"path": str(file), "name": named.name, "digest": digest}


def _absolute(path: str) -> str:
    """A folder's path from the root; a name on the hub as it is."""
    folder = Path(path).expanduser()
    return str(folder.absolute()) if folder.is_dir() else str(path)


def _models_before(folder: Path) -> Mapping[str, Any]:
    """The models of the evaluation in ``folder``, or of the first of its budgets; empty where there is none."""
    summaries = [folder / SUMMARY, *sorted(folder.glob(f"budget-*/{SUMMARY}"))]
    found: Mapping[str, Any] = next((read_summary(file.parent)["model"] for file in summaries if file.is_file()), {})
    return found


def _facts(model: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    return flat({"model": model, **settings})
