"""The hub's loading code on small local copies of its shapes.

Not proven: that a data set of the hub itself still has its shape.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from longshort.data import load_problems
from longshort.hub import is_data_set

ROWS = [
    {"problem": "What is $1+1$?", "solution": "It is $\\boxed{2}$.", "level": "Level 1"},
    {"problem": "What is $2+2$?", "solution": "It is $\\boxed{4}$.", "level": "Level 1"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """MATH-lighteval's layout and columns."""
    target = tmp_path / "math"
    (target / "data").mkdir(parents=True)
    for split, rows in (("train", ROWS), ("test", ROWS[:1])):
        pyarrow.parquet.write_table(
            pyarrow.Table.from_pylist(rows), target / "data" / f"{split}-00000-of-00001.parquet"
        )
    return target


def test_a_split_of_a_data_set_loads_with_the_answers_of_its_solutions(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
    train = load_problems([str(folder)]).problems
    assert [problem.answer for problem in train] == ["2", "4"]
    assert [problem.answer for problem in load_problems([f"{folder}:test"]).problems] == ["2"]


def test_an_unknown_split_is_one_sentence(folder: Path) -> None:
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_problems([f"{folder}:nowhere"])


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("owner/name", True),
        ("owner/name:test", True),
        ("owner/name-1.5:test@algebra", True),
        ("./folder", True),
        ("data/train.parquet", False),
        ("/data/train.jsonl", False),
        ("problems.json", False),
        ("playground:train:10:0", False),
    ],
)
def test_data_sets_and_files_are_told_apart(path: str, expected: bool) -> None:
    assert is_data_set(path) is expected
