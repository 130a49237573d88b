"""A user's own reward function: called as verl calls it, its failures named and counted, its time limited."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from longshort.custom_reward import CustomReward, CustomRewards
from longshort.episode import Episode, Problem, Turn
from longshort.rewards import FAILED, HybridReward, Ramp, group_rewards

WEIGHTS = HybridReward(1.0, 1.0, Ramp(0.0, 0.0, 0))


def episode() -> Episode:
    turns = (
        Turn("long", (1,), "<think>a</think>", (0.0,), "stop"),
        Turn("short", (2,), "<answer>7</answer>", (0.0,), "stop"),
    )
    return Episode(Problem("p", "3+4", "7", "mine"), {"long": (9,), "short": (9,)}, turns, "answered", sample=2)


def write(folder: Path, body: str) -> CustomReward:
    file = folder / "reward.py"
    file.write_text(f"def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n    {body}\n")
    return load(file, "compute_score")


def load(path: Path | str, name: str, timeout_s: float = 60.0) -> CustomReward:
    return CustomReward("custom_reward_function", OmegaConf.create({"path": str(path), "name": name}), timeout_s)


async def test_a_call_that_hangs_fails_at_its_limit_and_keeps_neither_others_nor_the_process() -> None:
    code = """
import asyncio, time
from omegaconf import OmegaConf
from longshort.custom_reward import CustomReward
from test_custom_reward import episode
async def main():
    named = OmegaConf.create({"path": "pkg://time", "name": "sleep"})
    slow = CustomReward("custom_reward_function", named, timeout_s=0.2)
    slow._function = lambda **more: time.sleep(600)
    grades = await asyncio.gather(*[slow(episode()) for _ in range(40)])
    assert all("took longer than reward.function_timeout_s=0.2" in grade.error for grade in grades)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, timeout=60, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


async def test_the_score_takes_the_place_of_correctness(tmp_path: Path) -> None:
    reward = write(
        tmp_path, "return 0.25 if (data_source, ground_truth, extra_info['turns']) == ('mine', '7', 2) else 0"
    )
    grade = await reward(episode())
    assert (grade.correct, grade.score, grade.error) == (True, 0.25, None)
    (earned,) = group_rewards([episode()], [grade], "short", WEIGHTS, 1.0, [0.0])
    assert earned.total == 1.25


async def test_a_dict_may_say_what_counts_as_right(tmp_path: Path) -> None:
    grade = await write(tmp_path, "return {'score': 0.5, 'acc': False}")(episode())
    assert (grade.correct, grade.score) == (False, 0.5)


@pytest.mark.parametrize(
    "body",
    ["return float('nan')", "return 'x'", "return [1, 2]", "return {}", "raise KeyError(3)", "raise SystemExit(0)"],
)
async def test_rubbish_names_file_function_and_episode_and_scores_nothing(tmp_path: Path, body: str) -> None:
    grade = await write(tmp_path, body)(episode())
    assert "reward.py:compute_score" in str(grade.error)
    assert "episode p/2" in str(grade.error)
    assert group_rewards([episode()], [grade], "short", WEIGHTS, 1.0, [0.0]) == [FAILED]


async def test_an_error_that_quotes_a_key_is_recorded_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-0123456789")
    for body in (
        "import os; raise OSError('401 for ' + os.environ['OPENAI_API_KEY'])",
        "return 'sk-planted-0123456789'",
    ):
        grade = await write(tmp_path, body)(episode())
        assert "sk-planted" not in str(grade.error)
        assert "(hidden)" in str(grade.error)


@pytest.mark.parametrize(
    ("content", "name", "named"),
    [
        ("import nowhere_at_all", "f", "nowhere_at_all"),
        ("f = 3", "f", "f"),
        ("def f(): ...", "g", "g"),
        ("(", "f", "import"),
    ],
)
def test_a_file_that_cannot_serve_is_one_sentence_before_anything_starts(
    tmp_path: Path, content: str, name: str, named: str
) -> None:
    file = tmp_path / "reward.py"
    file.write_text(content)
    with pytest.raises(ValueError, match=named):
        load(file, name)
    with pytest.raises(ValueError, match="no Python file"):
        load(tmp_path / "missing.py", name)


async def test_a_module_serves_as_well_as_a_file() -> None:
    assert load("pkg://math", "prod").where == "pkg://math:prod"
    with pytest.raises(ValueError, match="no_such_module"):
        load("pkg://no_such_module", "f")


def test_functions_are_routed_by_data_source(tmp_path: Path) -> None:
    mine, rest = write(tmp_path, "return 1"), load("pkg://math", "prod")
    problem = episode().problem
    assert CustomRewards(rest, {"mine": mine}).of(problem) is mine
    assert CustomRewards(rest, {"other": mine}).of(problem) is rest
    assert CustomRewards(None, {"other": mine}).of(problem) is None
