"""How many of the tokens that an update puts through the model are tokens of a conversation?

Episodes have the lengths of :mod:`benchmarks.scripted_episodes` at cost ratio 2.3: long turns lognormal (median 400
tokens, sigma 0.8), short ones lognormal (median 200, sigma 0.6), long turns of an episode geometric (mean 2.2, at most
5), prompts of 100 tokens. With 6 ranks they are one step of the recipe ``longshort_qwen2.5_7b`` (384 problems x 2),
with fewer ranks a part of it that leaves each rank its 128 views. They are played by the real controller. Each role's
views become a batch as in ``RayPolicy.update``, are split over the data-parallel ranks and mini-batches by verl's own
functions, and cut into micro-batches by its ``prepare_micro_batches``, at a recipe's ``ppo_max_token_len_per_gpu``. One
process counts for all ranks: the number of micro-batches, on which ranks agree, is raised to the largest that any of
them needs.

- *Trained* are prompt and response tokens of the views, each once: the partner's turns too, which are context.
- *Processed* is every position of the ``input_ids`` that verl's FSDP engine hands the model for these micro-batches:
  fillers, which make a batch divide by the mini-batch, and padding included.
- ``packed`` is trained / processed with ``use_remove_padding=True``, as in the recipes for GPUs.
- ``padded`` is the same with ``False``, as on CPU: rows as long as the longest of their micro-batch.
- ``padded_mini_batch``: rows as long as the longest of all ranks' mini-batch, which is what padding without dynamic
  micro-batches costs.
- ``in_loss`` is the share of trained tokens that the policy sampled, which have a loss.
- ``imbalance``: tokens of the busiest rank over those of the mean one, summed over mini-batches; ``imbalance_balanced``
  the same if rows went to ranks by verl's ``get_seqlen_balanced_partitions``, as its own trainer orders them.

``absent`` is the share of episodes that ended before the role spoke: these rows are replaced by fillers.

    python -m benchmarks.packing [--quick]

Counts only, so it takes no repetitions. Prints JSON; exit code 1 where ``packed`` is below 0.95.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.scripted_episodes import draw_scripts, play_at_once
from longshort.config import build_config
from longshort.episode import Episode
from longshort.policy import Sample
from workers.team import configure_environment

# verl reads it at its import.
configure_environment("cpu")

from tensordict import TensorDict  # noqa: E402
from verl.utils import tensordict_utils as tu  # noqa: E402
from verl.utils.seqlen_balancing import calculate_workload, get_seqlen_balanced_partitions  # noqa: E402
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead  # noqa: E402
from verl.workers.engine.utils import prepare_micro_batches  # noqa: E402

from workers.batch import pad_to_multiple, sample_batch  # noqa: E402

RECIPE = "longshort_qwen2.5_7b"
# Recipes whose limits on the tokens of a micro-batch are tried.
LIMITS_OF = (RECIPE, "longshort_14b_1.5b")
# Means of the two lognormals with medians 400 and 200.
COST_RATIO = 2 * math.exp((0.8**2 - 0.6**2) / 2)
LEAST = 0.95


def episodes_of(count: int) -> list[Episode]:
    """``count`` episodes with scripted lengths."""

    async def collect() -> list[Episode]:
        return [episode async for episode in play_at_once(draw_scripts(count, COST_RATIO))]

    # Not in the order in which they ended, but problem by problem.
    return sorted(asyncio.run(collect()), key=lambda episode: int(episode.problem.id))


def samples_of(episodes: Sequence[Episode], role: str) -> list[Sample]:
    """The role's views with numbers of the right shape for the loss."""
    views = [view for episode in episodes if (view := episode.view(role)) is not None]
    return [Sample(view, 0.0, view.log_probs, view.log_probs) for view in views]


def engine(padding: Any) -> FSDPEngineWithLMHead:
    """verl's engine without a model: enough of it to prepare a model's inputs."""
    made = object.__new__(FSDPEngineWithLMHead)
    made.use_ulysses_sp = False
    made.pad_to_length, made.pad_to_length_bucket = padding.pad_to_length, padding.pad_to_length_bucket
    return made


