"""The data of both figures against means made by hand, and that PNGs of them are written.

Not proved here: that the pictures show the data; they are for the eye.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshort.episode import Problem
from longshort.thoughts.figures import (
    FEWEST,
    AccuracyAndLength,
    accuracy_and_length,
    common_counts,
    draw_accuracy_and_length,
    draw_scores,
    scores_by_rollouts,
    write_figures,
)
from longshort.thoughts.metric import error_bound, joint_scores
from longshort.thoughts.scored import Rollout, ScoredChain
from longshort.thoughts.thought import Thought

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chain_of(lengths: Sequence[int], rollouts: Sequence[Sequence[tuple[int, int]]]) -> ScoredChain:
    """A chain of thoughts of these lengths; of each prefix, whether each rollout was right and its tokens."""
    assert len(rollouts) == len(lengths) + 1
    thoughts = tuple(Thought("text", "kind", step, step) for step in range(1, len(lengths) + 1))
    sampled = tuple(tuple(Rollout(bool(right), tokens) for right, tokens in prefix) for prefix in rollouts)
    return ScoredChain(Problem("id", "question", "answer"), thoughts, tuple(lengths), sampled)


def random_chains(thoughts: Sequence[int], samples: int, seed: int = 0) -> list[ScoredChain]:
    rng = np.random.default_rng(seed)
    return [
        chain_of(
            rng.integers(1, 500, n).tolist(),
            [list(zip(rng.integers(0, 2, samples), rng.integers(1, 900, samples), strict=True)) for _ in range(n + 1)],
        )
        for n in thoughts
    ]


LONG = chain_of(
    [10, 30, 60],
    [[(0, 9), (0, 11)], [(1, 8), (0, 8)], [(1, 4), (0, 6)], [(1, 1), (1, 2), (1, 3)]],
)
SHORT = chain_of([50], [[(1, 20), (1, 30)], [(0, 10), (1, 10), (1, 16), (1, 20)]])

CHAINS = st.lists(
    st.integers(1, 6).flatmap(
        lambda n: st.builds(
            chain_of,
            st.lists(st.integers(1, 99), min_size=n, max_size=n),
            st.lists(
                st.lists(st.tuples(st.integers(0, 1), st.integers(0, 99)), min_size=3, max_size=12),
                min_size=n + 1,
                max_size=n + 1,
            ),
        )
    ),
    min_size=1,
    max_size=6,
)


def column_means(rows: Sequence[Sequence[float]]) -> list[float]:
    """Through a table with gaps, another way than the module's."""
    table = np.full((len(rows), max(map(len, rows))), np.nan)
    for place, row in enumerate(rows):
        table[place, : len(row)] = row
    return np.nanmean(table, 0).tolist()


# Accuracy and length


def test_accuracy_and_length_of_an_example() -> None:
    data = accuracy_and_length([LONG, SHORT])
    assert data.thoughts == (0, 1, 2, 3)
    assert data.chains == (2, 2, 1, 1)
    assert data.accuracy == pytest.approx([(0 + 1) / 2, (1 / 2 + 3 / 4) / 2, 1 / 2, 1])
    assert data.tokens == pytest.approx([(10 + 25) / 2, (8 + 14) / 2, 5, 2])


@given(CHAINS)
def test_each_chain_counts_once_at_each_number_of_thoughts_that_it_has(chains: list[ScoredChain]) -> None:
    data = accuracy_and_length(chains)
    assert data.accuracy == pytest.approx(column_means([chain.accuracies() for chain in chains]))
    tokens = [[np.mean([one.tokens for one in prefix]) for prefix in chain.rollouts] for chain in chains]
    assert data.tokens == pytest.approx(column_means(tokens))
    assert data.chains == tuple(sum(len(chain.thoughts) >= i for chain in chains) for i in data.thoughts)
    assert data.chains[-1] >= 1
    assert accuracy_and_length(chains[::-1]) == data


# Scores


def test_scores_of_an_example() -> None:
    data = scores_by_rollouts([LONG, SHORT], decay=0.5, counts=[2, 1])
    assert data.thoughts == (1, 2, 3)
    assert data.chains == (2, 1, 1)
    assert [curve.rollouts for curve in data.curves] == [1, 2]
    # Of the short chain, the first rollout after its thought is wrong and the second right: it scores -0.5 both times.
    first, _, last = joint_scores([10, 30, 60], [0, 1, 1, 1], 0.5)
    assert data.curves[0].scores == pytest.approx([(first - 0.5) / 2, np.log2(1.42) - 0.5, last])
    first, _, last = joint_scores([10, 30, 60], [0, 0.5, 0.5, 1], 0.5)
    assert data.curves[1].scores == pytest.approx([(first - 0.5) / 2, np.log2(1.21) - 0.5, last])


