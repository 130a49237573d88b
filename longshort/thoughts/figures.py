"""Two figures about chains of thought (Long⊗Short, arXiv 2505.11827, figures 2 and 3), first as data, then drawn.

At each number of thoughts, means are over the chains that have so many. Chains drop out as the number grows, and those
with many thoughts may be of harder problems: part of what a curve does is who is left. The data say how many are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from longshort.drawing import BLUE, GREY, VERMILION, draw, note, whole_ticks
from longshort.thoughts.metric import DECAY, error_bound
from longshort.thoughts.scored import ScoredChain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Rollouts of a prefix that the paper's figure 3 compares.
COUNTS = (8, 16, 32, 64, 128)
# A point with fewer chains behind it is not drawn.
FEWEST = 5
# Inches.
LENGTH_HEIGHT = 6.4


@dataclass(frozen=True, slots=True)
class AccuracyAndLength:
    """What rollouts are like after i thoughts of a chain are given; n is the number of thoughts of the longest chain.

    Attributes:
        thoughts: i, from 0 to n; the other fields have a value for each.
        chains: how many chains have at least i thoughts; never rises.
        accuracy: P̂_i, mean over these chains; from all samples, of which prefixes may have different numbers.
        tokens: that were sampled, without the thoughts that were given; mean of a prefix's rollouts, then over chains.
    """

    thoughts: tuple[int, ...]
    chains: tuple[int, ...]
    accuracy: tuple[float, ...]
    tokens: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ScoreCurve:
    """M(y_1) … M(y_n) from the first ``rollouts`` samples of each prefix, mean over the chains with so many thoughts.

    ``bound`` is :func:`longshort.thoughts.metric.error_bound`, that of one thought of one chain. It stands for means as
    it is, although their sampling error is smaller; it does not hold where the error changes δ.
    """

    rollouts: int
    bound: float
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ScoresByRollouts:
    """How scores depend on the number of rollouts; n is the number of thoughts of the longest chain.

    Attributes:
        thoughts: i, from 1 to n; ``chains`` and the scores of each curve have a value for each.
        chains: how many chains have at least i thoughts; never rises.
        decay: of δ.
        confidence: of the bounds.
        curves: by rising number of rollouts, at least one.
    """

    thoughts: tuple[int, ...]
    chains: tuple[int, ...]
    decay: float
    confidence: float
    curves: tuple[ScoreCurve, ...]


def accuracy_and_length(chains: Sequence[ScoredChain]) -> AccuracyAndLength:
    """The data of the paper's figure 2.

    Raises:
        ValueError: there are no chains.
    """
    _check_any(chains)
    accuracies = [chain.accuracies() for chain in chains]
    tokens = [[fmean(rollout.tokens for rollout in samples) for samples in chain.rollouts] for chain in chains]
    numbers = _numbers(accuracies)
    return AccuracyAndLength(tuple(range(len(numbers))), numbers, _means(accuracies), _means(tokens))


def scores_by_rollouts(
    chains: Sequence[ScoredChain],
    decay: float = DECAY,
    counts: Sequence[int] | None = None,
    confidence: float = 0.95,
) -> ScoresByRollouts:
    """The data of the paper's figure 3; for the scores of a single chain, give it alone.

    Args:
        chains: with at least one thought each.
        decay: of δ.
        counts: numbers of rollouts to compare; without it, :func:`common_counts`.
        confidence: of the error bounds.

    Raises:
        ValueError: there are no chains, one has no thought, or a value is out of range; or a prefix has fewer rollouts
            than the highest count.
    """
    _check_any(chains)
    counts = common_counts(chains) if counts is None else sorted(set(counts))
    fewest = _fewest_rollouts(chains)
    if not counts or counts[0] < 1 or counts[-1] > fewest:
        rule = f"give at least one number, from 1 to the {fewest} that every prefix has"
        raise ValueError(f"counts of rollouts are {list(counts)}: {rule}")
    bounds = [error_bound(count, confidence) for count in counts]
    rows = [[chain.scores(decay, count) for chain in chains] for count in counts]
    curves = tuple(ScoreCurve(*curve) for curve in zip(counts, bounds, map(_means, rows), strict=True))
    numbers = _numbers(rows[0])
    return ScoresByRollouts(tuple(range(1, len(numbers) + 1)), numbers, decay, confidence, curves)


def common_counts(chains: Sequence[ScoredChain]) -> tuple[int, ...]:
    """Those of ``COUNTS`` that every prefix has rollouts for; if it is none, what the prefix with the fewest has.

    Raises:
        ValueError: there are no chains.
    """
    _check_any(chains)
    fewest = _fewest_rollouts(chains)
    return tuple(count for count in COUNTS if count <= fewest) or (fewest,)


def draw_accuracy_and_length(data: AccuracyAndLength, fewest: int = FEWEST) -> bytes:
    """A PNG with two panels over the number of given thoughts; see :func:`paint_accuracy_and_length`."""
    return draw(lambda figure: paint_accuracy_and_length(figure, data, fewest), LENGTH_HEIGHT)


def paint_accuracy_and_length(figure: Figure, data: AccuracyAndLength, fewest: int = FEWEST) -> None:
    """Points with fewer than ``fewest`` chains are left out, but never those with all chains."""
    shown = _shown(data.chains, fewest)
    thoughts, chains = data.thoughts[:shown], data.chains[:shown]
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(thoughts, data.accuracy[:shown], color=BLUE, marker="o")
    above.set_ylabel("Accuracy\n(share of right rollouts)")
    above.set_ylim(-0.03, 1.03)
    below.plot(thoughts, data.tokens[:shown], color=VERMILION, marker="s")
    below.set_ylabel("Response length\n(sampled tokens per rollout)")
    below.set_ylim(bottom=0)
    below.yaxis.set_major_formatter("{x:,.0f}")
    below.set_xlabel("Thoughts given, i")
    whole_ticks(below)
    note(figure, _over(chains))


def draw_scores(data: ScoresByRollouts, fewest: int = FEWEST) -> bytes:
    """A PNG with a panel for each number of rollouts; see :func:`paint_scores`."""
    return draw(lambda figure: paint_scores(figure, data, fewest), scores_height(data))


def scores_height(data: ScoresByRollouts) -> float:
    """Inches of the figure with a panel for each curve."""
    return 1.6 + 1.7 * len(data.curves)


def paint_scores(figure: Figure, data: ScoresByRollouts, fewest: int = FEWEST) -> None:
    """M with the band M ± bound, and M from the most rollouts.

    Bands are cut at -decay and 1, since no score lies outside. ``fewest`` is as for the other figure.
    """
    shown = _shown(data.chains, fewest)
    thoughts, chains = data.thoughts[:shown], data.chains[:shown]
    *_, most = data.curves
    panels = figure.subplots(len(data.curves), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, curve in zip(panels, data.curves, strict=True):
        scores = curve.scores[:shown]
        low = [max(score - curve.bound, -data.decay) for score in scores]
        high = [min(score + curve.bound, 1.0) for score in scores]
        axes.axhline(0, color=GREY, linewidth=0.8)
        # The outline is what is seen of the band of a single point.
        axes.fill_between(thoughts, low, high, color=BLUE, alpha=0.2, linewidth=1, label="± error bound")
        axes.plot(thoughts, scores, color=BLUE, marker="o", label="M(y$_i$)")
        if curve is not most:
            from_most = f"M(y$_i$) from {most.rollouts} rollouts"
            axes.plot(thoughts, most.scores[:shown], color=VERMILION, linewidth=1.2, label=from_most)
        title = f"{curve.rollouts} rollouts per prefix, error bound {curve.bound:.2f}"
        axes.set_title(title, loc="left", fontsize=11)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    figure.supylabel("Score M(y$_i$), without unit", fontsize=11)
    panels[-1].set_xlabel("Thought index, i")
    whole_ticks(panels[-1])
    note(figure, f"{_over(chains)}\n{_bands(data)}")


def write_figures(chains: Sequence[ScoredChain], folder: Path, decay: float = DECAY) -> tuple[Path, ...]:
    """Write ``accuracy_and_length`` and ``scores`` to ``folder``, each as ``.png`` and its data as ``.json``.

    Nothing is written before everything is drawn, and each file appears at once under its name.

    Raises:
        ValueError: see :func:`scores_by_rollouts`.
    """
    lengths, scores = accuracy_and_length(chains), scores_by_rollouts(chains, decay)
    contents = {
        "accuracy_and_length.png": draw_accuracy_and_length(lengths),
        "accuracy_and_length.json": _json(lengths),
        "scores.png": draw_scores(scores),
        "scores.json": _json(scores),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        temporary = folder / f".{name}.new"
        temporary.write_bytes(content)
        temporary.replace(folder / name)
    return tuple(folder / name for name in contents)


def _check_any(chains: Sequence[ScoredChain]) -> None:
    if not chains:
        raise ValueError("there are no chains to draw figures of: give at least one scored chain")


def _fewest_rollouts(chains: Sequence[ScoredChain]) -> int:
    return min(len(samples) for chain in chains for samples in chain.rollouts)


def _columns(rows: Sequence[Sequence[float]]) -> Iterator[list[float]]:
    """At each place of the longest row, the values of the rows that reach it."""
    for place in range(max(map(len, rows))):
        yield [row[place] for row in rows if place < len(row)]


def _numbers(rows: Sequence[Sequence[float]]) -> tuple[int, ...]:
    return tuple(len(column) for column in _columns(rows))


def _means(rows: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(fmean(column) for column in _columns(rows))


def _shown(chains: Sequence[int], fewest: int) -> int:
    """How many points are drawn, from the first; ``chains`` never rises, so they have the most behind them."""
    return sum(number >= min(fewest, chains[0]) for number in chains)


def _over(chains: Sequence[int]) -> str:
    if chains[0] == 1:
        return "One chain."
    return f"Means over the chains with at least i thoughts: {chains[0]:,} at the left, {chains[-1]:,} at the right."


def _bands(data: ScoresByRollouts) -> str:
    sure = f"{100 * data.confidence:g}% confidence, δ unchanged"
    return f"Bands: error bound of one chain's score ({sure}), cut at {0 - data.decay:g} and 1."


def _json(data: AccuracyAndLength | ScoresByRollouts) -> bytes:
    return (json.dumps(asdict(data), indent=2) + "\n").encode()
