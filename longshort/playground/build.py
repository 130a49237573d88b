"""Train the playground's pair from scratch on the CPU: ``python -m longshort.playground.build [out]``.

Each role first learns from lean conversations, which are short and hold the same arithmetic and more rethinking, then
from the wordy ones that it is to imitate. Only the second stage sets how wordy the models are.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from longshort.playground import ROLES, corpus, problems
from longshort.playground.tokenizer import build_tokenizer
from longshort.playground.train import Recipe, Stage, examples_of, new_model, train

# Steps of the lean and of the wordy stage.
STEPS = {"long": (1500, 2000), "short": (1200, 800)}
PROBLEMS = 80_000
RECORD = "build.json"


def build_role(role: str, out: Path, steps: tuple[int, int], recipe: Recipe, progress: Progress) -> dict[str, object]:
    """Train one role, write its Hugging Face folder under ``out``, and return what to record about it."""
    began = time.monotonic()
    tokenizer = build_tokenizer()
    questions = problems.generate_problems(PROBLEMS, recipe.seed, "train")
    lean = list(corpus.converse(questions, recipe.seed, corpus.LEAN))
    wordy = list(corpus.converse(questions, recipe.seed + 1))
    stages = [Stage(steps[0], examples_of(lean, role, tokenizer)), Stage(steps[1], examples_of(wordy, role, tokenizer))]
    model = new_model(role, tokenizer, recipe.seed)
    task = progress.add_task(role, total=sum(steps), loss=float("nan"))
    loss = train(model, stages, recipe, lambda step, loss: progress.update(task, completed=step, loss=loss))
    model.save_pretrained(out / role)
    tokenizer.save_pretrained(out / role)
    return {
        "seed": recipe.seed,
        "steps": {"lean": steps[0], "wordy": steps[1]},
        "batch": recipe.batch,
        "peak_learning_rate": recipe.peak,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "final_loss": round(loss, 5),
        "needless_share": round(corpus.needless_share(wordy, role), 4),
        "seconds": round(time.monotonic() - began),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default=Path("outputs/playground"), help="folder for the pair")
    parser.add_argument("--role", choices=ROLES, action="append", help="train this role only; may be repeated")
    parser.add_argument("--steps", type=int, nargs=2, metavar=("LEAN", "WORDY"), help="steps of the two stages")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="torch threads; rounding depends on them")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        for role in arguments.role or ROLES:
            steps = tuple(arguments.steps or STEPS[role])
            record = build_role(role, arguments.out, steps, Recipe(seed=arguments.seed), progress)
            (arguments.out / role / RECORD).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
