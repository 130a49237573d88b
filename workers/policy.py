"""One policy of a team: its worker group (actor, reference), its vLLM replicas, and the calls between them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ray
from omegaconf import DictConfig, OmegaConf
from ray.exceptions import RayError, RayTaskError
from tensordict import TensorDict
from verl.single_controller.ray import RayClassWithInitArgs, RayResourcePool, RayWorkerGroup
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_name

from longshort.episode import View
from longshort.generation import Tokenizer
from longshort.policy import Sample, TokenScores
from longshort.threads import in_thread
from workers import rollout
from workers.actor import PolicyWorker
from workers.batch import filler_view, pad_to_multiple, response_rows, sample_batch, view_batch
from workers.engine_guard import EngineGuard, FaultLimits
from workers.errors import EngineNotStartedError, WorkerDiedError, WorkerRaisedError
from workers.naming import RAY_CALLS, SOCKET_VARIABLE, logs_folder
from workers.node_processes import end_processes

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class RayPolicy:
    """Implements :class:`longshort.policy.Policy` on Ray actors.

    Args:
        name: role in the team, e.g. ``"long"``.
        config: the policy's ``actor_rollout_ref`` root, resolved.
        pool: device slots.
        trainable: False for a partner that is fixed for the whole run, which holds no optimiser.
        shares_devices: whether other policies use the same slots.
        limits: what its engines may take until they are taken for lost.
        beat: called whenever something came to its end here.
    """

    def __init__(
        self,
        name: str,
        config: DictConfig,
        pool: RayResourcePool,
        tokenizer: Tokenizer,
        trainable: bool,
        shares_devices: bool = False,
        limits: FaultLimits | None = None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.config = config
        self.trainable = trainable
        self._learns = trainable
        self.tokenizer = tokenizer
        self._pool = pool
        self._shares_devices = shares_devices
        self._limits = limits or FaultLimits()
        self._beat = beat
        self._asleep = False
        # Ranks that take part in one call must not find another between them.
        self._calls = asyncio.Lock()
        self._workers: RayWorkerGroup | None = None
        if not trainable:
            # No actor brings its weights.
            config = OmegaConf.create({**config, "rollout": {**config.rollout, "load_format": "auto"}})
        self._replicas = rollout.make_replicas(name, config, pool.store[0], len(pool.store))
        self._uses_reference = trainable and bool(config.actor.use_kl_loss)
        # With LoRA the reference is the actor without its adapter.
        self._is_lora = config.model.lora_rank > 0
        self.generator: rollout.VLLMGenerator
        self._guard: EngineGuard | None = None

    async def start_workers(self, generates: bool = True) -> None:
        """Create the training workers and load their weights; a frozen policy has none.

        ``generates``: whether engines will follow, which the workers then send their weights to.

        Raises:
            WorkerDiedError: one of them ended.
            WorkerRaisedError: one of them raised an error.
        """
        if not self.trainable:
            return
        role = "actor_rollout" if generates else "actor"
        if self._uses_reference and not self._is_lora:
            assert generates, "a reference belongs to reinforcement learning"
            role = "actor_rollout_ref"
        created = RayClassWithInitArgs(ray.remote(PolicyWorker), config=self.config, role=role)
        self._workers = await self._ask(
            lambda: RayWorkerGroup(
                resource_pool=self._pool,
                ray_cls_with_init=created,
                name_prefix=self.name,
                device_name=get_device_name(),
            )
        )
        await self._call("init_model")

    async def start_engines(self) -> None:
        """Launch the vLLM replicas, and let them sleep until they get their weights, where they share devices.

        Raises:
            EngineNotStartedError: vLLM refuses, or its process ended.
        """
        try:
            await rollout.launch(self._replicas, self._workers, self._pool)
        except RayError as error:
            log.error("%s", error)
            raise EngineNotStartedError(
                self.name, f"{_reason(error)}; what it wrote is in {logs_folder()} of its node"
            ) from error
        self._guard = EngineGuard(self.name, self._replicas, self._limits, self._restart_engine, self._beat)
        settings = self.config.rollout
        self.generator = rollout.VLLMGenerator(
            self.name,
            self._replicas,
            self.guard,
            self.tokenizer,
            settings.scheduling_policy == "priority",
            settings.max_model_len,
        )
        await self.sleep()

    @property
    def guard(self) -> EngineGuard:
        """Of the engines, once they are started."""
        assert self._guard is not None, f"policy {self.name} has no engines"
        return self._guard

    @property
    def engine_restarts(self) -> int:
        return self.guard.restarts

    def close(self) -> None:
        """End what takes part in calls that nobody waits for any more, and engines that hang; the rest is Ray's."""
        if self._guard is not None:
            self._guard.close()
        for worker in self._workers.workers if self._workers is not None else ():
            ray.kill(worker)
        if self._guard is not None and self._guard.lost:
            for replica in self._replicas:
                replica.kill()
            end_processes(SOCKET_VARIABLE, [replica.socket for replica in self._replicas])

    async def _restart_engine(self, number: int) -> None:
        if self._asleep:
            raise RuntimeError("training has its memory")
        replica = self._replicas[number]
        await replica.relaunch()
        if self.trainable:
            # The sender expects it as it is after training, where engines sleep.
            await replica.sleep()
            await self._call("update_weights_of", number)

    async def score(self, views: Sequence[View]) -> TokenScores:
        batch = self._inference_batch(views, calculate_entropy=True)
        output = await self._call("compute_log_prob", batch)
        rows = response_rows(tu.get(output, "log_probs"), batch)
        entropy = response_rows(tu.get(output, "entropy"), batch)
        return TokenScores(rows[: len(views)], entropy[: len(views)])

    async def reference_scores(self, views: Sequence[View]) -> TokenScores | None:
        if not self._uses_reference:
            return None
        batch = self._inference_batch(views, calculate_entropy=False, no_lora_adapter=self._is_lora)
        output = await self._call("compute_log_prob" if self._is_lora else "compute_ref_log_prob", batch)
        return TokenScores(response_rows(tu.get(output, "log_probs"), batch)[: len(views)])

    async def update(self, samples: Sequence[Sample]) -> Mapping[str, float]:
        actor = self.config.actor
        # verl counts mini-batches in prompts; each has rollout.n episodes. Where a role never spoke, fillers keep that
        # number, so sequence means divide by the episodes played and token means by the tokens trained.
        mini_batch = actor.ppo_mini_batch_size * self.config.rollout.n
        padded = pad_to_multiple(samples, mini_batch)
        batch = sample_batch(
            padded,
            **self._settings(),
            calculate_entropy=actor.entropy_coeff != 0.0,
            global_batch_size=mini_batch,
            mini_batch_size=mini_batch,
            epochs=actor.ppo_epochs,
            seed=actor.data_loader_seed,
            dataloader_kwargs={"shuffle": actor.shuffle},
            compute_loss=True,
        )
        output = await self._call("update_actor", batch)
        return {name: _mean(value) for name, value in tu.get(output, "metrics").items()}

    async def sync_weights(self) -> None:
        await self.guard.together(lambda: self._call("update_weights"))
        self._asleep = False

    async def begin_round(self, learns: bool, optim: Mapping[str, Any], carry: Collection[str]) -> None:
        assert self.trainable or not learns, f"policy {self.name} is frozen"
        self._learns = learns
        if learns:
            await self._call("begin_round", OmegaConf.create(dict(optim)), list(carry))

    @property
    def _sleeps(self) -> bool:
        # The engine of one that does not learn, on devices of its own, has nobody to make room for.
        return bool(self.config.rollout.free_cache_engine) and (self._learns or self._shares_devices)

    async def sleep(self) -> None:
        if self._sleeps:
            await self.guard.together(lambda: asyncio.gather(*[replica.sleep() for replica in self._replicas]))
            self._asleep = True

    async def wake_up(self) -> None:
        """Undo :meth:`sleep`; engines of a policy with workers get their weights from them."""
        if not self._sleeps or self._learns:
            return
        if self.trainable:
            await self.sync_weights()
        else:
            await self.guard.together(lambda: asyncio.gather(*[replica.wake_up() for replica in self._replicas]))
            self._asleep = False

    async def save(self, folder: Path) -> None:
        await self._call("save_policy", str(folder))

    async def load(self, folder: Path) -> None:
        await self._call("load_policy", str(folder))

    async def load_weights(self, folder: Path) -> None:
        await self._call("load_weights", str(folder))

    def _inference_batch(self, views: Sequence[View], **settings: Any) -> TensorDict:
        rows = [*views, *[filler_view(views[0])] * (-len(views) % self._pool.world_size)]
        return view_batch(rows, **self._settings(), **settings, compute_loss=False)

    def _settings(self) -> dict[str, Any]:
        return {
            "temperature": self.config.rollout.temperature,
            "pad_token_id": getattr(self.tokenizer, "pad_token_id", None) or 0,
        }

    async def _call(self, method: str, *args: Any) -> Any:
        """Run a worker-group method without blocking other coroutines."""
        assert self._workers is not None, f"policy {self.name} is frozen"
        async with self._calls:
            output = await self._ask(lambda: _get(getattr(self._workers, method), *args))
        self._beat()
        return output

    async def _ask(self, call: Callable[[], Result]) -> Result:
        try:
            return await in_thread(call, f"{RAY_CALLS} calls of {self.name}")
        except RayError as error:
            if isinstance(error, RayTaskError) and isinstance(error.cause, OSError):
                raise  # who saves or loads has an answer to it
            if isinstance(error, RayTaskError) or rollout.in_constructor(error):
                log.error("%s", error)
                raise WorkerRaisedError(self.name, _reason(error)) from error
            raise WorkerDiedError(self.name, _reason(error)) from error


def _reason(error: RayError) -> str:
    """In one line; of a task, with the type of what it raised."""
    line = rollout.one_line(error)
    return f"{type(error.cause).__name__}: {line}" if isinstance(error, RayTaskError) else line


def _get(method: Any, *args: Any) -> Any:
    output = method(*args)
    # verl returns futures from its non-blocking methods.
    if isinstance(output, list) and all(isinstance(each, ray.ObjectRef) for each in output):
        return ray.get(output)
    return output.get() if hasattr(output, "get") and not isinstance(output, TensorDict) else output


def _mean(value: Any) -> float:
    """verl reports a metric as a number, or as one number per mini-batch."""
    if isinstance(value, list):
        return sum(_mean(item) for item in value) / max(len(value), 1)
    return float(value)
