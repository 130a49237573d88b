"""The pair's tokenizer: one token per printable ASCII character or line end, one per protocol tag.

It is saved as plain ``tokenizer.json``, so ``AutoTokenizer`` and vLLM load it without code of ours. The tags are
ordinary added tokens: stop strings are looked for in detokenised text, where special tokens are missing.

**Chat template.** ``<|system|><|user|>QUESTION<|assistant|>``. The text of the system message is dropped and only its
marker kept: a prompt of a thousand characters would be a thousand tokens here, ten times the conversation. Each model
knows its role from its weights.
"""

from __future__ import annotations

import string

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

TAGS = ("<think>", "</think>", "<answer>", "</answer>", "</rethink>")
PAD, END, UNKNOWN = "<|pad|>", "<|end|>", "<unk>"
SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"

ALPHABET = "\n" + "".join(sorted(string.digits + string.ascii_letters + string.punctuation + " "))
MAX_LENGTH = 1024

CHAT_TEMPLATE = (
    f"{{{{- '{SYSTEM}' }}}}"
    "{%- for message in messages %}"
    f"{{%- if message['role'] == 'user' %}}{{{{- '{USER}' + message['content'] }}}}"
    f"{{%- elif message['role'] == 'assistant' %}}{{{{- '{ASSISTANT}' + message['content'] }}}}"
    "{%- endif %}"
    "{%- endfor %}"
    f"{{%- if add_generation_prompt %}}{{{{- '{ASSISTANT}' }}}}{{%- endif %}}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of both models; ids follow from this file alone.

    Text over ``ALPHABET`` and ``TAGS`` survives encoding and decoding unchanged. Any other character becomes ``<unk>``.
    """
    specials = (PAD, END, UNKNOWN, SYSTEM, USER, ASSISTANT)
    vocabulary = {token: index for index, token in enumerate((*specials, *TAGS, *ALPHABET))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    core.decoder = decoders.Fuse()
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    core.add_tokens([AddedToken(token, special=False, normalized=False) for token in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        extra_special_tokens=[SYSTEM, USER, ASSISTANT],
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=MAX_LENGTH,
        chat_template=CHAT_TEMPLATE,
    )


def render_prompt(question: str) -> str:
    """What the chat template makes of a system message and ``question``, up to the first turn."""
    return f"{SYSTEM}{USER}{question}{ASSISTANT}"
