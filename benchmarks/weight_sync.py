"""How many bytes does a weight sync send? Bytes through verl's bucketed transfer over bytes of the model.

Three policies with a training worker and an engine each, random Qwen2 models whose embedding is most of them: tied to
the output layer, not tied, and tied with an engine in bfloat16 beside master weights in float32. The bytes are counted
in the training worker, at the socket on which verl's sender announces its buckets. The model's are its parameters, each
once, in the engine's type. A sync is the whole round trip: the engine has loaded the weights and dropped its caches.
``verl`` is the same with what verl sends by itself; the two take turns. ``sync_to_copy`` is the time of ours over that
of a plain copy of as many bytes.

    python -m benchmarks.weight_sync [--quick]

Prints JSON; exit code 1 where a target falls short.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from statistics import median
from types import MethodType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from longshort.config import build_config
from workers import team

# Largest sent / model bytes.
MOST = 1.1
VOCABULARY, HIDDEN, LAYERS = 32_000, 256, 4


@dataclass(frozen=True)
class Model:
    """``dtype`` is the engine's; the trainer's is float32."""

    tied: bool
    dtype: str

    @property
    def bytes_per_parameter(self) -> int:
        return {"float32": 4, "bfloat16": 2}[self.dtype]


MODELS = {
    "tied": Model(True, "float32"),
    "untied": Model(False, "float32"),
    "half": Model(True, "bfloat16"),
}


def write_model(folder: Path, tied: bool) -> None:
    """A random Qwen2 with the playground's tokenizer."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from longshort.playground.tokenizer import build_tokenizer

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HIDDEN // 32,
        num_key_value_heads=HIDDEN // 32,
        max_position_embeddings=1024,
        tie_word_embeddings=tied,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)


def make_config(root: Path) -> DictConfig:
    """The local recipe with a policy of each model; all of them learn."""
    composed = {
        name: build_config(
            "local", [f"policies.long.model.path={root / name}", f"policies.long.rollout.dtype={model.dtype}"]
        )
        for name, model in MODELS.items()
    }
    config = next(iter(composed.values()))
    OmegaConf.set_struct(config, False)
    config.policies = {name: each.policies.long for name, each in composed.items()}
    config.placement.n_gpus_per_node = dict.fromkeys(MODELS, 1)
    return config


def count_sent(worker: Any) -> None:
    """Run in a training worker: keeps the bytes of every bucket that verl's sender announces."""
    from verl.workers.rollout.vllm_rollout import vllm_rollout

    sent = worker.sent_bytes = []

    class CountingSocket:
        def __init__(self, socket: Any) -> None:
            self.socket = socket

        def __getattr__(self, name: str) -> Any:
            return getattr(self.socket, name)

        def send_pyobj(self, message: Any) -> Any:
            if "bucket_meta" in message:
                sent.append(sum(prod(one["shape"]) * one["dtype"].itemsize for one in message["bucket_meta"].values()))
            return self.socket.send_pyobj(message)

    class CountingSender(vllm_rollout.BucketedWeightSender):
        def _init_socket(self) -> None:
            super()._init_socket()
            self.socket = CountingSocket(self.socket)

    vllm_rollout.BucketedWeightSender = CountingSender


def send_as(adapter: str) -> Callable[[Any], None]:
    """To run in a training worker: let it send as ``ours`` or as ``verl`` from now on."""

    def switch(worker: Any) -> None:
        from verl.workers.rollout.vllm_rollout.vllm_rollout import ServerAdapter

        from workers.rollout_adapter import PolicyServerAdapter

        sender = {"ours": PolicyServerAdapter, "verl": ServerAdapter}[adapter]
        worker.rollout.update_weights = MethodType(sender.update_weights, worker.rollout)
        worker.sent_bytes.clear()

    return switch


def parameters(worker: Any) -> int:
    """Run in a training worker: numbers in the model, tied ones once."""
    return sum(parameter.numel() for parameter in worker.actor.engine.module.parameters())


def copy_seconds(count: int, rounds: int) -> float:
    """A plain copy of ``count`` bytes."""
    import torch

    source, target = torch.ones(count, dtype=torch.uint8), torch.zeros(count, dtype=torch.uint8)
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        target.copy_(source)
        seconds.append(time.perf_counter() - started)
    return median(seconds)


async def measure(name: str, policy: Any, rounds: int) -> dict[str, Any]:
    """One row of the result."""
    import ray

    (worker,) = policy._workers.workers

    def inside(function: Any) -> Any:
        return ray.get(worker.__ray_call__.remote(function))

    inside(count_sent)
    model = MODELS[name]
    model_bytes = inside(parameters) * model.bytes_per_parameter
    seconds: dict[str, list[float]] = {"ours": [], "verl": []}
    sent: dict[str, list[int]] = {"ours": [], "verl": []}
    for _ in range(rounds):
        for sender in ("ours", "verl"):
            inside(send_as(sender))
            started = time.perf_counter()
            await policy.sync_weights()
            seconds[sender].append(time.perf_counter() - started)
            sent[sender].append(sum(inside(lambda worker: worker.sent_bytes)))
    return {
        "tied": model.tied,
        "trainer_dtype": "float32",
        "engine_dtype": model.dtype,
        "model_mb": round(model_bytes / 1e6, 1),
        "sent_to_model_bytes": round(max(sent["ours"]) / model_bytes, 3),
        "verl_to_model_bytes": round(max(sent["verl"]) / model_bytes, 3),
        "rounds": rounds,
        "sync_s": round(median(seconds["ours"]), 3),
        "verl_to_sync_s": round(median(theirs / ours for ours, theirs in zip(*seconds.values(), strict=True)), 2),
        "sync_to_copy": round(median(seconds["ours"]) / copy_seconds(model_bytes, 9), 1),
    }


async def measure_all(rounds: int) -> list[dict[str, Any]]:
    team.configure_environment("cpu")
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as root:
        for name, model in MODELS.items():
            write_model(Path(root) / name, model.tied)
        config = make_config(Path(root))
        tokenizers = {name: AutoTokenizer.from_pretrained(Path(root) / name) for name in MODELS}
        team.start_ray(config)
        try:
            policies = await team.start_policies(config, list(MODELS), tokenizers)
            return [await measure(name, policy, rounds) for name, policy in policies.items()]
        finally:
            team.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    rows = asyncio.run(measure_all(3 if parser.parse_args().quick else 15))
    missed = {
        f"tied {row['tied']}, engine {row['engine_dtype']}": ["sent_to_model_bytes"]
        for row in rows
        if row["sent_to_model_bytes"] > MOST
    }
    sys.stdout.write(json.dumps({"rows": rows, "missed": missed}, indent=1) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
