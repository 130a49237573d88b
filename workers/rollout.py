"""vLLM replicas of one policy and the client that generates with them."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import psutil
import ray
from omegaconf import DictConfig
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from verl.single_controller.ray.base import split_resource_pool
from verl.workers.rollout.replica import TokenOutput
from verl.workers.rollout.vllm_rollout import vllm_async_server
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

from longshort.episode import Ids
from longshort.generation import (
    Chat,
    Completion,
    GenerationFailedError,
    Prompt,
    SamplingParams,
    Tokenizer,
    chat_ids,
    text_of,
    until_stop,
)
from longshort.threads import in_thread
from workers import stacks
from workers.engine_guard import EngineGuard
from workers.errors import EngineDiedError
from workers.naming import RAY_CALLS, SOCKET_VARIABLE, policy_of_server, server_prefix, weight_socket
from workers.node_processes import end_processes
from workers.routing import Router

# A killed server's name is free again after at most this many seconds.
RELEASED_S = 30.0
# Of an engine's server: a thread that answers while any number of turns is played.
CONTROL = "control"


class PolicyServer(vLLMHttpServer):
    """verl's vLLM server with weight sockets named after its policy."""

    def __init__(self, *args: Any, replica_rank: int, **kwargs: Any) -> None:
        policy = policy_of_server(ray.get_runtime_context().get_actor_name())
        # Read by the extension in vLLM's worker processes, which inherit this environment.
        os.environ[SOCKET_VARIABLE] = weight_socket(policy, replica_rank)
        super().__init__(*args, replica_rank=replica_rank, **kwargs)

    async def run_server(self, args: argparse.Namespace) -> None:
        # Turns come through Ray; vLLM's own server asks for no token, so it is for this node only.
        self._server_address = "127.0.0.1"
        await super().run_server(args)

    async def launch_server(self, *args: Any, **kwargs: Any) -> None:
        self._loop = asyncio.get_running_loop()
        stacks.register(ray.get_runtime_context().get_actor_name())
        # It would print the engine's arguments, with the keys among them.
        vllm_async_server.pprint = lambda *_: None
        await super().launch_server(*args, **kwargs)

    @ray.method(concurrency_group=CONTROL)
    async def ping(self, deep: bool) -> None:
        """Return while no death of the engine is known; ``deep``: once its core has answered."""
        # vLLM's client belongs to the loop that plays turns; that one has to answer too.
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._answer(deep), self._loop))

    async def _answer(self, deep: bool) -> None:
        await self.engine.check_health()
        # Its core answers nothing while it takes weights, but it is not stopped then.
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if child.status() == psutil.STATUS_STOPPED:
                    raise RuntimeError(f"process {child.pid} of the engine is stopped")
        if deep:
            await self.engine.is_sleeping()

    def _get_worker_extension_cls(self) -> str:
        return "workers.vllm_extension.PolicyWorkerExtension"


class PolicyReplica(vLLMReplica):
    """One vLLM replica; its Ray names carry the policy's."""

    servers: list[Any]

    def __init__(self, policy: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, name_suffix=policy, **kwargs)
        # verl appends the suffix to server names too, where the prefix already says it.
        self.name_suffix = ""
        self.policy = policy
        # A look at an engine that is busy taking weights must not keep the next ones waiting.
        self.server_class = ray.remote(concurrency_groups={CONTROL: 8})(PolicyServer)

    async def init_colocated(self, resource_pool: Any) -> None:
        self.name_suffix = f"_{self.policy}"
        try:
            await super().init_colocated(resource_pool)
        finally:
            self.name_suffix = ""

    async def ping(self, deep: bool, timeout_s: float) -> None:
        """See :class:`workers.engine_guard.GuardedEngine`."""
        asked = self.servers[0].ping.remote(deep)
        try:
            # In a thread, so that a driver that is busy with something else does not take that for the engine's delay.
            await in_thread(partial(ray.get, asked, timeout=timeout_s), f"{RAY_CALLS} ping")
        except GetTimeoutError as error:
            raise EngineDiedError(self.policy, f"it gave no answer within {timeout_s:g} s") from error
        except RayError as error:
            raise died(self.policy, error) from error

    async def relaunch(self) -> None:
        """End what is left of the servers and their engines, then start them as they were started first."""
        names = [f"{server_prefix(self.policy)}server_{self.replica_rank}_{node}" for node in range(self.nnodes)]
        self.kill()
        await in_thread(partial(end_processes, SOCKET_VARIABLE, [self.socket]), f"{RAY_CALLS} end of an engine")
        await asyncio.wait_for(_released(names), RELEASED_S)
        await self.launch_servers()

    @property
    def socket(self) -> str:
        """What its engine's processes are told apart by."""
        return weight_socket(self.policy, self.replica_rank)

    def kill(self) -> None:
        """End its servers; what they started is to be ended by :attr:`socket`."""
        for server in self.servers:
            ray.kill(server)
        self.servers = []

    def _get_server_name_prefix(self) -> str:
        return server_prefix(self.policy)


async def _released(names: Sequence[str]) -> None:
    while set(names) & set(ray.util.list_named_actors()):
        await asyncio.sleep(0.1)


def core_ended(error: RayError) -> bool:
    """Whether a server says that its engine's core is gone."""
    return isinstance(error, RayTaskError) and type(error.cause).__name__ == "EngineDeadError"


def died(policy: str, error: RayError) -> EngineDiedError:
    """What Ray says of a call to an engine's server, as the death of the engine."""
    if core_ended(error):
        return EngineDiedError(policy, "vLLM's engine core ended")
    return EngineDiedError(policy, one_line(error))


