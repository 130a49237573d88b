"""How the plots of a report are painted onto figures.

``paint_accuracy_and_length`` and ``paint_scores`` of a cold start are in :mod:`longshort.thoughts.figures`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from textwrap import fill
from typing import TYPE_CHECKING, Any

from longshort.drawing import BLUE, COLOURS, GREY, VERMILION, note, whole_ticks
from longshort.evaluation.behaviour.phases import PHASES
from longshort.report.records import Measure, Run, Sample
from longshort.report.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "osD^vP"
_MOST_WORDS = 10
# With more points than these in a panel, their names would hide each other.
_MOST_NAMED = 16


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of points (tokens, accuracy), those that no other beats in one and equals in the other, by rising tokens."""
    kept: list[tuple[float, float]] = []
    for tokens, accuracy in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if not kept or accuracy > kept[-1][1]:
            kept.append((tokens, accuracy))
    return kept


def paint_rounds(figure: Figure, shown: Sequence[tuple[Run, Sequence[Measure]]]) -> None:
    """Accuracy with two standard errors above tokens, a line for each run."""
    above, below = figure.subplots(2, 1, sharex=True)
    most = max(len(measures) for _, measures in shown)
    several = len({measures[0].problems for _, measures in shown}) > 1
    for number, (run, measures) in enumerate(shown):
        name = f"{run.name}, {measures[0].problems}" if several else run.name
        style = {"color": _colour(number), "marker": _marker(number), "label": _label(name, 60)}
        errors = [2 * (m.error or 0) for m in measures]
        above.errorbar(range(len(measures)), [m.accuracy for m in measures], errors, capsize=3, elinewidth=1, **style)
        below.plot(range(len(measures)), [m.tokens for m in measures], **style)
    _shares(above, "Accuracy")
    _from_zero(below, "Tokens per conversation")
    if len(shown) == 1:
        names = [_label(m.stage) for m in shown[0][1]]
        below.set_xticks(range(most), names, rotation=25 if most > 5 else 0, ha="right" if most > 5 else "center")
    else:
        below.set_xlabel("Rounds that are over")
        whole_ticks(below)
        _legend(figure, above)
    note(figure, "Bars are two standard errors.")


