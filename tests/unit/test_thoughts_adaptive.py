"""Adaptive scoring: what it asks for, what it makes of the answers, and that its stated error can be believed.

How few rollouts it needs is measured by ``benchmarks/thought_rollouts.py``, not proved here; nor that success curves of
real models are like those simulated here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longshort.thoughts import curves
from longshort.thoughts.adaptive import Adaptive, AdaptiveScoring, Request, Split
from longshort.thoughts.curves import GRID, Counts, CurveModel
from longshort.thoughts.metric import joint_scores
from longshort.thoughts.partition import Partition

Streams = list[np.ndarray]
SMALL = Adaptive(rollouts=32, first=2, batch=4, draws=32)


def simulated(chains: int, seed: int, samples: int = 128) -> tuple[list[list[int]], Streams]:
    """Lengths, and streams (n + 1, samples) of curves that rise by jumps from plateau to plateau."""
    rng = np.random.default_rng(seed)
    lengths, streams = [], []
    for _ in range(chains):
        n = int(rng.integers(1, 25))
        jumps = (rng.random(n + 1) < 0.2) * rng.uniform(0.1, 0.4, n + 1)
        rates = np.clip(rng.beta(1, 3) + np.cumsum(jumps), 0, 1)
        lengths.append(rng.integers(5, 400, n).tolist())
        streams.append(rng.random((n + 1, samples)) < rates[:, None])
    return lengths, streams


def successes(request: Request, streams: Streams) -> int:
    return int(streams[request.chain][request.prefix, request.first : request.first + request.count].sum())


def scored(lengths: Sequence[Sequence[int]], streams: Streams, how: Adaptive) -> tuple[AdaptiveScoring, list[Request]]:
    """A scoring that was fed until it was done, and all that it asked for."""
    scoring, asked = AdaptiveScoring(lengths, how), []
    while not scoring.done:
        for request in scoring.propose():
            asked.append(request)
            scoring.observe(request, successes(request, streams))
    return scoring, asked


def by_all(lengths: Sequence[int], stream: np.ndarray) -> tuple[bool, ...]:
    return Partition()(joint_scores(lengths, stream.mean(1).tolist()))


# What is asked for


@given(st.integers(0, 5), st.integers(0, 1_000), st.sampled_from([0.1, 0.3, 1.0]), st.sampled_from(["sampled", "true"]))
@settings(max_examples=25)
def test_requests_continue_streams_and_stay_within_rollouts_and_budget(
    chains: int, seed: int, budget: float, goal: str
) -> None:
    how = Adaptive(rollouts=32, first=2, batch=5, draws=32, budget=budget, goal=goal, share=0.5)
    lengths, streams = simulated(chains, seed, 32)
    scoring, asked = scored(lengths, streams, how)
    reached: dict[tuple[int, int], int] = {}
    for request in asked:
        place = request.chain, request.prefix
        assert request.first == reached.get(place, 0)
        assert request.count >= 1
        assert 0 <= request.prefix <= len(lengths[request.chain])
        reached[place] = request.first + request.count
    assert len(reached) == sum(len(tokens) + 1 for tokens in lengths), "every prefix is begun"
    assert all(2 <= count <= 32 for count in reached.values())
    assert sum(reached.values()) <= max(2 * len(reached), budget * 32 * len(reached))
    assert scoring.spent == pytest.approx(sum(reached.values()) / (32 * len(reached)) if reached else 0)
    for split, tokens, (chain, stream) in zip(scoring.splits(), lengths, enumerate(streams), strict=True):
        assert len(split.long) == len(split.errors) == len(split.scores) == len(tokens)
        assert split.rollouts == tuple(reached[chain, prefix] for prefix in range(len(tokens) + 1))
        assert split.successes == tuple(int(stream[i, :count].sum()) for i, count in enumerate(split.rollouts))
        assert split.long[0]


def test_a_prefix_is_not_asked_for_while_its_samples_are_under_way() -> None:
    lengths, streams = simulated(6, seed=1)
    scoring = AdaptiveScoring(lengths, Adaptive(budget=1.0))
    for request in scoring.propose():
        scoring.observe(request, successes(request, streams))
    under_way: set[tuple[int, int]] = set()
    for _ in range(4):
        proposed = {(request.chain, request.prefix) for request in scoring.propose()}
        assert not proposed & under_way
        under_way |= proposed
    assert under_way and not scoring.done


def test_a_state_is_restored_by_observing_the_same_results_and_goes_on_alike() -> None:
    lengths, streams = simulated(8, seed=2)
    scoring, restored = AdaptiveScoring(lengths, SMALL), AdaptiveScoring(lengths, SMALL)
    rounds: list[tuple[Request, ...]] = []
    while not scoring.done:
        rounds.append(scoring.propose())
        for request in rounds[-1]:
            scoring.observe(request, successes(request, streams))
    half = len(rounds) // 2
    for request in sum(rounds[:half], ()):
        restored.observe(request, successes(request, streams))
    for proposed in rounds[half:]:
        assert restored.propose() == proposed
        for request in proposed:
            restored.observe(request, successes(request, streams))
    assert restored.done
    assert restored.splits() == scoring.splits()


def test_equal_streams_and_seeds_give_equal_splits() -> None:
    lengths, streams = simulated(8, seed=3)
    assert scored(lengths, streams, SMALL)[0].splits() == scored(lengths, streams, SMALL)[0].splits()


# What is made of the answers


def test_with_all_samples_the_split_is_the_plain_one_and_certain() -> None:
    lengths, streams = simulated(12, seed=4)
    scoring = AdaptiveScoring(lengths, Adaptive())
    for chain, stream in enumerate(streams):
        for prefix, samples in enumerate(stream):
            scoring.observe(Request(chain, prefix, 0, 128), int(samples.sum()))
    assert not scoring.propose() and scoring.done
    for split, tokens, stream in zip(scoring.splits(), lengths, streams, strict=True):
        assert split.long == by_all(tokens, stream)
        assert set(split.errors) == {0.0}
        assert split.scores == pytest.approx(joint_scores(tokens, stream.mean(1).tolist()))


def test_the_stated_agreement_is_the_one_that_is_found() -> None:
    lengths, streams = simulated(60, seed=5)
    scoring, _ = scored(lengths, streams, Adaptive())
    splits = scoring.splits()
    pairs = [
        (got, true, error)
        for split, tokens, stream in zip(splits, lengths, streams, strict=True)
        for got, true, error in zip(split.long, by_all(tokens, stream), split.errors, strict=True)
    ]
    found = float(np.mean([got == true for got, true, _ in pairs]))
    stated = 1 - float(np.mean([error for _, _, error in pairs]))
    assert scoring.spent <= 0.2
    # Chains of few thoughts with plateaus are the hardest: many decisions turn on the order of two equal rates.
    assert found >= 0.95
    assert abs(found - stated) < 0.015


def test_a_chain_whose_outcomes_are_certain_needs_few_samples() -> None:
    # No prefix ever succeeds: M is -0.25 for every thought.
    lengths = [[50] * 20] * 20
    streams = [np.zeros((21, 128), dtype=bool)] * 20
    scoring, _ = scored(lengths, streams, Adaptive(budget=1.0))
    assert scoring.spent < 0.2
    assert all(split.long == (True, *[False] * 19) for split in scoring.splits())


def test_one_thought_and_many_are_scored_together() -> None:
    rng = np.random.default_rng(6)
    lengths = [[10], rng.integers(1, 100, 300).tolist()]
    streams = [rng.random((len(tokens) + 1, 32)) < 0.5 for tokens in lengths]
    splits: list[Split] = scored(lengths, streams, SMALL)[0].splits()
    assert [len(split.long) for split in splits] == [1, 300]
    assert splits[0].long == (True,)


def test_no_chains_are_done_at_once() -> None:
    scoring = AdaptiveScoring([])
    assert scoring.done and scoring.spent == 0.0 and scoring.propose() == () and scoring.splits() == []


# What is refused


@pytest.mark.parametrize("tokens", [[], [5, 0]])
def test_chains_without_thoughts_or_tokens_are_refused(tokens: list[int]) -> None:
    with pytest.raises(ValueError, match="chain 1 has thoughts of"):
        AdaptiveScoring([[3], tokens])


@pytest.mark.parametrize(
    ("request_", "right"),
    [
        (Request(0, 0, 1, 2), 1),
        (Request(0, 0, 0, 2), 3),
        (Request(0, 0, 0, 2), -1),
        (Request(0, 0, 0, 200), 1),
        (Request(0, 2, 0, 2), 1),
    ],
)
def test_results_that_do_not_continue_a_stream_are_refused(request_: Request, right: int) -> None:
    scoring = AdaptiveScoring([[3], [3, 4]])
    with pytest.raises(ValueError, match="observe each request once, in order"):
        scoring.observe(request_, right)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("rollouts", 0),
        ("first", 0),
        ("first", 129),
        ("batch", 0),
        ("draws", 1),
        ("error", 0.5),
        ("error", -0.1),
        ("budget", 0.0),
        ("share", 1.5),
    ],
)
def test_settings_out_of_range_are_refused(setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{setting} is {value}"):
        Adaptive(**{setting: value})


# The model of curves


def test_draws_have_the_exact_probabilities_of_a_chain_with_two_prefixes() -> None:
    counts = Counts(np.array([[1, 3]]), np.array([[4, 4]]), np.array([1]))
    model = CurveModel()
    likelihood = [GRID**right * (1 - GRID) ** (4 - right) for right in (1, 3)]
    joint = (model._start * likelihood[0])[:, None] * model._transition * likelihood[1]
    joint /= joint.sum()
    drawn = model.draw(counts, 100_000, np.random.default_rng(0))[0]
    found, *_ = np.histogram2d(*np.searchsorted(GRID, drawn).T, bins=len(GRID), range=[[0, len(GRID)]] * 2)
    assert np.abs(found / len(drawn) - joint).max() < 0.005
    assert (drawn[:, 0] == drawn[:, 1]).mean() == pytest.approx(np.trace(joint), abs=0.01)


def test_fitting_learns_plateaus_from_all_chains_in_any_grouping() -> None:
    rng = np.random.default_rng(1)
    rates = np.repeat(rng.random((40, 1)), 21, axis=1)
    counts = Counts(rng.binomial(16, rates), np.full(rates.shape, 16), np.full(40, 20))
    parts = [Counts(counts.successes[s], counts.rollouts[s], counts.thoughts[s]) for s in (slice(15), slice(15, 40))]
    whole, grouped = CurveModel(), CurveModel()
    for _ in range(10):
        whole.fit([counts])
        grouped.fit(parts)
    assert np.allclose(whole._transition, grouped._transition)
    assert whole._moves[0] > 0.7 > curves._MOVES[0]


def test_prefixes_behind_the_end_of_a_chain_teach_nothing() -> None:
    rng = np.random.default_rng(2)
    successes, rollouts = rng.integers(0, 9, (10, 6)), np.full((10, 6), 8)
    padding = np.zeros((10, 4), dtype=int)
    short, padded = CurveModel(), CurveModel()
    short.fit([Counts(successes, rollouts, np.full(10, 5))])
    padded.fit([Counts(np.hstack([successes, padding]), np.hstack([rollouts, padding]), np.full(10, 5))])
    assert np.allclose(short._transition, padded._transition)
    assert np.allclose(short._common, padded._common)