def mini_batches(batch: TensorDict, ranks: int, mini_batch: int) -> Iterator[list[TensorDict]]:
    """Per mini-batch, what each rank gets of it, as verl's dispatch and ``train_mini_batch`` divide a batch."""
    parts = [
        tu.make_iterator(part, mini_batch_size=mini_batch // ranks, epochs=1, seed=0, dataloader_kwargs={})
        for part in tu.chunk_tensordict(batch, ranks)
    ]
    for each in zip(*parts, strict=True):
        yield list(each)


def micro_batches(of_ranks: Sequence[TensorDict]) -> list[list[TensorDict]]:
    """Micro-batches of every rank, equally many."""
    count = 1
    while True:
        made = [prepare_micro_batches(part, min_num_micro_batch=count)[0] for part in of_ranks]
        needed = max(map(len, made))
        if all(len(each) == needed for each in made):
            return made
        count = needed


def rows_of(batch: TensorDict) -> list[int]:
    """Tokens of each row."""
    return batch["input_ids"].offsets().diff().tolist()


def spread(tokens: Sequence[int]) -> float:
    """Largest over mean."""
    return max(tokens) * len(tokens) / sum(tokens)


def measure(samples: Sequence[Sample], mini_batch: int, ranks: int, limit: int, padding: Any) -> dict[str, Any]:
    """Counts of one update."""
    padded = pad_to_multiple(samples, mini_batch)
    batch = sample_batch(padded, temperature=1.0, pad_token_id=0, max_token_len_per_gpu=limit, use_dynamic_bsz=True)
    prepare = engine(padding).prepare_model_inputs
    processed = dict.fromkeys((True, False), 0)
    of_rank, of_rank_balanced, number, rectangle = [0] * ranks, [0] * ranks, 0, 0
    for parts in mini_batches(batch, ranks, mini_batch):
        lengths = [rows_of(part) for part in parts]
        flat = [length for rows in lengths for length in rows]
        rectangle += max(flat) * len(flat)
        workload = calculate_workload(batch["input_ids"].offsets().diff().new_tensor(flat)).tolist()
        balanced = get_seqlen_balanced_partitions(workload, k_partitions=ranks, equal_size=True)
        for rank in range(ranks):
            of_rank[rank] += sum(lengths[rank])
            of_rank_balanced[rank] += sum(flat[i] for i in balanced[rank])
        made = micro_batches(parts)
        number += len(made[0])
        for micro in (micro for each in made for micro in each):
            for remove_padding in processed:
                tu.assign_non_tensor(micro, use_remove_padding=remove_padding)
                inputs, _ = prepare(micro)
                processed[remove_padding] += inputs["input_ids"].numel()
    trained = sum(len(sample.view.prompt_ids) + len(sample.view.response_ids) for sample in samples)
    return {
        "ranks": ranks,
        "token_limit": limit,
        "views": len(samples),
        "fillers": len(padded) - len(samples),
        "micro_batches": number,
        "trained_tokens": trained,
        "in_loss": round(sum(sum(sample.view.mask) for sample in samples) / trained, 3),
        "packed": round(trained / processed[True], 4),
        "padded": round(trained / processed[False], 4),
        "padded_mini_batch": round(trained / rectangle, 4),
        "imbalance": round(spread(of_rank), 3),
        "imbalance_balanced": round(spread(of_rank_balanced), 3),
    }


def measure_recipe(ranks: Sequence[int], absent: Sequence[float]) -> list[dict[str, Any]]:
    """One row for each role, number of ranks, limit and share of absent views."""
    config = build_config(RECIPE)
    policy = config.policies.long
    of_rank = policy.actor.ppo_mini_batch_size * policy.rollout.n // config.placement.n_gpus_per_node.long
    limits = sorted({build_config(name).policies.long.actor.ppo_max_token_len_per_gpu for name in LIMITS_OF})
    episodes = episodes_of(of_rank * max(ranks))
    rows = []
    for role, share, n in itertools.product(map(str, config.policies), absent, ranks):
        samples = samples_of(episodes[: of_rank * n], role)[round(share * of_rank * n) :]
        for limit in limits:
            counts = measure(samples, of_rank * n, n, limit, policy.actor.fsdp_config)
            rows.append({"role": role, "absent": share, **counts})
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="6 ranks only")
    ranks = (6,) if parser.parse_args().quick else (1, 2, 6)
    rows = measure_recipe(ranks, absent=(0.0, 0.05))
    missed = {
        f"{row['role']}, {row['ranks']} ranks, limit {row['token_limit']}, absent {row['absent']}": ["packed"]
        for row in rows
        if row["packed"] < LEAST
    }
    sys.stdout.write(json.dumps({"rows": rows, "missed": missed}, indent=1) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
