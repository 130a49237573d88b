"""Folders of runs for the tests of reports, written as the commands write them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from longshort.episode import Episode, Problem, Turn
from longshort.rounds.record import FinishedRound, Record
from longshort.rounds.selection import Candidate
from longshort.tracking import MetricsLog, TranscriptLog, write_episodes

HOSTILE = (
    "<script>window.hurt = 1; alert(1)</script>",
    '</script><img src=x onerror="window.hurt = 1">',
    "</textarea><style>*{display:none}</style>",
    "\x1b[31mred\x1b[0m \x07 \u202eright to left\u202c \u2066isolated",
    "${7*7} {{7*7}} $csp <!-- --!> <![CDATA[ ]]>",
    "wa\u0131t, a\u017f a wa\u0130t",
    "half a pair \ud83d, and a whole one \U0001f600",
)
METRICS = {
    "accuracy": 0.8,
    "tokens_per_episode": 50.0,
    "turns_per_episode": 2.0,
    "outcome/answered": 0.9,
    "outcome/token_limit": 0.1,
    "long/turns": 1.0,
    "long/tokens": 40.0,
    "long/cut_turns": 0.1,
    "long/well_formed_turns": 0.9,
    "short/turns": 1.0,
    "short/tokens": 10.0,
    "short/cut_turns": 0.0,
    "short/well_formed_turns": 1.0,
}
SECRET = "sk-very-secret"


def turn(role: str, text: str, **others: Any) -> Turn:
    """One token for each of four characters."""
    ids = tuple(range(len(text) // 4 + 1))
    return Turn(role, ids, text, tuple(-0.1 * (i % 50) for i in ids), "stop", **others)


def episode(number: int = 0, texts: tuple[str, ...] = ("Let me think.", "It is 5."), sample: int = 0) -> Episode:
    turns = tuple(turn(("long", "short")[i % 2], text) for i, text in enumerate(texts))
    problem = Problem(f"p{number}", f"What is {number}+2?", str(number + 2), "made-up")
    return Episode(problem, {"long": (1,), "short": (2,)}, turns, "answered", sample)


def hostile_episodes() -> list[Episode]:
    """Every hostile text as a question, an answer, an id and a turn."""
    return [
        Episode(Problem(text, text, text, text), {}, (turn(text, text),), "answered", error=text) for text in HOSTILE
    ]


def write_training(
    folder: Path, episodes: list[Episode] | None = None, kept: bool = True, test_file: str = "test.jsonl"
) -> Path:
    """A run of two rounds with a start, test problems and a secret in its configuration."""
    episodes = [episode(i, sample=i % 2) for i in range(4)] if episodes is None else episodes
    folder.mkdir(parents=True, exist_ok=True)
    log = MetricsLog(folder / "metrics.jsonl")
    reward = {"long/reward/correct": 0.8, "long/reward/total": 1.1, "long/trained_episodes": 4.0, "reward/mu": 1.0}
    for step in (1, 2):
        log.log(step, {**METRICS, **reward, "round": float(step)})
    test = {**METRICS, "accuracy": 0.7, "tokens_per_episode": 20.0}
    rounds = [
        FinishedRound("long-r1", 1, None, (Candidate(1, 0.7, 30.0, 0.02),), 1, "the last step", {"long": 1}, test),
        FinishedRound("short-r1", 2, "accuracy fell", (), None, "none qualified", {"long": 1}, test),
    ]
    Record(True, METRICS, {}, {}, tuple(rounds)).save(folder)
    rewards = [{"long/correct": float(i % 2), "long/length": -0.25} for i in range(len(episodes))]
    data = f"rollout_data_dir: {folder / 'rollouts'}, validation_data_dir: {folder / 'validation'}" if kept else ""
    (folder / "config.yaml").write_text(
        f"seed: 7\ntrain: long\ntrainer: {{{data}}}\ndata: {{test_files: [{SECRET}/{test_file}]}}\n"
        f"policies: {{long: {{model: {{path: /models/{SECRET}}}}}, short: {{model: {{path: null}}}}}}\n"
        f"models: {{judge: {{endpoint: {{url: 'https://{SECRET}.example', api_key: {SECRET}}}}}}}\n"
    )
    if kept:
        write_episodes(folder / "rollouts", 1, episodes, [r["long/correct"] for r in rewards], rewards=rewards)
        write_episodes(folder / "validation", 2, episodes, [1.0] * len(episodes))
    TranscriptLog(folder, every=1, count=len(episodes)).write(1, episodes, rewards)
    return folder


def numbers(accuracy: float = 0.5) -> dict[str, Any]:
    """Of a benchmark, as an evaluation's summary has them."""
    context = {"prompt": 30.0, "cached": 10.0, "computed": 20.0, "generated": 5.0}
    role = {"turns": 1.0, "tokens": 5.0, "tokens_per_turn": 5.0, "cut_turns": 0.0, "well_formed_turns": 1.0}
    return {
        "problems": 2,
        "samples": 1,
        "pass@1": accuracy,
        "standard_error": 0.1,
        "interval": [0.3, 0.7],
        "pass@k": {"1": accuracy},
        "tokens": 7.0,
        "tokens_per_right_answer": 14.0,
        "turns": {"mean": 2.0, "max": 3},
        "outcomes": {"answered": 1.0},
        "truncated": 0.0,
        "malformed": 0.0,
        "errors": 0.0,
        "length_percentiles": {"right": {"50": 7, "99": 9}, "wrong": None},
        "roles": {"long": {**role, "context": context}, "short": {**role, "context": context}},
        "left_out": {"unreadable": 4, "ungradable": 5},
    }


