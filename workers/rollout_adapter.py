"""The trainer's side of weight sync: verl's server adapter under names of this policy's own."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from verl.utils.torch_dtypes import PrecisionType
from verl.workers.rollout.vllm_rollout.vllm_rollout import ServerAdapter

from workers.naming import server_prefix, weight_socket

ROUTERS = ("gate.weight", "router.weight")


class PolicyServerAdapter(ServerAdapter):
    """Finds its policy by the worker group's name prefix (``WG_PREFIX``)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.policy = os.environ["WG_PREFIX"].split(".")[0]
        local_rank = self.rollout_rank % int(os.environ["RAY_LOCAL_WORLD_SIZE"])
        self.zmq_handle = f"{weight_socket(self.policy, self.replica_rank)}{local_rank}"
        # Set by the worker that holds the model: second names of tied weights, with their first ones.
        self.tied: Mapping[str, str] = {}
        self._only: int | None = None

    @contextmanager
    def only(self, replica: int) -> Iterator[None]:
        """Within, weights go to a new engine of this replica alone; the others may be playing."""
        self._only = replica
        if self.replica_rank == replica:
            self.server_handle = None
        try:
            yield
        finally:
            self._only = None

    @property
    def _is_left_alone(self) -> bool:
        return self._only not in (None, self.replica_rank)

    async def resume(self, tags: list[str]) -> None:
        if not self._is_left_alone:
            await super().resume(tags)

    async def update_weights(self, weights: Iterable[tuple[str, torch.Tensor]], *args: Any, **kwargs: Any) -> None:
        """verl's, without what the engine has no use for; a LoRA adapter is small and goes as it is."""
        is_adapter = kwargs.get("peft_config") is not None and kwargs.get("base_sync_done")
        if self._is_left_alone:
            # Sharded weights are put together by all ranks.
            for _ in weights:
                pass
            return
        needed = weights if is_adapter else needed_weights(weights, self.tied, engine_dtype(self.config.dtype))
        await super().update_weights(needed, *args, tied=dict(self.tied), **kwargs)

    def _get_server_name_prefix(self) -> str:
        return server_prefix(self.policy)


def engine_dtype(name: str) -> torch.dtype | None:
    """The type of a configuration's ``rollout.dtype``, None where vLLM chooses it."""
    return None if name == "auto" else PrecisionType.to_dtype(name)


def needed_weights(
    weights: Iterable[tuple[str, torch.Tensor]], tied: Collection[str], dtype: torch.dtype | None
) -> Iterator[tuple[str, torch.Tensor]]:
    """Each tied weight once, and matrices in the engine's type, to which loading would round them anyway.

    Some engines keep vectors, and the routers of mixtures of experts, in float32; they are small.
    """
    for name, weight in weights:
        if name in tied:
            continue
        is_matrix = name.endswith(".weight") and weight.ndim > 1 and weight.dtype == torch.float32
        if dtype is not None and is_matrix and not name.endswith(ROUTERS):
            weight = weight.to(dtype)
        yield name, weight
