"""Full steps on CUDA: bf16, sleep mode, weights over CUDA IPC, policies that share one GPU and policies that do not.

Run by ``make test-gpu``, in an environment with the extras ``gpu`` and ``dev``. Skipped where there is no GPU.

Not proven: speed, memory and accuracy of models of real size, tensor parallelism, several nodes, LoRA.
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import pytest_asyncio
import torch

from longshort.config import build_config
from longshort.display import Display
from longshort.episode import Episode, View
from longshort.generation import Completion, SamplingParams
from longshort.policy import Policy, Sample
from longshort.run import Run

# A bf16 number has 8 significant bits, so a logit of 10 is off by up to 0.04, and engine and trainer round differently.
# Two such implementations of the playground's pair differ by 0.014 nats a token in the mean, on CPU.
MEAN_GAP = 0.05
SAME_WEIGHTS = 1e-3


@dataclass(frozen=True)
class Layout:
    """What a run's policies share, and who learns."""

    devices: int
    mode: str
    train: str
    pair: str


LAYOUTS = {
    # Llama's architecture; captured CUDA graphs must outlive a sleep.
    "colocated": Layout(1, "colocated", "both", "playground"),
    "frozen-partner": Layout(1, "colocated", "long", "playground"),
    # Qwen2's, two sizes and two tokenizers.
    "split": Layout(2, "split", "both", "random"),
}

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1200)]


def reason_to_skip(layout: Layout) -> str | None:
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    if os.environ.get("VERL_PLATFORM") == "cpu":
        return "other tests have set this process up for CPU; run these by themselves: make test-gpu"
    if torch.cuda.device_count() < layout.devices:
        return f"needs {layout.devices} CUDA devices, this machine has {torch.cuda.device_count()}"
    return None


def attention() -> list[str]:
    """flash-attn with packed rows where it is installed, else the recipe's sdpa."""
    if find_spec("flash_attn") is None:
        return []
    return [
        "actor_rollout_ref.model.use_remove_padding=true",
        "actor_rollout_ref.model.override_config.attn_implementation=flash_attention_2",
    ]


