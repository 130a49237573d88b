"""Which rollouts the long/short decisions still need.

The paper samples every prefix of a chain equally often (arXiv 2505.11827, section 3). Most decisions of the scan rule
need far less: a thought whose score lies well below the highest one before it stays short whatever its exact accuracy.
Here samples are taken where decisions are open:

1. ``draws`` success curves are drawn for each chain, as likely as its samples make them (:class:`CurveModel`). With the
   goal ``"sampled"``, the samples that are still missing are drawn as well, so that each draw is a possible outcome of
   sampling every prefix ``rollouts`` times; with the goal ``"true"``, the curve itself counts.
2. Each draw is scored and split. A decision is *settled* where at most the share ``error`` of the draws has the rarer
   outcome, and *open* otherwise.
3. A prefix is worth what ``batch`` more samples of it would explain of the open decisions, per sample: the squared
   covariance of decision and accuracy over the draws, by the variance of the accuracy, times the share of that variance
   which the samples take away. Flips of δ need no care of their own: they are in the draws.
4. The prefixes worth most are asked for, of all chains at once, until all decisions are settled or the budget is spent.

Prefix i of a chain is the question and its first i thoughts; its samples are a stream with fixed places. Proposals and
splits depend on nothing but the settings and what was observed, so the same streams give the same answer, and a state
is restored by observing the same results again.

The stated error is that of the model of curves. It is fitted to all chains, so it means little for a handful of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from longshort.thoughts.curves import Counts, CurveModel
from longshort.thoughts.metric import DECAY, scores_of, weights_of
from longshort.thoughts.partition import scan

Goal = Literal["sampled", "true"]

# Numbers of an array over a slab of chains; keeps memory small.
_SLAB = 2**21
# What a prefix explains counts for little where it is less than so many times what it would explain by chance.
_CHANCE, _BY_CHANCE = 6.0, 1e-3
_EM_STEPS = 10
_FINAL_DRAWS = 512


@dataclass(frozen=True, slots=True)
class Adaptive:
    """How rollouts are spent.

    Attributes:
        rollouts: samples of a prefix that count as all.
        error: probability of the other outcome up to which a decision counts as settled.
        budget: most samples, as a share of all samples of all prefixes.
        first: samples of every prefix to begin with.
        batch: samples of a prefix that are asked for at a time.
        share: of the prefixes of all chains, the most that are asked for at a time.
        goal: what decisions agree with: the split from ``rollouts`` samples of each prefix of the same streams, or the
            split under the true success rates.
        decay: of δ.
        draws: curves per chain and round.
        seed: of the draws.
    """

    rollouts: int = 128
    error: float = 0.1
    budget: float = 0.2
    first: int = 4
    batch: int = 16
    share: float = 0.1
    goal: Goal = "sampled"
    decay: float = DECAY
    draws: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("rollouts", 1), ("first", 1), ("batch", 1), ("draws", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}: give at least {least}")
        if self.first > self.rollouts:
            raise ValueError(f"first is {self.first} of {self.rollouts} rollouts: begin with fewer")
        if not 0 <= self.error < 0.5:
            raise ValueError(f"error is {self.error}: give a probability below 0.5")
        for name in ("budget", "share"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give a share above 0 and at most 1")


@dataclass(frozen=True, slots=True)
class Request:
    """Samples ``first`` to ``first + count - 1``, counted from 0, of the stream of a chain's prefix."""

    chain: int
    prefix: int
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Split:
    """What the samples say about one chain with n thoughts.

    Attributes:
        long: for each thought, whether it stays long.
        errors: for each thought, how probable the other decision is.
        scores: for each thought, the expectation of M.
        successes, rollouts: for each of the n + 1 prefixes, what was sampled.
    """

    long: tuple[bool, ...]
    errors: tuple[float, ...]
    scores: tuple[float, ...]
    successes: tuple[int, ...]
    rollouts: tuple[int, ...]


