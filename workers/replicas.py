"""A pair's engines as deployments of Ray Serve: each policy scales on its own, on one node or many.

Ray Serve starts, stops and replaces replicas; requests reach them through its handles, without its HTTP proxy. A
session goes to the replica that its name hashes to, where the prefix cache holds its history.

Concurrency: a request is an asynchronous generator in its replica. Its caller consumes pieces as they come; a caller
that goes away cancels it, and with it the engine's request. A replica that is replaced finishes its requests first, and
what finds none running waits for one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter
from ray.serve.schema import LoggingConfig

from longshort.episode import Ids
from longshort.generation import Completion, OnText, Prompt, SamplingParams
from workers.errors import EngineDiedError
from workers.serving import VLLMEngine, configure_serving
from workers.team import joins_a_cluster, start_ray, stop

# Requests that a replica takes at a time, beyond those that its engine works on at once.
MOST_REQUESTS = 1024
# Requests in flight that a replica should have, where replicas scale.
WANTED_REQUESTS = 64
# Replicas that a turn is tried on.
ATTEMPTS = 3
# Seconds between two looks at how many replicas there are.
LOOK = 1.0
OBJECT_STORE_BYTES = 200_000_000


@dataclass(frozen=True, slots=True)
class Piece:
    """What was sampled since the last one."""

    text: str
    ids: Ids


class EngineDeployment:
    """One engine in a process of Ray Serve's."""

    async def __init__(self, policy: str, arguments: Mapping[str, Any], device: str) -> None:  # type: ignore[misc]
        configure_serving(device)
        self._engine = VLLMEngine(policy, arguments)
        await self._engine.start()

    async def stream(self, prompt: Ids, params: SamplingParams, live: bool) -> AsyncIterator[Piece | Completion]:
        """Pieces, if ``live``, and then the completion."""
        heard: asyncio.Queue[str | None] = asyncio.Queue()
        sampled: list[int] = []
        told = 0

        def hear(text: str, tokens: int) -> None:
            heard.put_nowait(text)

        task = asyncio.create_task(self._engine.stream(prompt, params, hear if live else None, sampled))
        task.add_done_callback(lambda task: heard.put_nowait(None))
        try:
            over = False
            while not over:
                texts = [await heard.get()]
                # All that has come meanwhile is one message.
                while not heard.empty():
                    texts.append(heard.get_nowait())
                over = texts[-1] is None
                if live and len(sampled) > told:
                    yield Piece("".join(text for text in texts if text), tuple(sampled[told:]))
                    told = len(sampled)
            yield task.result()
        finally:
            task.cancel()

    async def __del__(self) -> None:
        await self._engine.stop()


class ServeEngines:
    """All replicas of a policy, behind :class:`longshort.generation.StreamingGenerator`.

    A turn whose replica dies is gone on with by another one, from the tokens that it has.

    Attributes:
        alive: how many replicas run.
    """

    def __init__(self, policy: str, handle: Any) -> None:
        self.policy = policy
        self.alive = 0
        self._handle = handle

    async def generate(self, prompt: Prompt, params: SamplingParams, session: str) -> Completion:
        """See :class:`longshort.generation.Generator`."""
        return await self._serve(prompt, params, session, None)

    async def stream(self, prompt: Prompt, params: SamplingParams, session: str, on_text: OnText) -> Completion:
        """See :class:`longshort.generation.StreamingGenerator`.

        Raises:
            EngineDiedError: as many replicas as are tried died over it.
        """
        return await self._serve(prompt, params, session, on_text)

    async def _serve(self, prompt: Prompt, params: SamplingParams, session: str, on_text: OnText | None) -> Completion:
        assert isinstance(prompt, tuple), "serving renders chats itself"
        ids: Ids = ()
        failure: Exception | None = None
        for attempt in range(ATTEMPTS):
            # Under another name it is another replica's.
            handle = self._handle.options(
                stream=True, method_name="stream", session_id=f"{session}#{attempt}" if attempt else session
            )
            rest = replace(params, max_tokens=params.max_tokens - len(ids))
            if rest.max_tokens < 1:
                break
            sampled: list[int] = []
            parts = handle.remote(prompt + ids, rest, on_text is not None)
            try:
                async for part in parts:
                    if isinstance(part, Completion):
                        return replace(part, token_ids=ids + part.token_ids, prompt_tokens=len(prompt))
                    assert on_text is not None, "pieces come where somebody listens"
                    sampled += part.ids
                    on_text(part.text, len(part.ids))
            except asyncio.CancelledError:
                parts.cancel()
                raise
            except (RayError, EngineDiedError) as error:
                failure, ids = error, ids + tuple(sampled)
        reason = str(failure).strip().splitlines()[-1] if str(failure).strip() else "it ended"
        raise EngineDiedError(self.policy, reason) from failure


