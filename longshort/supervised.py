"""Supervised fine-tuning of one policy on the conversations it should have had (arXiv 2505.11827, equation 6).

One sequence per conversation and role: the policy's view, with the loss on its own turns. That is the loss of one
example per turn, at a fraction of the tokens, because each turn is conditioned on the same ids in both.

The negative log-likelihood is a policy gradient with advantage 1 on every token (verl's loss ``gpg``: the mean of
-log p · A over the sampled tokens of a batch), so the machinery of the policy update serves as it is: LoRA, sharding,
offloading, dynamic batches, checkpoints.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from longshort.episode import View
from longshort.policy import Policy, Sample

# What `configs` must say for the update to be a supervised one.
LOSS = {"actor.policy_loss.loss_mode": "gpg", "actor.loss_agg_mode": "token-mean", "actor.use_kl_loss": False}


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which of ``examples`` views each step learns from: a fresh order every epoch, the same for the same seed.

    The last batch of an epoch is smaller where the numbers do not divide.
    """

    examples: int
    batch: int
    epochs: int
    seed: int = 0

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.examples // self.batch)

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.epochs

    def rows(self, step: int) -> list[int]:
        """Indices of the views of ``step``, counted from 1."""
        epoch, position = divmod(step - 1, self.steps_per_epoch)
        order = list(range(self.examples))
        # A text seed is hashed with SHA-512: the same on every machine.
        random.Random(f"{self.seed}/{epoch}").shuffle(order)
        return order[position * self.batch : (position + 1) * self.batch]


async def supervised_step(policy: Policy, views: Sequence[View]) -> Mapping[str, float]:
    """One optimiser step on the mean negative log-likelihood of the views' own tokens."""
    return await policy.update([Sample(view, 1.0, (0.0,) * len(view.response_ids)) for view in views])


async def validation_loss(policy: Policy, views: Sequence[View]) -> float:
    """Mean negative log-likelihood of the views' own tokens, in nats."""
    scores = await policy.score(views)
    return -fmean(
        log_prob
        for view, row in zip(views, scores.log_probs, strict=True)
        for own, log_prob in zip(view.mask, row, strict=True)
        if own
    )


async def fit(
    policy: Policy,
    training: Sequence[View],
    validation: Sequence[View],
    schedule: Schedule,
    first: int,
    test_freq: int,
    on_step: Callable[[int, dict[str, float]], Awaitable[None]],
) -> None:
    """Train ``policy`` from step ``first`` to the schedule's end; ``on_step`` gets every step's metrics.

    ``val/loss`` is among them every ``test_freq`` steps (never below 1) and at the end, where there is validation.
    """
    for step in range(first, schedule.steps + 1):
        update = await supervised_step(policy, [training[i] for i in schedule.rows(step)])
        metrics = {name: value for name, value in update.items() if name in ("loss", "grad_norm", "lr")}
        due = step == schedule.steps or (test_freq > 0 and step % test_freq == 0)
        if validation and due:
            metrics["val/loss"] = await validation_loss(policy, validation)
        await on_step(step, metrics)
