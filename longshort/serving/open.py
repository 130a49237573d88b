"""From a pair to a server that answers, and back: engines, HTTP, SIGTERM."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from longshort.controller import Member, SynergyController
from longshort.display import Display
from longshort.generation import StreamingGenerator
from longshort.pair import Pair, read_pair
from longshort.serving.prompts import Prompts
from longshort.serving.server import Server
from longshort.serving.settings import ServingSettings, api_key

log = logging.getLogger(__name__)


class PolicyEngines(StreamingGenerator, Protocol):
    """The engines of a policy; ``alive``: how many of them can serve."""

    @property
    def alive(self) -> int: ...


@dataclass(frozen=True)
class OpenPair:
    """A pair whose engines are up.

    Attributes:
        restart: replaces the engines one after another while others serve, where there is a cluster.
    """

    pair: Pair
    controller: SynergyController
    prompts: Prompts
    engines: Mapping[str, PolicyEngines]
    restart: Callable[[], Awaitable[None]] | None = None

    def alive(self) -> dict[str, int]:
        """Per role, how many engines can serve."""
        return {role: engines.alive for role, engines in self.engines.items()}


@asynccontextmanager
async def open_pair(
    spec: Sequence[str],
    settings: ServingSettings,
    display: Display,
    restarted: Callable[[str], None] = lambda role: None,
) -> AsyncIterator[OpenPair]:
    """Read a pair and start its engines; on leaving, end them.

    Raises:
        ValueError: the pair or a setting cannot be served, in one sentence.
    """
    from workers.serving import configure_serving, device_here, engine_arguments

    display.stage("reading the pair")
    device = device_here() if settings.device == "auto" else settings.device
    configure_serving(device)
    pair, tokenizers = read_pair(spec, settings.max_model_len)
    roles = pair.protocol.roles
    if unknown := {*settings.replicas, *settings.max_replicas} - {*roles}:
        raise ValueError(f"replicas.{unknown.pop()} is no role of this pair; there are {', '.join(roles)}")
    more = {role: {**settings.engine, **getattr(settings, role, {})} for role in roles}
    if device == "cuda" and not settings.cluster:
        # All engines share the device unless they are told otherwise.
        share = round(0.9 / sum(settings.replicas.get(role, 1) for role in roles), 3)
        more = {role: {"gpu_memory_utilization": share, **own} for role, own in more.items()}
    arguments = {
        role: engine_arguments(pair.models[role], pair.contexts[role], pair.dtype[role], device, **more[role])
        for role in roles
    }
    display.stage("starting engines")
    prompts = Prompts(pair.protocol, tokenizers)
    start = _on_a_cluster if settings.cluster else _on_this_machine
    async with start(pair, settings, arguments, device, restarted) as (engines, restart):
        yield OpenPair(pair, controller_of(pair, tokenizers, engines), prompts, engines, restart)


Started = tuple[Mapping[str, PolicyEngines], Callable[[], Awaitable[None]] | None]


@asynccontextmanager
async def _on_this_machine(
    pair: Pair,
    settings: ServingSettings,
    arguments: Mapping[str, dict[str, Any]],
    device: str,
    restarted: Callable[[str], None],
) -> AsyncIterator[Started]:
    from workers.serving import Engines, VLLMEngine, start_engines, stop_engines

    engines = {
        role: Engines(role, [VLLMEngine(role, own, restarted) for _ in range(settings.replicas.get(role, 1))])
        for role, own in arguments.items()
    }
    await start_engines(engines, device)
    try:
        yield engines, None
    finally:
        await stop_engines(engines)


@asynccontextmanager
async def _on_a_cluster(
    pair: Pair,
    settings: ServingSettings,
    arguments: Mapping[str, dict[str, Any]],
    device: str,
    restarted: Callable[[str], None],
) -> AsyncIterator[Started]:
    from workers.replicas import Cluster

    least = {role: settings.replicas.get(role, 1) for role in arguments}
    scale = {role: (least[role], settings.max_replicas.get(role, least[role])) for role in arguments}
    cluster = Cluster(pair.name, arguments, scale, device, settings.drain_s)
    try:
        await cluster.start()
        yield cluster.engines, cluster.deploy
    finally:
        await cluster.stop()


def controller_of(
    pair: Pair, tokenizers: Mapping[str, Any], generators: Mapping[str, StreamingGenerator]
) -> SynergyController:
    """The controller that plays ``pair``, as in training."""
    members = {role: Member(generators[role], tokenizers[role], pair.contexts[role]) for role in pair.protocol.roles}
    return SynergyController(pair.protocol, members, pair.limits)


async def serve(spec: Sequence[str], settings: ServingSettings) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP; then finish what runs, and end.

    On a cluster SIGHUP replaces the engines instead.
    """
    key, loop = api_key(settings), asyncio.get_running_loop()
    ending, replacing = asyncio.Event(), asyncio.Event()
    servers: list[Server] = []

    def heed_signals() -> None:
        loop.add_signal_handler(signal.SIGHUP, (replacing if settings.cluster else ending).set)
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, ending.set)

    def restarted(role: str) -> None:
        for server in servers:
            server.metrics.restarts.labels(role).inc()

    heed_signals()
    with Display() as display:
        async with open_pair(spec, settings, display, restarted) as opened:
            # Ray has put its own handlers in their place.
            heed_signals()
            server = Server(opened.pair, opened.controller, opened.prompts, settings, key, opened.alive)
            servers.append(server)
            # Libraries and tokenizers stay, and requests leave few cycles: the collector has little to look for.
            gc.collect()
            gc.freeze()
            gc.set_threshold(50_000, 20, 20)
            async with listening(server, settings) as address:
                display.stage(f"serving {server.name} at {address}")
                await _until(ending, replacing, opened.restart)
                display.stage("finishing what runs")


async def _until(
    ending: asyncio.Event, replacing: asyncio.Event, restart: Callable[[], Awaitable[None]] | None
) -> None:
    """Wait for ``ending``; meanwhile restart each time that ``replacing`` is set."""

    async def replace() -> None:
        while restart is not None:
            await replacing.wait()
            replacing.clear()
            try:
                await restart()
            except ValueError:
                log.exception("the engines could not be replaced; those that run go on")

    task = asyncio.create_task(replace())
    await ending.wait()
    task.cancel()


@asynccontextmanager
async def listening(server: Server, settings: ServingSettings) -> AsyncIterator[str]:
    """Listen within, at the address that is yielded; on leaving, drain.

    Raises:
        ValueError: the address cannot be had.
    """
    # A client that goes away cancels its request's task.
    runner = web.AppRunner(server.app(), handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, settings.host, settings.port)
    try:
        await site.start()
    except OSError as error:
        await runner.cleanup()
        raise ValueError(
            f"host={settings.host} port={settings.port} cannot be listened on ({error.strerror}); choose another port"
        ) from error
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    finally:
        await server.drain(settings.drain_s)
        await runner.cleanup()