def write_evaluation(folder: Path, episodes: list[Episode] | None = None) -> Path:
    """Two benchmarks of the same episodes, every second one right."""
    episodes = [episode(i) for i in range(2)] if episodes is None else episodes
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("math500", "aime2024"):
        lines = [
            json.dumps({"id": f"{i}/0", "record": {"episode": asdict(each), "correct": i % 2 == 0}}) + "\n"
            for i, each in enumerate(episodes)
        ]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    summary = {
        "model": {"long": {"path": SECRET, "weights": "ab"}, "short": {"path": SECRET, "weights": "ab"}},
        "settings": {"protocol": "long_short", "seed": 3, "sampling": {"temperature": 0.6}, "api_key": SECRET},
        "benchmarks": {"math500": numbers(0.5), "aime2024": numbers(0.25)},
        "average": numbers(0.375),
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    phases = {
        "shares": {"computing": 0.75, "finalising": 0.25},
        "judged": 2,
        "refused": 1,
        "skipped": 6,
        "refused_answers": 7,
        "faults": {"no JSON": 5, "blocks overlap": 2},
    }
    perplexity = {"perplexity": 3.5, "median": 2.5, "conversations": 9, "cut": 1}
    behaviour = {"math500": {"phases": phases, "perplexity": perplexity}}
    (folder / "behaviour.json").write_text(json.dumps({"benchmarks": behaviour}))
    return folder


def write_coldstart(folder: Path) -> Path:
    """One with figures, conversations and a summary."""
    (folder / "figures").mkdir(parents=True)
    (folder / "chains.jsonl").write_text("")
    (folder / "train.jsonl").write_text("".join(episode(i).to_json() + "\n" for i in range(3)))
    lengths = {"thoughts": [0, 1], "chains": [3, 3], "accuracy": [0.1, 0.9], "tokens": [30.0, 10.0]}
    curve = {"rollouts": 8, "bound": 0.2, "scores": [0.5]}
    scores = {"thoughts": [1], "chains": [3], "decay": 0.25, "confidence": 0.95, "curves": [curve]}
    (folder / "figures" / "accuracy_and_length.json").write_text(json.dumps(lengths))
    (folder / "figures" / "scores.json").write_text(json.dumps(scores))
    summary = {"chains": 5, "chunked": 4, "kept": 3, "dropped": {"cut chain": 1}, "accuracy": 0.9, "rollouts": 24}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder
