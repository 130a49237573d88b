"""What a run reads of a model before it starts anything: tokenizer, context length, whether there are weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from longshort.controller import render_prompt
from longshort.protocol import TAGS, Protocol

WEIGHTS = ("*.safetensors", "*.bin")


def read_tokenizer(model: DictConfig, key: str) -> Any:
    """The tokenizer of ``model``, verl's settings of a model; ``key`` is their place in the configuration.

    Raises:
        ValueError: there is none, or it has no chat template.
    """
    from transformers import AutoTokenizer

    path = model.tokenizer_path or model.path
    if path is None:
        raise ValueError(f"{key}.path is not set; give a folder or a name on the hub")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=model.trust_remote_code)
    except (OSError, ValueError) as error:
        raise ValueError(f"{key}.path={path} has no tokenizer: {' '.join(str(error).split())}") from error
    if model.custom_chat_template:
        tokenizer.chat_template = model.custom_chat_template
    if not tokenizer.chat_template:
        raise ValueError(f"the tokenizer of {key}.path={path} has no chat template; set {key}.custom_chat_template")
    return tokenizer


def load_tokenizer(policy: DictConfig, name: str, protocol: Protocol) -> Any:
    """The tokenizer of policy ``name``, with a chat template that leaves the opening tag to the model.

    Raises:
        ValueError: there is none, or it cannot serve.
    """
    key = f"policies.{name}.model"
    tokenizer = read_tokenizer(policy.model, key)
    if (opened := opened_turn(tokenizer, name, protocol)) is not None:
        raise ValueError(
            f"the chat template of {key}.path={policy.model.path} writes the model's opening tag itself, as in "
            f"{opened[-20:]!r}, so no turn could be well formed; set {key}.custom_chat_template"
        )
    return tokenizer


def opened_turn(tokenizer: Any, role: str, protocol: Protocol) -> str | None:
    """A prompt whose end is a tag that the chat template writes in the model's place, or None where it does not."""
    opened = str(tokenizer.decode(render_prompt(protocol, role, tokenizer, "1+1=?"))).rstrip()
    return opened if opened.endswith(TAGS) and not protocol.ends_itself(role) else None


def context_length(config: DictConfig, name: str) -> int:
    """Tokens that a policy's context holds: ``rollout.max_model_len``, or the model's own where that is null.

    Raises:
        ValueError: a folder is no model or has no weights, or the model's context is too short.
    """
    from transformers import AutoConfig

    policy, needed = config.policies[name], config.data.max_prompt_length + config.team.max_episode_tokens
    folder = Path(policy.model.path).expanduser()
    if folder.is_dir() and not any(found for pattern in WEIGHTS for found in folder.glob(pattern)):
        raise ValueError(
            f"policies.{name}.model.path={policy.model.path} holds no weights ({' or '.join(WEIGHTS)}); "
            "give the folder that does"
        )
    try:
        model = AutoConfig.from_pretrained(policy.model.path, trust_remote_code=policy.model.trust_remote_code)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"policies.{name}.model.path={policy.model.path} is no model: {' '.join(str(error).split())}"
        ) from error
    own = int(getattr(model.get_text_config(), "max_position_embeddings", None) or needed)
    wanted = int(policy.rollout.max_model_len or own)
    if wanted > own or wanted < needed:
        raise ValueError(
            f"policies.{name} needs a context of {max(needed, wanted)} tokens (data.max_prompt_length + "
            f"team.max_episode_tokens, or rollout.max_model_len), but model.path={policy.model.path} holds {own}; "
            "lower those or choose another model"
        )
    return wanted
