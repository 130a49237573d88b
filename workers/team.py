"""Start Ray and the policies of a team, and take them down again."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import ray
from omegaconf import DictConfig

from longshort.generation import Tokenizer
from longshort.threads import in_thread
from workers.engine_guard import FaultLimits
from workers.head_watch import HeadWatch
from workers.naming import RAY_CALLS, ray_folder
from workers.nodes import require_shared

if TYPE_CHECKING:
    from workers.policy import RayPolicy
    from workers.rollout import VLLMGenerator
    from workers.watchdog import Watchdog

MODULES = "VERL_USE_EXTERNAL_MODULES"
PROJECT = Path(__file__).resolve().parents[1]
# What calls to processes that were ended may take to notice.
DRAIN_S = 5.0
# What looks after the processes that this one has on Ray, until they are taken down.
_watches = ExitStack()


def configure_environment(device: str) -> None:
    """Set what verl and vLLM read from the environment at import; call before importing either."""
    if device == "cpu":
        from workers.cpu_environment import CPU_ENVIRONMENT

        os.environ.update({**CPU_ENVIRONMENT, MODULES: _modules(CPU_ENVIRONMENT[MODULES])})
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


def _modules(own: str) -> str:
    """Ours first, then the user's, each once."""
    return ",".join(dict.fromkeys([own, *filter(None, os.environ.get(MODULES, "").split(","))]))


def joins_a_cluster() -> bool:
    """Whether ``RAY_ADDRESS`` names one."""
    return bool(os.environ.get("RAY_ADDRESS"))


def start_ray(config: DictConfig, slots: int | None = None) -> None:
    """Join the cluster of ``RAY_ADDRESS`` or start a local one, bound to loopback.

    ``slots``: device slots of a local one; by default what ``placement`` asks for.

    Raises:
        ValueError: the cluster does not answer.
    """
    device = config.trainer.device
    variables = {"TOKENIZERS_PARALLELISM": "false", "VLLM_LOGGING_LEVEL": os.environ["VLLM_LOGGING_LEVEL"]}
    if device == "cpu":
        from workers.cpu_environment import CPU_ENVIRONMENT

        # One thread a process: the engines of both policies run beside each other, then their trainers.
        variables |= {**CPU_ENVIRONMENT, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    if modules := os.environ.get(MODULES):
        variables[MODULES] = modules
    # Workers import the packages from here where they are not installed.
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    runtime_env = {"env_vars": variables}
    if joins_a_cluster():
        # A job that was submitted has an environment of its own; ours is added, and stands where both name a variable.
        os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
        with _own_signals():
            try:
                ray.init(runtime_env=runtime_env, log_to_driver=config.trainer.log_to_driver)
            except ConnectionError as error:
                raise ValueError(
                    f"RAY_ADDRESS={os.environ['RAY_ADDRESS']} does not answer; start the cluster (`ray start --head`), "
                    "or unset RAY_ADDRESS for a Ray of the run's own"
                ) from error
        _watch_head()
        return
    if slots is None:
        from workers.placement import device_slots

        slots = device_slots(config.placement.mode, config.placement.n_gpus_per_node.values())
    # CPUs are only counted: every process on a device takes one, however few the machine has.
    local = {"num_cpus": max(8 * len(config.policies) * slots, os.cpu_count() or 1)}
    if device == "cpu":
        local["num_gpus"] = slots
    # Processes of one node need no network card to meet.
    for name in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"):
        variables.setdefault(name, os.environ.get(name, "lo"))
    # Ray would take an empty one for a cluster that it has to look for.
    os.environ.pop("RAY_ADDRESS", None)
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        # Ray's own would be a file in the home folder that others may read. It stays: Ray reads it once a process.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    with _own_signals(), _on_loopback():
        ray.init(
            address="local",
            runtime_env=runtime_env,
            include_dashboard=False,
            log_to_driver=config.trainer.log_to_driver,
            _temp_dir=str(ray_folder()),
            object_store_memory=config.trainer.object_store_bytes,
            **local,
        )
    _watch_head()


def _watch_head() -> None:
    context = ray.get_runtime_context()
    node = next(each for each in ray.nodes() if each["NodeID"] == context.get_node_id())
    address = f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}"
    _watches.callback(HeadWatch(context.gcs_address, address).close)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray answers SIGTERM by leaving at once, without taking engines down; who had set a handler keeps it."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Ray's servers listen on the node's address, and it replaces 127.0.0.1 by that of a network card."""
    from ray._private import ray_constants

    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


