"""GPUs for policies in proportion to the work that each has to do.

The pair is a closed queue of two stations: while episodes alternate, the busier station sets the pace, so GPUs go
where the work is. Work is parameters x tokens of a turn, an estimate before anything has run; ``placement.demand``
takes measured numbers instead, for example ``<role>/tokens`` of an earlier run times the model's size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

from omegaconf import DictConfig

from longshort.policy_checks import BY_DEMAND, engine_size
from longshort.validation import trained_policies, validate

# A learner's GPUs also score and update what they generated; ours, for want of a measurement.
LEARNING = 2.0


def split_gpus(total: int, demand: Mapping[str, float], choices: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Divide up to ``total`` GPUs so that the policy with the most work per GPU has as little as can be.

    Args:
        total: GPUs to divide.
        demand: work of each policy, in any unit.
        choices: numbers of GPUs that each policy could use.

    Raises:
        ValueError: no choice fits.
    """
    divisions = [dict(zip(choices, shares, strict=True)) for shares in product(*choices.values())]
    fitting = [division for division in divisions if sum(division.values()) <= total]
    if not fitting:
        raise ValueError(
            f"trainer.n_gpus_per_node={total} cannot be divided by demand: policies could use "
            f"{ {name: list(shares) for name, shares in choices.items()} } GPUs; add GPUs or say "
            "placement.n_gpus_per_node yourself"
        )

    def load(division: Mapping[str, int]) -> tuple[float, float]:
        loads = [demand[name] / share for name, share in division.items()]
        return max(loads), sum(loads)

    return min(fitting, key=load)


def settle_placement(config: DictConfig) -> None:
    """Put numbers in the place of ``placement.n_gpus_per_node=demand``, and check what follows from them."""
    if config.placement.n_gpus_per_node == BY_DEMAND:
        config.placement.n_gpus_per_node = place_by_demand(config, trained_policies(config))
        validate(config)


def place_by_demand(config: DictConfig, learners: Sequence[str]) -> dict[str, int]:
    """``placement.n_gpus_per_node`` of every policy, from ``placement.demand`` or, where that is null, an estimate.

    Reads the models' configurations, not their weights.
    """
    names = list(map(str, config.policies))
    demand = {
        name: float(config.placement.demand[name] or _estimate(config, name) * (LEARNING if name in learners else 1.0))
        for name in names
    }
    return split_gpus(
        config.trainer.n_gpus_per_node, demand, {name: _choices(config, name, name in learners) for name in names}
    )


def _choices(config: DictConfig, name: str, learns: bool) -> list[int]:
    """Numbers of GPUs a node that make whole engines and, for a learner, equal parts of its mini-batch."""
    policy, nodes = config.policies[name], config.trainer.nnodes
    mini_batch = policy.actor.ppo_mini_batch_size * policy.rollout.n * policy.actor.ulysses_sequence_parallel_size
    return [
        gpus
        for gpus in range(1, config.trainer.n_gpus_per_node + 1)
        if gpus * nodes % engine_size(policy) == 0 and (not learns or mini_batch % (gpus * nodes) == 0)
    ]


def _estimate(config: DictConfig, name: str) -> float:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    model = config.policies[name].model
    settings = AutoConfig.from_pretrained(model.path, trust_remote_code=model.trust_remote_code)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(settings, trust_remote_code=model.trust_remote_code)
    return float(empty.num_parameters() * config.team.max_turn_tokens[name])
