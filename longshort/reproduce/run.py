"""Running the steps: each in a process of its own, each once.

A step that was stopped goes on where it was, as its command does; one that is over is not run again.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from longshort.coldstart.chunk import THOUGHTS
from longshort.coldstart.distill import CHAINS
from longshort.coldstart.score import ROLLOUTS
from longshort.display import Display, duration
from longshort.evaluation.records import SUMMARY
from longshort.folders import sole_use_of, write_whole
from longshort.reproduce.child import run_child
from longshort.reproduce.claims import check_claims, claims_table, paper_tables
from longshort.reproduce.errors import StepFailedError
from longshort.reproduce.steps import (
    COLDSTART,
    EVALUATION,
    EVOLUTION,
    QWEN_GPUS,
    QWEN_HARDWARE,
    REPORT,
    THINKPRUNE,
    Step,
    playground_steps,
    qwen_steps,
)

DONE = "steps.json"
LOGS = "logs"
# What a cold start has scored: these stages, each with its records and what it says of them.
SCORED = tuple(f"{name}{suffix}" for name in (CHAINS, THOUGHTS, ROLLOUTS) for suffix in (".json", ".jsonl"))


def reproduce_playground(root: Path, quick: bool, display: Display) -> None:
    """All steps, then the report with the papers' tables in miniature and what of the claims holds.

    Raises:
        ValueError: another process reproduces into ``root``.
        StepFailedError: see there.
    """
    from longshort.report.report import report

    root.mkdir(parents=True, exist_ok=True)
    with sole_use_of(root):
        steps = playground_steps(root, quick)
        _run(steps, root, display)
        claims = check_claims(root)
        write_whole(root / "claims.json", json.dumps([claim.as_json() for claim in claims], indent=2) + "\n")
        folders = [root / name for name in (COLDSTART, EVOLUTION, THINKPRUNE)]
        folders += sorted(file.parent for file in (root / EVALUATION).rglob(SUMMARY))
        table = claims_table(claims)
        report(folders, root / REPORT, display, [table, *paper_tables(root)])
    display.table(table.name, [column.name for column in table.columns], table.rows)


def reproduce_qwen(root: Path, out: TextIO) -> None:
    """Write the commands and the hardware to ``out``; run them where there are enough GPUs.

    Raises:
        StepFailedError: a command ended with another code than 0.
    """
    import torch

    found = torch.cuda.device_count()
    steps = qwen_steps(root)
    out.write(script_of(steps, QWEN_HARDWARE))
    if found < QWEN_GPUS:
        out.write(f"# this machine has {found} GPUs, so nothing was run; {QWEN_GPUS} are needed\n")
        return
    out.flush()
    root.mkdir(parents=True, exist_ok=True)
    # Open only now: a live display would wrap the commands.
    with Display() as display, sole_use_of(root):
        _run(steps, root, display)


def script_of(steps: Sequence[Step], title: str) -> str:
    """The steps as lines of a shell script, each under a comment with its number and name."""
    lines = [f"# {title}"]
    for number, step in enumerate(steps, start=1):
        lines += [f"# {number}/{len(steps)}: {step.name}", command_of(step)]
    return "\n".join(lines) + "\n"


def command_of(step: Step) -> str:
    """As a shell takes it; where a step begins with what another has scored, that is copied first, over nothing."""
    command = shlex.join(["longshort", *step.arguments])
    if step.scored is None:
        return command
    source, own = step.scored
    copy = shlex.join(["cp", "-n", *[str(source / name) for name in SCORED], str(own)])
    return f"{shlex.join(['mkdir', '-p', str(own)])} && {copy} && {command}"


def _run(steps: Sequence[Step], root: Path, display: Display) -> None:
    (root / LOGS).mkdir(exist_ok=True)
    file = root / DONE
    done: dict[str, float] = json.loads(file.read_text()) if file.is_file() else {}
    for number, step in enumerate(steps, start=1):
        command = command_of(step)
        if command in done:
            continue
        display.stage(f"{number}/{len(steps)}: {step.name}{_left(steps, done)}")
        if step.scored is not None:
            _copy_scored(*step.scored)
        began, log = time.monotonic(), root / LOGS / f"{step.name.replace(' ', '_').replace(',', '')}.log"
        with log.open("a") as output:
            arguments = [sys.executable, "-m", "longshort.cli", *step.arguments]
            code = run_child(arguments, output)
        if code:
            raise StepFailedError(step.name, code, log)
        done[command] = time.monotonic() - began
        write_whole(file, json.dumps(done, indent=2))
    display.stage(f"all {len(steps)} steps took {duration(sum(done.values()))}")


def _left(steps: Sequence[Step], done: Mapping[str, float]) -> str:
    """The time that steps will still take, at the pace of those that are over."""
    known = {command_of(step): step.seconds for step in steps if step.seconds}
    expected = sum(known[command] for command in done if command in known)
    pace = sum(done[command] for command in done if command in known) / expected if expected else 1.0
    left = pace * sum(seconds for command, seconds in known.items() if command not in done)
    return f" (about {duration(left)} left in all)" if left else ""


def _copy_scored(source: Path, own: Path) -> None:
    own.mkdir(parents=True, exist_ok=True)
    for name in SCORED:
        if not (own / name).exists():
            shutil.copy(source / name, own)
