"""How much memory one policy takes on one GPU: an estimate from the model's configuration and the recipe.

P is the number of parameters, N the ranks that FSDP2 shards them over, b the bytes of a type. In bytes of one GPU:

    weights       P b(model_dtype) / N                  master weights of the trainer (verl's `fsdp_config.model_dtype`)
    gradients     the same, of what is trained          FSDP2 keeps them in the type of the sharded parameter
    optimiser     twice that                            AdamW's two moments have the type of the parameter
    gathered      (first and last layer + 2 blocks) b(param_dtype)   FSDP2 gathers one unit and prefetches the next
    activations   per token, with T = ppo_max_token_len_per_gpu tokens in a micro-batch:
                  with gradient checkpointing the input of every block (h b), and one block's own; without, all blocks'.
                  A block's own follows arXiv 2205.05198, section 4.1, without attention scores (flash attention, sdpa)
                  and for a gated MLP and grouped queries: (4 h + 2 a + 2 k + 4 i) b + 8 h, with h the hidden size, a
                  and k the width of all query and all key heads, i that of the MLP; 8 h for two norms in fp32
    logits        T V (b + 8)                           logits, their log-softmax in fp32 and its gradient
    engine        P b(rollout.dtype) / (tensor x pipeline parallel size)     weights of vLLM
    KV cache      2 L k b a token / (tensor x pipeline parallel size)        what vLLM has left of its share

Left out: CUDA contexts, NCCL's buffers, CUDA graphs and fragmentation; they are the margin that a fit has to leave.
Weights, gradients and optimiser are exact, activations and logits are upper estimates to about a third.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

BYTES = {"fp32": 4, "float32": 4, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2, "half": 2, "auto": 2, "fp8": 1}
ADAM_MOMENTS = 2
# Of a model with adapters, the layers that verl leaves without one.
WITHOUT_ADAPTER = ("lm_head", "embed_tokens")


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the estimate needs of a model.

    Attributes:
        parameters: all of them; tied ones count once.
        outer: those outside the blocks, tied ones once.
        block: those of the largest block.
        linear: sum over the linear layers of the blocks of inputs + outputs, for adapters.
        layers, hidden, mlp, query, key, vocabulary: widths, ``query`` and ``key`` of all heads together.
        key_heads: tensor parallel engines divide keys by no more.
    """

    parameters: int
    outer: int
    block: int
    linear: int
    layers: int
    hidden: int
    mlp: int
    query: int
    key: int
    key_heads: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Training:
    """Bytes of the trainer of one policy on one GPU.

    Attributes:
        offloaded: weights and optimiser are in the host's memory while the policy does not learn.
        saved: what a checkpoint has to resume from, of all GPUs together.
    """

    weights: float
    gradients: float
    optimizer: float
    gathered: float
    activations: float
    logits: float
    offloaded: bool = False
    saved: float = 0.0

    @property
    def resting(self) -> float:
        """While it does not learn."""
        return 0.0 if self.offloaded else self.weights + self.optimizer

    @property
    def peak(self) -> float:
        """While it learns."""
        return self.weights + self.gradients + self.optimizer + self.gathered + self.activations + self.logits


@dataclass(frozen=True, slots=True)
class Engine:
    """Bytes of a rollout engine of one policy on one GPU.

    Attributes:
        weights: of the model.
        cache_a_token: of the KV cache, for one token.
        share: of the GPU's memory that vLLM takes; None where the cache has a size of its own, ``cache``.
        sleeps: it gives its memory back while a policy learns.
        longest: tokens of the longest sequence, which the cache must hold.
        at_once: sequences that it plays beside each other at most.
    """

    weights: float
    cache_a_token: float
    share: float | None
    cache: float
    sleeps: bool
    longest: int
    at_once: int

    def taken(self, gpu: float) -> float:
        """Of a GPU with ``gpu`` bytes."""
        return self.weights + self.cache if self.share is None else self.share * gpu

    def cache_on(self, gpu: float) -> float:
        """What is left for the KV cache; below 0 where not even the weights fit."""
        return self.taken(gpu) - self.weights


