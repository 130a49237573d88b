"""What makes two evaluations the same: models, prompts, grading.

Not proved here: that ``longshort evaluate`` refuses by it (``test_evaluate.py``).
"""

from __future__ import annotations

import json
import os
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from longshort.config import build_config
from longshort.evaluation.identity import model_facts, play_settings
from longshort.evaluation.records import SUMMARY
from longshort.playground import model_path


@cache
def built(*overrides: str) -> DictConfig:
    return build_config("baseline_plain_playground", overrides)


def settings(*overrides: str) -> dict[str, Any]:
    return play_settings(built(*overrides), None)


def test_what_is_not_set_is_not_named() -> None:
    found = settings()
    assert "grading" not in found
    assert found["limits"].keys() == {"max_turns", "max_turn_tokens", "max_episode_tokens", "close_cut_turns"}
    assert model_facts(built())["solo"].keys() == {"path", "weights"}


def test_a_limit_of_the_prompt_is_named() -> None:
    assert settings("team.limit_in_prompt=100")["limits"]["limit_in_prompt"] == 100


def test_grading_counts_by_the_bytes_of_its_files(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    found = []
    for content in ("a = 1", "a = 2"):
        file.write_text(content)
        grading = settings(
            f"custom_reward_function.path={file}",
            f"+reward.functions.math={{path: 'file://{file}', name: other}}",
            "+reward.functions.own={path: 'pkg://a.module', name: score}",
        )["grading"]
        assert (grading["function"]["path"], grading["function"]["name"]) == (str(file), "compute_score")
        assert grading["functions"]["math"] == grading["function"] | {"name": "other"}
        assert grading["functions"]["own"] == {"path": "pkg://a.module", "name": "score"}
        found.append(grading["function"]["digest"])
    assert found[0] != found[1]


def test_what_prompts_are_made_by_counts(tmp_path: Path) -> None:
    facts = [
        model_facts(built(f"policies.solo.model.custom_chat_template='{template}'"))["solo"]["chat_template"]
        for template in ("a", "b")
    ]
    assert facts[0] != facts[1]
    tokenizer = model_path("reasoner")
    assert model_facts(built(f"policies.solo.model.tokenizer_path={tokenizer}"))["solo"]["tokenizer_path"] == str(
        tokenizer
    )


@pytest.mark.parametrize("spelled", ["absolute", "relative", "of an evaluation that was there"])
def test_a_folder_of_weights_is_one_model_however_its_path_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelled: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model_path("reasoner"), tmp_path / "model")
    path, known = str(tmp_path / "model"), str(tmp_path / "model")
    if spelled == "relative":
        path = os.path.relpath(tmp_path / "model")
    if spelled.startswith("of"):
        known = "model"
        (tmp_path / SUMMARY).write_text(
            json.dumps({"model": {"solo": {"path": known}}, "settings": {}, "benchmarks": {}})
        )
    config = built(f"policies.solo.model.path={path}", f"evaluation.folder={tmp_path}")
    assert model_facts(config)["solo"]["path"] == known
