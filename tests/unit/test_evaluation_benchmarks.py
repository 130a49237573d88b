"""Benchmarks by name: rows in the shapes of their publishers become problems, and what is no benchmark is refused.

Not proved here: that the hub still has these data sets in these shapes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from longshort.evaluation.benchmarks import (
    BENCHMARKS,
    Benchmark,
    find_benchmark,
    find_benchmarks,
    load_benchmark,
)
from longshort.hub import is_data_set

SHARED = Path(os.environ.get("LONGSHORT_SHARED", Path(__file__).parents[3] / "shared")) / "data" / "benchmarks"

GPQA = {
    "Question": "How fast?",
    "Correct Answer": "12 m/s",
    "Incorrect Answer 1": "1 m/s",
    "Incorrect Answer 2": "2 m/s",
    "Incorrect Answer 3": "3 m/s",
    "Record ID": "rec1",
    "Subdomain": "Mechanics",
}
# One row of each, with the columns that its publisher has, and what it becomes: id, question, answer.
ROWS: Mapping[str, tuple[dict[str, Any], tuple[str, str, str]]] = {
    "math500": (
        {"problem": "1+1?", "solution": "It is $\\boxed{2}$.", "answer": "2", "level": 1, "unique_id": "test/a/1.json"},
        ("test/a/1.json", "1+1?", "2"),
    ),
    "aime2024": (
        {"id": 60, "problem": "p?", "solution": "s", "answer": "204", "url": "u", "year": "2024"},
        ("60", "p?", "204"),
    ),
    "aime2025": ({"problem": "p?", "answer": "70", "id": "0"}, ("0", "p?", "70")),
    "amc2023": ({"id": 3, "question": "p?", "answer": "27.0", "url": "u"}, ("3", "p?", "27.0")),
    "olympiadbench": (
        {
            "id": 1606,
            "question": "Find $x$.",
            "solution": ["It is 2."],
            "final_answer": ["$2,5$"],
            "context": "Let $y=1$.",
            "is_multiple_answer": True,
            "unit": None,
        },
        ("1606", "Let $y=1$.\nFind $x$.", "2,5"),
    ),
}


def write_parquet(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_as_it_is_published_becomes_a_problem(name: str, tmp_path: Path) -> None:
    row, (key, question, answer) = ROWS[name]
    write_parquet(tmp_path / f"{name}.parquet", [row])
    loaded = load_benchmark(find_benchmark(name, tmp_path), seed=0)
    (problem,) = loaded.problems
    assert (problem.id, problem.question, problem.answer) == (key, question, answer)
    assert not loaded.choices


def test_a_row_of_gpqa_becomes_a_choice(tmp_path: Path) -> None:
    write_parquet(tmp_path / "gpqa_diamond.parquet", [GPQA])
    loaded = load_benchmark(find_benchmark("gpqa_diamond", tmp_path), seed=0)
    (problem,) = loaded.problems
    choice = loaded.choices["rec1"]
    assert problem.id == "rec1" and problem.question == choice.question and problem.answer == choice.letter
    assert choice.text == "12 m/s"
    other = load_benchmark(find_benchmark("gpqa_diamond", tmp_path), seed=5)
    assert other.problems[0].question != problem.question


@pytest.mark.parametrize(
    ("answer", "read"), [(7, "7"), (0, "0"), (2.5, "2.5"), ("$x$", "x"), ([1, 2.0], "1, 2"), ([0], "0")]
)
def test_a_final_answer_is_a_list_a_text_or_a_number(answer: object, read: str, tmp_path: Path) -> None:
    (tmp_path / "olympiadbench.json").write_text(json.dumps([{"question": "p?", "final_answer": answer}]))
    (problem,) = load_benchmark(find_benchmark("olympiadbench", tmp_path), seed=0).problems
    assert problem.answer == read


def test_an_answer_that_is_no_text_can_be_left_out(tmp_path: Path) -> None:
    rows = [{"question": "p?", "final_answer": final} for final in ({"x": 7}, [[7]], [1, None], 7)]
    (tmp_path / "olympiadbench.json").write_text(json.dumps(rows))
    loaded = load_benchmark(find_benchmark("olympiadbench", tmp_path), 0, "skip")
    assert [problem.answer for problem in loaded.problems] == ["7"] and loaded.unreadable == 3


def test_the_published_shapes_are_read_from_any_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(
        json.dumps([GPQA, ROWS["olympiadbench"][0], {"question": "p?", "answer": "1", "final_answer": [2]}])
    )
    loaded = load_benchmark(find_benchmark(str(file)), seed=0)
    assert [problem.id for problem in loaded.problems] == ["rec1", "1606", "mine-2"]
    assert loaded.choices.keys() == {"rec1"}
    assert [problem.answer for problem in loaded.problems[1:]] == ["2,5", "1"]


@pytest.mark.parametrize("name", ["gpqa_diamond", "olympiadbench", "math500", "aime2024"])
def test_a_known_name_with_a_path_is_that_benchmark_from_elsewhere(name: str) -> None:
    found = find_benchmark(f"{name}=some/where/mine.jsonl")
    known = BENCHMARKS[name]
    assert found == Benchmark(name, "some/where/mine.jsonl", known.samples, known.choices)


def test_a_folder_in_the_hubs_layout_is_read_through_the_hubs_loader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", [ROWS["olympiadbench"][0]])
    local = Benchmark("olympiadbench", f"{tmp_path}:train", 16)
    (problem,) = load_benchmark(local, seed=0).problems
    assert problem.answer == "2,5"


def test_the_hub_is_asked_where_no_folder_is_given() -> None:
    for name, benchmark in BENCHMARKS.items():
        found = find_benchmark(name)
        assert found == benchmark and is_data_set(found.path)
        assert ":" in found.path, "its split is said"


def test_samples_are_those_of_thinkprune() -> None:
    thinkprune = {"math500": 16, "aime2024": 64, "amc2023": 64, "olympiadbench": 16}
    assert {name: BENCHMARKS[name].samples for name in thinkprune} == thinkprune


@pytest.mark.parametrize(("name", "count"), [("math500", 500), ("aime2024", 30), ("amc2023", 40)])
def test_the_benchmarks_beside_the_checkout_load_whole(name: str, count: int) -> None:
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent; LONGSHORT_SHARED names the folder that holds data/benchmarks")
    problems = load_benchmark(find_benchmark(name, SHARED), seed=0).problems
    assert len(problems) == count == len({problem.id for problem in problems})
    assert not any(problem.answer.endswith(".0") for problem in problems)


@pytest.mark.parametrize(
    ("wanted", "name", "path"),
    [
        ("some/where/mine.jsonl", "mine", "some/where/mine.jsonl"),
        ("best=some/where/mine.jsonl", "best", "some/where/mine.jsonl"),
        ("playground:test:200:2", "playground-test-200-2", "playground:test:200:2"),
        ("gsm=openai/gsm8k:test@main", "gsm", "openai/gsm8k:test@main"),
        ("openai/gsm8k:test@main", "openai-gsm8k-test-main", "openai/gsm8k:test@main"),
    ],
)
def test_any_file_or_data_set_is_a_benchmark(wanted: str, name: str, path: str) -> None:
    assert find_benchmark(wanted) == Benchmark(name, path, 1)


@pytest.mark.parametrize(
    ("wanted", "fault"),
    [
        ([], r"evaluation\.benchmarks is empty; name of math500"),
        (["math5000"], r"has math5000, which is unknown; name of math500, .* or name=path"),
        (["a b=x.json"], r"whose name 'a b' cannot be a file's"),
        (
            ["x/summary.json"],
            r"has x/summary.json, whose files would be written over summary.json of the evaluation; give",
        ),
        (["Behaviour=openai/gsm8k:test@main"], r"written over Behaviour.json .* as in mine=openai/gsm8k:test@main"),
        (["x/mine.json", "y/mine.json"], r"two of the name mine; name one of them, as in mine=<path>"),
    ],
)
def test_what_is_no_benchmark_is_refused(wanted: list[str], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        find_benchmarks(wanted)


def test_a_folder_without_the_benchmark_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no aime2025\{\.json,\.jsonl,\.parquet\}; put it there"):
        find_benchmark("aime2025", tmp_path)


@pytest.mark.parametrize(
    ("name", "rows", "fault"),
    [
        ("math500", [{"problem": "p?"}], r"math500\.json, index 0: unknown shape, it needs one of the keys answer"),
        ("math500", [{"problem": "p?", "answer": None}], r"index 0: it has no answer"),
        ("aime2025", [{"problem": "p?", "answer": 1, "id": 1}] * 2, r"index 1: its id '1' is already taken by"),
        ("gpqa_diamond", [{**GPQA, "Correct Answer": ""}], r"index 0: it has no 'Correct Answer'"),
        ("gpqa_diamond", [{"problem": "p?", "answer": 1}], r"index 0: it has no 'Question'"),
        ("olympiadbench", [{"id": 1, "question": "p?", "final_answer": []}], r"index 0: it has no answer"),
        (
            "olympiadbench",
            [{"question": "p?", "final_answer": {"x": 7}}],
            r"index 0: its 'final_answer' is {'x': 7}, wh",
        ),
    ],
)
def test_a_broken_row_is_named_with_its_place(name: str, rows: list[Any], fault: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=fault):
        load_benchmark(find_benchmark(name, tmp_path), seed=0)


def test_broken_rows_can_be_left_out_and_are_counted(tmp_path: Path) -> None:
    (tmp_path / "aime2025.json").write_text(json.dumps([{"problem": "p?", "answer": 1}, {"problem": "q?"}]))
    loaded = load_benchmark(find_benchmark("aime2025", tmp_path), 0, "skip")
    assert len(loaded.problems) == 1 and loaded.unreadable == 1
