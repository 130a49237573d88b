"""How many rollouts does the split into long and short thoughts need? Adaptive scoring against 128 for each prefix.

Chains are simulated (:mod:`benchmarks.success_curves`), so the true split is known; or real ones of the playground
(:mod:`benchmarks.real_chains`), whose truth nobody knows. A row is a family of curves and a goal of
:class:`longshort.thoughts.adaptive.Adaptive`:

- ``spent``: rollouts, as a share of 128 for each prefix;
- ``same``: thoughts that are long or short as by all 128 samples of the same streams; ``stated`` is what adaptive
  scoring itself expects to agree with its goal;
- ``true``: thoughts that are long or short as by the true success rates; ``true_by_all`` is that of all 128 samples,
  ``true_by_uniform`` that of as many samples as were spent, the same number for each prefix;
- ``delta_in_doubt``: thoughts whose δ the sampling error of all 128 samples might change (95%).

Targets: at most 0.2 spent; ``true`` at most 0.005 below ``true_by_all``; ``same`` at least 0.975 with the goal
"sampled".

    python -m benchmarks.thought_rollouts [--quick]

Prints JSON; exit code 1 where a target falls short. The real chains are kept in ``--folder`` and sampled only once.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np

from benchmarks.real_chains import sample_chains
from benchmarks.success_curves import FAMILIES, FEWEST, draw_chains, draw_stream
from longshort.thoughts.adaptive import Adaptive, AdaptiveScoring, Goal, Split
from longshort.thoughts.metric import DECAY, decay_in_doubt, joint_scores
from longshort.thoughts.partition import Partition
from longshort.thoughts.scored import ScoredChain

ROLLOUTS = 128
REAL_CHAINS = 24
MOST_SPENT, LARGEST_LOSS, LEAST_SAME = 0.2, 0.005, 0.975
SCAN = Partition("scan")


@dataclass(frozen=True, slots=True)
class Agreement:
    """Adaptive scoring on stored streams.

    Attributes:
        spent: samples used, as a share of those in the streams.
        same: thoughts that are long or short as by all samples, as a share of all thoughts.
        stated: the share that adaptive scoring expects.
        splits: for each chain.
    """

    spent: float
    same: float
    stated: float
    splits: tuple[Split, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """See the top of this file; ``seconds`` is what adaptive scoring itself took."""

    family: str
    goal: Goal
    chains: int
    thoughts: int
    spent: float
    same: float
    stated: float
    delta_in_doubt: float
    seconds: float
    true: float | None = None
    true_by_all: float | None = None
    true_by_uniform: float | None = None


def agreement(chains: Sequence[Sequence[int]], streams: Sequence[np.ndarray], settings: Adaptive) -> Agreement:
    """Feed adaptive scoring from streams and compare its split with that of all samples.

    Args:
        chains: tokens of the n thoughts of each chain.
        streams: for each chain whether each sample is right, (n + 1, ``settings.rollouts``), the bare question first.
    """
    scoring = AdaptiveScoring(chains, settings)
    while not scoring.done:
        for request in scoring.propose():
            samples = streams[request.chain][request.prefix, request.first : request.first + request.count]
            scoring.observe(request, int(samples.sum()))
    splits = scoring.splits()
    everything = [
        split_by(lengths, stream.mean(1), settings.decay) for lengths, stream in zip(chains, streams, strict=True)
    ]
    errors = [error for split in splits for error in split.errors]
    same = share_equal([split.long for split in splits], everything)
    return Agreement(scoring.spent, same, 1 - float(np.mean(errors)), tuple(splits))


def split_by(lengths: Sequence[int], accuracies: Sequence[float] | np.ndarray, decay: float) -> tuple[bool, ...]:
    """The scan rule on the scores from these accuracies."""
    return SCAN(joint_scores(lengths, list(accuracies), decay))


def share_equal(splits: Sequence[Sequence[bool]], others: Sequence[Sequence[bool]]) -> float:
    """Thoughts that are alike in both, as a share of all."""
    pairs = [(a, b) for one, other in zip(splits, others, strict=True) for a, b in zip(one, other, strict=True)]
    return sum(a == b for a, b in pairs) / len(pairs)


def measure(family: str, goal: Goal, count: int, seed: int = 0) -> Row:
    """The row of simulated chains, whose truth is known."""
    chains = draw_chains(family, count, seed)
    rng = np.random.default_rng(seed + 1)
    lengths = [chain.lengths for chain in chains]
    streams = [draw_stream(chain, ROLLOUTS, rng) for chain in chains]
    row, splits = compare(family, goal, lengths, streams)
    truth = [split_by(chain.lengths, chain.rates, DECAY) for chain in chains]

    def by_first(samples: int) -> float:
        pairs = zip(lengths, streams, strict=True)
        return share_equal([split_by(one, s[:, :samples].mean(1), DECAY) for one, s in pairs], truth)

    return replace(
        row,
        true=round(share_equal([split.long for split in splits], truth), 4),
        true_by_all=round(by_first(ROLLOUTS), 4),
        true_by_uniform=round(by_first(max(1, round(row.spent * ROLLOUTS))), 4),
    )


def measure_real(chains: Sequence[ScoredChain]) -> Row:
    """The row of chains that were really sampled, whose truth nobody knows."""
    streams = [np.array([[rollout.correct for rollout in samples] for samples in chain.rollouts]) for chain in chains]
    return compare("playground", "sampled", [chain.lengths for chain in chains], streams)[0]


def compare(
    family: str, goal: Goal, lengths: Sequence[Sequence[int]], streams: Sequence[np.ndarray]
) -> tuple[Row, tuple[Split, ...]]:
    """What needs no truth of a row, and the adaptive splits; arguments as of :func:`agreement`."""
    started = time.perf_counter()
    found = agreement(lengths, streams, Adaptive(rollouts=ROLLOUTS, goal=goal, decay=DECAY))
    seconds = time.perf_counter() - started
    doubt = [doubtful for stream in streams for doubtful in decay_in_doubt(stream.mean(1), ROLLOUTS)]
    row = Row(
        family=family,
        goal=goal,
        chains=len(lengths),
        thoughts=len(doubt),
        spent=round(found.spent, 4),
        same=round(found.same, 4),
        stated=round(found.stated, 4),
        delta_in_doubt=round(float(np.mean(doubt)), 4),
        seconds=round(seconds, 1),
    )
    return row, found.splits


def falls_short(row: Row) -> list[str]:
    """Targets that a row misses."""
    missed = []
    if row.spent > MOST_SPENT:
        missed.append("spent")
    if row.true is not None and row.true_by_all is not None and row.true < row.true_by_all - LARGEST_LOSS:
        missed.append("true")
    if row.goal == "sampled" and row.same < LEAST_SAME:
        missed.append("same")
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="40 chains of a family instead of 200, and no real ones")
    parser.add_argument(
        "--folder", type=Path, default=Path("outputs/thought_rollouts"), help="where real chains are kept"
    )
    options = parser.parse_args()
    rows = [measure(f, goal, 40 if options.quick else 200) for f in FAMILIES for goal in get_args(Goal)]
    if not options.quick:
        rows.append(measure_real(sample_chains(options.folder, REAL_CHAINS, FEWEST, ROLLOUTS)))
    missed = {f"{row.family}, {row.goal}": m for row in rows if (m := falls_short(row))}
    sys.stdout.write(json.dumps({"rows": [asdict(row) for row in rows], "missed": missed}, indent=1) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