class Cluster:
    """The deployments of a pair.

    Args:
        name: of the pair; a second server of the same name uses the same deployments.
        arguments: per role, of vLLM's engine.
        scale: per role, fewest and most replicas.
        device: of the engines.
        drain_s: seconds that a replica has for its requests when it is replaced.
    """

    def __init__(
        self,
        name: str,
        arguments: Mapping[str, Mapping[str, Any]],
        scale: Mapping[str, tuple[int, int]],
        device: str,
        drain_s: float,
    ) -> None:
        self._name = name
        self._arguments = arguments
        self._scale = scale
        self._device = device
        self._drain_s = drain_s
        self._watcher: asyncio.Task[None] | None = None
        self.engines: dict[str, ServeEngines] = {}

    async def start(self) -> None:
        """Join the cluster of ``RAY_ADDRESS`` or start a local one, and wait until every replica runs.

        Raises:
            ValueError: a deployment does not start.
        """
        # In the main thread, where Ray sets its handlers of signals.
        self._join()
        await self.deploy()
        self._watcher = asyncio.create_task(self._watch())

    async def deploy(self) -> None:
        """Start the replicas, or replace them one after another while the others serve."""
        handles = await asyncio.to_thread(self._run)
        for role, handle in zip(self._arguments, handles, strict=True):
            self.engines.setdefault(role, ServeEngines(role, handle))
        await self._count()

    async def stop(self) -> None:
        """Take the deployments down, and a local cluster with them."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        # A local cluster ends with all that it runs.
        if joins_a_cluster():
            with suppress(Exception):  # a cluster that is gone has nothing to take down
                for role in self._arguments:
                    await asyncio.to_thread(serve.delete, self._application(role))
        await asyncio.to_thread(stop)

    def _join(self) -> None:
        start_ray(_ray_config(self._device, self._arguments), slots=sum(most for _, most in self._scale.values()))
        serve.start(proxy_location="Disabled", logging_config=LoggingConfig(log_level="ERROR"))

    def _application(self, role: str) -> str:
        return f"{self._name}-{role}"

    def _run(self) -> list[Any]:
        """Handles of the deployments, once all of them run."""
        try:
            return serve.run_many(
                [
                    serve.RunTarget(self._deployment(role), name=self._application(role), route_prefix=None)
                    for role in self._arguments
                ]
            )
        except RuntimeError as error:
            raise ValueError(f"the replicas do not start: {' '.join(str(error).split())[:300]}") from error

    def _deployment(self, role: str) -> Any:
        least, most = self._scale[role]
        arguments = dict(self._arguments[role])
        devices = int(arguments.get("tensor_parallel_size", 1)) * int(arguments.get("pipeline_parallel_size", 1))
        scaling: dict[str, Any] = {"num_replicas": least}
        if most > least:
            scaling = {
                "autoscaling_config": AutoscalingConfig(
                    min_replicas=least, max_replicas=most, target_ongoing_requests=WANTED_REQUESTS
                )
            }
        deployment = serve.deployment(
            EngineDeployment,
            name=role,
            max_ongoing_requests=MOST_REQUESTS,
            ray_actor_options={"num_cpus": 1, "num_gpus": 0 if self._device == "cpu" else devices},
            request_router_config=RequestRouterConfig(request_router_class=ConsistentHashRouter),
            graceful_shutdown_timeout_s=self._drain_s,
            logging_config=LoggingConfig(log_level="ERROR"),
            **scaling,
        )
        return deployment.bind(role, arguments, self._device)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            await self._count()

    async def _count(self) -> None:
        try:
            applications = (await asyncio.to_thread(serve.status)).applications
        except Exception:  # whatever it is, it runs nothing that is known of
            applications = {}
        for role, engines in self.engines.items():
            found = applications.get(self._application(role))
            states = {} if found is None else found.deployments[role].replica_states
            engines.alive = sum(count for state, count in states.items() if str(state).endswith("RUNNING"))


def _ray_config(device: str, roles: Iterable[str]) -> DictConfig:
    """What :func:`workers.team.start_ray` reads of a recipe."""
    trainer = {"device": device, "log_to_driver": False, "object_store_bytes": OBJECT_STORE_BYTES}
    return OmegaConf.create({"trainer": trainer, "policies": {role: {} for role in roles}})
