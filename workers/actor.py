"""The Ray actor of one policy: verl's actor, reference and rollout adapter in one process per device slot."""

from __future__ import annotations

import os
from typing import Any

from omegaconf import DictConfig
from tensordict import TensorDict
from verl.plugin.platform import get_platform
from verl.single_controller.base.decorator import Dispatch, make_nd_compute_dataproto_dispatch_fn, register
from verl.utils.device import get_torch_device
from verl.workers.engine_workers import ActorRolloutRefWorker
from verl.workers.rollout import base as rollout_base

from workers import checkpoint, process_group, renewal, stacks

# verl looks its adapter up by this key; ours gives every policy names of its own.
ROLLOUT_KEY = ("vllm", "async")
ROLLOUT_ADAPTER = "workers.rollout_adapter.PolicyServerAdapter"


class PolicyWorker(ActorRolloutRefWorker):
    """verl's hybrid worker, with checkpoints that load without unpickling and a CPU that works like a GPU."""

    def __init__(self, config: DictConfig, role: str, **kwargs: Any) -> None:
        device = get_platform().device_name
        if device == "cpu":
            from workers.cpu_engine import prepare_cpu_process

            prepare_cpu_process()
        process_group.join(device)
        rollout_base._ROLLOUT_REGISTRY[ROLLOUT_KEY] = ROLLOUT_ADAPTER
        super().__init__(config, role, **kwargs)
        stacks.register(f"trainer {os.environ['WG_PREFIX'].split('.')[0]} {self.rank}")

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self) -> None:
        super().init_model()
        if self.rollout is None:
            return
        parameters = self.actor.engine.module.named_parameters
        # Without repetition a tied weight comes under its first name only.
        first = {id(parameter): name for name, parameter in parameters()}
        named = {name: first[id(parameter)] for name, parameter in parameters(remove_duplicate=False)}
        self.rollout.tied = {name: original for name, original in named.items() if name != original}

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def update_actor(self, data: TensorDict) -> TensorDict:
        """verl's update, after which the device has back what it took beside weights and optimiser.

        torch would keep it cached, out of reach of another policy's trainer or engine on the same device.
        """
        output = super().update_actor(data)
        get_torch_device().empty_cache()
        return output

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def save_policy(self, folder: str) -> None:
        """Write ``folder`` (see :mod:`workers.checkpoint`); every rank takes part."""
        checkpoint.save(self.actor.engine, folder)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def load_policy(self, folder: str) -> None:
        """Restore ``folder``, whatever the number of ranks that wrote it."""
        checkpoint.load(self.actor.engine, folder)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def load_weights(self, folder: str) -> None:
        """Restore the weights of ``folder`` alone."""
        checkpoint.load_weights(self.actor.engine, folder)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL, blocking=False)
    async def update_weights_of(self, replica: int) -> None:
        """Send the weights to a replica whose engine is new; every rank takes part."""
        # A new engine has no adapter yet, and no base model below it where it did not load one.
        self.base_sync_done = "dummy" not in self.config.rollout.load_format
        with self.rollout.only(replica):
            await self.update_weights()

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def begin_round(self, optim: DictConfig, carry: list[str]) -> None:
        """A new optimiser with its schedule, and the present weights as reference, but for what is carried on."""
        if "optimizer" not in carry:
            renewal.renew_optimizer(self.actor.engine, optim)
        if "reference" not in carry and getattr(self, "ref", None) is not None:
            renewal.copy_weights(self.actor.engine, self.ref.engine)
