"""Train the playground's reasoner and base models from scratch on the CPU: ``python -m longshort.playground.build``.

The shipped ones are what this writes with its defaults, about an hour of one core for both bases, a few minutes for the
reasoner, which starts from the larger base. The pair starts from the bases too: ``longshort coldstart`` makes it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import AutoModelForCausalLM

from longshort.playground import corpus, problems
from longshort.playground.tokenizer import build_tokenizer
from longshort.playground.train import Recipe, examples_of, new_model, train

RECIPES = {"base": Recipe(6000), "small_base": Recipe(9000), "reasoner": Recipe(500, peak=5e-4)}
PROBLEMS = 160_000
RECORD = "build.json"


def build(name: str, out: Path, recipe: Recipe, progress: Progress) -> None:
    """Train one model and write its Hugging Face folder, with a record of how, under ``out``."""
    began = time.monotonic()
    tokenizer = build_tokenizer()
    questions = itertools.islice(problems.draw_problems(recipe.seed, "train"), PROBLEMS)
    make = corpus.reasoning if name == "reasoner" else corpus.general
    documents = list(make(questions, recipe.seed + 1))
    if name == "reasoner":
        model = AutoModelForCausalLM.from_pretrained(out / "base")
    else:
        model = new_model(name, tokenizer, recipe.seed)
    task = progress.add_task(name, total=recipe.steps, loss=float("nan"))
    examples = examples_of(documents, tokenizer)
    loss = train(model, examples, recipe, lambda step, loss: progress.update(task, completed=step, loss=loss))
    model.save_pretrained(out / name)
    tokenizer.save_pretrained(out / name)
    record = {
        "seed": recipe.seed,
        "steps": recipe.steps,
        "batch": recipe.batch,
        "peak_learning_rate": recipe.peak,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "final_loss": round(loss, 5),
        "seconds": round(time.monotonic() - began),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    (out / name / RECORD).write_text(json.dumps(record, indent=2) + "\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default=Path("outputs/playground"), help="folder for the models")
    parser.add_argument("--model", choices=RECIPES, action="append", help="train this one only; may be repeated")
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
        for name in arguments.model or RECIPES:
            build(name, arguments.out, RECIPES[name], progress)


if __name__ == "__main__":
    main()
