"""Supervised fine-tuning through verl's engine: one sequence per conversation, best checkpoint, resume.

Not proven here: that a fine-tuned model plays well; the cold start's own run measures that.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, AutoTokenizer

from longshort.config import build_config
from longshort.conversation import as_episode
from longshort.episode import Episode, View
from longshort.playground import corpus, problems
from longshort.protocol import LONG_SHORT
from longshort.sft import read_best
from longshort.supervised import LOSS, supervised_step
from longshort.tracking import read_metrics
from workers import team
from workers.placement import make_pools
from workers.policy import RayPolicy

CONVERSATIONS = 48


def turns(question: str, rethinks: bool) -> list[tuple[str, str]]:
    """A conversation about ``question``, in two turns or in four."""
    first, second, *rest = map(corpus.line_of, problems.steps_of(question))
    answer = ("short", f"<answer>{corpus.boxed(problems.steps_of(question)[-1][-1])}</answer>")
    if not rethinks:
        return [("long", "<think>" + "\n".join([first, second, *rest]) + "</think>"), answer]
    opening = [("long", f"<think>{first}</think>"), ("short", f"<answer>{second}</rethink>")]
    return [*opening, ("long", "<think>" + "\n".join([second, *rest]) + "</think>"), answer]


def episodes(pair: dict[str, Path]) -> list[Episode]:
    tokenizers = {role: AutoTokenizer.from_pretrained(path) for role, path in pair.items()}
    asked = problems.generate_problems(CONVERSATIONS, 3, "train")
    return [
        as_episode(problem, turns(problem.question, place % 4 == 0), tokenizers, LONG_SHORT)
        for place, problem in enumerate(asked)
    ]


def one_view_per_turn(episode: Episode, role: str) -> list[View]:
    """What the method's text says: input the history, output the turn."""
    views, history = [], list(episode.prompts[role])
    for turn in episode.turns:
        if turn.role == role:
            ids = turn.token_ids
            views.append(View(tuple(history), ids, (1,) * len(ids), (0.0,) * len(ids)))
        history += turn.ids_for(role)
    return views


@pytest_asyncio.fixture
async def two_copies(random_pair: dict[str, Path]) -> AsyncIterator[list[RayPolicy]]:
    """The same model twice, as policies without engines."""
    path = random_pair["long"]
    config = build_config("local", [f"policies.{role}.model.path={path}" for role in ("long", "short")])
    for policy in config.policies.values():
        for key, value in LOSS.items():
            OmegaConf.update(policy, key, value)
    team.start_ray(config)
    pools = make_pools(["long", "short"], "split", {"long": 1, "short": 1}, 1)
    tokenizer = AutoTokenizer.from_pretrained(path)
    copies = [RayPolicy(n, config.policies[n], pools[n], tokenizer, trainable=True) for n in ("long", "short")]
    for policy in copies:
        await policy.start_workers(generates=False)
    yield copies
    team.stop()


async def test_one_sequence_per_conversation_is_the_loss_and_gradient_of_one_example_per_turn(
    two_copies: list[RayPolicy], random_pair: dict[str, Path]
) -> None:
    whole, cut = two_copies
    rethought = [episode for episode in episodes(random_pair) if len(episode.turns) > 2]
    assert len(rethought) >= 3
    views = [view for episode in rethought if (view := episode.view("long")) is not None]
    parts = [view for episode in rethought for view in one_view_per_turn(episode, "long")]
    assert len(parts) > len(views)
    for _ in range(2):
        one, other = await supervised_step(whole, views), await supervised_step(cut, parts)
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
    assert sum(map(len, (view.response_ids + view.prompt_ids for view in views))) < sum(
        len(view.response_ids + view.prompt_ids) for view in parts
    )


def run_sft(folder: Path, pair: dict[str, Path], files: dict[str, Path], epochs: int) -> None:
    command = [
        *(sys.executable, "-m", "longshort.cli", "sft"),
        *(f"policies.{role}.model.path={path}" for role, path in pair.items()),
        *(f"data.{kind}_files=[{file}]" for kind, file in files.items()),
        "data.train_batch_size=16",
        "data.max_prompt_length=2048",
        "actor_rollout_ref.actor.ppo_mini_batch_size=16",
        "actor_rollout_ref.rollout.max_model_len=3072",
        "actor_rollout_ref.actor.optim.lr_scheduler_type=constant",
        "policies.short.model.lora_rank=4",
        f"trainer.total_epochs={epochs}",
        "trainer.test_freq=2",
        f"trainer.default_local_dir={folder}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


def test_both_policies_learn_go_on_where_they_stopped_and_keep_the_best(
    random_pair: dict[str, Path], tmp_path: Path
) -> None:
    written = episodes(random_pair)
    files = {"train": tmp_path / "train.jsonl", "val": tmp_path / "val.jsonl"}
    for (kind, file), chosen in zip(files.items(), (written[:40], written[40:]), strict=True):
        file.write_text("".join(episode.to_json() + "\n" for episode in chosen), encoding="utf-8")
        assert kind in file.name
    folder = tmp_path / "sft"
    run_sft(folder, random_pair, files, epochs=1)
    run_sft(folder, random_pair, files, epochs=2)
    for role in ("long", "short"):
        rows = read_metrics(folder / role / "metrics.jsonl")
        # 40 conversations in batches of 16 are 3 steps an epoch; the second run adds the second epoch's.
        assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
        losses = {int(row["step"]): row["val/loss"] for row in rows if "val/loss" in row}
        assert sorted(losses) == [2, 3, 4, 6]
        assert losses[6] < losses[2], "nothing was learned"
        best = read_best(folder / role)
        assert best["val/loss"] == min(losses.values())
        assert best["step"] == min(losses, key=lambda step: losses[step])
        AutoModelForCausalLM.from_pretrained(folder / role / "best" / role / "huggingface")
        kept = {path.name for path in (folder / role).glob("global_step_*")}
        assert kept == {f"global_step_{best['step']}", "global_step_6"}
    assert json.loads((folder / "long" / "global_step_6" / "state.json").read_text())["step"] == 6
