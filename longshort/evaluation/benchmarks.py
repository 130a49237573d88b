"""The benchmarks by name: where their problems are, how a row becomes one, how often each is answered."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from longshort.data import PLAYGROUND, load_problems
from longshort.episode import Problem
from longshort.evaluation.choices import MultipleChoice, choice_of_row, text_of
from longshort.hub import is_data_set

SUFFIXES = (".json", ".jsonl", ".parquet")
# Of a file, where `evaluation.samples` says nothing.
SAMPLES_OF_A_FILE = 1
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
# A benchmark's files are called <name>.json and .jsonl, and an evaluation has files of these names.
_TAKEN = ("summary", "behaviour")
_CHOICE_KEYS = frozenset({"Question", "Correct Answer"})
# A row with one of these has its answer there; OlympiadBench's `solution` is a worked one.
_OTHER_ANSWERS = frozenset({"answer", "expected_answer", "reward_model"})


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Problems to measure on.

    Attributes:
        path: a file, a data set of the hub with its split, or ``playground:<split>:<count>:<seed>``.
        samples: answers to each problem: of ThinkPrune (arXiv 2504.01296, section 4.1) where it has the benchmark.
        choices: whether every row has to be of multiple choice, in GPQA's shape.
    """

    name: str
    path: str
    samples: int
    choices: bool = False


def olympiad_row(row: object) -> object:
    """A row of OlympiadBench as :func:`longshort.data.parse_problem` knows it; any other as it is.

    ``context`` stands before ``question``; ``final_answer`` is a list of texts and numbers, or one of these.

    Raises:
        ValueError: the answer is something else; a clause to stand after the record's place.
    """
    if not isinstance(row, Mapping) or "final_answer" not in row or not _OTHER_ANSWERS.isdisjoint(row):
        return row
    answers = row["final_answer"]
    parts = answers if isinstance(answers, list) else [] if answers is None else [answers]
    if not all(map(text_of, parts)):
        raise ValueError(f"its 'final_answer' is {answers!r:.80}, which is neither text, a number nor a list of these")
    question = row.get("question")
    if context := text_of(row.get("context")):
        question = f"{context}\n{text_of(question)}"
    return {**row, "question": question, "answer": ", ".join(text_of(part).strip("$") for part in parts)}


BENCHMARKS: Mapping[str, Benchmark] = {
    each.name: each
    for each in (
        Benchmark("math500", "HuggingFaceH4/MATH-500:test", 16),
        Benchmark("aime2024", "HuggingFaceH4/aime_2024:train", 64),
        Benchmark("aime2025", "math-ai/aime25:test", 64),  # samples ours: as of 2024
        Benchmark("amc2023", "math-ai/amc23:test", 64),
        # Samples ours. Its authors ask for consent on the hub.
        Benchmark("gpqa_diamond", "Idavidrein/gpqa:train@gpqa_diamond", 16, choices=True),
        Benchmark("olympiadbench", "Hothan/OlympiadBench:train@OE_TO_maths_en_COMP", 16),
    )
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """Problems of a benchmark; of multiple choice, by problem id, what was asked; how many rows were left out."""

    problems: list[Problem]
    choices: Mapping[str, MultipleChoice] = field(default_factory=dict)
    unreadable: int = 0


def find_benchmark(wanted: str, data_dir: Path | None = None) -> Benchmark:
    """The benchmark that ``wanted`` names: one of ``BENCHMARKS``, a path, or ``name=path``.

    Under a name of ``BENCHMARKS``, a path is that benchmark from elsewhere.

    Args:
        data_dir: folder with files called ``<benchmark>.json``, ``.jsonl`` or ``.parquet``, in place of the hub.

    Raises:
        ValueError: the name is unknown or taken, or the folder has no such file.
    """
    if wanted in BENCHMARKS:
        known = BENCHMARKS[wanted]
        path = known.path if data_dir is None else _file_in(data_dir, wanted)
        return replace(known, path=path)
    name, equals, path = wanted.partition("=")
    if not equals:
        name, path = "", wanted
    is_file = Path(path).suffix in SUFFIXES
    if not (is_file or path.startswith(PLAYGROUND) or is_data_set(path)):
        raise ValueError(
            f"evaluation.benchmarks has {wanted}, which is unknown; name of {', '.join(BENCHMARKS)}, a file "
            f"({', '.join(SUFFIXES)}), a data set as owner/name:split, {PLAYGROUND}<split>:<count>:<seed>, or name=path"
        )
    name = name or (Path(path).stem if is_file else re.sub(r"[^\w.-]+", "-", path).strip("-"))
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"evaluation.benchmarks has {wanted}, whose name {name!r} cannot be a file's; give letters, digits, -, _"
        )
    if name.lower() in _TAKEN:
        raise ValueError(
            f"evaluation.benchmarks has {wanted}, whose files would be written over {name}.json of the evaluation; "
            f"give it another name, as in mine={path}"
        )
    if equals and name in BENCHMARKS:
        return replace(BENCHMARKS[name], path=path)
    return Benchmark(name, path, SAMPLES_OF_A_FILE)


def find_benchmarks(wanted: Sequence[str], data_dir: Path | None = None) -> list[Benchmark]:
    """All of them, under distinct names.

    Raises:
        ValueError: see :func:`find_benchmark`; none, or two of one name.
    """
    if not wanted:
        raise ValueError(
            f"evaluation.benchmarks is empty; name of {', '.join(BENCHMARKS)}, or files, as in "
            "evaluation.benchmarks=[math500,aime2024]"
        )
    found = [find_benchmark(each, data_dir) for each in wanted]
    names = [each.name for each in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"evaluation.benchmarks has two of the name {name}; name one of them, as in mine=<path>")
    return found


def load_benchmark(benchmark: Benchmark, seed: int, on_error: Literal["raise", "skip"] = "raise") -> Loaded:
    """Its problems, whose rows may also have GPQA's or OlympiadBench's shape; ``seed`` shuffles options.

    Raises:
        ValueError: see :func:`longshort.data.load_problems`.
    """
    asked: dict[str, MultipleChoice] = {}

    def shape(row: object) -> object:
        if not isinstance(row, Mapping) or not (benchmark.choices or row.keys() >= _CHOICE_KEYS):
            return olympiad_row(row)
        choice = choice_of_row(row, seed)
        asked[choice.question] = choice
        return {"id": row.get("Record ID", row.get("id")), "question": choice.question, "answer": choice.letter}

    loaded = load_problems([benchmark.path], on_error, shape=shape)
    choices = {problem.id: asked[problem.question] for problem in loaded.problems if problem.question in asked}
    return Loaded(loaded.problems, choices, len(loaded.skipped))


def _file_in(folder: Path, name: str) -> str:
    found = [file for suffix in SUFFIXES if (file := folder.expanduser() / f"{name}{suffix}").is_file()]
    if not found:
        raise ValueError(
            f"evaluation.data_dir={folder} has no {name}{{{','.join(SUFFIXES)}}}; put it there, or leave "
            "evaluation.data_dir out to read it from the hub"
        )
    return str(found[0])
