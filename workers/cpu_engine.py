"""verl's FSDP2 engine on CPU: the same engine, without pinned memory."""

from __future__ import annotations

import os
import socket
from typing import Any

import torch
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp import transformer_impl


def _offload_policy_without_pinning(pin_memory: bool = True) -> Any:
    return torch.distributed.fsdp.CPUOffloadPolicy(pin_memory=False)


def prepare_cpu_process() -> None:
    """Make this Ray worker ready for verl's training worker on CPU.

    verl would compose the backend ``cpu:gloo,cpu:gloo``, which torch refuses, so the process group is made first.
    Importing this module registers the engine.
    """
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    transformer_impl.CPUOffloadPolicy = _offload_policy_without_pinning
    if not torch.distributed.is_initialized():
        rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        torch.distributed.init_process_group("gloo", store=_store(rank), rank=rank, world_size=world_size)


def _store(rank: int) -> torch.distributed.TCPStore:
    """The group's store, listening on the master's address only; by itself torch listens on every interface."""
    host, port = os.environ["MASTER_ADDR"].strip("[]"), int(os.environ["MASTER_PORT"])
    if rank != 0:
        return torch.distributed.TCPStore(host, port, is_master=False)
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.bind((host, port))
    return torch.distributed.TCPStore(
        host, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
    )


@EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cpu")
class CPUFSDPEngine(transformer_impl.FSDPEngineWithLMHead):
    """Registered for device ``cpu``; verl registers its engine for accelerators only."""
