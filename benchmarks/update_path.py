"""What does the trainer's path to an update cost beside verl's own work on the same tensors?

``ours`` is ``Trainer._learn`` of one policy: from episodes to views, advantages, log-probabilities, samples, update and
metrics. ``verl`` hands the ``TensorDict`` s of such a call, built beforehand, to ``compute_log_prob`` and
``update_actor`` of the same worker group and waits for them as verl's trainer does. The two take turns on one Ray
worker, with the playground's long policy on scripted conversations; the ratio is the median over the rounds.
``driver_s`` is the part of ours outside of those two calls.

The row without a worker has as many tokens as a step on a GPU cluster, with reference log-probabilities and importance
weights. There it is the driver that could keep GPUs waiting.

    python -m benchmarks.update_path [--quick]

Prints JSON; exit code 1 where a target falls short.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from longshort.config import build_config
from longshort.controller import Sampling
from longshort.correction import RolloutCorrection
from longshort.episode import Episode, Ids, Problem, Turn
from longshort.grading import Grade
from longshort.playground import generate_problems, model_path
from longshort.playground.corpus import boxed, chain
from longshort.rewards import HybridReward, Ramp, Reward
from longshort.trainer import GradedEpisodes, Trainer, TrainerSettings
from workers import team

ROLE = "long"
SAMPLES = 8
# Largest ours / verl.
MOST = 1.05
SETTINGS = TrainerSettings(1, SAMPLES, HybridReward(1.0, 1.0, Ramp(1.0, 1.0, 0)), Sampling())
CORRECTION = RolloutCorrection(rollout_is="token")
# Of the row without a worker; the recipe for 7B has 768 episodes a step.
EPISODES, TURNS, TURN_TOKENS = 768, 4, 1000

Written = Sequence[tuple[str, str, Ids]]


def episode_of(problem: Problem, sample: int, prompt: Ids, turns: Written, rng: random.Random) -> Episode:
    """An answered episode of turns (role, text, ids) with random log-probabilities."""
    written = tuple(Turn(role, ids, text, tuple(-rng.random() for _ in ids), "stop") for role, text, ids in turns)
    return Episode(problem, {"long": prompt, "short": prompt}, written, "answered", sample)


def written_episodes(problems: int, encode: Callable[[str], Ids], seed: int = 0) -> list[Episode]:
    """Two turns about the playground's problems, the long one a chain of its corpus, ``SAMPLES`` of each problem."""
    rng = random.Random(seed)
    repeated = [problem for problem in generate_problems(problems, seed, "train") for _ in range(SAMPLES)]
    episodes = []
    for i, problem in enumerate(repeated):
        thought, answer = f"<think>{''.join(chain(problem, rng))}</think>", f"<answer>{boxed(problem.answer)}</answer>"
        turns = [(role, text, encode(text)) for role, text in (("long", thought), ("short", answer))]
        episodes.append(episode_of(problem, i % SAMPLES, encode(problem.question), turns, rng))
    return episodes


