"""GPUs by demand: whole engines, equal ranks, and no better division of the same GPUs.

Not proved here: that the estimate of the work is right; an earlier run's metrics say.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshort.config import build_config
from longshort.demand import place_by_demand, settle_placement, split_gpus

SHARES = st.lists(st.integers(1, 8), min_size=1, unique=True)


@given(st.integers(2, 16), st.tuples(st.floats(0.1, 100), st.floats(0.1, 100)), SHARES, SHARES)
def test_no_other_division_leaves_the_busiest_policy_less_work(
    total: int, work: tuple[float, float], long: list[int], short: list[int]
) -> None:
    possible = [(a, b) for a in long for b in short if a + b <= total]
    demand, choices = dict(zip(("long", "short"), work, strict=True)), {"long": long, "short": short}
    if not possible:
        with pytest.raises(ValueError, match=rf"trainer\.n_gpus_per_node={total} cannot be divided"):
            split_gpus(total, demand, choices)
        return
    found = split_gpus(total, demand, choices)
    assert (found["long"], found["short"]) in possible
    busiest = max(demand[name] / found[name] for name in found)
    assert busiest == min(max(work[0] / a, work[1] / b) for a, b in possible)


def test_measured_demand_decides_and_parts_divide_the_mini_batch() -> None:
    settings = ["placement.n_gpus_per_node=demand", "trainer.n_gpus_per_node=8", "train=long"]
    config = build_config("local", [*settings, "placement.demand={long: 3, short: 1}"])
    # Six of eight would fit the demand, but 128 episodes do not divide by six; the frozen policy may have any number.
    assert place_by_demand(config, ("long",)) == {"long": 4, "short": 4}
    config.policies.short.rollout.tensor_model_parallel_size = 3
    assert place_by_demand(config, ("long",)) == {"long": 4, "short": 3}


def test_without_measurements_size_and_turns_are_an_estimate() -> None:
    batch = ["data.train_batch_size=12", "actor_rollout_ref.actor.ppo_mini_batch_size=12"]
    config = build_config("local", ["placement.n_gpus_per_node=demand", "trainer.n_gpus_per_node=8", *batch])
    # 0.67M parameters x 160 tokens against 0.29M x 64.
    assert place_by_demand(config, ("long", "short")) == {"long": 6, "short": 2}
    config.team.max_turn_tokens.short = 10_000
    assert place_by_demand(config, ("long", "short")) == {"long": 2, "short": 6}


def test_a_run_starts_with_numbers_that_fit() -> None:
    config = build_config("local", ["placement.n_gpus_per_node=demand", "trainer.n_gpus_per_node=8"])
    settle_placement(config)
    assert sum(config.placement.n_gpus_per_node.values()) <= 8
    before = dict(config.placement.n_gpus_per_node)
    settle_placement(config)
    assert dict(config.placement.n_gpus_per_node) == before


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["trainer.n_gpus_per_node=1"], r"trainer\.n_gpus_per_node=1"),
        (["trainer.n_gpus_per_node=2", "placement.mode=colocated"], r"placement\.mode=split"),
        (["trainer.n_gpus_per_node=2", "placement.demand.long=0"], r"placement\.demand\.long=0 must be a number above"),
    ],
)
def test_what_cannot_be_divided(overrides: list[str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        build_config("local", ["placement.n_gpus_per_node=demand", *overrides])