@pytest.fixture(scope="module", params=LAYOUTS.values(), ids=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> Layout:
    if reason := reason_to_skip(request.param):
        pytest.skip(reason)
    return request.param


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def run(
    layout: Layout, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Run]:
    """A run with every engine up."""
    from longshort.assembly import open_run

    if layout.pair == "random":
        pair = request.getfixturevalue("random_pair_settings")
    else:
        sizes = ("data.train_batch_size", "actor_rollout_ref.actor.ppo_mini_batch_size", "actor_rollout_ref.rollout.n")
        pair = [f"{size}=4" for size in sizes]
    config = build_config(
        "local_gpu",
        [
            *pair,
            *attention(),
            f"placement.mode={layout.mode}",
            f"train={layout.train}",
            "data.train_files=[playground:train:64:0]",
            "data.val_files=[]",
            # High, so that an engine that missed an update is far off.
            "actor_rollout_ref.actor.optim.lr=3e-3",
            "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes=8",
            f"trainer.default_local_dir={tmp_path_factory.mktemp('run')}",
        ],
    )
    with Display() as display:
        async with open_run(config, display) as opened:
            yield opened


async def played(run: Run) -> tuple[Episode, ...]:
    return (await run.trainer.player.play(run.trainer.order.take(2), 4, run.trainer.settings.sampling)).episodes


def views_of(policy: Policy, episodes: tuple[Episode, ...]) -> list[View]:
    return [view for episode in episodes if (view := episode.view(policy.name)) is not None]


async def gap(policy: Policy, episodes: tuple[Episode, ...]) -> float:
    """Mean difference of a sampled token's log-probability between the engine and the actor (nats)."""
    views = views_of(policy, episodes)
    rows = (await policy.score(views)).log_probs
    pairs = [p for v, row in zip(views, rows, strict=True) for p in zip(v.mask, v.log_probs, row, strict=True)]
    gaps = [abs(engine - actor) for sampled, engine, actor in pairs if sampled]
    return sum(gaps) / len(gaps)


async def update(policy: Policy, episodes: tuple[Episode, ...]) -> None:
    views = views_of(policy, episodes)
    rows = (await policy.score(views)).log_probs
    await policy.update([Sample(v, (-1.0) ** i, row) for i, (v, row) in enumerate(zip(views, rows, strict=True))])


async def completion(policy: Policy, prompt: tuple[int, ...]) -> Completion:
    return await policy.generator.generate(prompt, SamplingParams(max_tokens=32, seed=7), "probe")


def free_bytes() -> int:
    """Of all devices together."""
    return sum(torch.cuda.mem_get_info(device)[0] for device in range(torch.cuda.device_count()))


async def test_a_full_step_is_finite_and_trains_every_learner(run: Run) -> None:
    result = await run.trainer.step(1)
    assert len(result.graded.episodes) == 16
    for policy in run.learners:
        metrics = {name: value for name, value in result.metrics.items() if name.startswith(f"{policy.name}/")}
        assert all(map(math.isfinite, metrics.values())), metrics
        assert metrics[f"{policy.name}/grad_norm"] > 0
        assert metrics[f"{policy.name}/log_prob_gap"] < MEAN_GAP, "the engine did not sample with the actor's weights"


async def test_engines_sample_with_the_actors_weights_only_after_a_sync(run: Run) -> None:
    for policy in run.learners:
        episodes = await played(run)
        for _ in range(3):
            await update(policy, episodes)
        assert await gap(policy, await played(run)) > MEAN_GAP, "the engine cannot know the new weights yet"
        await policy.sleep()
        await policy.sync_weights()
        assert await gap(policy, await played(run)) < MEAN_GAP


async def test_sleeping_engines_leave_their_memory_to_training(run: Run) -> None:
    caches = [p.rollout.engine_kwargs.vllm.kv_cache_memory_bytes for p in run.config.policies.values()]
    awake = free_bytes()
    for policy in run.trainer.policies.values():
        await policy.sleep()
    asleep = free_bytes()
    for policy in run.learners:
        await policy.sync_weights()
    for policy in run.trainer.policies.values():
        await policy.wake_up()
    assert asleep - awake > 0.9 * sum(caches)
    assert free_bytes() < asleep


async def test_a_frozen_partner_has_its_weights_again_after_it_slept(run: Run) -> None:
    frozen = [policy for policy in run.trainer.policies.values() if not policy.trainable]
    if not frozen:
        pytest.skip("in this layout every policy learns")
    (partner,) = frozen
    prompt = views_of(partner, await played(run))[0].prompt_ids
    before = await completion(partner, prompt)
    await run.trainer.step(2)
    after = await completion(partner, prompt)
    assert after.token_ids == before.token_ids
    assert after.log_probs == pytest.approx(before.log_probs, abs=SAME_WEIGHTS)


async def test_a_saved_policy_comes_back_with_its_weights_and_its_optimiser(run: Run, tmp_path: Path) -> None:
    policy = run.learners[0]
    episodes = await played(run)
    views = views_of(policy, episodes)[:1]

    async def scores() -> tuple[float, ...]:
        return (await policy.score(views)).log_probs[0]

    await policy.save(tmp_path / policy.name)
    saved = await scores()
    await update(policy, episodes)
    changed = await scores()
    assert changed != pytest.approx(saved, abs=SAME_WEIGHTS)
    await policy.load(tmp_path / policy.name)
    assert await scores() == pytest.approx(saved, abs=SAME_WEIGHTS)
    # The same update from the same optimiser; gradients are summed in no fixed order on a GPU.
    await update(policy, episodes)
    assert await scores() == pytest.approx(changed, abs=5 * MEAN_GAP)
