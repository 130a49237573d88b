"""A policy on disk, without pickles.

    folder/huggingface/   weights, configuration, tokenizer: what ``from_pretrained`` and ``vllm serve`` load as it is
    folder/optimizer/     optimiser tensors through ``torch.distributed.checkpoint`` in its safetensors format
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
from safetensors.torch import load_file
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

HUGGING_FACE = "huggingface"
OPTIMIZER = "optimizer"
STATE = "trainer.json"
OPTIONS = StateDictOptions(flatten_optimizer_state_dict=True, cpu_offload=True)


def save(engine: Any, folder: str) -> None:
    """Write the engine's policy into ``folder``; every rank calls it. Raises ``OSError`` where the disk refuses."""
    target = Path(folder)
    weights, _ = engine.get_per_tensor_param()
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in weights}
    if dist.get_rank() == 0:
        _save_hugging_face(engine, state, target / HUGGING_FACE)
    tensors, settings = _split(get_optimizer_state_dict(engine.module, engine.optimizer, options=OPTIONS))
    (target / OPTIMIZER).mkdir(parents=True, exist_ok=True)
    dcp.save(tensors, storage_writer=dcp.HuggingFaceStorageWriter(str(target / OPTIMIZER), save_distributed=True))
    if dist.get_rank() == 0:
        schedule = {k: v for k, v in engine.lr_scheduler.state_dict().items() if isinstance(v, (int, float, list))}
        (target / STATE).write_text(json.dumps({"optimizer": settings, "lr_scheduler": schedule}))
    dist.barrier()


def load(engine: Any, folder: str) -> None:
    """Restore weights, optimiser and learning-rate schedule in place; every rank calls it."""
    source = Path(folder)
    saved = json.loads((source / STATE).read_text())
    state: dict[str, torch.Tensor] = {}
    for shard in sorted((source / HUGGING_FACE).glob("*.safetensors")):
        state.update(load_file(shard))
    # Tied weights are stored once.
    options = StateDictOptions(full_state_dict=True, strict=False)
    missing = set_model_state_dict(engine.module, state, options=options)
    assert not missing.unexpected_keys, f"{folder} holds weights that the model has not: {missing.unexpected_keys[:3]}"
    tensors, _ = _split(get_optimizer_state_dict(engine.module, engine.optimizer, options=OPTIONS))
    if not tensors:
        _materialise_optimizer(engine)
        tensors, _ = _split(get_optimizer_state_dict(engine.module, engine.optimizer, options=OPTIONS))
    dcp.load(tensors, storage_reader=dcp.HuggingFaceStorageReader(str(source / OPTIMIZER)))
    set_optimizer_state_dict(engine.module, engine.optimizer, {**tensors, **saved["optimizer"]}, options=OPTIONS)
    engine.lr_scheduler.load_state_dict(saved["lr_scheduler"])
    dist.barrier()


def _split(state: dict[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors, and the plain settings (learning rate, betas) that JSON holds."""
    tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    return tensors, {key: value for key, value in state.items() if key not in tensors}


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
    folder.mkdir(parents=True, exist_ok=True)
    from transformers import AutoModelForCausalLM, GenerationConfig

    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(model_config.hf_config)
    empty.save_pretrained(folder, state_dict=state, safe_serialization=True)
    model_config.tokenizer.save_pretrained(folder)
    if isinstance(getattr(model_config, "generation_config", None), GenerationConfig):
        model_config.generation_config.save_pretrained(folder)
