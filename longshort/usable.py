"""The problems that a run can use, out of those that its files hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from longshort.config import as_list
from longshort.controller import render_prompt
from longshort.custom_reward import CustomRewards
from longshort.data import Reader, load_problems
from longshort.display import Display
from longshort.episode import Problem
from longshort.extern import load_object
from longshort.generation import Tokenizer
from longshort.grading_pool import GradingPool
from longshort.overlap import shared_questions
from longshort.protocols import protocol_of


def usable_problems(
    config: DictConfig,
    files: Any,
    tokenizers: Mapping[str, Tokenizer],
    grader: GradingPool,
    rewards: CustomRewards,
    display: Display,
) -> list[Problem]:
    """Problems to play: prompts within the limit, answers that can be graded; what is left out is counted and shown.

    What a user's own function takes for an answer is its own affair.

    Raises:
        ValueError: a file is broken, or nothing is left.
    """
    paths = as_list(files)
    if not paths:
        return []
    loaded = load_problems(paths, config.data.on_error, _custom_dataset(config, tokenizers))
    limit = config.data.max_prompt_length
    protocol = protocol_of(config.team)
    short = [
        problem
        for problem in loaded.problems
        if all(len(render_prompt(protocol, r, t, problem.question)) <= limit for r, t in tokenizers.items())
    ]
    by_mathematics = [problem for problem in short if rewards.of(problem) is None]
    gradable = grader.gradable_many([problem.answer for problem in by_mathematics])
    ungradable = {problem.id for problem, good in zip(by_mathematics, gradable, strict=True) if not good}
    usable = [problem for problem in short if problem.id not in ungradable]
    if len(usable) < len(loaded.problems) or loaded.skipped:
        display.table(
            f"left out of {', '.join(paths)}",
            ("reason", "problems"),
            [
                ("could not be read", len(loaded.skipped)),
                (f"prompt longer than data.max_prompt_length={limit} tokens", len(loaded.problems) - len(short)),
                ("gold answer cannot be graded", len(short) - len(usable)),
            ],
        )
    if not usable:
        raise ValueError(f"no problem of {', '.join(paths)} can be used; see what was left out above")
    return usable


def _custom_dataset(config: DictConfig, tokenizers: Mapping[str, Tokenizer]) -> Reader | None:
    """verl's ``data.custom_cls``, constructed with verl's arguments; its tokenizer is that of the first policy."""
    named = config.data.custom_cls
    if not named.path:
        return None
    dataset, tokenizer = load_object("data.custom_cls", named), next(iter(tokenizers.values()))

    def read(paths: Sequence[str]) -> Sequence[object]:
        try:
            return dataset(data_files=list(paths), tokenizer=tokenizer, processor=None, config=config.data)
        except Exception as error:  # the user's code may raise anything
            raise ValueError(
                f"data.custom_cls={named.path}:{named.name} raised {type(error).__name__}: {error}; correct it"
            ) from error

    return read


def check_sources(config: DictConfig, *problems: Sequence[Problem]) -> None:
    """Raise ``ValueError`` where ``reward.functions`` names a data source that no problem has."""
    sources = {problem.source for some in problems for problem in some}
    for source in config.reward.functions:
        if source not in sources:
            raise ValueError(
                f"reward.functions.{source} would never be called: the data's sources are {', '.join(sorted(sources))}"
            )


def warn_of_overlap(training: Sequence[Problem], validation: Sequence[Problem], display: Display) -> None:
    """Show how many training questions are asked in validation too."""
    if shared := shared_questions(training, validation):
        display.table(
            f"warning: {len(shared)} of {len(training)} training questions are also in data.val_files, such as",
            ("training problem", "validation problem"),
            [*shared.items()][:5],
        )