def test_the_scores_of_a_chain_alone_are_its_own() -> None:
    (curve,) = scores_by_rollouts([LONG], counts=[2]).curves
    assert curve.scores == pytest.approx(LONG.scores(most=2))


@given(CHAINS, st.integers(1, 3), st.floats(0, 1))
def test_scores_are_means_and_bounds_do_not_depend_on_chains(
    chains: list[ScoredChain], count: int, decay: float
) -> None:
    data = scores_by_rollouts(chains, decay, [count], confidence=0.9)
    assert data.curves[0].scores == pytest.approx(column_means([chain.scores(decay, count) for chain in chains]))
    assert data.curves[0].bound == error_bound(count, 0.9)
    assert data.chains == accuracy_and_length(chains).chains[1:]


@pytest.mark.parametrize(
    ("samples", "counts"),
    [(1, (1,)), (5, (5,)), (8, (8,)), (31, (8, 16)), (128, (8, 16, 32, 64, 128)), (200, (8, 16, 32, 64, 128))],
)
def test_counts_are_those_of_the_prefix_with_the_fewest_rollouts(samples: int, counts: tuple[int, ...]) -> None:
    chains = [*random_chains([2], 200), *random_chains([1], samples)]
    assert common_counts(chains) == counts
    assert tuple(curve.rollouts for curve in scores_by_rollouts(chains).curves) == counts


@pytest.mark.parametrize("counts", [[], [0], [1, 3]])
def test_counts_that_a_prefix_does_not_have_are_refused(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="from 1 to the 2 that every prefix has"):
        scores_by_rollouts([LONG, SHORT], counts=counts)


def test_no_chains_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    for refuse in (accuracy_and_length, scores_by_rollouts, common_counts):
        with pytest.raises(ValueError, match="there are no chains"):
            refuse([])
    with pytest.raises(ValueError, match="there are no chains"):
        write_figures([], tmp_path / "figures")
    assert list(tmp_path.iterdir()) == []


# Files


def pixels(png: bytes) -> np.ndarray:
    """Height, width and colours."""
    from matplotlib.image import imread

    assert png.startswith(SIGNATURE)
    return imread(io.BytesIO(png))


def test_figures_are_written_with_their_data(tmp_path: Path) -> None:
    chains, folder = random_chains([4, 9, 2, 7, 12, 12, 3], 20), tmp_path / "new" / "figures"
    for _ in range(2):
        paths = write_figures(chains, folder, decay=0.1)
    names = ["accuracy_and_length.json", "accuracy_and_length.png", "scores.json", "scores.png"]
    assert sorted(path.name for path in paths) == names
    assert sorted(folder.iterdir()) == sorted(paths), "nothing temporary is left"
    lengths, scores = accuracy_and_length(chains), scores_by_rollouts(chains, 0.1)
    for data, name in ((lengths, "accuracy_and_length"), (scores, "scores")):
        assert json.loads((folder / f"{name}.json").read_text()) == json.loads(json.dumps(asdict(data)))
        height, width, _ = pixels((folder / f"{name}.png").read_bytes()).shape
        assert width == 1_080
        assert 500 <= height <= 2_000


@pytest.mark.parametrize("chains", [[SHORT], [LONG, SHORT], random_chains([3], 128)])
def test_few_chains_and_single_points_are_drawn(chains: list[ScoredChain]) -> None:
    for png in (draw_accuracy_and_length(accuracy_and_length(chains)), draw_scores(scores_by_rollouts(chains))):
        assert pixels(png)[..., :3].std() > 0.05, "not an empty page"


def test_points_with_few_chains_are_in_the_data_and_not_drawn() -> None:
    data = accuracy_and_length(random_chains([3] * FEWEST + [9], 8))
    assert data.chains == (FEWEST + 1,) * 4 + (1,) * 6
    ending_there = AccuracyAndLength(*(values[:4] for values in asdict(data).values()))
    assert draw_accuracy_and_length(data) == draw_accuracy_and_length(ending_there)
    assert draw_accuracy_and_length(data) != draw_accuracy_and_length(data, fewest=1)
    scores = scores_by_rollouts(random_chains([3] * FEWEST + [9], 8))
    assert draw_scores(scores) != draw_scores(scores, fewest=1)


def test_the_module_imports_without_matplotlib_and_drawing_without_pyplot() -> None:
    code = (
        "import sys\n"
        "import longshort.thoughts.figures as figures\n"
        "before = 'matplotlib' in sys.modules\n"
        "figures.draw_accuracy_and_length(figures.AccuracyAndLength((0,), (1,), (0.5,), (3.0,)))\n"
        "print(before, 'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
