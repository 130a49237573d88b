"""A pair of random models that nothing has to be downloaded for: they differ in size and their tokenizers in merges."""

from __future__ import annotations

from pathlib import Path

import pytest

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


@pytest.fixture(scope="session")
def random_pair_settings(random_pair: dict[str, Path]) -> list[str]:
    """Overrides with which the random pair plays a small step: 16 short conversations with long prompts."""
    return [
        *[f"policies.{role}.model.path={path}" for role, path in random_pair.items()],
        "data.train_batch_size=4",
        "data.max_prompt_length=2048",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        "actor_rollout_ref.rollout.n=4",
        "actor_rollout_ref.rollout.max_model_len=3072",
        "team.max_turn_tokens.long=48",
        "team.max_turn_tokens.short=32",
        "team.max_episode_tokens=200",
        "team.max_turns=4",
    ]
