"""The benchmark of adaptive scoring compares what it says it compares; its figures are no matter of tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.success_curves import FAMILIES, FEWEST, MOST, draw_chains, draw_stream
from benchmarks.thought_rollouts import Row, agreement, falls_short, share_equal, split_by
from longshort.thoughts.adaptive import Adaptive

ROW = Row("mixed", "sampled", 1, 10, 0.2, 0.975, 0.98, 0.9, 1.0, true=0.945, true_by_all=0.95, true_by_uniform=0.9)


@pytest.mark.parametrize("family", FAMILIES)
def test_chains_of_a_family_are_drawn_by_seed_and_within_bounds(family: str) -> None:
    chains = draw_chains(family, 20, seed=1)
    assert chains == draw_chains(family, 20, seed=1) != draw_chains(family, 20, seed=2)
    for chain in chains:
        assert FEWEST <= len(chain.lengths) <= MOST
        assert len(chain.rates) == len(chain.lengths) + 1
        assert min(chain.lengths) >= 1
        assert all(0 <= rate <= 1 for rate in chain.rates)


def test_agreement_is_the_share_of_thoughts_split_as_by_all_samples() -> None:
    rng = np.random.default_rng(0)
    chains = draw_chains("mixed", 6, seed=3)
    lengths = [chain.lengths for chain in chains]
    streams = [draw_stream(chain, 32, rng) for chain in chains]
    found = agreement(lengths, streams, Adaptive(rollouts=32, draws=32, batch=4))
    everything = [split_by(one, stream.mean(1), 0.25) for one, stream in zip(lengths, streams, strict=True)]
    pairs = [(a, b) for s, e in zip(found.splits, everything, strict=True) for a, b in zip(s.long, e, strict=True)]
    assert found.same == pytest.approx(np.mean([a == b for a, b in pairs]))
    assert found.spent == pytest.approx(np.sum([sum(s.rollouts) for s in found.splits]) / sum(s.size for s in streams))
    assert share_equal(everything, everything) == 1


def test_a_row_falls_short_of_each_target_by_itself() -> None:
    assert falls_short(ROW) == []
    assert falls_short(replace(ROW, spent=0.21)) == ["spent"]
    assert falls_short(replace(ROW, true=0.944)) == ["true"]
    assert falls_short(replace(ROW, same=0.974)) == ["same"]
    assert falls_short(replace(ROW, goal="true", same=0.9)) == []