class AdaptiveScoring:
    """The state: what was sampled of each prefix, what was asked for, and which decisions are open.

    Ask :meth:`propose`, sample, :meth:`observe`, and so on until :attr:`done`; then read :meth:`splits`. A prefix is
    not asked for again before its last request was observed, so proposals may be made while samples are under way.
    """

    def __init__(self, lengths: Sequence[Sequence[int]], settings: Adaptive | None = None) -> None:
        """``lengths``: the tokens of the thoughts of each chain, at least one of at least 1 token."""
        for chain, tokens in enumerate(lengths):
            if not len(tokens) or min(tokens) < 1:
                raise ValueError(
                    f"chain {chain} has thoughts of {list(tokens)} tokens: give at least one, of 1 or more"
                )
        self.settings = settings or Adaptive()
        self._thoughts = np.array([len(tokens) for tokens in lengths], dtype=int)
        widest = int(self._thoughts.max(initial=0))
        padded = np.zeros((len(lengths), widest))
        for chain, tokens in enumerate(lengths):
            padded[chain, : len(tokens)] = tokens
        self._weights = weights_of(padded)
        self._inside = np.arange(widest + 1) <= self._thoughts[:, None]
        self._successes = np.zeros(self._inside.shape, dtype=int)
        self._rollouts = np.zeros(self._inside.shape, dtype=int)
        self._asked = np.zeros(self._inside.shape, dtype=int)
        self._open = np.ones(len(lengths), dtype=bool)

    @property
    def spent(self) -> float:
        """Samples asked for, as a share of all samples of all prefixes."""
        return float(self._asked.sum() / (self.settings.rollouts * self._inside.sum())) if len(self._asked) else 0.0

    @property
    def done(self) -> bool:
        """Whether there is nothing to ask for and nothing under way."""
        waiting = bool((self._asked > self._rollouts).any())
        return not waiting and (not self._open.any() or self._left() < self.settings.batch)

    def observe(self, request: Request, successes: int) -> None:
        """How many samples of a request were right.

        Raises:
            ValueError: the request does not continue what was observed of its prefix, or the number is impossible.
        """
        place = request.chain, request.prefix
        after = request.first + request.count
        possible = 0 <= successes <= request.count and after <= self.settings.rollouts and self._inside[place]
        if request.first != self._rollouts[place] or not possible:
            raise ValueError(
                f"{successes} right answers to {request} do not continue the {self._rollouts[place]} samples observed: "
                "observe each request once, in order"
            )
        self._successes[place] += successes
        self._rollouts[place] += request.count
        self._asked[place] = max(self._asked[place], self._rollouts[place])

    def propose(self) -> tuple[Request, ...]:
        """The samples that are worth most now; none where all is settled, spent, or under way."""
        new = self._inside & (self._asked == 0)
        if new.any():
            return self._ask(new, self.settings.first)
        model, rng = self._fitted()
        worth = np.zeros(self._inside.shape)
        for chains in self._slabs(self.settings.draws):
            worth[chains], self._open[chains] = self._worth(chains, model, rng)
        waiting = self._asked > self._rollouts
        worth[waiting | (self._asked >= self.settings.rollouts)] = 0
        # With the goal "true", a decision may stay open when all was sampled.
        self._open &= (worth > 0).any(1) | waiting.any(1)
        most = min(np.ceil(self.settings.share * self._inside.sum()), self._left() // self.settings.batch)
        best = np.argsort(-worth, axis=None, kind="stable")[: max(0, int(most))]
        chosen = np.zeros(self._inside.shape, dtype=bool)
        chosen.flat[best] = worth.flat[best] > 0
        return self._ask(chosen, self.settings.batch)

    def splits(self) -> list[Split]:
        """The decisions for each chain, with what is known now."""
        found: dict[int, Split] = {}
        model, rng = self._fitted()
        for chains in self._slabs(_FINAL_DRAWS):
            _, _, scores, long = self._draw(chains, model, _FINAL_DRAWS, rng)
            probable = long.mean(1)
            for row, chain in enumerate(chains):
                n = int(self._thoughts[chain])
                found[int(chain)] = Split(
                    tuple((probable[row, :n] > 0.5).tolist()),
                    tuple(np.minimum(probable, 1 - probable)[row, :n].tolist()),
                    tuple(scores[row, :, :n].mean(0).tolist()),
                    tuple(self._successes[chain, : n + 1].tolist()),
                    tuple(self._rollouts[chain, : n + 1].tolist()),
                )
        return [found[chain] for chain in range(len(self._thoughts))]

    def _left(self) -> float:
        """Samples that the budget still has, at least those that every prefix begins with."""
        return self.settings.budget * self.settings.rollouts * self._inside.sum() - self._asked.sum()

    def _ask(self, chosen: np.ndarray, count: int) -> tuple[Request, ...]:
        places = np.argwhere(chosen).tolist()
        counts = np.minimum(count, self.settings.rollouts - self._asked[chosen])
        requests = zip(places, self._asked[chosen].tolist(), counts.tolist(), strict=True)
        proposed = tuple(Request(chain, prefix, first, size) for (chain, prefix), first, size in requests)
        self._asked[chosen] += counts
        return proposed

    def _fitted(self) -> tuple[CurveModel, np.random.Generator]:
        """The model of curves and the source of draws for what was observed so far, and for nothing else."""
        model = CurveModel()
        for _ in range(_EM_STEPS):
            model.fit(self._counts(chains) for chains in self._slabs(self.settings.draws))
        return model, np.random.default_rng((self.settings.seed, int(self._rollouts.sum())))

    def _slabs(self, draws: int) -> Iterator[np.ndarray]:
        """All chains, those of similar length together, as many at a time as memory is meant to hold."""
        chains = np.argsort(self._thoughts, kind="stable")
        while len(chains):
            widest = self._thoughts[chains] + 1
            fitting = np.arange(1, len(widest) + 1) * widest * np.maximum(draws, widest) <= _SLAB
            count = max(1, int(fitting.sum()))
            yield chains[:count]
            chains = chains[count:]

    def _counts(self, chains: np.ndarray) -> Counts:
        width = int(self._thoughts[chains].max()) + 1
        return Counts(self._successes[chains, :width], self._rollouts[chains, :width], self._thoughts[chains])

    def _draw(
        self, chains: np.ndarray, model: CurveModel, draws: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Curves and accuracies (C, S, n + 1), scores and decisions (C, S, n), n being that of the longest of these."""
        counts = self._counts(chains)
        curves = model.draw(counts, draws, rng)
        accuracies = curves
        if self.settings.goal == "sampled":
            missing = self.settings.rollouts - counts.rollouts[:, None]
            accuracies = (counts.successes[:, None] + rng.binomial(missing, curves)) / self.settings.rollouts
        scores = scores_of(self._weights[chains, None, : curves.shape[-1] - 1], accuracies, self.settings.decay)
        return curves, accuracies, scores, scan(scores)

    def _worth(self, chains: np.ndarray, model: CurveModel, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """What a batch is worth at each prefix (C, all prefixes), and which chains have open decisions (C,)."""
        draws = self.settings.draws
        curves, accuracies, _, long = self._draw(chains, model, draws, rng)
        width = curves.shape[-1]
        probable = long.mean(1)
        open_ = (np.minimum(probable, 1 - probable) > self.settings.error) & self._inside[chains, 1:width]
        decisions = (long - probable[:, None]).astype(np.float32) * open_[:, None]
        centred = (accuracies - accuracies.mean(1, keepdims=True)).astype(np.float32)
        covariance = np.matmul(decisions.transpose(0, 2, 1), centred) / draws
        spread = (centred**2).mean(1) + 1e-9
        explained = covariance**2 / spread[:, None]
        chance = _CHANCE / draws * (decisions**2).mean(1)[..., None]
        explained = (explained * np.where(explained > chance, 1, _BY_CHANCE)).sum(1)
        worth = np.zeros((len(chains), self._inside.shape[1]))
        worth[:, :width] = (
            explained * self._learned(curves, self._rollouts[chains, :width]) * self._inside[chains, :width]
        )
        return worth, open_.any(1)

    def _learned(self, curves: np.ndarray, rollouts: np.ndarray) -> np.ndarray:
        """The share of an accuracy's variance that a batch takes away, (C, n + 1).

        A rate that is known as well as from m samples is known as well as from m + batch after it. With the goal
        ``"sampled"``, a batch of the missing samples is no longer missing.
        """
        batch, everything = self.settings.batch, self.settings.rollouts
        noise = (curves * (1 - curves)).mean(1) + 1e-4
        doubt = curves.var(1) + 1e-9
        rate = batch / (np.maximum(noise / doubt, rollouts) + batch)
        if self.settings.goal == "true":
            return rate
        missing = everything - rollouts
        of_rate, of_noise = doubt * (missing / everything) ** 2, noise * missing / everything**2
        known = np.minimum(1, batch / np.maximum(missing, 1))
        return (of_rate * rate + of_noise * known) / (of_rate + of_noise + 1e-12)
