"""What a run reads of a model before it starts anything: tokenizer, context length, whether there are weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from longshort.controller import render_prompt
from longshort.protocol import TAGS, Protocol

WEIGHTS = "*.safetensors"
# Loading one may run code that it carries.
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})


def refuse_pickles(model: DictConfig | Mapping[str, str], key: str) -> None:
    """Raise ``ValueError`` where a folder that ``model`` names holds pickles, or its copy of the hub nothing else."""
    for setting in ("path", "tokenizer_path", "lora_adapter_path"):
        path = model.get(setting)
        if not path:
            continue
        folder = Path(path).expanduser()
        if not folder.is_dir():
            # A repository often has both forms, and then its pickles are not read.
            folder = _of_the_hub(str(path))
            if any(folder.glob(WEIGHTS)):
                continue
        pickles = sorted(file.name for file in folder.glob("*") if file.suffix in PICKLES)
        if pickles:
            others = f" and {len(pickles) - 1} more" if len(pickles) > 1 else ""
            raise ValueError(
                f"{key}.{setting}={path} holds pickles ({pickles[0]}{others}), which can run code when loaded; "
                "remove what is not weights, and where you trust the weights, save them as safetensors: load them with "
                "from_pretrained of transformers or peft and call save_pretrained with another folder"
            )


def _of_the_hub(name: str) -> Path:
    """The newest copy of a model of the hub on this machine, or a folder that is not there."""
    from huggingface_hub import constants, try_to_load_from_cache

    for file in ("config.json", "adapter_config.json", "tokenizer_config.json"):
        try:
            found = try_to_load_from_cache(name, file)
        except ValueError:  # no name of a repository
            break
        if isinstance(found, str):
            return Path(found).parent
    return Path(constants.HF_HUB_CACHE) / "none"


def read_tokenizer(model: DictConfig, key: str) -> Any:
    """The tokenizer of ``model``, verl's settings of a model; ``key`` is their place in the configuration.

    Raises:
        ValueError: there is none, it has no chat template, or the model comes with pickles.
    """
    from transformers import AutoTokenizer

    path = model.tokenizer_path or model.path
    if path is None:
        raise ValueError(f"{key}.path is not set; give a folder or a name on the hub")
    refuse_pickles(model, key)
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
    if folder.is_dir() and not any(folder.glob(WEIGHTS)):
        raise ValueError(
            f"policies.{name}.model.path={policy.model.path} holds no weights ({WEIGHTS}); give the folder that does"
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
