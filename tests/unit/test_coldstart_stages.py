"""The stages of the cold start with scripted models: what they write, what failures and kills leave behind.

Not proved here: that engines generate (``tests/integration/test_coldstart.py``) and that a model learns from it.
"""

from __future__ import annotations

import asyncio
import json
import math
import multiprocessing
import random
import re
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from longshort.coldstart import distill, score
from longshort.coldstart.pipeline import STAGES, run_stages, summarise
from longshort.coldstart.score import scored_chains
from longshort.coldstart.setting import Setting, endpoint_of, opener
from longshort.config import build_config
from longshort.controller import turn_seed
from longshort.display import Display
from longshort.episode import Episode
from longshort.generation import Chat, GenerationFailedError, Generator
from longshort.grading_pool import GradingPool
from longshort.playground import corpus
from longshort.playground.problems import steps_of
from longshort.protocol import LONG_SHORT
from longshort.scripted import Request, ScriptedGenerator
from longshort.stages import ItemsFailedError, read_stage

FILES = ("chains.jsonl", "thoughts.jsonl", "rollouts.jsonl", "conversations.jsonl", "train.jsonl", "validation.jsonl")


def recipe(folder: Path, *overrides: str) -> DictConfig:
    return build_config(
        "coldstart_playground",
        [
            f"coldstart.folder={folder}",
            "data.train_files=[playground:train:24:7]",
            "coldstart.score.rollouts=8",
            # Only their tokenizers are read.
            "policies.long.model.path=playground:long",
            "policies.short.model.path=playground:short",
            "models.base.model.path=playground:long",
            *overrides,
        ],
    )


def reasoner(request: Request) -> str:
    """A chain of the corpus; every eighth has a wrong answer, and every ninth never ends."""
    question = asked(request)
    place = sum(map(ord, question))
    thoughts = "".join(corpus.chain(problem_of(question), random.Random(question)))
    answer = problem_of(question).answer if place % 8 else "-1"
    return f"<think>{thoughts}" + (f"</think>\\boxed{{{answer}}}" if place % 9 else "")


def base(request: Request) -> str:
    """Right as often as steps are done, by the request's seed."""
    assert isinstance(request.prompt, Chat)
    problem = problem_of(asked(request))
    lines = [corpus.line_of(step) for step in steps_of(problem.question)]
    done = sum(line in request.prompt.opened for line in lines)
    right = random.Random(request.params.seed).random() < (done + 0.5) / (len(lines) + 0.5)
    return corpus.boxed(problem.answer if right else -1)


def asked(request: Request) -> str:
    assert isinstance(request.prompt, Chat)
    return request.prompt.messages[-1]["content"]


def problem_of(question: str) -> Any:
    from longshort.episode import Problem

    return Problem(question, question, str(steps_of(question)[-1][-1]))


def setting(config: DictConfig, grader: GradingPool, models: Mapping[str, Generator], display: Display) -> Setting:
    @asynccontextmanager
    async def open_model(name: str) -> AsyncIterator[Generator]:
        yield models[name]

    return Setting(config, display, grader, open_model)


async def run_all(config: DictConfig, models: Mapping[str, Generator]) -> Setting:
    with Display() as display, GradingPool(1, 10.0) as grader:
        made = setting(config, grader, models, display)
        for stage in STAGES.values():
            await stage(made)
        return made


def scripted() -> dict[str, Generator]:
    return {"reasoner": ScriptedGenerator(reasoner), "base": ScriptedGenerator(base)}


@pytest.mark.parametrize("adaptive", [True, False])
async def test_every_chain_is_accounted_for_and_every_conversation_is_one(tmp_path: Path, adaptive: bool) -> None:
    config = recipe(tmp_path, f"coldstart.score.adaptive.enabled={adaptive}")
    made = await run_all(config, scripted())
    summary = summarise(made.config)
    assert summary["chains"] == 24
    assert summary["kept"] + sum(summary["dropped"].values()) == 24
    assert {"wrong chain", "cut chain"} <= summary["dropped"].keys()
    assert summary["completer"] == "playground"
    chains = scored_chains(config)
    sampled = sum(len(samples) for chain in chains for samples in chain.rollouts)
    assert summary["rollouts"] == sampled
    everything = 8 * sum(len(chain.rollouts) for chain in chains)
    assert sampled <= config.coldstart.score.adaptive.budget * everything if adaptive else sampled == everything
    episodes = [Episode.from_json(line) for name in FILES[4:] for line in (tmp_path / name).read_text().splitlines()]
    assert len(episodes) == summary["kept"] > 5
    for episode in episodes:
        assert all(LONG_SHORT.well_formed(turn.role, turn.text) for turn in episode.turns)
        assert re.findall(r"\\boxed\{(\d+)\}", episode.final_text) == [episode.problem.answer]
    assert {"scores.png", "accuracy_and_length.png"} <= {file.name for file in (tmp_path / "figures").iterdir()}