def in_constructor(error: RayError) -> bool:
    """Whether an actor's constructor raised, of which Ray keeps the text only."""
    return isinstance(error, RayActorError) and error.actor_init_failed


def one_line(error: RayError) -> str:
    """Of what a task raised, or of what Ray says; the last of the traceback where it was a constructor."""
    if in_constructor(error):
        return str(error).strip().splitlines()[-1]
    cause = error.cause if isinstance(error, RayTaskError) else error
    return (str(cause).strip() or "no message").splitlines()[0]


def make_replicas(policy: str, config: DictConfig, n_gpus_per_node: int, nnodes: int) -> list[PolicyReplica]:
    """As many replicas as the device slots hold at the configured parallel sizes."""
    rollout = config.rollout
    per_replica = rollout.tensor_model_parallel_size * rollout.data_parallel_size * rollout.pipeline_model_parallel_size
    return [
        PolicyReplica(
            policy,
            replica_rank=rank,
            config=rollout,
            model_config=config.model,
            gpus_per_node=n_gpus_per_node,
        )
        for rank in range(n_gpus_per_node * nnodes // per_replica)
    ]


class VLLMGenerator:
    """Token-in, token-out generation on a policy's replicas; a turn whose engine is lost is played again.

    Args:
        guard: of the replicas; knows which of them can serve.
        context: tokens that the model holds.
    """

    def __init__(
        self,
        policy: str,
        replicas: Sequence[PolicyReplica],
        guard: EngineGuard,
        tokenizer: Tokenizer,
        priorities: bool,
        context: int | None = None,
    ) -> None:
        self.policy = policy
        self._context = context
        self._priorities = priorities
        self._replicas = replicas
        self._tokenizer = tokenizer
        self._guard = guard
        self._router = Router(policy, len(replicas), guard.alive)

    async def generate(self, prompt: Prompt, params: SamplingParams, session: str) -> Completion:
        """See :class:`longshort.generation.Generator`.

        Raises:
            EngineDiedError: an engine is gone for good.
            GenerationFailedError: the prompt fills the context.
        """
        prompt_ids = chat_ids(self._tokenizer, prompt) if isinstance(prompt, Chat) else prompt
        if self._context is not None and len(prompt_ids) >= self._context:
            reason = f"a prompt of {len(prompt_ids)} tokens leaves no room in a context of {self._context}"
            raise GenerationFailedError(f"engine {self.policy}", None, 0, reason)
        sampling: dict[str, Any] = {
            "max_tokens": params.max_tokens,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "top_k": params.top_k,
            "seed": params.seed,
            "logprobs": True,
            # A tag that is a special token must still be seen by the stop strings.
            "skip_special_tokens": False,
            # By default the server would put together and wake up for an output after every token.
            "output_kind": RequestOutputKind.FINAL_ONLY,
        }
        if params.stop:
            sampling |= {"stop": list(params.stop), "include_stop_str_in_output": True}
        if params.json_schema is not None:
            sampling["structured_outputs"] = StructuredOutputsParams(json=dict(params.json_schema))
        output = await self._played(prompt_ids, sampling, params.priority if self._priorities else 0, session)
        ids, log_probs = tuple(output.token_ids), tuple(output.log_probs or ())
        assert len(log_probs) == len(ids), f"engine {self.policy!r} gave {len(log_probs)} log-probs for {len(ids)} ids"
        completion = Completion(
            token_ids=ids,
            log_probs=log_probs,
            finish_reason="length" if self._was_cut(len(prompt_ids), ids, params) else "stop",
            cached_tokens=output.extra_fields.get("num_cached_tokens"),
            prompt_tokens=len(prompt_ids),
        )
        if isinstance(prompt, Chat):
            return replace(completion, text=until_stop(text_of(completion, self._tokenizer), params.stop))
        return completion

    async def _played(self, prompt: Ids, sampling: Mapping[str, Any], priority: int, session: str) -> TokenOutput:
        while True:
            await self._guard.available()
            with self._router.engine_for(session) as number, self._guard.turn(number):
                server = self._replicas[number].server_handle
                try:
                    output: TokenOutput = await server.generate.remote(
                        prompt_ids=list(prompt),
                        sampling_params=dict(sampling),
                        request_id=os.urandom(16).hex(),
                        priority=priority,
                    )
                except RayActorError as error:
                    raise died(self.policy, error) from error
                except RayTaskError as error:
                    if not core_ended(error):
                        raise
                    raise died(self.policy, error) from error
                if output.stop_reason == "aborted":
                    raise EngineDiedError(self.policy, "it aborted a request")
                return output

    def _was_cut(self, prompt: int, ids: Ids, params: SamplingParams) -> bool:
        # verl reports "completed" for both a stop and the cap, which it lowers to what the context has left; only a
        # turn at its cap can have been cut.
        room = params.max_tokens if self._context is None else min(params.max_tokens, self._context - prompt)
        if len(ids) < room or ids[-1] == self._tokenizer.eos_token_id:
            return False
        tail = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return not any(stop in tail for stop in params.stop)


async def launch(replicas: list[PolicyReplica], worker_group: Any = None, resource_pool: Any = None) -> None:
    """Start the engines: fused with a trainable policy's workers, else colocated in a frozen policy's pool."""
    if worker_group is not None:
        await asyncio.gather(*[replica.init_hybrid(worker_group) for replica in replicas])
        return
    # Each replica takes its share of the slots; verl would give it all of them.
    shares = split_resource_pool(resource_pool, replicas[0].world_size)
    await asyncio.gather(*[r.init_colocated(share) for r, share in zip(replicas, shares, strict=True)])
