"""What the method needs from a trainable policy; `workers` implements it, the trainer uses it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from longshort.episode import View
from longshort.generation import Generator, Tokenizer

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Per view, one value for every response token (nats): log-probability and entropy under the current weights."""

    log_probs: Rows
    entropy: Rows | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One view with what the policy loss needs; all rows follow the response ids.

    ``rollout_is_weights``: importance weights of :mod:`longshort.correction`, where they are asked for.
    """

    view: View
    advantage: float
    old_log_probs: tuple[float, ...]
    ref_log_probs: tuple[float, ...] | None = None
    rollout_is_weights: tuple[float, ...] | None = None


class Policy(Protocol):
    """One member of a team. A frozen policy only generates."""

    @property
    def name(self) -> str: ...

    @property
    def trainable(self) -> bool: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def generator(self) -> Generator: ...

    @property
    def engine_restarts(self) -> int:
        """How often an engine of it was lost and started again."""
        ...

    async def score(self, views: Sequence[View]) -> TokenScores:
        """Log-probabilities and entropies under the actor's weights."""
        ...

    async def reference_scores(self, views: Sequence[View]) -> TokenScores | None:
        """Log-probabilities under the reference weights, or None where the loss does not use them."""
        ...

    async def update(self, samples: Sequence[Sample]) -> Mapping[str, float]:
        """One optimiser pass over the samples; returns the loss metrics of verl by their own names."""
        ...

    async def begin_round(self, learns: bool, optim: Mapping[str, Any], carry: Collection[str]) -> None:
        """Say whether the policy learns from now on; if so, with a new optimiser and the present weights as reference.

        Args:
            learns: whether updates follow.
            optim: verl's settings of the optimiser and its learning-rate schedule.
            carry: what stays as it is: ``optimizer``, ``reference``.
        """
        ...

    async def sync_weights(self) -> None:
        """Copy the actor's weights into the rollout engines and drop what their caches computed with older ones."""
        ...

    async def sleep(self) -> None:
        """Give the engines' device memory to training, where the configuration says so."""
        ...

    async def wake_up(self) -> None:
        """Undo :meth:`sleep` for a policy that does not learn; one that learns wakes with its new weights."""
        ...

    async def save(self, folder: Path) -> None:
        """Write weights as a Hugging Face folder and everything that resuming needs."""
        ...

    async def load(self, folder: Path) -> None:
        """Restore what :meth:`save` wrote."""
        ...

    async def load_weights(self, folder: Path) -> None:
        """Restore the weights alone."""
        ...
