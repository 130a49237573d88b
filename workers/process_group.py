"""The process group of a policy's training workers, made ahead of verl.

verl's own would have torch's store listen on every interface, at a port that was free when the driver looked and may be
taken once the workers have been started; and on CPU it composes the backend ``cpu:gloo,cpu:gloo``, which torch refuses.
It makes none where there is one.
"""

from __future__ import annotations

import os
import socket
import time

import ray
import torch
from ray.experimental import internal_kv
from verl.utils.device import get_nccl_backend

TIMEOUT_S = 600.0  # for the first rank to be there; the models are loaded afterwards


def join(device: str) -> None:
    """Meet the other ranks, as Ray's worker group has numbered them; ``device`` is torch's name of its kind."""
    if torch.distributed.is_initialized():
        return
    backend = "gloo" if device == "cpu" else f"cpu:gloo,{device}:{get_nccl_backend()}"
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    # Nobody listens at the port that verl drew, which only tells the groups of a job apart.
    key = "/".join([ray.get_runtime_context().get_job_id(), os.environ["WG_PREFIX"], os.environ["MASTER_PORT"]])
    host = os.environ["MASTER_ADDR"].strip("[]")
    store = _listen(host, key) if rank == 0 else torch.distributed.TCPStore(host, _port(key), is_master=False)
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size)
    if rank == 0:
        internal_kv._internal_kv_del(key)  # every rank has read it


def _listen(host: str, key: str) -> torch.distributed.TCPStore:
    """On the master's address only, at a port of the kernel's choice, which Ray tells the other ranks."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.bind((host, 0))
    port = listener.getsockname()[1]
    store = torch.distributed.TCPStore(
        host, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
    )
    internal_kv._internal_kv_put(key, str(port))
    return store


def _port(key: str) -> int:
    until = time.monotonic() + TIMEOUT_S
    while (port := internal_kv._internal_kv_get(key)) is None:
        if time.monotonic() > until:
            raise TimeoutError(f"the first rank of {key} was not there within {TIMEOUT_S:.0f} s")
        time.sleep(0.05)
    return int(port)
