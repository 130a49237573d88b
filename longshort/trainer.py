"""Multi-turn GRPO for a team of policies. :meth:`Trainer.step` is the algorithm.

Concurrency: episodes play at their own pace (:mod:`longshort.controller`); each is graded as soon as it is there
(:mod:`longshort.player`); the policies that learn are updated beside each other, each waiting only for the rewards.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from zlib import crc32

from longshort.advantages import group_advantages
from longshort.controller import Sampling
from longshort.correction import AS_COMPUTED_AGAIN, RolloutCorrection, correct
from longshort.data import ProblemOrder
from longshort.episode import View
from longshort.length_rewards import Kimi, LengthReward
from longshort.lengths import ExpectedLengths
from longshort.metrics import episode_metrics, kl_metrics, reward_metrics, score_metrics
from longshort.player import GradedEpisodes, Player, Progress
from longshort.policy import Policy, Sample
from longshort.rewards import HybridReward, Reward, group_rewards, length_group


class RewardFailureError(RuntimeError):
    """Too many episodes of a batch could not be rewarded."""


class NonFiniteUpdateError(RuntimeError):
    """A loss or gradient was not finite; verl skipped that optimiser step."""

    def __init__(self, policy: str, metrics: Mapping[str, float], samples: Sequence[Sample]) -> None:
        super().__init__(policy, metrics, samples)
        self.policy, self.metrics, self.samples = policy, dict(metrics), samples

    def __str__(self) -> str:
        bad = ", ".join(f"{k}={v}" for k, v in self.metrics.items() if not math.isfinite(v))
        return f"the update of policy {self.policy!r} is not finite ({bad}); the run stops before it can do harm"


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step played, earned and measured."""

    graded: GradedEpisodes
    rewards: Mapping[str, Sequence[Reward]]
    metrics: Mapping[str, float]

    @property
    def scores(self) -> list[float]:
        """Per episode, the mean of the learners' rewards."""
        return [fmean(reward.total for reward in each) for each in zip(*self.rewards.values(), strict=True)]


@dataclass(frozen=True)
class TrainerSettings:
    """Numbers of the algorithm; names as in verl where verl has them.

    ``learners``: names of the policies that learn; None: every trainable one.
    ``first_step``: steps of the run that went before; ramps count from there.
    ``learn_together``: policies on devices of their own learn beside each other, on shared ones one after another.
    """

    train_batch_size: int
    n: int
    reward: HybridReward
    sampling: Sampling
    adv_estimator: str = "grpo"
    norm_adv_by_std_in_grpo: bool = True
    max_error_fraction: float = 0.05
    learn_together: bool = True
    rollout_correction: RolloutCorrection = AS_COMPUTED_AGAIN
    learners: tuple[str, ...] | None = None
    first_step: int = 0


