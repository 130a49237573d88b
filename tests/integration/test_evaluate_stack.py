"""``longshort evaluate`` on real engines: stopped, resumed, repeated; and thinking that is cut.

Not proven here: that the numbers of a pair are good, which a run of ``configs/evaluate_playground.yaml`` measures.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from longshort.evaluation.records import read_benchmark, read_summary

NAME = "playground-test-24-2"


def command(folder: Path, *more: str) -> list[str]:
    fixed = ["evaluation.benchmarks=[playground:test:24:2]", "evaluation.samples=8", f"evaluation.folder={folder}"]
    # So that some answers are wrong.
    fixed += ["evaluation.temperature=1.0", "evaluation.top_p=1.0"]
    return [sys.executable, "-m", "longshort.cli", "evaluate", *fixed, *more]


def test_an_evaluation_that_is_stopped_goes_on_and_costs_nothing_when_it_is_over(tmp_path: Path) -> None:
    stopped = subprocess.Popen(command(tmp_path), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    partial = tmp_path / f".{NAME}.partial.jsonl"
    deadline = time.monotonic() + 400
    while stopped.poll() is None and time.monotonic() < deadline:
        if partial.is_file() and partial.read_bytes().count(b"\n") > 10:
            stopped.send_signal(signal.SIGTERM)
            break
        time.sleep(0.05)
    _, errors = stopped.communicate(timeout=200)
    # On a quick machine it may be over before the signal comes.
    assert stopped.returncode in (0, 143), errors
    assert stopped.returncode == 0 or "longshort: terminated" in errors
    before = read_benchmark(tmp_path, NAME)
    assert before
    done = subprocess.run(command(tmp_path), capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    samples = read_benchmark(tmp_path, NAME)
    assert len(samples) == 24 * 8
    assert all(samples[key] == sample for key, sample in before.items()), "a sample is played once"
    numbers = read_summary(tmp_path)["benchmarks"][NAME]
    assert numbers["pass@1"] > 0.5 and numbers["interval"][0] < numbers["pass@1"] < numbers["interval"][1]
    context = numbers["roles"]["short"]["context"]
    assert context["generated"] > 0 and context["cached"] + context["computed"] == context["prompt"] > 0
    again = subprocess.run(command(tmp_path), capture_output=True, text=True, timeout=200)
    assert again.returncode == 0 and "starting Ray" not in again.stdout
    other = subprocess.run(
        command(tmp_path, "policies.long.model.path=playground:base"), capture_output=True, text=True, timeout=200
    )
    assert other.returncode == 2 and "model.long.path=" in other.stderr and "Traceback" not in other.stderr


def test_thinking_that_is_cut_at_a_budget_is_closed_and_answered(tmp_path: Path) -> None:
    more = ["--config-name", "baseline_budget_forcing_playground", "evaluation.baseline.budgets=[20,400]"]
    done = subprocess.run(command(tmp_path, *more), capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    short, long = (read_benchmark(tmp_path / f"budget-{budget}", NAME) for budget in (20, 400))
    for sample in short.values():
        first, second = sample.episode.turns
        assert len(first.token_ids) <= 20 and first.text.endswith("</think>")
        assert second.token_ids and second.prompt_tokens > first.prompt_tokens
    right = [sum(sample.correct for sample in found.values()) for found in (short, long)]
    assert right[0] < right[1], "what was cut early is answered worse"
    assert json.loads((tmp_path / "budget-20" / "summary.json").read_text())["settings"]["baseline"]["budget"] == 20
