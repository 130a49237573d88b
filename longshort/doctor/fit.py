"""Does a recipe fit its GPUs? Each group of them is looked at while episodes are played and while a policy learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from omegaconf import DictConfig

from longshort.doctor.check import Check, Level
from longshort.doctor.memory import Engine, Sizes, Training, engine, read_sizes, training
from longshort.validation import trained_policies

GIB = 2**30
# What the estimate leaves out must have room.
MARGIN = 0.05


@dataclass(frozen=True)
class Member:
    """A policy on a GPU; ``training`` is None where it does not learn."""

    name: str
    sizes: Sizes
    engine: Engine
    training: Training | None


@dataclass(frozen=True)
class Phase:
    """What is on one GPU at a time, in bytes by what it is."""

    name: str
    parts: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def read_members(config: DictConfig) -> list[Member]:
    """All policies of a recipe whose placement is settled; reads the configurations of their models."""
    learners, colocated = trained_policies(config), config.placement.mode == "colocated"
    members = []
    for name in map(str, config.policies):
        policy = config.policies[name]
        sizes = read_sizes(policy.model)
        ranks = config.placement.n_gpus_per_node[name] * config.trainer.nnodes
        members.append(
            Member(
                name,
                sizes,
                engine(policy, sizes, config.trainer.device, name in learners or colocated),
                training(policy, sizes, ranks) if name in learners else None,
            )
        )
    return members


def groups(members: Sequence[Member], mode: str) -> list[list[Member]]:
    """Policies that share GPUs."""
    return [list(members)] if mode == "colocated" else [[member] for member in members]


def phases(group: Sequence[Member], gpu: float) -> list[Phase]:
    """While all engines are awake, and while each policy learns, on a GPU of ``gpu`` bytes."""
    resting = {f"{m.name}: weights and optimiser": m.training.resting for m in group if m.training}
    playing: dict[str, float] = dict(resting)
    for member in group:
        playing[f"{member.name}: engine's weights"] = member.engine.weights
        playing[f"{member.name}: KV cache"] = max(0.0, member.engine.cache_on(gpu))
    all_phases = [Phase("playing", playing)]
    for learner in group:
        if learner.training is None:
            continue
        t = learner.training
        parts = {
            f"{learner.name}: weights": t.weights,
            f"{learner.name}: gradients": t.gradients,
            f"{learner.name}: optimiser": t.optimizer,
            f"{learner.name}: gathered layers": t.gathered,
            f"{learner.name}: activations": t.activations,
            f"{learner.name}: logits": t.logits,
        }
        parts |= {f"{m.name}: at rest": m.training.resting for m in group if m.training and m is not learner}
        parts |= {f"{m.name}: engine": m.engine.taken(gpu) for m in group if not m.engine.sleeps}
        all_phases.append(Phase(f"{learner.name} learns", parts))
    return all_phases


def check_fit(config: DictConfig, members: Sequence[Member], gpu: float) -> list[Check]:
    """One check for each phase of each group of GPUs, and one for each KV cache; ``gpu``: bytes of one GPU."""
    checks: list[Check] = []
    for group in groups(members, config.placement.mode):
        for phase in phases(group, gpu):
            left = gpu - phase.total
            level = Level.FAIL if left < 0 else Level.WARN if left < MARGIN * gpu else Level.OK
            largest = sorted(phase.parts.items(), key=lambda part: -part[1])[:3]
            found = f"{_gib(phase.total)} of {_gib(gpu)} GiB: " + ", ".join(f"{k} {_gib(v)}" for k, v in largest)
            remedy = "" if level is Level.OK else _remedy(phase)
            checks.append(Check(f"memory, {phase.name}" + _who(group), level, found, remedy))
        for member in group:
            checks.append(_check_cache(member, gpu))
    return checks


def _check_cache(member: Member, gpu: float) -> Check:
    tokens = int(member.engine.cache_on(gpu) / member.engine.cache_a_token)
    conversations = tokens / member.engine.longest
    found = (
        f"{max(tokens, 0):,} tokens, {max(conversations, 0):.1f} of the longest conversations ({member.engine.longest})"
    )
    key = f"policies.{member.name}.rollout"
    if conversations < 1:
        remedy = f"raise {key}.gpu_memory_utilization or tensor_model_parallel_size, or lower team.max_episode_tokens"
        return Check(f"KV cache of {member.name}", Level.FAIL, found, remedy)
    if conversations < min(8, member.engine.at_once):
        remedy = f"few play at once: raise {key}.gpu_memory_utilization or tensor_model_parallel_size"
        return Check(f"KV cache of {member.name}", Level.WARN, found, remedy)
    return Check(f"KV cache of {member.name}", Level.OK, found)


def _remedy(phase: Phase) -> str:
    """What to change about the largest part."""
    part = max(phase.parts, key=lambda name: phase.parts[name])
    name, what = part.split(": ")
    actor, model = f"policies.{name}.actor", f"policies.{name}.model"
    return {
        "weights": f"more GPUs for {name} (placement.n_gpus_per_node, trainer.nnodes), or {model}.lora_rank",
        "gradients": f"more GPUs for {name}, or {model}.lora_rank",
        "optimiser": f"more GPUs for {name}, {model}.lora_rank, or {actor}.fsdp_config.offload_policy=true",
        "gathered layers": f"lower {actor}.ppo_max_token_len_per_gpu",
        "activations": f"{model}.enable_gradient_checkpointing=true, or lower {actor}.ppo_max_token_len_per_gpu",
        "logits": f"lower {actor}.ppo_max_token_len_per_gpu, or {model}.use_fused_kernels=true",
        "at rest": f"{actor}.fsdp_config.param_offload=true and optimizer_offload=true, or placement.mode=split",
        "weights and optimiser": f"{actor}.fsdp_config.param_offload=true and optimizer_offload=true, or more GPUs",
        "engine": f"policies.{name}.rollout.free_cache_engine=true, or lower its gpu_memory_utilization",
        "engine's weights": f"raise policies.{name}.rollout.tensor_model_parallel_size",
        "KV cache": f"lower policies.{name}.rollout.gpu_memory_utilization",
    }[what]


def _who(group: Sequence[Member]) -> str:
    return f" ({', '.join(member.name for member in group)})"


def _gib(size: float) -> str:
    gib = size / GIB
    return f"{gib:.1f}" if gib >= 0.1 else f"{gib:.3f}"
