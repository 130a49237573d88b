"""Is a report of 20,000 episodes quick? ``longshort report`` on two made-up runs, opened in headless Chromium.

Each run has half of the episodes, of the same problems: turns of a pair in random words, with log-probabilities that a
tokenizer in the run's own folder tells the pieces of. Times are of the page as a reader sees it:

- ``open_s``: from the request to a page whose list and first episode are there;
- ``filter_ms``: from a change of each filter to the next painted frame, the slowest; ``search_ms`` the same for a
  search in problems, its pause for typing included;
- ``episode_ms``: from a choice in the list to the shown episode, the slowest of some of the longest;
- ``deep_search_s``: a search through all turns, which shows what it finds on the way; no target.

    python -m benchmarks.report [--episodes N]

Prints JSON; exit code 1 where a target falls short.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from typing import Any

from longshort.episode import Episode, Problem, Turn
from longshort.tracking import METRICS, MetricsLog, write_episodes

# Most that a page may take, on two cores.
MOST = {"open_s": 3.0, "filter_ms": 200.0}
SAMPLES = 4
STEPS = 10
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Tokens of a long and of a short turn, means.
LENGTHS = {"long": 180, "short": 30}
OPENED = 10
CHANGES = (
    ("correct", "0"),
    ("run", "1"),
    ("outcome", "1"),
    ("round", "1"),
    ("order", "most tokens"),
    ("order", "as played"),
)


def write_run(folder: Path, episodes: int, seed: int) -> None:
    """A training run of two rounds that kept its rollouts."""
    rng = random.Random(seed)
    # The same words, tokenizer and problems in every run.
    shared = random.Random(0)
    words = ["".join(shared.choices("abcdefghijklmnopqrstuvwxyz", k=shared.randint(2, 9))) for _ in range(3000)]
    folder.mkdir(parents=True)
    tokenizer = _write_tokenizer(folder / "model", words)
    problems = [
        Problem(f"made-{i}", " ".join(shared.choices(words, k=40)), str(i), f"set-{i % 4}")
        for i in range(max(1, episodes // SAMPLES))
    ]
    log = MetricsLog(folder / METRICS)
    played = [_episode(p, sample, rng, words, tokenizer) for p in problems for sample in range(SAMPLES)]
    for step in range(1, STEPS + 1):
        part = played[(step - 1) * len(played) // STEPS : step * len(played) // STEPS]
        correct = [float(rng.random() < 0.7) for _ in part]
        rewards = [{"long/correct": right, "long/length": rng.uniform(-0.5, 0.5)} for right in correct]
        write_episodes(folder / "rollouts", step, part, correct, rewards=rewards)
        log.log(
            step, {"accuracy": 0.7, "tokens_per_episode": 400.0, "long/trained_episodes": 1.0, "round": 1 + step // 6}
        )
    model = f"{{model: {{path: {json.dumps(str(folder / 'model'))}}}}}"
    settings = f"policies: {{long: {model}, short: {model}}}\ntrainer: {{rollout_data_dir: {folder / 'rollouts'}}}\n"
    (folder / "config.yaml").write_text(settings)


def _write_tokenizer(folder: Path, words: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=4000, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([" " + word for word in words], trainer)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


def _episode(problem: Problem, sample: int, rng: random.Random, words: list[str], tokenizer: Any) -> Episode:
    turns = []
    for role in ("long", "short") * rng.randint(1, 3):
        # Lengths have a long tail, as those of real chains.
        count = 1 + int(rng.lognormvariate(0, 0.6) * LENGTHS[role] / 2)
        ids = tuple(tokenizer.encode(" ".join(rng.choices(words, k=count))).ids)
        log_probs = tuple(-round(rng.expovariate(3), 3) for _ in ids)
        turns.append(Turn(role, ids, tokenizer.decode(list(ids)), log_probs, "stop", prompt_tokens=100))
    outcome = "answered" if rng.random() < 0.95 else "token_limit"
    return Episode(problem, {"long": (), "short": ()}, tuple(turns), outcome, sample)


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """A page of headless Chromium that has nothing open yet, and what went wrong in it at the end."""
    from playwright.sync_api import sync_playwright

    browser = next(filter(None, map(which, BROWSERS)), None)
    if browser is None:
        raise ValueError(f"none of {', '.join(BROWSERS)} is installed; install chromium")
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser)
        try:
            page = chromium.new_page(viewport={"width": 1440, "height": 900})
            faults: list[str] = []
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
            yield page
            if faults:
                raise RuntimeError(f"{file} has errors: {faults}")
        finally:
            chromium.close()


# Until a frame after the change is painted.
TIMED = """([id, value, kind]) => new Promise((resolve) => {
  const element = document.getElementById(id), count = document.getElementById("count");
  const began = performance.now();
  const end = () => requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - began)));
  new MutationObserver((_, observer) => { observer.disconnect(); end(); }).observe(count, { childList: true });
  element.value = value;
  element.dispatchEvent(new Event(kind));
})"""
CHOSEN = """(place) => new Promise((resolve) => {
  const shown = document.getElementById("shown"), began = performance.now();
  new MutationObserver((_, observer) => {
    observer.disconnect();
    requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - began)));
  }).observe(shown, { childList: true });
  document.getElementById("list").children[place].click();
})"""


def measure(file: Path) -> dict[str, Any]:
    """Times of one page."""
    with opened(file) as page:
        began = time.perf_counter()
        page.goto(file.as_uri())
        page.wait_for_selector("#shown .turn")
        open_s = time.perf_counter() - began
        filters = {}
        for id, value in CHANGES:
            if page.locator(f"#{id} option[value='{value}']").count():
                filters[f"{id}={value}"] = page.evaluate(TIMED, [id, value, "change"])
        page.locator("button[type=reset]").click()
        search_ms = page.evaluate(TIMED, ["text", "made-7", "input"])
        page.locator("button[type=reset]").click()
        episodes = []
        page.locator("#order").select_option("most tokens")
        for place in range(OPENED):
            episodes.append(page.evaluate(CHOSEN, 2 * place))
        began = time.perf_counter()
        page.locator("#deep").check()
        page.locator("#text").fill("no such words anywhere")
        page.locator("#count", has_text=re.compile(r"^0 of [\d,]+ episodes$")).wait_for()
        deep_search_s = time.perf_counter() - began
    return {
        "open_s": round(open_s, 2),
        "filter_ms": round(max(filters.values()), 1),
        "filters_ms": {name: round(value, 1) for name, value in filters.items()},
        "search_ms": round(search_ms, 1),
        "episode_ms": round(max(episodes), 1),
        "deep_search_s": round(deep_search_s, 2),
    }


def run(episodes: int) -> dict[str, Any]:
    """Write two runs and their report, and look at it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed, run in enumerate(("before", "after")):
            write_run(folder / run, episodes // 2, seed)
        file = folder / "report.html"
        began = time.perf_counter()
        command = [sys.executable, "-m", "longshort.cli", "report", "before", "after", "--out", file.name]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        write_s = time.perf_counter() - began
        size = round(file.stat().st_size / 1e6, 1)
        return {"episodes": episodes, "write_s": round(write_s, 1), "megabytes": size, **measure(file)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=20_000, help="in both runs together; by default 20,000")
    found = run(parser.parse_args().episodes)
    missed = {name: found[name] for name, most in MOST.items() if found[name] > most}
    sys.stdout.write(json.dumps({**found, "missed": missed}, indent=1) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
