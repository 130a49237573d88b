"""Training the playground's models from scratch on documents, on the CPU."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from longshort.playground.corpus import Document
from longshort.playground.tokenizer import END, MAX_LENGTH, PAD, render_prompt

# Heads have 32 dimensions, the smallest that vLLM's CPU attention takes.
SIZES = {
    "base": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4},
    "small_base": {"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": 3},
}
BUCKETS = 16


@dataclass(frozen=True, slots=True)
class Example:
    """One document: its ids, and whether each of them is to be learned."""

    ids: tuple[int, ...]
    own: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is trained: AdamW, ``warm_up`` steps to the peak learning rate, then half a cosine to its 50th."""

    steps: int
    batch: int = 32
    peak: float = 2e-3
    warm_up: int = 100
    seed: int = 0


def new_model(name: str, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """An untrained model; ``name`` is one of ``SIZES``."""
    torch.manual_seed(seed)
    size = SIZES[name]
    config = LlamaConfig(
        **size,
        num_key_value_heads=size["num_attention_heads"],
        vocab_size=len(tokenizer),
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids(END),
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
    )
    return LlamaForCausalLM(config)


def examples_of(documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast) -> list[Example]:
    """Prompt, what is given, what is learned, and the end."""
    given = _encode([render_prompt(document.question) + document.given for document in documents], tokenizer)
    learned = _encode([document.text + END for document in documents], tokenizer)
    return [
        Example((*before, *after), (False,) * len(before) + (True,) * len(after))
        for before, after in zip(given, learned, strict=True)
    ]


def train(
    model: LlamaForCausalLM,
    examples: Sequence[Example],
    recipe: Recipe,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> float:
    """Train in place and return the mean loss of the last 50 steps (nats per learned token).

    ``on_step`` gets the number of finished steps and the loss. Equal arguments give equal weights on one machine with
    one number of threads.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.peak, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    schedule = LambdaLR(optimizer, lambda step: _rate(step, recipe))
    tokens = recipe.batch * sum(sum(example.own) for example in examples) / len(examples)
    losses: list[float] = []
    model.train()
    for ids, own in itertools.islice(_batches(examples, recipe), recipe.steps):
        hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[own[:, 1:]])
        # Batches are sorted by length: a mean per batch would give the tokens of short documents more weight.
        loss = torch.nn.functional.cross_entropy(logits, ids[:, 1:][own[:, 1:]], reduction="sum") / tokens
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        on_step(len(losses), losses[-1])
    model.eval()
    tail = losses[-50:]
    return sum(tail) / len(tail)


def _encode(texts: list[str], tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.backend_tokenizer.encode_batch(texts)]


def _rate(step: int, recipe: Recipe) -> float:
    """Share of the peak learning rate."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / recipe.steps)))
    return min(1.0, (step + 1) / recipe.warm_up) * (0.02 + 0.98 * cosine)


def _batches(examples: Sequence[Example], recipe: Recipe) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Ids and own-token flags, both ``[batch, length]``, padded on the right, forever.

    A causal model's real tokens do not see what is right of them, so no attention mask is needed.
    """
    rng = random.Random(recipe.seed)
    order = list(range(len(examples)))
    window = recipe.batch * BUCKETS
    while True:
        rng.shuffle(order)
        for start in range(0, len(order), window):
            # Sorted within the window, so that little is padding; shuffled again, so that lengths do not come in order.
            chosen = sorted(order[start : start + window], key=lambda i: len(examples[i].ids))
            cuts = [chosen[i : i + recipe.batch] for i in range(0, len(chosen), recipe.batch)]
            rng.shuffle(cuts)
            for cut in cuts:
                ids = [torch.tensor(examples[i].ids) for i in cut]
                own = [torch.tensor(examples[i].own) for i in cut]
                pad = torch.nn.utils.rnn.pad_sequence
                yield pad(ids, batch_first=True), pad(own, batch_first=True)