def paint_pareto(figure: Figure, groups: Mapping[str, Sequence[tuple[Run, Measure]]]) -> None:
    """A panel for each set of problems, a point for each measure, and their front."""
    columns = 1 if len(groups) == 1 else 2
    grid = figure.subplots(ceil(len(groups) / columns), columns, squeeze=False)
    names = list(dict.fromkeys(run.name for points in groups.values() for run, _ in points))
    for axes, (problems, points) in zip(grid.flat, groups.items(), strict=False):
        best = front([(measure.tokens, measure.accuracy) for _, measure in points])
        axes.plot(*zip(*best, strict=True), color=GREY, linewidth=1.2, linestyle="--", label="Pareto front", zorder=1)
        for number, name in enumerate(names):
            own = [measure for run, measure in points if run.name == name]
            if own:
                where = [m.tokens for m in own], [m.accuracy for m in own]
                axes.scatter(*where, color=_colour(number), marker=_marker(number), label=_label(name), zorder=2)
        for point, text in _names_of(points).items() if len(points) <= _MOST_NAMED else ():
            place = {"xytext": (5, -9), "textcoords": "offset points", "fontsize": 8, "color": GREY}
            axes.annotate(_name(text), point, parse_math=False, **place)
        # Names of problems end with what tells them apart.
        axes.set_title(fill(one_line(problems), 84 // columns), loc="left", fontsize=11, parse_math=False)
        _shares(axes, "Accuracy", whole=False)
        axes.set_xlabel("Tokens per conversation")
        axes.set_xlim(left=0)
        axes.margins(0.1)
    for axes in list(grid.flat)[len(groups) :]:
        axes.remove()
    _legend(figure, *grid.flat[: len(groups)])
    note(figure, "Runs share a panel where the problems are the same.")


def _names_of(points: Sequence[tuple[Run, Measure]]) -> dict[tuple[float, float], str]:
    """By point, the stages that lie there."""
    found: dict[tuple[float, float], str] = {}
    for _, measure in points:
        point = measure.tokens, measure.accuracy
        if measure.stage and measure.stage not in found.get(point, "").split(", "):
            found[point] = ", ".join(filter(None, (found.get(point), measure.stage)))
    return found


def paint_lengths(figure: Figure, panels: Sequence[tuple[str, Sequence[Sample]]]) -> None:
    """A panel for each title: histograms of tokens, right and wrong."""
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    every = sorted(sample.tokens for _, samples in panels for sample in samples)
    # The longest hundredth would squeeze all others into a few bars; it is in the last one.
    top = max(every[min(ceil(0.99 * len(every)), len(every) - 1)], 1)
    edges = [top * i / 40 for i in range(41)]
    for axes, (title, samples) in zip(grid, panels, strict=True):
        for correct, name, colour, hatch in ((True, "right", BLUE, ""), (False, "wrong", VERMILION, "///")):
            values = [min(s.tokens, top) for s in samples if s.correct is correct]
            if values:
                look = {"alpha": 0.45, "edgecolor": colour, "hatch": hatch, "histtype": "stepfilled"}
                axes.hist(values, edges, color=colour, label=name, **look)
        _title(axes, title)
        axes.set_ylabel("Answers")
        axes.yaxis.get_major_locator().set_params(integer=True)
    grid[-1].set_xlabel("Tokens of the conversation")
    _legend(figure, *grid)
    note(figure, "Longer ones than 99% of all are in the last bar.")


def paint_rewards(figure: Figure, panels: Sequence[tuple[str, Mapping[str, Sequence[tuple[float, float]]]]]) -> None:
    """A panel for each title: a line for each part, by steps and values."""
    grid = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    names = list(dict.fromkeys(part for _, parts in panels for part in parts))
    for axes, (title, parts) in zip(grid, panels, strict=True):
        for part, points in parts.items():
            style = {"color": "#000000", "linewidth": 2.2} if part == "total" else {"color": _colour(names.index(part))}
            axes.plot(*zip(*points, strict=True), label=part, **style)
        _title(axes, title)
        axes.set_ylabel("Mean reward")
        whole_ticks(axes)
    grid[-1].set_xlabel("Step")
    _legend(figure, *grid)


def paint_steps(figure: Figure, runs: Sequence[Run]) -> None:
    """Accuracy above tokens, by steps; validation dotted, ends of rounds as vertical lines."""
    above, below = figure.subplots(2, 1, sharex=True)
    for number, run in enumerate(runs):
        for axes, key in ((above, "accuracy"), (below, "tokens_per_episode")):
            axes.plot(*zip(*run.series(key), strict=True), color=_colour(number), label=_label(run.name))
            validated = run.series(f"val/{key}")
            if validated:
                label = "validation" if number == 0 else None
                axes.plot(
                    *zip(*validated, strict=True),
                    color=_colour(number),
                    marker=_marker(number),
                    linestyle=":",
                    label=label,
                )
        for each in run.record.rounds[:-1]:
            for axes in (above, below):
                axes.axvline(each.last_step + 0.5, color=_colour(number), linewidth=0.8, alpha=0.5)
    _shares(above, "Accuracy")
    _from_zero(below, "Tokens per conversation")
    below.set_xlabel("Step")
    whole_ticks(below)
    _legend(figure, above)


def paint_behaviour(figure: Figure, shown: Sequence[tuple[Run, Measure, Measure]]) -> None:
    """A row for each run: turns, tokens and outcomes of its first and its second measure."""
    grid = figure.subplots(len(shown), 3, squeeze=False)
    for row, (run, before, after) in zip(grid, shown, strict=True):
        roles = [role for role in after.roles if role in before.roles] or list(after.roles)
        for axes, what in zip(row[:2], ("turns", "tokens"), strict=True):
            pairs = [(_label(role, 12), _mean(before, role, what), _mean(after, role, what)) for role in roles]
            _bars(axes, pairs)
            axes.set_ylabel(f"{what.capitalize()} per conversation", fontsize=9)
        outcomes = [name for name in after.outcomes if max(before.outcomes.get(name, 0), after.outcomes[name]) > 0]
        _bars(
            row[2], [(name.replace("_", "\n"), before.outcomes.get(name, 0), after.outcomes[name]) for name in outcomes]
        )
        row[2].yaxis.set_major_formatter("{x:.0%}")
        row[2].set_ylabel("Share", fontsize=9)
        _title(row[0], f"{run.name}: {before.stage} and {after.stage}")
    _legend(figure, *grid.flat)


def _mean(measure: Measure, role: str, what: str) -> float:
    return float(getattr(measure.roles[role], what)) if role in measure.roles else 0.0


def paint_words(figure: Figure, groups: Sequence[tuple[str, Mapping[str, float]]]) -> None:
    """Bars of the most frequent words, for at most as many groups in a panel as there are colours."""
    totals: dict[str, float] = {}
    for _, frequencies in groups:
        for word, frequency in frequencies.items():
            totals[word] = totals.get(word, 0) + frequency
    shown = sorted(totals, key=lambda word: -totals[word])[:_MOST_WORDS]
    # No colour stands for two groups of a panel.
    panels = [groups[first : first + len(COLOURS)] for first in range(0, len(groups), len(COLOURS))]
    grid = figure.subplots(len(panels), 1, sharey=True, squeeze=False)[:, 0]
    for axes, some in zip(grid, panels, strict=True):
        width = 0.8 / len(some)
        for number, (name, frequencies) in enumerate(some):
            places = [place + (number - (len(some) - 1) / 2) * width for place in range(len(shown))]
            heights = [frequencies.get(word, 0) for word in shown]
            axes.bar(places, heights, 0.92 * width, color=_colour(number), label=_label(name))
        axes.set_xticks(range(len(shown)), shown, rotation=25, ha="right")
        axes.set_ylabel("Per 1,000 sampled tokens")
        axes.grid(axis="x", visible=False)
        axes.legend(loc="upper right", frameon=False, fontsize=9)


def paint_phases(figure: Figure, rows: Sequence[tuple[str, Mapping[str, float]]]) -> None:
    """A bar for each row, divided by the shares of phases."""
    axes = figure.subplots()
    left = [0.0] * len(rows)
    for number, phase in enumerate(PHASES):
        values = [shares.get(phase, 0) for _, shares in rows]
        # Ten phases for six colours: the second time they are hatched.
        hatch = "///" if number >= len(COLOURS) else ""
        look: Any = {"color": _colour(number), "alpha": 0.85, "edgecolor": "white", "hatch": hatch}
        axes.barh(range(len(rows)), values, 0.7, left=left, label=phase, **look)
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.set_yticks(range(len(rows)), [_label(name) for name, _ in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.grid(axis="y", visible=False)
    _legend(figure, axes)


def _bars(axes: Axes, pairs: Sequence[tuple[str, float, float]]) -> None:
    places = range(len(pairs))
    axes.bar([p - 0.2 for p in places], [pair[1] for pair in pairs], 0.38, color="#B8B8B8", label="before")
    axes.bar([p + 0.2 for p in places], [pair[2] for pair in pairs], 0.38, color=BLUE, label="after")
    axes.set_xticks(list(places), [pair[0] for pair in pairs], fontsize=9)
    axes.grid(axis="x", visible=False)


def _shares(axes: Axes, name: str, whole: bool = True) -> None:
    axes.set_ylabel(name)
    axes.yaxis.set_major_formatter("{x:.0%}")
    if whole:
        axes.set_ylim(top=1.02)


def _from_zero(axes: Axes, name: str) -> None:
    axes.set_ylabel(name)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:,.0f}")


def _title(axes: Axes, text: str) -> None:
    axes.set_title(_name(text, 60), loc="left", fontsize=11, parse_math=False)


def _name(text: str, most: int = 40) -> str:
    """Of a run or a role, where no mathematics is parsed."""
    return one_line(text, most)


def _label(text: str, most: int = 40) -> str:
    """The same where it is: a dollar sign begins no formula; and a leading underscore hides nothing from a legend."""
    line = _name(text, most).replace("$", r"\$")
    return f" {line}" if line.startswith("_") else line


def _legend(figure: Figure, *panels: Axes) -> None:
    found: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if len(found) > 1:
        place: Any = {"loc": "outside upper center", "ncols": min(len(found), 4), "frameon": False, "fontsize": 10}
        figure.legend(list(found.values()), list(found), **place)


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _marker(number: int) -> str:
    return _MARKERS[number % len(_MARKERS)]
