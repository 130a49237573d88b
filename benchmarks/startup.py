"""How long from the command to the first training step? ``longshort train trainer.total_training_steps=1``.

The command runs as a user's would: the local recipe, the playground's pair and data, no evaluation, a folder of its
own. The clock starts with the process and stops when ``metrics.jsonl`` has its first line. Stages begin at the lines
that the command prints about them; what comes before the first is Python's imports and the configuration. The first
step's own time is in its metrics.

    python -m benchmarks.startup [--runs N]

Prints JSON; exit code 1 where a target falls short.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

# Most seconds to the first step, on two cores.
MOST_S = 75.0
# Seconds after which a run is given up.
LIMIT_S = 600.0
BEFORE, STEP = "imports and configuration", "first step"
STAGES = ("loading data and tokenizers", "starting Ray", "starting training workers", "starting rollout engines")

Line = tuple[float, str]


def stages_of(lines: Sequence[Line], end: float, step_s: float) -> dict[str, float]:
    """Seconds of every stage.

    Args:
        lines: what the command printed, each with the seconds since it started.
        end: seconds from the start to the end of the first step.
        step_s: seconds of the first step alone.
    """
    begins = [(0.0, BEFORE), *[(at, text) for at, text in lines if text in STAGES], (end - step_s, STEP)]
    ends = [at for at, _ in begins[1:]] + [end]
    return {name: round(stop - start, 1) for (start, name), stop in zip(begins, ends, strict=True)}


def run_once() -> dict[str, Any]:
    """Start the command, wait for its first step and for its end."""
    with tempfile.TemporaryDirectory() as folder:
        metrics = Path(folder) / "metrics.jsonl"
        command = [sys.executable, "-m", "longshort.cli", "train", "trainer.total_training_steps=1"]
        started = time.perf_counter()
        process = subprocess.Popen(
            [*command, f"trainer.default_local_dir={folder}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        lines: list[Line] = []
        errors: list[Line] = []
        readers = [
            threading.Thread(target=read_lines, args=(stream, started, into))
            for stream, into in ((process.stdout, lines), (process.stderr, errors))
        ]
        for reader in readers:
            reader.start()
        try:
            while not (metrics.is_file() and metrics.read_text().endswith("\n")):
                if process.poll() is not None or time.perf_counter() - started > LIMIT_S:
                    raise RuntimeError("no first step:\n" + "\n".join(text for _, text in errors[-20:]))
                time.sleep(0.05)
            end = time.perf_counter() - started
            step_s = json.loads(metrics.read_text().splitlines()[0])["time/step_s"]
            process.wait(LIMIT_S)
        finally:
            process.terminate()
            for reader in readers:
                reader.join()
    return {"cores": os.cpu_count(), "first_step_s": round(end, 1), "stages_s": stages_of(lines, end, step_s)}


def read_lines(stream: Iterable[str], started: float, into: list[Line]) -> None:
    for line in stream:
        into.append((time.perf_counter() - started, line.rstrip("\n")))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="the target is for their median; by default 3")
    rows = [run_once() for _ in range(parser.parse_args().runs)]
    middle = median(row["first_step_s"] for row in rows)
    missed = {"first_step_s": middle} if middle > MOST_S else {}
    sys.stdout.write(json.dumps({"rows": rows, "median_s": middle, "missed": missed}, indent=1) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