async def start_policies(
    config: DictConfig,
    trained: Sequence[str],
    tokenizers: dict[str, Tokenizer],
    progress: Callable[[str], None] = lambda stage: None,
) -> dict[str, RayPolicy]:
    """Workers of all policies first, then their engines.

    Engines on different devices start beside each other; on shared GPUs one after another, because vLLM measures free
    memory while it starts.
    """
    progress("waiting for devices")
    policies = await _make_policies(config, list(config.policies), trained, tokenizers, _watch(config).beat)
    progress("starting training workers")
    await asyncio.gather(*[policy.start_workers() for policy in policies.values()])
    progress("starting rollout engines")
    if config.placement.mode == "colocated" and config.trainer.device != "cpu":
        for policy in policies.values():
            await policy.start_engines()
    else:
        await asyncio.gather(*[policy.start_engines() for policy in policies.values()])
    for policy in policies.values():
        await policy.wake_up()
        if policy.trainable:
            await policy.sync_weights()
    return policies


async def start_learners(
    config: DictConfig,
    trained: Sequence[str],
    tokenizers: dict[str, Tokenizer],
    progress: Callable[[str], None] = lambda stage: None,
) -> dict[str, RayPolicy]:
    """Policies that only learn: training workers, no engines."""
    progress("waiting for devices")
    policies = await _make_policies(config, trained, trained, tokenizers, _watch(config).beat)
    progress("starting training workers")
    await asyncio.gather(*[policy.start_workers(generates=False) for policy in policies.values()])
    return policies


async def start_model(config: DictConfig, name: str, tokenizer: Tokenizer) -> VLLMGenerator:
    """Start Ray and a model that only generates: as many replicas as the devices of all nodes hold."""
    from workers.placement import make_pools
    from workers.policy import RayPolicy

    slots, nnodes = config.trainer.n_gpus_per_node, config.trainer.nnodes
    start_ray(config, slots)
    pools = await in_thread(partial(make_pools, [name], "split", {name: slots}, nnodes), RAY_CALLS)
    model = RayPolicy(name, config.models[name], pools[name], tokenizer, trainable=False, limits=_limits(config))
    _watches.callback(model.close)
    await model.start_engines()
    return model.generator


async def _make_policies(
    config: DictConfig,
    names: Sequence[str],
    trained: Sequence[str],
    tokenizers: dict[str, Tokenizer],
    beat: Callable[[], None] = lambda: None,
) -> dict[str, RayPolicy]:
    from workers.placement import make_pools
    from workers.policy import RayPolicy

    if trained and joins_a_cluster():
        await in_thread(partial(require_shared, Path(config.trainer.default_local_dir)), RAY_CALLS)
    slots = {name: config.placement.n_gpus_per_node[name] for name in names}
    # Another run may have the devices for hours; who ends this one meanwhile is heard.
    reserve = partial(make_pools, list(names), config.placement.mode, slots, config.trainer.nnodes)
    pools = await in_thread(reserve, RAY_CALLS)
    policies = {
        name: RayPolicy(
            name,
            config.policies[name],
            pools[name],
            tokenizers[name],
            trainable=name in trained,
            shares_devices=config.placement.mode == "colocated",
            limits=_limits(config),
            beat=beat,
        )
        for name in names
    }
    for policy in policies.values():
        _watches.callback(policy.close)
    return policies


def _limits(config: DictConfig) -> FaultLimits:
    return FaultLimits(**{field.name: config.faults[field.name] for field in fields(FaultLimits)})


def _watch(config: DictConfig) -> Watchdog:
    from workers.watchdog import Watchdog

    watchdog = Watchdog(config.faults.stall_s, Path(config.trainer.default_local_dir) / "stalls")
    _watches.callback(watchdog.close)
    return watchdog


def stop() -> None:
    """Leave the cluster; a local one ends with all its processes."""
    # What still waits for Ray would wait for ever once it is left.
    with suppress(Exception):
        _watches.close()
    deadline = time.monotonic() + DRAIN_S
    for thread in threading.enumerate():
        if thread.name.startswith(RAY_CALLS):
            thread.join(max(0.0, deadline - time.monotonic()))
    with suppress(Exception):
        ray.shutdown()
