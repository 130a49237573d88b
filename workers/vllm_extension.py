"""The engine's side of weight sync, loaded inside vLLM's worker processes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from verl.plugin.platform import get_platform
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver
from verl.workers.rollout.vllm_rollout.utils import (
    _resolve_vllm_weight_sync_local_rank,
    vLLMColocateWorkerExtension,
)
from vllm.model_executor.models.utils import WeightsMapper

from workers import stacks
from workers.naming import SOCKET_VARIABLE

if SOCKET_VARIABLE in os.environ:
    stacks.register_engine(os.environ[SOCKET_VARIABLE])


class PolicyWorkerExtension(vLLMColocateWorkerExtension):
    """verl's extension with a socket per policy, and a reload that works where vLLM has packed its weights."""

    def _get_zmq_handle(self) -> str:
        parallel = self.model_runner.vllm_config.parallel_config
        return f"{os.environ[SOCKET_VARIABLE]}{_resolve_vllm_weight_sync_local_rank(self.local_rank, parallel)}"

    def update_weights_from_ipc(
        self, use_shm: bool = False, tied: Mapping[str, str] | None = None, **kwargs: Any
    ) -> None:
        """Receive and load weights; ``tied`` has second names of weights that are sent under their first."""
        is_adapter = bool(kwargs.get("peft_config")) and bool(kwargs.get("base_sync_done"))
        if is_adapter:
            _name_rename_mapper_as_verl_does()
        if get_platform().device_name != "cpu" or is_adapter:
            super().update_weights_from_ipc(use_shm=use_shm, **kwargs)
            return
        # On CPU vLLM packs linear weights after loading, so loading into the packed layers fails: reload them whole.
        weights: dict[str, torch.Tensor] = {}
        receiver = BucketedWeightReceiver(self._get_zmq_handle(), torch.device("cpu"), use_shm)
        # A bucket aliases shared memory that is reused for the next one.
        receiver.receive_weights(lambda bucket, is_last: weights.update((n, t.clone()) for n, t in bucket))
        # A packed output layer is a copy of the embedding that it is tied to.
        weights |= {name: weights[original] for name, original in (tied or {}).items() if original in weights}
        self.reload_weights(weights_iterator=iter(weights.items()))


def _name_rename_mapper_as_verl_does() -> None:
    """verl asks every vLLM from 0.25 on for ``get_unstacked_mapper``, which later ones call ``get_rename_mapper``."""
    if hasattr(WeightsMapper, "get_rename_mapper") and not hasattr(WeightsMapper, "get_unstacked_mapper"):
        WeightsMapper.get_unstacked_mapper = WeightsMapper.get_rename_mapper
