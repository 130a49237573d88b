"""verl's FSDP2 engine on CPU: the same engine, without pinned memory."""

from __future__ import annotations

import os
from typing import Any

import torch
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp import transformer_impl


def _offload_policy_without_pinning(pin_memory: bool = True) -> Any:
    return torch.distributed.fsdp.CPUOffloadPolicy(pin_memory=False)


def prepare_cpu_process() -> None:
    """Make this Ray worker ready for verl's training worker on CPU; importing this module registers the engine."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    transformer_impl.CPUOffloadPolicy = _offload_policy_without_pinning


@EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cpu")
class CPUFSDPEngine(transformer_impl.FSDPEngineWithLMHead):
    """Registered for device ``cpu``; verl registers its engine for accelerators only."""
