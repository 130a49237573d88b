"""Shared stack: one local Ray with both policies' workers and engines, started once for all tests of a module.

The pair is random, its models differ in size and its byte-level BPE tokenizers in merges: nothing is downloaded.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from longshort.config import build_config
from longshort.display import Display
from longshort.run import Run

SHARED = Path(os.environ.get("LONGSHORT_SHARED", Path(__file__).parents[3] / "shared"))
MATH500 = SHARED / "data" / "benchmarks" / "math500.json"
TEXTS = {
    "long": ["Let $x$ be the number. Then \\frac{1}{2} + x = 3 and the answer is \\boxed{5/2}."] * 4,
    "short": ["Wait, therefore we get twelve apples; so 3 * 4 = 12 <answer> think </answer>"] * 4,
}
SIZES = {"long": (64, 2), "short": (32, 1)}
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_random_model(folder: Path, role: str) -> Path:
    """A random Qwen2 with a byte-level BPE tokenizer of its own, as a Hugging Face folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>", "<|pad|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(TEXTS[role], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|pad|>")
    tokenizer.chat_template = CHAT_TEMPLATE
    hidden, layers = SIZES[role]
    torch.manual_seed(len(role))
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 32,
        max_position_embeddings=4096,
        tie_word_embeddings=role == "short",
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def random_pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pair")
    return {role: make_random_model(root / role, role) for role in ("long", "short")}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def run(random_pair: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Run]:
    """A run that trains both policies on real mathematics, with every engine up."""
    from longshort.assembly import open_run

    problems = [str(MATH500)] if MATH500.is_file() else ["playground:train:64:0"]
    config = build_config(
        "local",
        [
            *[f"policies.{role}.model.path={path}" for role, path in random_pair.items()],
            f"data.train_files={problems}",
            "data.val_files=[]",
            "data.train_batch_size=4",
            "data.max_prompt_length=2048",
            "actor_rollout_ref.actor.ppo_mini_batch_size=4",
            "actor_rollout_ref.actor.use_kl_loss=true",
            "actor_rollout_ref.rollout.n=4",
            "actor_rollout_ref.rollout.max_model_len=3072",
            "team.max_turn_tokens.long=48",
            "team.max_turn_tokens.short=32",
            "team.max_episode_tokens=200",
            "team.max_turns=4",
            f"trainer.default_local_dir={tmp_path_factory.mktemp('run')}",
        ],
    )
    with Display() as display:
        async with open_run(config, display) as opened:
            yield opened
