"""The Ray actor of one policy: verl's actor, reference and rollout adapter in one process per device slot."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig
from verl.plugin.platform import get_platform
from verl.single_controller.base.decorator import Dispatch, register
from verl.workers.engine_workers import ActorRolloutRefWorker
from verl.workers.rollout import base as rollout_base

from workers import checkpoint

# verl looks its adapter up by this key; ours gives every policy names of its own.
ROLLOUT_KEY = ("vllm", "async")
ROLLOUT_ADAPTER = "workers.rollout_adapter.PolicyServerAdapter"


class PolicyWorker(ActorRolloutRefWorker):
    """verl's hybrid worker, with checkpoints that load without unpickling and a CPU that works like a GPU."""

    def __init__(self, config: DictConfig, role: str, **kwargs: Any) -> None:
        if get_platform().device_name == "cpu":
            from workers.cpu_engine import prepare_cpu_process

            prepare_cpu_process()
        rollout_base._ROLLOUT_REGISTRY[ROLLOUT_KEY] = ROLLOUT_ADAPTER
        super().__init__(config, role, **kwargs)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def save_policy(self, folder: str) -> None:
        """Write ``folder`` (see :mod:`workers.checkpoint`); every rank takes part."""
        checkpoint.save(self.actor.engine, folder)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def load_policy(self, folder: str) -> None:
        """Restore ``folder``, whatever the number of ranks that wrote it."""
        checkpoint.load(self.actor.engine, folder)