async def test_other_partitions_need_no_new_rollout(tmp_path: Path) -> None:
    await run_all(recipe(tmp_path), scripted())
    rollouts = (tmp_path / "rollouts.jsonl").read_bytes()
    kept = (tmp_path / "train.jsonl").read_bytes()
    for name in ("conversations.json", "conversations.jsonl"):
        (tmp_path / name).unlink()
    changed = recipe(tmp_path, "coldstart.synthesize.rule=top_k", "coldstart.synthesize.k=1", "coldstart.score.decay=0")
    with Display() as display, GradingPool(1, 10.0) as grader:
        await STAGES["synthesize"](setting(changed, grader, {}, display))
    assert (tmp_path / "rollouts.jsonl").read_bytes() == rollouts
    assert (tmp_path / "train.jsonl").read_bytes() != kept


async def test_all_prefixes_of_a_chain_follow_its_whole_and_share_a_session(tmp_path: Path) -> None:
    models = scripted()
    await run_all(recipe(tmp_path), models)
    generator = models["base"]
    assert isinstance(generator, ScriptedGenerator)
    opened: dict[str, list[str]] = {}
    for request in generator.requests:
        assert isinstance(request.prompt, Chat)
        opened.setdefault(request.session, []).append(request.prompt.opened)
    for prefixes in opened.values():
        assert all(prefixes[0].startswith(prefix) for prefix in prefixes)


async def test_what_an_engine_refuses_is_left_to_the_next_run(tmp_path: Path) -> None:
    bad = GenerationFailedError("http://127.0.0.1:1/v1", 500, 6, "overloaded")
    models = {
        "reasoner": ScriptedGenerator(reasoner, faults={3: bad}),
        "base": ScriptedGenerator(base, faults={17: bad}),
    }
    made = await run_all(recipe(tmp_path), models)
    assert summarise(made.config)["chains"] == 23
    assert json.loads((tmp_path / "rollouts.json").read_text())["failed"]
    again = scripted()
    await run_all(recipe(tmp_path), again)
    assert isinstance(again["reasoner"], ScriptedGenerator)
    assert len(again["reasoner"].requests) == 1
    assert len((tmp_path / "chains.jsonl").read_text().splitlines()) == 24
    assert not json.loads((tmp_path / "rollouts.json").read_text())["failed"]


async def test_failed_items_are_an_error_after_everything_else_went_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = GenerationFailedError("http://127.0.0.1:1/v1", None, 6, "no answer")
    models = {"reasoner": ScriptedGenerator(reasoner, faults={0: fault}), "base": ScriptedGenerator(base)}

    def open_scripted(config: DictConfig, display: Display) -> Any:
        with GradingPool(1, 1.0) as unused:
            return setting(config, unused, models, display).open_model

    monkeypatch.setattr("longshort.coldstart.pipeline.opener", open_scripted)
    with Display() as display, pytest.raises(ItemsFailedError, match=r"1 items of distill failed.*no answer.*retries"):
        await run_stages(recipe(tmp_path), display)
    assert (tmp_path / "train.jsonl").is_file()


async def logged(request: Request, calls: Path) -> None:
    """Which item is generated, and a moment of work."""
    name = f"{request.session} {request.params.seed}\n"
    with calls.open("a") as file:
        file.write(name)
    await asyncio.sleep(random.Random(name).random() * 0.005)


def play_through(folder: Path) -> None:
    """What the killed process runs."""
    calls = folder.with_suffix(".calls")

    async def gate(request: Request) -> None:
        await logged(request, calls)

    models: dict[str, Generator] = {
        "reasoner": ScriptedGenerator(reasoner, gate=gate),
        "base": ScriptedGenerator(base, gate=gate),
    }
    asyncio.run(run_all(recipe(folder), models))


def test_killed_at_twenty_moments_it_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    began = time.monotonic()
    assert play_in_a_process(whole, math.inf) == 0
    took = time.monotonic() - began
    rng, kills = random.Random(0), 0
    while kills < 20:
        if play_in_a_process(killed, rng.uniform(0.02, 0.4) * took) == 0:
            check_the_same(killed, whole)
            shutil.rmtree(killed)
            killed.with_suffix(".calls").unlink()
        else:
            kills += 1
    assert play_in_a_process(killed, math.inf) == 0
    check_the_same(killed, whole)


def play_in_a_process(folder: Path, seconds: float) -> int | None:
    """Exit code of a run that is killed after so many seconds; it generates nothing that is on disk already."""
    had, calls = finished(folder), len(calls_of(folder))
    process = multiprocessing.get_context("fork").Process(target=play_through, args=(folder,))
    process.start()
    process.join(None if seconds == math.inf else seconds)
    process.kill()
    process.join()
    assert had.isdisjoint(calls_of(folder)[calls:])
    return process.exitcode


def check_the_same(killed: Path, whole: Path) -> None:
    for name in FILES:
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    # Nothing was generated but what the undisturbed run generated, and all of that is what its records name.
    assert set(calls_of(killed)) == set(calls_of(whole)) == finished(whole)


