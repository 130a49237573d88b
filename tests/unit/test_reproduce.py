"""The steps of a reproduction fit together, and its claims are read off its folders.

Not proved here: that the claims hold, which `longshort reproduce playground` shows.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from longshort.cli import main
from longshort.config import build_config
from longshort.display import Display
from longshort.folders import sole_use_of
from longshort.reproduce import run
from longshort.reproduce.child import run_child
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
        if (recipe, keys) not in built:
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
    # Of the evaluated reasoner, 50 tokens and all right, not of the run's own with 160.
    assert tables["pair"].rows[0][3] == pytest.approx(5 * (0.1 - 1.0))
    assert "base was measured by `longshort evaluate`" in tables["pair"].note
    assert [row[0] for row in tables["cold_start"].rows][2:] == ["scores, scanned", "random scores"]
    assert [row[0] for row in tables["savings"].rows][3:] == ["budget forcing/budget-25", "budget forcing/budget-100"]
    assert [row[0] for row in tables["thinkprune"].rows] == ["start", "90"]


def test_what_does_not_hold_is_said(tmp_path: Path) -> None:
    reproduced(tmp_path, pair_tokens=40.0, random=0.95)
    claims = check_claims(tmp_path)
    assert [claim.holds for claim in claims] == [False, True, True, True, False]
    assert [row[2] for row in claims_table(claims).rows] == ["no", "yes", "yes", "yes", "no"]


def test_a_claim_with_nothing_to_compare_with_does_not_hold_and_says_so(tmp_path: Path) -> None:
    reproduced(tmp_path, pair_tokens=30.0, random=0.7)
    for name, part, keys in (("evolution", "reasoner", ("tokens", "accuracy")), ("thinkprune", "start", ("accuracy",))):
        file = tmp_path / name / "summary.json"
        summary = json.loads(file.read_text())
        summary[part] |= dict.fromkeys(keys, 0.0)
        file.write_text(json.dumps(summary))
    claims = check_claims(tmp_path)
    assert [claim.holds for claim in claims] == [False, True, True, False, True]
    assert claims[0].found == "nothing to compare with, 30.0 for 0.0"
    pair = next(table for table in paper_tables(tmp_path) if table.name == "pair")
    assert pair.rows[1][3] is None


def test_a_quick_reproduction_has_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    whole, quick = (tmp_path / "outputs" / f"reproduce_playground{size}" for size in ("", "_quick"))
    # Held, so that nothing is run.
    with sole_use_of(whole), sole_use_of(quick):
        assert main(["reproduce", "playground", "--quick"]) == 2
        assert "outputs/reproduce_playground_quick is in use" in capsys.readouterr().err
        assert main(["reproduce", "playground"]) == 2
        assert "outputs/reproduce_playground is in use" in capsys.readouterr().err


def test_qwens_steps_end_with_a_comparison_and_a_report_over_all_that_was_played(tmp_path: Path) -> None:
    steps = qwen_steps(tmp_path)
    *_, compare, report = [step.arguments for step in steps]
    assert compare == ("compare", *[str(tmp_path / "evaluation" / name) for name in ("reasoner", "pair")])
    assert report[0] == "report" and report[-2:] == ("--out", str(tmp_path / "report.html"))
    played = [step.name.removeprefix("evaluate ") for step in steps if step.name.startswith("evaluate ")]
    assert {"base", "first_thought"} < set(played)
    shown = {str(Path(each).relative_to(tmp_path)) for each in report[1:-2]}
    assert {"coldstart", "evolution", *[f"evaluation/{name}" for name in played if name != "budget_forcing"]} < shown
    assert {f"evaluation/budget_forcing/budget-{budget}" for budget in (500, 8000)} < shown


def test_qwens_commands_are_lines_of_a_script(tmp_path: Path) -> None:
    steps, script = qwen_steps(tmp_path / "a folder"), tmp_path / "script.sh"
    script.write_text(run.script_of(steps, "hardware"))
    lines = script.read_text().splitlines()
    assert lines[1] == f"# 1/{len(steps)}: problems of the cold start"
    assert lines[2::2] == [run.command_of(step) for step in steps]
    assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0


def test_the_copy_that_is_printed_overwrites_as_little_as_the_one_that_is_made(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in (*run.SCORED, "other.json"):
        (source / name).write_text("new")
    found = []
    for way in ("printed", "made"):
        own = tmp_path / way
        own.mkdir()
        (own / run.SCORED[0]).write_text("old")
        if way == "made":
            run._copy_scored(source, own)
        else:
            printed = run.command_of(Step("", ("coldstart",), scored=(source, own)))
            subprocess.run(["sh", "-c", printed.removesuffix(" && longshort coldstart")], check=True)
        found.append({file.name: file.read_text() for file in own.iterdir()})
    assert found[0] == found[1] == dict.fromkeys(run.SCORED, "new") | {run.SCORED[0]: "old"}


# Says when it is ready; after a signal it takes its time, says that it is over, and ends.
SLEEPER = """
import signal, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
def end(number, frame):
    time.sleep(0.3)
    (folder / "over").write_text(signal.Signals(number).name)
    sys.exit(1)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end)
(folder / "ready").touch()
time.sleep(60)
"""


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell gives what it runs in the background no interrupt."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, asyncio.CancelledError), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_ends_the_child_before_the_parent(
    tmp_path: Path, number: signal.Signals, error: type[BaseException], interruptible: None
) -> None:
    def send() -> None:
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        if number == signal.SIGINT:
            # A terminal gives it to both.
            for child in psutil.Process().children():
                if "-c" in child.cmdline() and str(tmp_path) in child.cmdline():
                    child.send_signal(number)
        os.kill(os.getpid(), number)

    before = signal.getsignal(signal.SIGTERM)
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    with (tmp_path / "log").open("w") as log, pytest.raises(error):
        run_child([sys.executable, "-c", SLEEPER, str(tmp_path)], log)
    sender.join()
    assert (tmp_path / "over").read_text() == number.name
    assert signal.getsignal(signal.SIGTERM) == before


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
        **{"pair": 0.98, "first_thought": 0.3, "budget_forcing/budget-100": 0.2, "budget_forcing/budget-25": 0.2},
    }.items():
        average = {"pass@1": accuracy, "tokens": 50.0}
        write(f"evaluation/{name}", {"model": {}, "settings": {}, "benchmarks": {"a": average}, "average": average})


def test_the_time_left_goes_by_the_pace_of_the_steps_that_are_over() -> None:
    steps = [Step("a", ("a",), 100.0), Step("b", ("b",), 50.0), Step("unknown", ("c",))]
    assert run._left(steps, {}) == " (about 2m30s left in all)"
    assert run._left(steps, {"longshort a": 200.0}) == " (about 1m40s left in all)"
    assert run._left(steps[2:], {}) == ""