class Trainer:
    """Trains the trainable members of a team.

    Args:
        settings: see :class:`TrainerSettings`.
        policies: every member by role.
        player: plays episodes with the same policies, and grades them.
        order: endless, resumable order of training problems.
        lengths: learns from every step how long a problem's conversations are.
        length_reward: makes LM of equation (9), or what replaces it, for each learner; by default Kimi k1.5's.
    """

    def __init__(
        self,
        settings: TrainerSettings,
        policies: Mapping[str, Policy],
        player: Player,
        order: ProblemOrder,
        lengths: ExpectedLengths,
        length_reward: Callable[[], LengthReward] = Kimi,
    ) -> None:
        self.settings = settings
        self.policies = policies
        self.player = player
        self.order = order
        self.lengths = lengths
        self.length_rewards = {policy.name: length_reward() for policy in self.learners}

    @property
    def learners(self) -> list[Policy]:
        """The policies that learn."""
        names = self.settings.learners
        return [p for p in self.policies.values() if (p.trainable if names is None else p.name in names)]

    async def step(self, step: int, progress: Progress = lambda done, total: None, mu_scale: float = 1.0) -> StepResult:
        """One step: play a batch of groups, reward them, update every policy that learns, sync its weights.

        Args:
            step: of the run, from 1.
            progress: told how many of the step's episodes are played.
            mu_scale: factor of the length part's weight; a guard lowers it.

        Raises:
            RewardFailureError: more episodes failed than ``max_error_fraction`` allows.
            NonFiniteUpdateError: a loss or gradient was not finite.
        """
        problems = self.order.take(self.settings.train_batch_size)
        sampling = replace(self.settings.sampling, step=step)
        graded = await self.player.play(problems, self.settings.n, sampling, progress)
        self._check_failures(graded)
        self.lengths.observe(graded.episodes)
        learners, mu = self.learners, self.mu_at(step) * mu_scale
        rewards = {policy.name: self._rewards(graded, policy.name, mu) for policy in learners}
        await asyncio.gather(*[policy.sleep() for policy in self.policies.values()])
        started = time.perf_counter()
        if self.settings.learn_together:
            updates = await asyncio.gather(*[self._learn(p, graded, rewards[p.name]) for p in learners])
        else:
            updates = [await self._learn(p, graded, rewards[p.name]) for p in learners]
        synced = time.perf_counter()
        for policy in learners:
            await policy.sync_weights()
        await asyncio.gather(*[policy.wake_up() for policy in self.policies.values()])
        finished = time.perf_counter()
        metrics = episode_metrics(graded.episodes, graded.correct)
        for policy, update in zip(learners, updates, strict=True):
            metrics |= reward_metrics(policy.name, rewards[policy.name]) | update
        metrics["reward/mu"] = mu
        metrics["data/epoch"] = float(self.order.epoch)
        metrics["data/checksum"] = float(crc32(" ".join(problem.id for problem in problems).encode()))
        metrics["failed_episodes"] = float(len(_failures(graded)))
        metrics |= {f"{p.name}/engine_restarts": float(p.engine_restarts) for p in self.policies.values()}
        metrics |= _speed(graded, synced - started, finished - synced)
        result = StepResult(graded, rewards, metrics)
        metrics["reward/mean"] = fmean(result.scores)
        return result

    def mu_at(self, step: int) -> float:
        """Weight of the reward's length part at a step of the run."""
        return self.settings.reward.mu.at(step - self.settings.first_step)

    def _rewards(self, graded: GradedEpisodes, role: str, mu: float) -> list[Reward]:
        weights, samples = self.settings.reward, graded.samples
        groups = [slice(start, start + samples) for start in range(0, len(graded.episodes), samples)]
        limits = self.player.controller.limits
        limit = limits.max_turn_tokens[role] if weights.length_of == "own" else limits.max_episode_tokens
        facts = [length_group(graded.episodes[g], graded.correct[g], role, weights.length_of, limit) for g in groups]
        rewards: list[Reward] = []
        for group, values in zip(groups, self.length_rewards[role](facts), strict=True):
            rewards += group_rewards(graded.episodes[group], graded.grades[group], role, weights, mu, values)
        return rewards

    async def _learn(self, policy: Policy, graded: GradedEpisodes, rewards: Sequence[Reward]) -> dict[str, float]:
        """Update one policy from the episodes as it saw them."""
        advantages = group_advantages(
            [reward.total for reward in rewards],
            [episode.problem.id for episode in graded.episodes],
            self.settings.adv_estimator,
            self.settings.norm_adv_by_std_in_grpo,
        )
        # An episode in which the role never spoke has a reward in its group, but nothing to train.
        seen = [(episode.view(policy.name), adv) for episode, adv in zip(graded.episodes, advantages, strict=True)]
        rows = [(view, advantage) for view, advantage in seen if view is not None]
        metrics: dict[str, float] = {f"{policy.name}/trained_episodes": float(len(rows))}
        if rows:
            metrics |= await self._update(policy, rows)
        return metrics

    async def _update(self, policy: Policy, rows: Sequence[tuple[View, float]]) -> dict[str, float]:
        """Old and reference log-probabilities of (view, advantage) rows, then the policy update."""
        started = time.perf_counter()
        correction = self.settings.rollout_correction
        views = [view for view, _ in rows]
        scores = None if correction.bypass_mode else await policy.score(views)
        old = tuple(view.log_probs for view in views) if scores is None else scores.log_probs
        reference = await policy.reference_scores(views)
        scored = time.perf_counter()
        samples = [
            Sample(view, advantage, old[i], None if reference is None else reference.log_probs[i])
            for i, (view, advantage) in enumerate(rows)
        ]
        metrics: dict[str, float] = {}
        if correction.weighs_or_rejects:
            samples, metrics = correct(samples, correction)
        update = await policy.update(samples)
        if not all(map(math.isfinite, update.values())):
            raise NonFiniteUpdateError(policy.name, update, samples)
        metrics = {f"{policy.name}/{name}": value for name, value in (metrics | dict(update)).items()}
        if scores is not None:
            metrics |= score_metrics(policy.name, views, scores)
        if reference is not None:
            metrics |= kl_metrics(policy.name, views, old, reference)
        metrics[f"{policy.name}/time/log_probs_s"] = scored - started
        metrics[f"{policy.name}/time/update_s"] = time.perf_counter() - scored
        return metrics

    def _check_failures(self, graded: GradedEpisodes) -> None:
        failures = _failures(graded)
        if len(failures) > self.settings.max_error_fraction * len(graded.episodes):
            raise RewardFailureError(
                f"{len(failures)} of {len(graded.episodes)} episodes could not be rewarded, more than "
                f"reward.max_error_fraction={self.settings.max_error_fraction} allows; the first: {failures[0]}"
            )


def _failures(graded: GradedEpisodes) -> list[str]:
    return [episode.error for episode in graded.episodes if episode.error is not None]


def _speed(graded: GradedEpisodes, learn_seconds: float, sync_seconds: float) -> dict[str, float]:
    tokens = sum(episode.tokens for episode in graded.episodes)
    return {
        "time/rollout_s": graded.seconds,
        "time/learn_s": learn_seconds,
        "time/sync_s": sync_seconds,
        "time/step_s": graded.seconds + learn_seconds + sync_seconds,
        "episodes_per_s": len(graded.episodes) / graded.seconds,
        "tokens_per_s": tokens / graded.seconds,
    }