def read_sizes(model: DictConfig) -> Sizes:
    """Of the model that verl's ``model`` names; reads its configuration and makes it without memory."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model.path, trust_remote_code=model.trust_remote_code)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config, trust_remote_code=model.trust_remote_code)
    return sizes_of(empty, config.get_text_config())


def sizes_of(model: Any, config: Any) -> Sizes:
    """Of a torch model, on any device, and its configuration."""
    from torch import nn

    blocks = max((each for each in model.modules() if isinstance(each, nn.ModuleList)), key=_parameters)
    linear = sum(m.in_features + m.out_features for m in blocks.modules() if isinstance(m, nn.Linear))
    heads = config.num_attention_heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    return Sizes(
        parameters=_parameters(model),
        outer=_parameters(model) - _parameters(blocks),
        block=max(_parameters(block) for block in blocks),
        linear=linear,
        layers=len(blocks),
        hidden=config.hidden_size,
        mlp=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        query=heads * head,
        key=key_heads * head,
        key_heads=key_heads,
        vocabulary=config.vocab_size,
    )


def training(policy: DictConfig, sizes: Sizes, ranks: int) -> Training:
    """Of a policy that learns on ``ranks`` GPUs."""
    actor = policy.actor
    fsdp = actor.fsdp_config
    shards = ranks if fsdp.fsdp_size < 1 else min(fsdp.fsdp_size, ranks)
    mixed = fsdp.get("mixed_precision") or {}
    master, computing = BYTES[str(fsdp.model_dtype or "fp32")], BYTES[str(mixed.get("param_dtype") or "bf16")]
    rank = policy.model.lora_rank
    trained = rank * sizes.linear if rank else sizes.parameters
    parameters = sizes.parameters + (trained if rank else 0)
    tokens = _tokens(policy)
    own = block_activations(sizes, computing)
    kept = (
        (sizes.layers * sizes.hidden * computing + own)
        if policy.model.enable_gradient_checkpointing
        else (sizes.layers * own)
    )
    # verl's offload_policy keeps all of it with the host all the time.
    on_gpu = 0 if fsdp.offload_policy else 1
    return Training(
        weights=on_gpu * parameters * master / shards,
        gradients=on_gpu * trained * master / shards,
        optimizer=on_gpu * ADAM_MOMENTS * trained * master / shards,
        gathered=(sizes.outer + 2 * sizes.block) * computing if shards > 1 or computing != master else 0,
        activations=tokens * kept,
        logits=0 if policy.model.use_fused_kernels else tokens * sizes.vocabulary * (computing + 8),
        offloaded=bool(fsdp.param_offload and fsdp.optimizer_offload),
        saved=(1 + ADAM_MOMENTS) * trained * master,
    )


def engine(policy: DictConfig, sizes: Sizes, device: str, may_sleep: bool) -> Engine:
    """Of a policy's rollout engine; ``may_sleep``: it learns, or shares its GPUs with one that does."""
    rollout = policy.rollout
    width = BYTES[str(rollout.dtype)]
    tensor, stages = rollout.tensor_model_parallel_size, rollout.pipeline_model_parallel_size
    key = sizes.key / min(tensor, sizes.key_heads)
    own = ((rollout.get("engine_kwargs") or {}).get("vllm") or {}).get("kv_cache_memory_bytes")
    return Engine(
        weights=sizes.parameters * width / (tensor * stages),
        cache_a_token=2 * sizes.layers / stages * key * width,
        share=None if own or device == "cpu" else rollout.gpu_memory_utilization,
        cache=float(own or 0),
        sleeps=bool(rollout.free_cache_engine) and may_sleep,
        longest=int(rollout.max_model_len or rollout.prompt_length + rollout.response_length),
        at_once=rollout.max_num_seqs,
    )


def block_activations(sizes: Sizes, width: int) -> float:
    """Bytes a token that one block keeps for its backward pass."""
    return (4 * sizes.hidden + 2 * sizes.query + 2 * sizes.key + 4 * sizes.mlp) * width + 8 * sizes.hidden


def _tokens(policy: DictConfig) -> int:
    actor = policy.actor
    if actor.use_dynamic_bsz:
        return int(actor.ppo_max_token_len_per_gpu)
    longest = policy.rollout.max_model_len or policy.rollout.prompt_length + policy.rollout.response_length
    return int(actor.ppo_micro_batch_size_per_gpu * longest / actor.ulysses_sequence_parallel_size)


def _parameters(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
