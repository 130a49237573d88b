"""FSDP2 on two gloo processes equals one process.

Not proven: equality in bf16, or over a network.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from transformers import AutoTokenizer

from longshort.config import build_config
from longshort.episode import View
from longshort.policy import Sample
from workers import team
from workers.placement import make_pools
from workers.policy import RayPolicy

SAMPLES = 6


@pytest_asyncio.fixture
async def local_ray(random_pair: dict[str, Path]) -> AsyncIterator[tuple[RayPolicy, RayPolicy]]:
    """The same model as a policy on one process and as one on two, without engines."""
    path = random_pair["long"]
    config = build_config(
        "local",
        [
            *[f"policies.{role}.model.path={path}" for role in ("long", "short")],
            "placement.n_gpus_per_node={long: 1, short: 2}",
            "data.train_batch_size=4",
            "actor_rollout_ref.actor.ppo_mini_batch_size=4",
            "actor_rollout_ref.rollout.n=2",
        ],
    )
    team.start_ray(config)
    pools = make_pools(["long", "short"], "split", {"long": 1, "short": 2}, 1)
    tokenizer = AutoTokenizer.from_pretrained(path)
    one, two = (RayPolicy(n, config.policies[n], pools[n], tokenizer, trainable=True) for n in ("long", "short"))
    for policy in (one, two):
        await policy.start_workers()
    yield one, two
    team.stop()


async def test_two_processes_give_the_losses_gradients_and_weights_of_one(
    local_ray: tuple[RayPolicy, RayPolicy], tmp_path: Path
) -> None:
    one, two = local_ray
    views = [
        View((1, 2, 3), tuple(range(4 + i, 20 + 2 * i)), (1,) * (16 + i), (0.0,) * (16 + i)) for i in range(SAMPLES)
    ]
    for _ in range(3):
        old_one, old_two = [await policy.score(views) for policy in (one, two)]
        for row_one, row_two in zip(old_one.log_probs, old_two.log_probs, strict=True):
            assert row_one == pytest.approx(row_two, abs=1e-5)
        samples = [
            Sample(v, (-1.0) ** i * (i + 1), row)
            for i, (v, row) in enumerate(zip(views, old_one.log_probs, strict=True))
        ]
        update_one, update_two = [await policy.update(samples) for policy in (one, two)]
        assert update_one["grad_norm"] == pytest.approx(update_two["grad_norm"], rel=1e-4)
        assert update_one["loss"] == pytest.approx(update_two["loss"], abs=1e-6)
    # What two processes saved, one process loads.
    await two.save(tmp_path / "two")
    expected = (await two.score(views)).log_probs
    await one.update([Sample(view, 1.0, (0.0,) * len(view.response_ids)) for view in views])
    await one.load(tmp_path / "two")
    for mine, theirs in zip((await one.score(views)).log_probs, expected, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)
