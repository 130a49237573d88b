"""A policy on disk, without pickles.

    folder/huggingface/   weights, configuration, tokenizer: what ``from_pretrained`` and ``vllm serve`` load as it is
    folder/lora_adapter/  with LoRA, the adapter in the format of peft; ``huggingface`` has it merged in
    folder/state/         master weights and optimiser through ``torch.distributed.checkpoint``, as safetensors
    folder/trainer.json   optimiser settings, learning-rate schedule

Any number of ranks may load what another number saved.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from transformers import AutoModelForCausalLM, GenerationConfig
from verl.utils.fsdp_utils import collect_lora_params, merged_lora_context, normalize_peft_param_name

HUGGING_FACE = "huggingface"
LORA_ADAPTER = "lora_adapter"
STATE = "state"
SETTINGS = "trainer.json"
MODEL_PREFIX = "model."
OPTIONS = StateDictOptions(flatten_optimizer_state_dict=True, cpu_offload=True)


def save(engine: Any, folder: str) -> None:
    """Write the engine's policy into ``folder``; every rank calls it. Raises ``OSError`` where the disk refuses."""
    try:
        _save(engine, Path(folder))
    except (SafetensorError, CheckpointException) as error:
        # Neither says what the disk said but in its text.
        raise OSError(" ".join(str(error).split())[-300:]) from None


def _save(engine: Any, target: Path) -> None:
    # Gathering is collective, so every rank walks through the weights; only the first keeps them.
    gathered = {name: tensor for name, tensor in _whole_weights(engine) if dist.get_rank() == 0}
    if dist.get_rank() == 0:
        _save_hugging_face(engine, gathered, target / HUGGING_FACE)
    if _has_adapter(engine):
        adapter = collect_lora_params(engine.module, layered_summon=False, base_sync_done=True)
        if dist.get_rank() == 0:
            engine.module.peft_config["default"].save_pretrained(str(target / LORA_ADAPTER))
            save_file(dict(adapter), target / LORA_ADAPTER / "adapter_model.safetensors")
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
    optimizer = {k: v for k, v in tensors.items() if not k.startswith(MODEL_PREFIX)}
    _set_weights(engine, tensors)
    set_optimizer_state_dict(engine.module, engine.optimizer, {**optimizer, **saved["optimizer"]}, options=OPTIONS)
    engine.lr_scheduler.load_state_dict(saved["lr_scheduler"])
    dist.barrier()


def load_weights(engine: Any, folder: str) -> None:
    """Restore the weights in place and nothing else; every rank calls it."""
    tensors = _weights(engine)
    dcp.load(tensors, storage_reader=dcp.HuggingFaceStorageReader(str(Path(folder) / STATE)))
    _set_weights(engine, tensors)
    dist.barrier()


def _set_weights(engine: Any, tensors: dict[str, torch.Tensor]) -> None:
    weights = {k.removeprefix(MODEL_PREFIX): v for k, v in tensors.items() if k.startswith(MODEL_PREFIX)}
    # Frozen weights are those of the model the run began with.
    set_model_state_dict(engine.module, weights, options=StateDictOptions(strict=False))


def _weights(engine: Any) -> dict[str, torch.Tensor]:
    """Sharded tensors of what is trained, by first names, so that tied weights are stored once."""
    trained = {name for name, parameter in engine.module.named_parameters() if parameter.requires_grad}
    whole = get_model_state_dict(engine.module, options=StateDictOptions(cpu_offload=True))
    return {f"{MODEL_PREFIX}{name}": value for name, value in whole.items() if name in trained}


def _state(engine: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Sharded tensors of model and optimiser, and the plain settings (learning rate, betas) that JSON holds."""
    optimizer = get_optimizer_state_dict(engine.module, engine.optimizer, options=OPTIONS)
    tensors = _weights(engine)
    tensors |= {key: value for key, value in optimizer.items() if isinstance(value, torch.Tensor)}
    return tensors, {key: value for key, value in optimizer.items() if key not in tensors}


def _has_adapter(engine: Any) -> bool:
    return hasattr(engine.module, "peft_config")


def _whole_weights(engine: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Full weights under the names of the Hugging Face model, one after another, adapters merged in."""
    if not _has_adapter(engine):
        yield from ((name, tensor.detach().cpu()) for name, tensor in engine.get_per_tensor_param()[0])
        return
    with merged_lora_context(engine.module, backup_adapters=True):
        for name, tensor in normalize_peft_param_name(engine.module.state_dict()).items():
            whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
            # A copy, because leaving the context undoes the merge in place.
            yield name, whole.detach().cpu().clone()


def _materialise_optimizer(engine: Any) -> None:
    """Let the optimiser create its state, with a step that changes no weight."""
    rates = [group["lr"] for group in engine.optimizer.param_groups]
    for group in engine.optimizer.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            # Frozen ones have no state, as after a real step.
            if parameter.requires_grad:
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
