"""The steps of a reproduction fit together, and its claims are read off its folders.

Not proved here: that the claims hold, which `longshort reproduce playground` shows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from longshort.config import build_config
from longshort.display import Display
from longshort.reproduce import run
from longshort.reproduce.claims import check_claims, claims_table, paper_tables
from longshort.reproduce.errors import StepFailedError
from longshort.reproduce.steps import FULL, QUICK, Step, playground_steps, qwen_steps

RECIPES = {"coldstart": "coldstart_playground", "evaluate": "evaluate_playground", "train": "local"}


@pytest.mark.parametrize("quick", [False, True])
def test_the_playgrounds_steps_have_names_of_their_own_and_one_cold_start_for_each_ablation(
    tmp_path: Path, quick: bool
) -> None:
    names = [step.name for step in playground_steps(tmp_path, quick)]
    assert len(set(names)) == len(names)
    assert {f"cold start, {name}" for name in (QUICK if quick else FULL).ablations} < set(names)


def test_every_recipe_that_a_step_names_builds_with_the_keys_that_the_step_sets(tmp_path: Path) -> None:
    built = set()
    for step in (*playground_steps(tmp_path, quick=True), *qwen_steps(tmp_path)):
        command, *rest = step.arguments
        if command not in RECIPES:
            continue
        recipe = RECIPES[command]
        if rest[0] == "--config-name":
            recipe, rest = rest[1], rest[2:]
        keys = frozenset(override.partition("=")[0] for override in rest)
        # Building takes a second, and steps differ mostly in their paths.
        if (recipe, keys) not in built and (recipe.endswith("playground") or command == "train"):
            built.add((recipe, keys))
            build_config(recipe, rest)


def test_a_step_is_run_once_and_a_failing_one_says_where_its_output_is(tmp_path: Path) -> None:
    steps = [Step("one", ("status", str(tmp_path / "nothing")))]
    with Display() as display, pytest.raises(StepFailedError, match=r"one ended with code \d+ .*one\.log"):
        run._run(steps, tmp_path, display)
    assert not (tmp_path / run.DONE).exists()
    (tmp_path / run.DONE).write_text(json.dumps({run.command_of(steps[0]): 1.0}))
    with Display() as display:
        run._run(steps, tmp_path, display)


def test_claims_and_tables_are_read_off_the_summaries(tmp_path: Path) -> None:
    reproduced(tmp_path, pair_tokens=30.0, random=0.7)
    claims = check_claims(tmp_path)
    assert [claim.holds for claim in claims] == [True, True, True, True, True]
    assert claims[0].found == "81.2% fewer, 30.0 for 160.0"
    tables = {table.name: table for table in paper_tables(tmp_path)}
    assert [row[0] for row in tables["pair"].rows] == ["base", "reasoner", "Long-r0⊗Short-r0", "Long-r1⊗Short-r0"]
    assert tables["pair"].rows[1][3] == 0.0
    assert [row[0] for row in tables["cold_start"].rows][2:] == ["scores, scanned", "random scores"]
    assert [row[0] for row in tables["savings"].rows][3:] == ["budget forcing/25"]
    assert [row[0] for row in tables["thinkprune"].rows] == ["start", "90"]


def test_what_does_not_hold_is_said(tmp_path: Path) -> None:
    reproduced(tmp_path, pair_tokens=40.0, random=0.95)
    claims = check_claims(tmp_path)
    assert [claim.holds for claim in claims] == [False, True, True, True, False]
    assert [row[2] for row in claims_table(claims).rows] == ["no", "yes", "yes", "yes", "no"]


def reproduced(root: Path, pair_tokens: float, random: float) -> None:
    """Summaries as the steps leave them."""

    def write(name: str, content: dict[str, Any]) -> None:
        (root / name).mkdir(parents=True)
        (root / name / "summary.json").write_text(json.dumps(content))

    def figures(accuracy: float, tokens: float, length: str = "tokens") -> dict[str, float]:
        return {"accuracy": accuracy, length: tokens}

    last = {"pair": "Long-r1⊗Short-r0", "trained": "long", **figures(0.98, pair_tokens), "aes": 1.0}
    write("evolution", {"reasoner": figures(1.0, 160.0), "start": figures(0.9, 85.0), "rounds": [last]})
    limit = {"limit": 90, "candidates": [], "selected": 2, **figures(0.95, 44.0, "length")}
    write(
        "thinkprune",
        {
            "start": figures(0.99, 170.0, "length"),
            "rounds": [limit],
            "final": figures(0.95, 44.0, "length"),
        },
    )
    for name, accuracy in {
        **{"reasoner": 1.0, "base": 0.1, "prompting": 0.05, "r0": 0.9, "random_scores": random},
        **{"pair": 0.98, "first_thought": 0.3, "budget_forcing/25": 0.2},
    }.items():
        average = {"pass@1": accuracy, "tokens": 50.0}
        write(f"evaluation/{name}", {"model": {}, "settings": {}, "benchmarks": {"a": average}, "average": average})


def test_the_time_left_goes_by_the_pace_of_the_steps_that_are_over() -> None:
    steps = [Step("a", ("a",), 100.0), Step("b", ("b",), 50.0), Step("unknown", ("c",))]
    assert run._left(steps, {}) == " (about 2m30s left in all)"
    assert run._left(steps, {"longshort a": 200.0}) == " (about 1m40s left in all)"
    assert run._left(steps[2:], {}) == ""