def random_episodes(episodes: int, turns: int, tokens: int, seed: int = 0) -> list[Episode]:
    """``SAMPLES`` of each problem; turns by turns long and short, ``tokens`` on average, half of it at least."""
    rng = random.Random(seed)

    def ids(count: int) -> Ids:
        return tuple(rng.choices(range(150_000), k=count))

    return [
        episode_of(
            Problem(str(i // SAMPLES), "", ""),
            i % SAMPLES,
            ids(200),
            [(("long", "short")[t % 2], "", ids(rng.randint(tokens // 2, tokens * 3 // 2))) for t in range(turns)],
            rng,
        )
        for i in range(episodes)
    ]


def graded(episodes: list[Episode]) -> tuple[GradedEpisodes, list[Reward]]:
    """Episodes as the trainer learns from them, with random rewards."""
    rng = random.Random(1)
    rewards = [Reward(0.0, 0.0, 0.0, rng.random()) for _ in episodes]
    return GradedEpisodes(tuple(episodes), (Grade(True, None),) * len(episodes), SAMPLES, 1.0), rewards


def make_policy(episodes: int, *overrides: str) -> Any:
    """The playground's long policy with the calls to its worker on record, without engines."""
    from transformers import AutoTokenizer

    from workers.placement import make_pools
    from workers.policy import RayPolicy

    class RecordedPolicy(RayPolicy):
        """``calls``: (method, arguments, seconds) of the calls so far; ``answer``: stands in for the worker."""

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.calls: list[tuple[str, tuple[Any, ...], float]] = []
            self.answer: Callable[..., Any] | None = None

        async def _call(self, method: str, *args: Any) -> Any:
            started = time.perf_counter()
            call = super()._call if self.answer is None else self.answer
            output = await call(method, *args)
            self.calls.append((method, args, time.perf_counter() - started))
            return output

        @property
        def group(self) -> Any:
            return self._workers

    config = build_config(
        "local",
        [
            f"data.train_batch_size={episodes // SAMPLES}",
            f"actor_rollout_ref.actor.ppo_mini_batch_size={episodes // SAMPLES}",
            f"actor_rollout_ref.rollout.n={SAMPLES}",
            *overrides,
        ],
    )
    team.start_ray(config)
    pools = make_pools([ROLE], "split", {ROLE: 1}, 1)
    tokenizer = AutoTokenizer.from_pretrained(model_path(ROLE))
    return RecordedPolicy(ROLE, config.policies[ROLE], pools[ROLE], tokenizer, True)


def make_trainer(policy: Any, settings: TrainerSettings) -> Trainer:
    unused: Any = None
    return Trainer(settings, {ROLE: policy}, player=unused, order=unused, lengths=unused)


async def learn(trainer: Trainer, batch: tuple[GradedEpisodes, list[Reward]]) -> float:
    """Seconds of one policy's part of a training step."""
    started = time.perf_counter()
    await trainer._learn(trainer.policies[ROLE], *batch)
    return time.perf_counter() - started


def by_verl(group: Any, score: Any, update: Any) -> float:
    """Seconds of verl's calls on batches that are ready."""
    from verl.utils import tensordict_utils as tu

    started = time.perf_counter()
    scored = group.compute_log_prob(score)
    tu.get(scored, "log_probs"), tu.get(scored, "entropy")
    tu.get(group.update_actor(update), "metrics")
    return time.perf_counter() - started


async def on_a_worker(episodes: int, rounds: int) -> dict[str, Any]:
    """The row of the ratio."""
    policy = make_policy(episodes)
    try:
        await policy.start_workers()
        batch = graded(written_episodes(episodes // SAMPLES, lambda text: tuple(policy.tokenizer.encode(text))))
        trainer = make_trainer(policy, SETTINGS)
        # Once for the tensors, and because a first call is slow.
        await learn(trainer, batch)
        (_, (score,), _), (_, (update,), _) = policy.calls
        tokens = score["input_ids"].values().numel()
        by_verl(policy.group, score, update)
        pairs, driver = [], []
        for i in range(rounds):
            # Who goes first alternates too, or a machine that grows slower would look like a difference.
            verl = by_verl(policy.group, score, update) if i % 2 else 0.0
            policy.calls.clear()
            ours = await learn(trainer, batch)
            driver.append(ours - sum(seconds for _, _, seconds in policy.calls))
            pairs.append((ours, verl or by_verl(policy.group, score, update)))
    finally:
        team.stop()
    return {
        "worker": "verl",
        "episodes": episodes,
        "tokens": tokens,
        "rounds": rounds,
        "ours_s": round(median(ours for ours, _ in pairs), 3),
        "verl_s": round(median(verl for _, verl in pairs), 3),
        "ours_to_verl": round(median(ours / verl for ours, verl in pairs), 3),
        "driver_s": round(median(driver), 4),
        "driver_to_verl": round(median(driver) / median(verl for _, verl in pairs), 4),
    }


async def without_worker(episodes: int, rounds: int) -> dict[str, Any]:
    """The row of the driver alone."""
    from tensordict import TensorDict
    from verl.utils import tensordict_utils as tu

    policy = make_policy(episodes, "actor_rollout_ref.actor.use_kl_loss=true")
    outputs: dict[int, TensorDict] = {}

    async def at_once(method: str, batch: TensorDict) -> TensorDict:
        if method == "update_actor":
            return tu.get_tensordict({}, {"metrics": {"loss": 0.0}})
        ids = batch["input_ids"]
        if (size := ids.values().numel()) not in outputs:
            outputs[size] = tu.get_tensordict(dict.fromkeys(("log_probs", "entropy"), -ids.float() / 150_000))
        return outputs[size]

    policy.answer = at_once
    try:
        batch = graded(random_episodes(episodes, TURNS, TURN_TOKENS))
        trainer = make_trainer(policy, replace(SETTINGS, rollout_correction=CORRECTION))
        await learn(trainer, batch)
        tokens = sum(len(view.response_ids) for episode in batch[0].episodes if (view := episode.view(ROLE)))
        seconds = [await learn(trainer, batch) for _ in range(rounds)]
    finally:
        team.stop()
    return {
        "worker": "none",
        "episodes": episodes,
        "response_tokens": tokens,
        "rounds": rounds,
        "driver_s": round(median(seconds), 3),
        "driver_s_per_million_tokens": round(median(seconds) / tokens * 1e6, 3),
    }


def falls_short(row: dict[str, Any]) -> list[str]:
    """Targets that a row misses."""
    return ["ours_to_verl"] if row.get("ours_to_verl", 0.0) > MOST else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, a tenth of the large batch")
    quick = parser.parse_args().quick
    # Before verl and vLLM are imported, which read it.
    team.configure_environment("cpu")
    rows = [
        asyncio.run(without_worker(EPISODES // 8 if quick else EPISODES, 3)),
        asyncio.run(on_a_worker(256, 3 if quick else 9)),
    ]
    missed = {f"worker {row['worker']}, {row['episodes']} episodes": m for row in rows if (m := falls_short(row))}
    sys.stdout.write(json.dumps({"rows": rows, "missed": missed}, indent=1) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
