"""The plots of a report, each drawn from records and nothing else; :mod:`longshort.report.painting` paints them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil

from longshort.drawing import COLOURS, Paint
from longshort.report import painting
from longshort.report.records import Measure, Run, Sample
from longshort.thoughts.figures import LENGTH_HEIGHT, paint_accuracy_and_length, paint_scores, scores_height

_FEWEST_IN_HISTOGRAM = 2
_MOST_HISTOGRAMS = 24


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure to draw.

    Attributes:
        name: of its files.
        title: what it shows.
        height: inches.
        paint: puts it onto a figure.
    """

    name: str
    title: str
    height: float
    paint: Paint


def plots_of(runs: Sequence[Run]) -> list[Plot]:
    """Those that there are data for."""
    return [plot for make in _PLOTS for plot in make(runs)]


def over_rounds(runs: Sequence[Run]) -> Iterator[Plot]:
    """Accuracy and length after each round, on the test problems."""
    trained = [(run, [m for m in run.measures if m.stage != "reasoner"]) for run in runs if run.record.rounds]
    shown = [(run, measures) for run, measures in trained if len(measures) > 1]
    if shown:
        yield Plot("rounds", "Accuracy and length over rounds", 5.6, partial(painting.paint_rounds, shown=shown))


def accuracy_by_tokens(runs: Sequence[Run]) -> Iterator[Plot]:
    """A point for everything that was measured, a panel for each set of problems, and the front that nothing beats."""
    groups: dict[str, list[tuple[Run, Measure]]] = {}
    for run in runs:
        for measure in run.measures:
            groups.setdefault(measure.problems, []).append((run, measure))
    groups = {problems: points for problems, points in groups.items() if len(points) > 1}
    if groups:
        height = 1.2 + 3.2 * ceil(len(groups) / 2) if len(groups) > 1 else 4.6
        yield Plot("pareto", "Accuracy against tokens", height, partial(painting.paint_pareto, groups=groups))


def lengths(runs: Sequence[Run]) -> Iterator[Plot]:
    """Histograms of tokens, of right and of wrong answers, a panel for each source of problems of a run."""
    found = [
        (", ".join(filter(None, (run.name, source))), samples)
        for run in runs
        for source, samples in _by_source(run).items()
        if len(samples) >= _FEWEST_IN_HISTOGRAM
    ]
    shown = found[:_MOST_HISTOGRAMS]
    if shown:
        title = "Lengths of right and of wrong answers"
        if len(shown) < len(found):
            title += f": the first {len(shown)} of {len(found)} sources"
        yield Plot("lengths", title, 1.0 + 1.9 * len(shown), partial(painting.paint_lengths, panels=shown))


def rewards(runs: Sequence[Run]) -> Iterator[Plot]:
    """Parts of the reward over the steps, a panel for each role of each run."""
    panels = []
    for run in runs:
        keys = list(dict.fromkeys(key for line in run.steps for key in line if "/reward/" in key))
        for role in dict.fromkeys(key.split("/reward/")[0] for key in keys):
            parts = {key.split("/reward/")[1]: run.series(key) for key in keys if key.startswith(f"{role}/reward/")}
            panels.append((f"{run.name}, {role}", parts))
    if panels:
        height = 1.1 + 2.1 * len(panels)
        yield Plot(
            "rewards", "Parts of the reward over the steps", height, partial(painting.paint_rewards, panels=panels)
        )


def over_steps(runs: Sequence[Run]) -> Iterator[Plot]:
    """Accuracy and length of training episodes, step by step."""
    shown = [run for run in runs if sum("accuracy" in line for line in run.steps) > 1]
    if shown:
        yield Plot("steps", "Training episodes over the steps", 5.6, partial(painting.paint_steps, runs=shown))


def thoughts(runs: Sequence[Run]) -> Iterator[Plot]:
    """The paper's figures 2 and 3 of every cold start."""
    for number, run in enumerate((run for run in runs if run.kind == "cold start"), start=1):
        if data := run.by_thoughts:
            title = f"{run.name}: accuracy and length by given thoughts"
            paint = partial(paint_accuracy_and_length, data=data)
            yield Plot(f"thoughts-{number}", title, LENGTH_HEIGHT, paint)
        if scores := run.scores:
            title = f"{run.name}: scores of thoughts"
            yield Plot(f"scores-{number}", title, scores_height(scores), partial(paint_scores, data=scores))


def behaviour(runs: Sequence[Run]) -> Iterator[Plot]:
    """What conversations are like before and after: turns and tokens of each role, and how they end."""
    shown = []
    for run in runs:
        before = next((m for m in run.measures if m.stage == "start"), None)
        if before is not None and run.measures[-1] is not before:
            shown.append((run, before, run.measures[-1]))
    if shown:
        height = 0.9 + 1.9 * len(shown)
        yield Plot(
            "behaviour", "Conversations before and after", height, partial(painting.paint_behaviour, shown=shown)
        )


def words(runs: Sequence[Run]) -> Iterator[Plot]:
    """The most frequent words of reflection: of a training run in its first and its last round, else in everything."""
    groups = []
    for run in runs:
        names = list(run.words)
        ends = [names[0], names[-1]] if run.kind == "training" and len(names) > 1 else names
        groups += [(f"{run.name}, {name}" if name else run.name, run.words[name]["reflection"]) for name in ends]
    if any(frequencies for _, frequencies in groups):
        height = 1.2 + 3.6 * ceil(len(groups) / len(COLOURS))
        yield Plot("words", "Words of reflection", height, partial(painting.paint_words, groups=groups))


def phases(runs: Sequence[Run]) -> Iterator[Plot]:
    """Shares of the phases of reasoning, by run and benchmark."""
    rows = [
        (f"{run.name}, {name}", shares)
        for run in runs
        for name, each in run.behaviour.items()
        if (shares := each.get("phases", {}).get("shares"))
    ]
    if rows:
        yield Plot("phases", "Phases of reasoning", 1.8 + 0.45 * len(rows), partial(painting.paint_phases, rows=rows))


_PLOTS: tuple[Callable[[Sequence[Run]], Iterator[Plot]], ...] = (
    *(over_rounds, accuracy_by_tokens, lengths, over_steps, rewards, thoughts, behaviour, words, phases),
)


def _by_source(run: Run) -> dict[str, list[Sample]]:
    """Graded samples: of evaluations and tests, or of what there is where there are none."""
    graded = [sample for sample in run.samples if sample.correct is not None]
    tests = [sample for sample in graded if sample.origin in ("evaluation", "validation")]
    found: dict[str, list[Sample]] = {}
    for sample in tests or graded:
        found.setdefault(sample.problem.source, []).append(sample)
    return found
