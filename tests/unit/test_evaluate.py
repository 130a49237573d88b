"""``longshort evaluate`` with scripted engines: what it writes, what it plays again, what it refuses.

Not proved here: that engines play (``tests/integration/test_evaluate_stack.py``), and what the hub has.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from longshort.config import build_config
from longshort.display import Display
from longshort.episode import Problem
from longshort.evaluation.evaluate import evaluate
from longshort.evaluation.identity import play_settings
from longshort.evaluation.records import benchmarks_of, read_benchmark, read_summary
from longshort.folders import sole_use_of
from longshort.generation import GenerationFailedError, Generator, Tokenizer
from longshort.playground import model_path
from longshort.playground.problems import generate_problems, steps_of
from longshort.scripted import Request, ScriptedGenerator
from longshort.stages import ItemsFailedError

BENCHMARK = "playground:test:6:2"
NAME = "playground-test-6-2"
PROBLEMS = generate_problems(6, 2, "test")


class ScriptedEngines:
    """Engines from scripts, by policy; counts its starts."""

    def __init__(self, **scripts: Callable[[Request, Tokenizer], str]) -> None:
        self.scripts = scripts
        self.starts = self.stops = 0
        self.generators: dict[str, ScriptedGenerator] = {}

    async def start(
        self, config: DictConfig, tokenizers: Mapping[str, Tokenizer], display: Display
    ) -> Mapping[str, Generator]:
        self.starts += 1
        self.generators = {
            name: ScriptedGenerator(partial(self._reply, name, tokenizer), tokenizer)
            for name, tokenizer in tokenizers.items()
        }
        return self.generators

    def _reply(self, name: str, tokenizer: Tokenizer, request: Request) -> str:
        return self.scripts[name](request, tokenizer)

    def stop(self) -> None:
        self.stops += 1

    @property
    def requests(self) -> int:
        return sum(len(generator.requests) for generator in self.generators.values())


def asked(request: Request, tokenizer: Tokenizer) -> str:
    """The text of a prompt of ids."""
    assert isinstance(request.prompt, tuple)
    return tokenizer.decode(list(request.prompt), skip_special_tokens=False)


def problem_in(text: str) -> Problem:
    return next(problem for problem in PROBLEMS if problem.question in text)


def think(request: Request, tokenizer: Tokenizer) -> str:
    steps = steps_of(problem_in(asked(request, tokenizer)).question)
    return "<think>" + "\n\n".join(f"{a}{o}{b}={c}" for a, o, b, c in steps) + "</think>"


def answer(request: Request, tokenizer: Tokenizer) -> str:
    return f"<answer>\\boxed{{{answer_of(request, tokenizer)}}}</answer>"


def answer_of(request: Request, tokenizer: Tokenizer) -> str:
    """Wrong for the first problem."""
    problem = problem_in(asked(request, tokenizer))
    return "-1" if problem == PROBLEMS[0] else problem.answer


def pair() -> ScriptedEngines:
    return ScriptedEngines(long=think, short=answer)


@cache
def built(name: str) -> DictConfig:
    fixed = [f"evaluation.benchmarks=[{BENCHMARK}]", "evaluation.samples=2", "reward.grading_workers=1"]
    return build_config(name, fixed)


def recipe(folder: Path, *changes: str, name: str = "evaluate_playground") -> DictConfig:
    """A recipe that is built once; ``changes`` as on the command line, of single values."""
    config = deepcopy(built(name))
    config.merge_with_dotlist([f"evaluation.folder={folder}", *changes])
    return config


async def run(engines: ScriptedEngines, folder: Path, *overrides: str, name: str = "evaluate_playground") -> None:
    with Display() as display:
        await evaluate(recipe(folder, *overrides, name=name), display, engines)


async def test_every_sample_is_an_episode_with_its_verdict_and_the_summary_counts_them(tmp_path: Path) -> None:
    await run(pair(), tmp_path)
    assert benchmarks_of(tmp_path) == [NAME]
    samples = read_benchmark(tmp_path, NAME)
    assert list(samples) == [f"{problem.id}/{sample}" for problem in PROBLEMS for sample in range(2)]
    for key, sample in samples.items():
        assert key == f"{sample.episode.problem.id}/{sample.episode.sample}"
        assert sample.correct is (sample.episode.problem != PROBLEMS[0])
    summary = read_summary(tmp_path)
    numbers = summary["benchmarks"][NAME]
    assert numbers["pass@1"] == summary["average"]["pass@1"] == pytest.approx(5 / 6)
    assert numbers["problems"] == 6 and numbers["samples"] == 2
    assert numbers["left_out"] == {"unreadable": 0, "ungradable": 0}
    assert summary["model"]["long"]["path"] == str(model_path("long"))
    assert summary["settings"]["limits"]["max_episode_tokens"] == 464


async def test_samples_that_failed_are_tried_again_and_no_number_is_made_without_them(tmp_path: Path) -> None:
    def fails_once(request: Request, tokenizer: Tokenizer) -> str:
        if problem_in(asked(request, tokenizer)) == PROBLEMS[3]:
            raise GenerationFailedError("engine", None, 1, "full")
        return think(request, tokenizer)

    with pytest.raises(ItemsFailedError, match="2 items of playground-test-6-2 failed"):
        await run(ScriptedEngines(long=fails_once, short=answer), tmp_path)
    assert read_summary(tmp_path)["benchmarks"] == {}
    again = pair()
    await run(again, tmp_path)
    assert again.requests == 4
    assert read_summary(tmp_path)["benchmarks"][NAME]["problems"] == 6


async def test_a_second_run_plays_nothing_and_starts_no_engine(tmp_path: Path) -> None:
    first, second = pair(), pair()
    await run(first, tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.glob("*.json*")}
    await run(second, tmp_path)
    assert (first.starts, first.stops, first.requests) == (1, 1, 24)
    assert (second.starts, second.stops, second.requests) == (0, 0, 0)
    assert {file.name: file.read_bytes() for file in tmp_path.glob("*.json*")} == before


async def test_a_stopped_run_plays_only_what_is_missing_and_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    await run(pair(), whole)
    halves.mkdir()
    lines = (whole / f"{NAME}.jsonl").read_bytes().splitlines(keepends=True)
    shutil.copy(whole / f"{NAME}.json", halves)
    (halves / f".{NAME}.partial.jsonl").write_bytes(b"".join([*reversed(lines[:7]), lines[8][:100]]))
    resumed = pair()
    await run(resumed, halves)
    assert resumed.requests == 2 * (12 - 7)
    assert (halves / f"{NAME}.jsonl").read_bytes() == (whole / f"{NAME}.jsonl").read_bytes()
    assert (halves / "summary.json").read_bytes() == (whole / "summary.json").read_bytes()


async def test_benchmarks_of_a_later_command_join_the_summary(tmp_path: Path) -> None:
    folder, file = tmp_path / "e", tmp_path / "mine.json"
    await run(pair(), folder)
    file.write_text(json.dumps([{"problem": PROBLEMS[1].question, "answer": PROBLEMS[1].answer}]))
    await run(pair(), folder, f"evaluation.benchmarks=['{file}']", "evaluation.samples=null")
    summary = read_summary(folder)
    assert list(summary["benchmarks"]) == [NAME, "mine"]
    assert summary["benchmarks"]["mine"]["samples"] == 1
    assert summary["average"]["pass@1"] == pytest.approx((5 / 6 + 1) / 2)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ([f"policies.long.model.path={model_path('base')}"], r"model\.long\.path='.*long', and it is '.*base' now"),
        (["evaluation.temperature=0.5"], r"sampling\.temperature=0\.6, and it is 0\.5 now"),
        (["team.max_episode_tokens=440"], r"limits\.max_episode_tokens=464, and it is 440 now"),
        (["seed=3"], r"seed=0, and it is 3 now"),
        (["evaluation.samples=3"], r"samples=2, and it is 3 now"),
    ],
)
async def test_a_folder_of_another_model_or_of_other_settings_is_refused(
    tmp_path: Path, changes: list[str], named: str
) -> None:
    await run(pair(), tmp_path)
    with pytest.raises(ValueError, match=named):
        await run(pair(), tmp_path, *changes)


async def test_other_weights_under_the_same_path_are_another_model(tmp_path: Path) -> None:
    model = shutil.copytree(model_path("long"), tmp_path / "model")
    await run(pair(), tmp_path / "e", f"policies.long.model.path={model}")
    weights = model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.long\.weights='\w+', and it is '\w+' now"):
        await run(pair(), tmp_path / "e", f"policies.long.model.path={model}")


async def test_a_relative_path_names_the_same_model_as_an_absolute_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = shutil.copytree(model_path("long"), tmp_path / "model")
    for path, played in (("model", True), (str(model), False), ("model", False)):
        engines = pair()
        await run(engines, tmp_path / "e", f"policies.long.model.path={path}")
        assert (engines.requests > 0) == played


async def test_verdicts_of_another_function_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    graded = f"custom_reward_function.path={file}"
    file.write_text("def compute_score(**given):\n    return 1.0\n")
    await run(pair(), tmp_path / "e", graded)
    file.write_text("def compute_score(**given):\n    return 0.0\n")
    with pytest.raises(ValueError, match=r"grading\.function\.digest='\w+', and it is '\w+' now"):
        await run(pair(), tmp_path / "e", graded)
    with pytest.raises(ValueError, match=r"grading\.function\.digest='\w+', and it is None now"):
        await run(pair(), tmp_path / "e")


async def test_other_problems_under_the_same_name_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    for answer_given, fault in (("5", None), ("6", "mine.jsonl was made with problems=")):
        file.write_text(json.dumps([{"problem": PROBLEMS[1].question, "answer": answer_given}]))
        play = run(pair(), tmp_path / "e", f"evaluation.benchmarks=['{file}']")
        if fault is None:
            await play
        else:
            with pytest.raises(ValueError, match=fault):
                await play


async def test_a_folder_that_holds_the_benchmark_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds the benchmark .*mine\.json; choose another folder"):
        await run(pair(), tmp_path, f"evaluation.benchmarks=['{tmp_path / 'mine.json'}']")


async def test_a_gold_answer_that_cannot_be_graded_is_left_out_and_counted(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    rows = [{"problem": PROBLEMS[i].question, "answer": a} for i, a in enumerate(["1", "$$", PROBLEMS[2].answer])]
    file.write_text(json.dumps(rows))
    await run(pair(), tmp_path / "e", f"evaluation.benchmarks=['{file}']")
    numbers = read_summary(tmp_path / "e")["benchmarks"]["mine"]
    assert numbers["problems"] == 2
    assert numbers["left_out"] == {"unreadable": 0, "ungradable": 1}


async def test_a_prompt_that_is_too_long_is_refused_not_left_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"prompts of playground-test-6-2 are longer than data\.max_prompt_length=12"):
        await run(pair(), tmp_path, "data.max_prompt_length=12")


async def test_aes_is_measured_against_the_base_of_the_recipe(tmp_path: Path) -> None:
    await run(pair(), tmp_path / "base")
    await run(pair(), tmp_path / "e", f"evaluation.base={tmp_path / 'base'}")
    summary: dict[str, Any] = read_summary(tmp_path / "e")
    assert summary["benchmarks"][NAME]["aes"] == summary["average"]["aes"] == 0
    with pytest.raises(ValueError, match="nowhere holds no evaluation"):
        await run(pair(), tmp_path / "f", "evaluation.base=nowhere")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("evaluation.samples=1", r"base played mine with samples=2, here 1; give a base"),
        ("team.max_episode_tokens=440", r"base played mine with limits\.max_episode_tokens=464, here 440"),
        ("seed=0", r"base played mine with problems='\w+', here '\w+'"),
    ],
)
async def test_a_base_that_is_not_comparable_is_refused_before_anything_is_played(
    tmp_path: Path, change: str, fault: str
) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps([{"problem": PROBLEMS[1].question, "answer": PROBLEMS[1].answer}]))
    more = [f"evaluation.benchmarks=['{file}']", change]
    await run(pair(), tmp_path / "base", more[0])
    if change == "seed=0":
        file.write_text(json.dumps([{"problem": PROBLEMS[2].question, "answer": PROBLEMS[2].answer}]))
    engines = pair()
    with pytest.raises(ValueError, match=fault):
        await run(engines, tmp_path / "e", f"evaluation.base={tmp_path / 'base'}", *more)
    assert engines.starts == 0
    # Nor may one be joined by the numbers of an earlier command.
    await run(pair(), tmp_path / "e", *more)
    with pytest.raises(ValueError, match=fault):
        await run(pair(), tmp_path / "e", f"evaluation.base={tmp_path / 'base'}", change)


async def test_a_summary_has_the_aes_of_one_base_and_says_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, folder = tmp_path / "mine.json", tmp_path / "e"
    file.write_text(json.dumps([{"problem": PROBLEMS[1].question, "answer": PROBLEMS[1].answer}]))
    mine = f"evaluation.benchmarks=['{file}']"
    await run(pair(), tmp_path / "one")
    await run(pair(), tmp_path / "other", mine)
    await run(pair(), folder, f"evaluation.base={tmp_path / 'one'}")
    capsys.readouterr()
    await run(pair(), folder, mine, f"evaluation.base={tmp_path / 'other'}")
    summary = read_summary(folder)
    assert summary["base"] == str(tmp_path / "other")
    assert "aes" not in summary["benchmarks"][NAME] and summary["benchmarks"]["mine"]["aes"] == 0
    assert "aes" not in summary["average"]
    assert "The average has no AES, since its base" in capsys.readouterr().out
    await run(pair(), folder)
    assert read_summary(folder)["base"] is None and "aes" not in read_summary(folder)["benchmarks"]["mine"]


async def test_the_aes_of_the_average_is_of_average_accuracy_and_length(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps([{"problem": PROBLEMS[1].question, "answer": PROBLEMS[1].answer}]))
    both = f"evaluation.benchmarks=[{BENCHMARK},'{file}']"
    wrong = ScriptedEngines(long=think, short=lambda *_: "<answer>\\boxed{-1}</answer>")
    await run(pair(), tmp_path / "e", both)
    base = tmp_path / "base"
    await run(wrong, base, f"evaluation.benchmarks=['{file}']")
    await run(pair(), base)
    await run(pair(), tmp_path / "e", both, f"evaluation.base={base}")
    summary = read_summary(tmp_path / "e")
    before = read_summary(base)["benchmarks"].values()
    after = [summary["benchmarks"][name] for name in (NAME, "mine")]
    accuracy, base_accuracy, tokens, base_tokens = (
        sum(each[key] for each in side) / 2 for key in ("pass@1", "tokens") for side in (after, before)
    )
    assert base_accuracy == pytest.approx(5 / 12)
    by_hand = (base_tokens - tokens) / base_tokens + 3 * (accuracy - base_accuracy) / base_accuracy
    assert summary["average"]["aes"] == pytest.approx(by_hand)
    assert summary["benchmarks"]["mine"]["aes"] is None


async def test_numbers_that_another_command_wrote_meanwhile_stay(tmp_path: Path) -> None:
    def meanwhile(request: Request, tokenizer: Tokenizer) -> str:
        summary = read_summary(tmp_path)
        summary["benchmarks"]["other"] = numbers
        (tmp_path / "summary.json").write_text(json.dumps(summary))
        return think(request, tokenizer)

    await run(pair(), tmp_path / "else")
    numbers = read_summary(tmp_path / "else")["benchmarks"][NAME]
    await run(ScriptedEngines(long=meanwhile, short=answer), tmp_path)
    assert read_summary(tmp_path)["benchmarks"].keys() == {NAME, "other"}


async def test_a_folder_that_is_in_use_is_not_written_into(tmp_path: Path) -> None:
    with sole_use_of(tmp_path), pytest.raises(ValueError, match="is in use by another run"):
        await run(pair(), tmp_path)
    assert not (tmp_path / "summary.json").exists()


def solo_thinks(request: Request, tokenizer: Tokenizer) -> str:
    """Thinks, or answers where its thinking is over."""
    text = asked(request, tokenizer)
    if "</think>" in text:
        return f"\\boxed{{{answer_of(request, tokenizer)}}}"
    return think(request, tokenizer)


def test_budget_forcing_has_the_limits_of_the_plain_model_that_it_is_compared_with(tmp_path: Path) -> None:
    plain, forced = (
        play_settings(recipe(tmp_path, name=f"baseline_{name}_playground"), budget)
        for name, budget in (("plain", None), ("budget_forcing", 25))
    )
    assert (plain["protocol"], plain["limits"]) == (forced["protocol"], forced["limits"])


async def test_each_budget_has_a_folder_of_its_own_and_they_share_engines(tmp_path: Path) -> None:
    engines = ScriptedEngines(solo=solo_thinks)
    more = ["evaluation.baseline.budgets=[3,200]"]
    await run(engines, tmp_path, *more, name="baseline_budget_forcing_playground")
    assert (engines.starts, engines.requests) == (1, 2 * 2 * 12)
    cut, whole = (read_summary(tmp_path / f"budget-{budget}") for budget in (3, 200))
    assert cut["settings"]["baseline"]["budget"] == 3 and whole["settings"]["baseline"]["budget"] == 200
    roles = cut["benchmarks"][NAME]["roles"]
    assert roles["solo"]["tokens"] == 3 and roles["solo"]["cut_turns"] == 1
    assert roles["answer"]["context"]["prompt"] > roles["solo"]["context"]["prompt"]
    assert whole["benchmarks"][NAME]["roles"]["solo"]["cut_turns"] == 0
    assert cut["benchmarks"][NAME]["pass@1"] == whole["benchmarks"][NAME]["pass@1"] == pytest.approx(5 / 6)


async def test_multiple_choice_is_right_by_letter_and_by_text(tmp_path: Path) -> None:
    questions = [problem.question for problem in PROBLEMS[:3]]
    rows = [
        {"Question": q, "Correct Answer": "700", **{f"Incorrect Answer {i}": f"70{i}" for i in (1, 2, 3)}}
        for q in questions
    ]
    (tmp_path / "gpqa_diamond.json").write_text(json.dumps(rows))

    def chooses(request: Request, tokenizer: Tokenizer) -> str:
        text = asked(request, tokenizer)
        letter = next(line[1] for line in text.splitlines() if line.endswith(") 700"))
        given = {questions[0]: letter, questions[1]: "700", questions[2]: "701"}
        return f"<answer>\\boxed{{{given[next(q for q in questions if q in text)]}}}</answer>"

    engines = ScriptedEngines(long=think, short=chooses)
    more = ["data.max_prompt_length=400", "team.max_episode_tokens=100", f"evaluation.data_dir={tmp_path}"]
    await run(engines, tmp_path / "e", "evaluation.benchmarks=[gpqa_diamond]", *more)
    right = [sample.correct for sample in read_benchmark(tmp_path / "e", "gpqa_diamond").values()]
    assert right == [True, True, True, True, False, False]
