"""vLLM replicas of one policy and the client that generates with them."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import ray
from omegaconf import DictConfig
from ray.exceptions import RayActorError, RayTaskError
from verl.single_controller.ray.base import split_resource_pool
from verl.workers.rollout.replica import TokenOutput
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
from workers.errors import EngineDiedError
from workers.naming import SOCKET_VARIABLE, policy_of_server, server_prefix, weight_socket

MAX_SESSIONS = 1_000_000


class PolicyServer(vLLMHttpServer):
    """verl's vLLM server with weight sockets named after its policy."""

    def __init__(self, *args: Any, replica_rank: int, **kwargs: Any) -> None:
        policy = policy_of_server(ray.get_runtime_context().get_actor_name())
        # Read by the extension in vLLM's worker processes, which inherit this environment.
        os.environ[SOCKET_VARIABLE] = weight_socket(policy, replica_rank)
        super().__init__(*args, replica_rank=replica_rank, **kwargs)

    def _get_worker_extension_cls(self) -> str:
        return "workers.vllm_extension.PolicyWorkerExtension"


class PolicyReplica(vLLMReplica):
    """One vLLM replica; its Ray names carry the policy's."""

    def __init__(self, policy: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, name_suffix=policy, **kwargs)
        # verl appends the suffix to server names too, where the prefix already says it.
        self.name_suffix = ""
        self.policy = policy
        self.server_class = ray.remote(PolicyServer)

    async def init_colocated(self, resource_pool: Any) -> None:
        self.name_suffix = f"_{self.policy}"
        try:
            await super().init_colocated(resource_pool)
        finally:
            self.name_suffix = ""

    def _get_server_name_prefix(self) -> str:
        return server_prefix(self.policy)


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
    """Token-in, token-out generation on a policy's replicas.

    A session stays on its replica, where the prefix cache holds its history; a new one goes to the least loaded.
    """

    def __init__(
        self, policy: str, servers: list[Any], tokenizer: Tokenizer, priorities: bool, context: int | None = None
    ) -> None:
        self.policy = policy
        self._context = context
        self._priorities = priorities
        self._servers = servers
        self._tokenizer = tokenizer
        self._in_flight = [0] * len(servers)
        self._sessions: OrderedDict[str, int] = OrderedDict()

    async def generate(self, prompt: Prompt, params: SamplingParams, session: str) -> Completion:
        """See :class:`longshort.generation.Generator`.

        Raises:
            EngineDiedError: the replica's process is gone.
            GenerationFailedError: the prompt fills the context.
        """
        prompt_ids = chat_ids(self._tokenizer, prompt) if isinstance(prompt, Chat) else prompt
        if self._context is not None and len(prompt_ids) >= self._context:
            reason = f"a prompt of {len(prompt_ids)} tokens leaves no room in a context of {self._context}"
            raise GenerationFailedError(f"engine {self.policy}", None, 0, reason)
        replica = self._route(session)
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
        self._in_flight[replica] += 1
        try:
            output: TokenOutput = await self._servers[replica].generate.remote(
                prompt_ids=list(prompt_ids),
                sampling_params=sampling,
                request_id=os.urandom(16).hex(),
                priority=params.priority if self._priorities else 0,
            )
        except RayActorError as error:
            raise EngineDiedError(self.policy, str(error).splitlines()[0]) from error
        except RayTaskError as error:
            if type(error.cause).__name__ != "EngineDeadError":
                raise
            raise EngineDiedError(self.policy, "vLLM's engine core ended") from error
        finally:
            self._in_flight[replica] -= 1
        if output.stop_reason == "aborted":
            raise EngineDiedError(self.policy, "it aborted a request")
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

    def _route(self, session: str) -> int:
        replica = self._sessions.pop(session, None)
        if replica is None:
            replica = min(range(len(self._servers)), key=self._in_flight.__getitem__)
        self._sessions[session] = replica
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return replica

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
