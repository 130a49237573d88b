"""Which figures of a run get into the tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from longshort.report.contents import lengths_table, tables_of
from longshort.report.records import Run
from longshort.report.sources import read_run
from longshort.report.tables import Cell, Table
from tests.report_runs import episode, write_evaluation


def row_of(table: Table, place: int = 0) -> Mapping[str, Cell]:
    return dict(zip([column.name for column in table.columns], table.rows[place], strict=True))


def tables(folder: Path) -> dict[str, Table]:
    run = read_run(write_evaluation(folder, [episode(0, ("Aha! Wait.",)), episode(1, ("I made a mistake. Aha!",))]))
    return {table.name: table for table in tables_of([run])}


def test_percentiles_of_runs_that_have_others_stand_in_columns_of_their_own() -> None:
    lengths = ({"50": 7, "99": 9}, {"20": 1, "50": 2, "90": 3})
    runs = [
        Run(f"run{i}", "evaluation", benchmarks={"b": {"length_percentiles": {"right": some, "wrong": None}}})
        for i, some in enumerate(lengths)
    ]
    table = lengths_table(runs)
    assert [column.name for column in table.columns[3:]] == ["20%", "50%", "90%", "99%"]
    assert [row[3:] for row in table.rows] == [(None, 7, None, 9), (1, 2, 3, None)]


def test_benchmarks_show_what_was_left_out_and_the_most_turns(tmp_path: Path) -> None:
    row = row_of(tables(tmp_path / "run")["benchmarks"])
    assert row["left out: unreadable"] == 4 and row["left out: ungradable"] == 5
    assert row["turns"] == 2.0 and row["most turns"] == 3


def test_a_judge_that_answers_rubbish_is_counted_and_shown(tmp_path: Path) -> None:
    table = tables(tmp_path / "run")["judge"]
    assert table.rows == (
        ("math500", "run", 2, 1, 6, 7, "no JSON", 5),
        ("math500", "run", None, None, None, None, "blocks overlap", 2),
    )


def test_perplexity_has_its_median_and_what_was_cut(tmp_path: Path) -> None:
    found = tables(tmp_path / "run")["words"]
    (row,) = [row_of(found, i) for i, cells in enumerate(found.rows) if "math500" in cells]
    names = ("perplexity", "its median", "scored for it", "of these cut")
    assert [row[name] for name in names] == [3.5, 2.5, 9, 1]


def test_phrases_of_aha_moments_have_their_shares(tmp_path: Path) -> None:
    table = tables(tmp_path / "run")["aha"]
    shares = {(row[1], row[2]): row[3] for row in table.rows}
    assert shares["math500", "aha"] == 1 and shares["math500", "i made a mistake"] == 0.5


def test_a_summary_of_an_older_version_has_no_such_columns(tmp_path: Path) -> None:
    run = read_run(write_evaluation(tmp_path / "run"))
    numbers = {name: {k: v for k, v in each.items() if k != "left_out"} for name, each in run.benchmarks.items()}
    behaviour = {"math500": {"phases": {"shares": None, "judged": 0, "refused": 3}}}
    found = {t.name: t for t in tables_of([replace(run, benchmarks=numbers, behaviour=behaviour)])}
    assert "left out: ungradable" not in row_of(found["benchmarks"])
    assert row_of(found["judge"]) == {"benchmark": "math500", "run": "run", "judged": 0, "refused": 3}
