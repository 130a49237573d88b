"""Plots: the front, and that everything is drawn whatever runs are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshort.drawing import draw
from longshort.report.painting import front
from longshort.report.plots import Plot, lengths, plots_of, words
from longshort.report.records import Run, Sample
from longshort.report.sources import read_run
from longshort.report.svg import inline
from longshort.report.text import one_line
from tests.report_runs import episode, write_evaluation, write_training

POINTS = st.lists(st.tuples(st.integers(1, 9).map(float), st.integers(0, 9).map(float)), min_size=1)


@given(POINTS)
def test_the_front_has_exactly_the_points_that_no_other_beats(points: Sequence[tuple[float, float]]) -> None:
    def beaten(tokens: float, accuracy: float) -> bool:
        return any(t <= tokens and a >= accuracy and (t, a) != (tokens, accuracy) for t, a in points)

    assert set(front(points)) == {point for point in points if not beaten(*point)}
    assert front(points) == sorted(front(points))


def histograms(runs: Sequence[Run]) -> list[tuple[str, Sequence[Sample]]]:
    """Titles of panels, and what is in them."""
    (plot,) = lengths(runs)
    assert isinstance(plot.paint, partial)
    return list(plot.paint.keywords["panels"])


def texts_of(plot: Plot) -> set[str]:
    """All texts of a figure as they are drawn; none of them is mathematics."""
    from matplotlib.text import Text

    found: set[str] = set()

    def paint(figure: Any) -> None:
        plot.paint(figure)
        figure.draw_without_rendering()
        for each in figure.findobj(Text):
            text = each.get_text()
            if each.get_parse_math():
                assert "$" not in text.replace(r"\$", ""), text
                text = text.replace(r"\$", "$")
            found.add(text)

    draw(paint, plot.height, "png")
    return found


def test_names_that_mean_something_to_a_drawing_are_drawn_as_they_are(tmp_path: Path) -> None:
    name = r"$\frac{1}$ <b>&amp; _x \u202e" + "\u202e\x1b"
    shown = one_line(name)
    runs = [replace(read_run(write_training(tmp_path / str(i))), name=f"{name}{i}") for i in range(2)]
    runs.append(replace(read_run(write_evaluation(tmp_path / "eval", [episode(i % 2) for i in range(4)])), name=name))
    runs.append(replace(runs[0], name="_a$1$"))
    texts = {}
    for plot in plots_of(runs):
        svg = inline(draw(plot.paint, plot.height, "svg").decode(), "p", name)
        assert "style=" not in svg and not set("\x1b\u202e") & set(svg) and "<b>" not in svg
        texts[plot.name] = texts_of(plot)
    # Names in legends, where mathematics is parsed, and in titles, where it is not.
    assert {f"{shown}0", f"{shown}1", " _a$1$"} <= texts["rounds"] and {f"{shown}0", " _a$1$"} <= texts["pareto"]
    assert {f"{shown}, math500", f"{shown}1, made-up", "_a$1$, made-up"} <= texts["lengths"]
    assert {f"{shown}0, long", "_a$1$, long"} <= texts["rewards"]


def test_histograms_are_of_each_benchmark_and_of_tests_rather_than_of_training(tmp_path: Path) -> None:
    runs = [read_run(write_training(tmp_path / "train")), read_run(write_evaluation(tmp_path / "eval"))]
    panels = histograms(runs)
    assert [title for title, _ in panels] == ["train, made-up", "eval, aime2024", "eval, math500"]
    assert [{s.origin for s in samples} for _, samples in panels] == [{"validation"}, {"evaluation"}, {"evaluation"}]
    untested = replace(runs[0], samples=tuple(s for s in runs[0].samples if s.origin == "training"))
    ((title, samples),) = histograms([untested])
    assert title == "train, made-up" and len(samples) == 4


def test_a_plot_says_how_many_histograms_it_leaves_out(tmp_path: Path) -> None:
    run = read_run(write_evaluation(tmp_path / "run"))
    (plot,) = lengths([replace(run, name=f"run{i}") for i in range(15)])
    assert plot.title.endswith(": the first 24 of 30 sources")


def test_words_are_drawn_of_every_run(tmp_path: Path) -> None:
    run = read_run(write_evaluation(tmp_path / "run", [episode(0, ("Wait, hmm.",)), episode(1)]))
    (plot,) = words([replace(run, name=f"run{i}") for i in range(5)])
    assert {f"run{i}, {name}" for i in range(5) for name in ("math500", "aime2024")} <= texts_of(plot)


def test_a_run_without_anything_has_no_plots_and_one_without_grades_no_histogram(tmp_path: Path) -> None:
    assert plots_of([Run("empty", "training")]) == []
    run = read_run(write_training(tmp_path / "run"))
    ungraded = replace(run, samples=tuple(replace(s, correct=None) for s in run.samples))
    assert "lengths" not in {plot.name for plot in plots_of([ungraded])}


@pytest.mark.parametrize("format", ["png", "svg"])
def test_the_same_runs_give_the_same_images(tmp_path: Path, format: str) -> None:
    run = read_run(write_training(tmp_path / "run"))
    (plot,) = [plot for plot in plots_of([run]) if plot.name == "pareto"]
    kind = "png" if format == "png" else "svg"
    assert draw(plot.paint, plot.height, kind) == draw(plot.paint, plot.height, kind)


def test_ids_and_their_references_are_under_the_name_and_colours_follow_the_page() -> None:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="9pt">'
        "<defs><style>*{stroke-linejoin: round}</style></defs><metadata>x</metadata>"
        '<g id="a" style="fill: #000000; stroke: none" clip-path="url(#c)"><use xlink:href="#b"/></g></svg>'
    )
    found = inline(svg, "plot1", 'a "title"')
    assert 'id="plot1-a"' in found and 'href="#plot1-b"' in found and "url(#plot1-c)" in found
    assert 'class="fill-ink"' in found and 'stroke="none"' in found and "xlink" not in found
    assert "metadata" not in found and "linejoin" not in found and 'aria-label="a &quot;title&quot;"' in found