def finished(folder: Path) -> set[str]:
    """The calls, as they are logged, whose records are on disk."""
    found = set()
    for name in ("chains", "rollouts"):
        for file in (folder / f"{name}.jsonl", folder / f".{name}.partial.jsonl"):
            whole = file.read_bytes() if file.is_file() else b""
            ids = [json.loads(line)["id"] for line in whole[: whole.rfind(b"\n") + 1].splitlines()]
            found |= {
                call_of(key) if name == "rollouts" else call_of(f"{key}/0/0", "#0", distill.SEED_STEP) for key in ids
            }
    return found


def call_of(rollout: str, suffix: str = "", step: int = score.SEED_STEP) -> str:
    chain, thoughts, number = rollout.rsplit("/", 2)
    return f"{chain}{suffix} {turn_seed(0, step, chain, int(number), int(thoughts))}"


def calls_of(folder: Path) -> list[str]:
    log = folder.with_suffix(".calls")
    return log.read_text().splitlines() if log.is_file() else []


async def test_a_file_of_divided_chains_takes_the_place_of_distilling(tmp_path: Path) -> None:
    problem = problem_of("7+5*3-4")
    thought = "<think>7+5=12\n\n12*3=36\n\n36-4=32\n\n</think>\n\n\\boxed{32}"
    blocks = [{"start": 1, "end": 1, "type": "a"}, {"start": 2, "end": 3, "type": "b"}]
    chain = {"id": "c", "question": problem.question, "answer": "32", "thought": thought, "blocks": blocks}
    rows = [{**chain, "id": f"c{n}", "steps": 4, "chunking": "complete"} for n in range(3)]
    file = tmp_path / "train-chains.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = recipe(tmp_path / "out", f"coldstart.chains={file}")
    made = await run_all(config, {"base": ScriptedGenerator(base)})
    thoughts = read_stage(made.folder, "thoughts")["c0"]["thoughts"]
    assert [thought["kind"] for thought in thoughts] == ["a", "b"]
    assert summarise(made.config)["kept"] == 3


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["coldstart.chunk.by=guess"], "coldstart.chunk.by=guess"),
        (["coldstart.chunk.by=model"], "models.instruct is not set"),
        (["coldstart.synthesize.completer=nobody"], "coldstart.synthesize.completer=nobody"),
        (["coldstart.synthesize.rule=best"], "rule is 'best'"),
        (["coldstart.score.adaptive.first=9"], "first is 9"),
        (["coldstart.chains=nowhere.jsonl"], "nowhere.jsonl is no file"),
    ],
)
async def test_a_bad_setting_is_named(tmp_path: Path, overrides: list[str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        config = recipe(tmp_path, *overrides)
        with Display() as display, GradingPool(1, 10.0) as grader:
            made = setting(config, grader, scripted(), display)
            if "chunk.by=model" in overrides[0]:
                made = Setting(config, display, grader, opener(config, display))
                await STAGES["distill"](setting(config, grader, scripted(), display))
                await STAGES["chunk"](made)
            for stage in STAGES.values():
                await stage(made)


async def test_a_stage_without_the_one_before_it_says_so(tmp_path: Path) -> None:
    with Display() as display, GradingPool(1, 10.0) as grader:
        made = setting(recipe(tmp_path), grader, scripted(), display)
        for name in ("chunk", "score", "synthesize"):
            with pytest.raises(ValueError, match="holds nothing: run the stage that writes it first"):
                await STAGES[name](made)


def test_an_endpoint_takes_the_place_of_a_model_and_its_settings_are_checked() -> None:
    added = ["+models.instruct.endpoint={url: 'http://127.0.0.1:8000/v1', model: m, attempts: 2}"]
    for name in ("coldstart_playground", "coldstart_qwen2.5_7b"):
        config = build_config(name, added)
        assert endpoint_of(config.models.instruct, "instruct").attempts == 2
    with pytest.raises(ValueError, match=r"models\.instruct\.endpoint\.url is not set"):
        build_config("coldstart_playground", ["+models.instruct.endpoint={model: m}"])
    wrong = build_config("coldstart_playground", [*added, "+models.instruct.endpoint.tries=3"])
    with pytest.raises(ValueError, match=r"models\.instruct\.endpoint: .*'tries'"):
        endpoint_of(wrong.models.instruct, "instruct")


def test_a_model_is_composed_like_a_policy_and_changed_by_its_own_name() -> None:
    config = build_config(
        "coldstart_playground",
        ["models.base.rollout.max_num_seqs=7", "+models.instruct.model.path=/m", "actor_rollout_ref.rollout.seed=3"],
    )
    assert [config.models[name].rollout.max_num_seqs for name in config.models] == [256, 7, 256]
    assert all(config.models[name].rollout.seed == 3 for name in config.models)
    assert config.models.instruct.model.path == "/m"


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["models.judge.model.path=/m"], r"models\.judge; there are \['reasoner', 'base'\]"),
        (["+models.instruct.rollout.max_num_seqs=8"], r"models\.instruct\.model\.path is not set"),
        (["models.base.rollout.tensor_model_parallel_size=4"], r"models\.base\.rollout: an engine of 4 GPUs"),
    ],
)
def test_a_bad_model_is_named(overrides: list[str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        build_config("coldstart_playground", overrides)
