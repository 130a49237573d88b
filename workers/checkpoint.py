"""A policy on disk, without pickles.

    folder/huggingface/   weights, configuration, tokenizer: what ``from_pretrained`` and ``vllm serve`` load as it is
    folder/state/         master weights and optimiser through ``torch.distributed.checkpoint``, as safetensors
    folder/trainer.json   optimiser settings, learning-rate schedule

Any number of ranks may load what another number saved.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from transformers import AutoModelForCausalLM, GenerationConfig

HUGGING_FACE = "huggingface"
STATE = "state"
SETTINGS = "trainer.json"
MODEL_PREFIX = "model."
OPTIONS = StateDictOptions(flatten_optimizer_state_dict=True, cpu_offload=True)


def save(engine: Any, folder: str) -> None:
    """Write the engine's policy into ``folder``; every rank calls it. Raises ``OSError`` where the disk refuses."""
    target = Path(folder)
    weights, _ = engine.get_per_tensor_param()
    # Gathering is collective, so every rank walks through the weights; only the first keeps them.
    gathered = {name: tensor.detach().cpu() for name, tensor in weights if dist.get_rank() == 0}
    if dist.get_rank() == 0:
        _save_hugging_face(engine, gathered, target / HUGGING_FACE)
    tensors, settings = _state(engine)
    (target / STATE).mkdir(parents=True, exist_ok=True)
    dcp.save(tensors, storage_writer=dcp.HuggingFaceStorageWriter(str(target / STATE), save_distributed=True))
    if dist.get_rank() == 0:
        schedule = {k: v for k, v in engine.lr_scheduler.state_dict().items() if isinstance(v, (int, float, list))}
        (target / SETTINGS).write_text(json.dumps({"optimizer": settings, "lr_scheduler": schedule}))
    dist.barrier()


def load(engine: Any, folder: str) -> None:
    """Restore weights, optimiser and learning-rate schedule in place; every rank calls it."""
    source = Path(folder)
    saved = json.loads((source / SETTINGS).read_text())
    if not engine.optimizer.state:
        _materialise_optimizer(engine)
    tensors, _ = _state(engine)
    dcp.load(tensors, storage_reader=dcp.HuggingFaceStorageReader(str(source / STATE)))
    weights = {k.removeprefix(MODEL_PREFIX): v for k, v in tensors.items() if k.startswith(MODEL_PREFIX)}
    optimizer = {k: v for k, v in tensors.items() if not k.startswith(MODEL_PREFIX)}
    # Tied weights are stored once.
    set_model_state_dict(engine.module, weights, options=StateDictOptions(strict=False))
    set_optimizer_state_dict(engine.module, engine.optimizer, {**optimizer, **saved["optimizer"]}, options=OPTIONS)
    engine.lr_scheduler.load_state_dict(saved["lr_scheduler"])
    dist.barrier()


def _state(engine: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Sharded tensors of model and optimiser, and the plain settings (learning rate, betas) that JSON holds."""
    model = _without_tied(get_model_state_dict(engine.module, options=StateDictOptions(cpu_offload=True)))
    optimizer = get_optimizer_state_dict(engine.module, engine.optimizer, options=OPTIONS)
    tensors = {f"{MODEL_PREFIX}{name}": value for name, value in model.items()}
    tensors |= {key: value for key, value in optimizer.items() if isinstance(value, torch.Tensor)}
    return tensors, {key: value for key, value in optimizer.items() if key not in tensors}


def _without_tied(weights: dict[str, Any]) -> dict[str, Any]:
    """One name for every storage; safetensors refuses two."""
    seen: set[int] = set()
    unique = {}
    for name, tensor in weights.items():
        local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        if local.numel() and local.data_ptr() in seen:
            continue
        seen.add(local.data_ptr())
        unique[name] = tensor
    return unique


def _materialise_optimizer(engine: Any) -> None:
    """Let the optimiser create its state, with a step that changes no weight."""
    rates = [group["lr"] for group in engine.optimizer.param_groups]
    for group in engine.optimizer.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    engine.optimizer.step()
    engine.optimizer.zero_grad()
    for group, rate in zip(engine.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _save_hugging_face(engine: Any, state: dict[str, torch.Tensor], folder: Path) -> None:
    model_config = engine.model_config
    dtype = getattr(torch, str(model_config.hf_config.dtype).removeprefix("torch."), torch.float32)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(model_config.hf_config)
    empty.save_pretrained(folder, state_dict={name: tensor.to(dtype) for name, tensor in state.items()})
    model_config.tokenizer.save_pretrained(folder)
    if isinstance(getattr(model_config, "generation_config", None), GenerationConfig):
        model_config.generation_config.save_pretrained(folder)
