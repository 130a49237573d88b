"""Problems of one name: which runs were measured on the same ones, and how a reader tells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from longshort.evaluation.identity import problems_digest
from longshort.report.contents import benchmarks_table
from longshort.report.plots import plots_of
from longshort.report.problems import told_apart
from longshort.report.records import Run
from longshort.report.sources import named_apart, read_run
from tests.report_runs import METRICS, episode, write_evaluation, write_training
from tests.unit.test_report_plots import texts_of


def read(*folders: Path) -> list[Run]:
    return told_apart(named_apart([read_run(folder) for folder in folders], folders))


def names_of(runs: Sequence[Run]) -> list[list[str]]:
    return [list(dict.fromkeys(measure.problems for measure in run.measures)) for run in runs]


def test_runs_on_the_same_problems_share_their_names(tmp_path: Path) -> None:
    runs = read(*[write_evaluation(tmp_path / name) for name in "ab"])
    assert names_of(runs) == [["math500", "aime2024", "average"]] * 2


def test_other_problems_under_one_name_are_another_set_everywhere(tmp_path: Path) -> None:
    texts = [[episode(i) for i in range(2)], [episode(i) for i in range(2)], [episode(i) for i in (0, 7)]]
    runs = read(*[write_evaluation(tmp_path / f"run{i}", some) for i, some in enumerate(texts)])
    first = ["math500 (set 1)", "aime2024 (set 1)", "average of aime2024 (set 1), math500 (set 1)"]
    other = ["math500 (set 2)", "aime2024 (set 2)", "average of aime2024 (set 2), math500 (set 2)"]
    assert names_of(runs) == [first, first, other]
    for run, names in zip(runs, (first, first, other), strict=True):
        assert set(run.benchmarks) == set(run.words) == {s.problem.source for s in run.samples} == set(names[:2])
        assert set(run.behaviour) == {names[0]}
    assert [row[:2] for row in benchmarks_table(runs).rows if "math500" in str(row[0])] == [
        ("math500 (set 1)", "run0"),
        ("math500 (set 1)", "run1"),
        ("math500 (set 2)", "run2"),
    ]


def test_an_average_is_compared_among_equal_benchmarks_only(tmp_path: Path) -> None:
    folders = [write_evaluation(tmp_path / name) for name in "abc"]
    summary = json.loads((folders[2] / "summary.json").read_text())
    summary["benchmarks"]["amc2023"] = summary["benchmarks"]["math500"]
    (folders[2] / "summary.json").write_text(json.dumps(summary))
    averages = [names[-1] for names in names_of(read(*folders))]
    assert averages == [*["average of aime2024, math500"] * 2, "average of aime2024, amc2023, math500"]


def test_training_runs_are_compared_where_their_test_files_are_the_same(tmp_path: Path) -> None:
    files = ("a.jsonl", "a.jsonl", "b.jsonl")
    runs = read(*[write_training(tmp_path / f"run{i}", test_file=file) for i, file in enumerate(files)])
    assert names_of(runs) == [["test problems (set 1)"], ["test problems (set 1)"], ["test problems (set 2)"]]
    (pareto,) = [plot for plot in plots_of(runs) if plot.name == "pareto"]
    assert {"test problems (set 1)", "test problems (set 2)"} <= texts_of(pareto)


def test_validations_on_other_files_in_a_round_are_another_set(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder, own in zip(folders, ("{}", "{data: {val_files: b.jsonl}}"), strict=True):
        folder.mkdir()
        line = {"step": 0, **{f"val/{key}": value for key, value in METRICS.items()}}
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        (folder / "config.yaml").write_text(f"data: {{val_files: [a.jsonl]}}\nrounds: {{long-r1: {own}}}\n")
    assert names_of(read(*folders)) == [["validation problems (set 1)"], ["validation problems (set 2)"]]


def test_problems_that_are_not_known_are_compared_with_none(tmp_path: Path) -> None:
    folders = [write_training(tmp_path / name) for name in "ab"]
    for folder in folders:
        (folder / "config.yaml").unlink()
    assert names_of(read(*folders)) == [["test problems (set 1)"], ["test problems (set 2)"]]


def test_what_a_stage_noted_of_its_problems_is_what_its_episodes_say(tmp_path: Path) -> None:
    folders = [write_evaluation(tmp_path / name) for name in "ab"]
    digest = problems_digest([episode(i).problem for i in range(2)])
    for name in ("math500", "aime2024"):
        (folders[0] / f"{name}.json").write_text(json.dumps({"settings": {"problems": digest}}))
        (folders[0] / f"{name}.jsonl").unlink()
    assert names_of(read(*folders)) == [["math500", "aime2024", "average"]] * 2
