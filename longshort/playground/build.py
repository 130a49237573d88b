"""Train the playground's pair from scratch on the CPU: ``python -m longshort.playground.build [out]``.

The shipped pair is what this writes with its defaults; half an hour for both roles on one core each.
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
from longshort.playground.train import Recipe, examples_of, new_model, train

# Optimiser steps; the short model only continues what the long one thought.
STEPS = {"long": 5000, "short": 4000}
PROBLEMS = 80_000
RECORD = "build.json"


def build_role(role: str, out: Path, recipe: Recipe, progress: Progress) -> dict[str, object]:
    """Train one role, write its Hugging Face folder under ``out``, and return what to record about it."""
    began = time.monotonic()
    tokenizer = build_tokenizer()
    questions = problems.generate_problems(PROBLEMS, recipe.seed, "train")
    conversations = list(corpus.converse(questions, recipe.seed + 1))
    model = new_model(role, tokenizer, recipe.seed)
    task = progress.add_task(role, total=recipe.steps, loss=float("nan"))
    examples = examples_of(conversations, role, tokenizer)
    loss = train(model, examples, recipe, lambda step, loss: progress.update(task, completed=step, loss=loss))
    model.save_pretrained(out / role)
    tokenizer.save_pretrained(out / role)
    return {
        "seed": recipe.seed,
        "steps": recipe.steps,
        "batch": recipe.batch,
        "peak_learning_rate": recipe.peak,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "final_loss": round(loss, 5),
        "needless_share": round(corpus.needless_share(conversations, role), 4),
        "seconds": round(time.monotonic() - began),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default=Path("outputs/playground"), help="folder for the pair")
    parser.add_argument("--role", choices=ROLES, action="append", help="train this role only; may be repeated")
    parser.add_argument("--steps", type=int, help="training steps")
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
            recipe = Recipe(arguments.steps or STEPS[role], seed=arguments.seed)
            record = build_role(role, arguments.out, recipe, progress)
            (arguments.out / role / RECORD).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
