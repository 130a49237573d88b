"""From a pair to a server that answers, and back: engines, HTTP, SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from longshort.controller import Member, SynergyController
from longshort.display import Display
from longshort.pair import Pair, read_pair
from longshort.serving.prompts import Prompts
from longshort.serving.server import Server
from longshort.serving.settings import ServingSettings, api_key

if TYPE_CHECKING:
    from workers.serving import Engines

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenPair:
    """A pair whose engines are up."""

    pair: Pair
    controller: SynergyController
    prompts: Prompts
    engines: dict[str, Engines]

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
    from workers.serving import (
        Engines,
        VLLMEngine,
        configure_serving,
        device_here,
        engine_arguments,
        start_engines,
        stop_engines,
    )

    display.stage("reading the pair")
    device = device_here() if settings.device == "auto" else settings.device
    configure_serving(device)
    pair, tokenizers = read_pair(spec, settings.max_model_len)
    if unknown := set(settings.replicas) - set(pair.protocol.roles):
        raise ValueError(
            f"replicas.{unknown.pop()} is no role of this pair; there are {', '.join(pair.protocol.roles)}"
        )
    shares = sum(settings.replicas.get(role, 1) for role in pair.protocol.roles)

    def arguments(role: str) -> dict[str, Any]:
        more = {**settings.engine, **getattr(settings, role, {})}
        if device == "cuda":
            # All engines share the device unless they are told otherwise.
            more = {"gpu_memory_utilization": round(0.9 / shares, 3), **more}
        return engine_arguments(pair.models[role], pair.contexts[role], pair.dtype[role], device, **more)

    engines = {
        role: Engines(
            role, [VLLMEngine(role, arguments(role), restarted) for _ in range(settings.replicas.get(role, 1))]
        )
        for role in pair.protocol.roles
    }
    display.stage("starting engines")
    await start_engines(engines, device)
    try:
        yield OpenPair(pair, controller_of(pair, tokenizers, engines), Prompts(pair.protocol, tokenizers), engines)
    finally:
        await stop_engines(engines)


def controller_of(pair: Pair, tokenizers: dict[str, Any], generators: dict[str, Any]) -> SynergyController:
    """The controller that plays ``pair``, as in training."""
    members = {role: Member(generators[role], tokenizers[role], pair.contexts[role]) for role in pair.protocol.roles}
    return SynergyController(pair.protocol, members, pair.limits)


async def serve(spec: Sequence[str], settings: ServingSettings) -> None:
    """Serve until SIGTERM or SIGINT; then finish what runs, and end."""
    key = api_key(settings)
    going = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, going.set)
    servers: list[Server] = []

    def restarted(role: str) -> None:
        for server in servers:
            server.metrics.restarts.labels(role).inc()

    with Display() as display:
        async with open_pair(spec, settings, display, restarted) as opened:
            server = Server(opened.pair, opened.controller, opened.prompts, settings, key, opened.alive)
            servers.append(server)
            async with listening(server, settings) as address:
                display.stage(f"serving {server.name} at {address}")
                await going.wait()
                display.stage("finishing what runs")


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
