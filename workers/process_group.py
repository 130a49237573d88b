"""The process group of a policy's training workers, made ahead of verl.

verl's own would have torch's store listen on every interface, and on CPU it composes the backend ``cpu:gloo,cpu:gloo``,
which torch refuses. It makes none where there is one.
"""

from __future__ import annotations

import os
import socket

import torch
from verl.utils.device import get_nccl_backend


def join(device: str) -> None:
    """Meet the other ranks, as Ray's worker group has numbered them; ``device`` is torch's name of its kind."""
    if torch.distributed.is_initialized():
        return
    backend = "gloo" if device == "cpu" else f"cpu:gloo,{device}:{get_nccl_backend()}"
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.distributed.init_process_group(backend, store=_store(rank), rank=rank, world_size=world_size)


def _store(rank: int) -> torch.distributed.TCPStore:
    """Listens on the master's address only."""
    host, port = os.environ["MASTER_ADDR"].strip("[]"), int(os.environ["MASTER_PORT"])
    if rank != 0:
        return torch.distributed.TCPStore(host, port, is_master=False)
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.bind((host, port))
    return torch.distributed.TCPStore(
        host, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
    )
