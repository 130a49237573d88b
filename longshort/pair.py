"""A pair in use: two models, and all that they were trained to expect of each other.

    PAIR/
      long/  short/   plain Hugging Face folders
      pair.json       protocol, prompts, limits, sampling, context lengths, fingerprints; evaluation; where it is from
      README.md       the model card

``pair.json`` alone says how a pair is played, so that a later version of this package plays it as it was trained.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from longshort.controller import Limits, Sampling, render_prompt
from longshort.episode import Ids
from longshort.generation import Tokenizer
from longshort.model_folder import WEIGHTS, opened_turn, refuse_pickles
from longshort.protocol import LONG_SHORT, TAGS, Protocol

FILE = "pair.json"
FORMAT = 1
PLAYGROUND = "playground"
ROLES = LONG_SHORT.roles
# What two models are played with that come without a pair.json: the defaults of the recipes.
DEFAULT_LIMITS = Limits(max_turns=6, max_turn_tokens=dict.fromkeys(ROLES, 1024), max_episode_tokens=4096)
PLAYGROUND_LIMITS = Limits(max_turns=6, max_turn_tokens={"long": 256, "short": 64}, max_episode_tokens=448)
PROBE = "What is 7 + 5 * 3? Show <all> steps;\n\tthen answer."


@dataclass(frozen=True)
class Pair:
    """What is served.

    Attributes:
        name: by which clients ask for it.
        protocol: prompts and tags.
        models: per role, its folder or its name on the hub.
        contexts: per role, tokens that its model is served with.
        limits: of an episode that no request limits further.
        sampling: temperature, top_p and top_k that a request may change.
        dtype: per role, that of the weights, or ``"auto"``.
        facts: evaluation, training and versions, as ``pair.json`` has them.
    """

    name: str
    protocol: Protocol
    models: Mapping[str, str]
    contexts: Mapping[str, int]
    limits: Limits
    sampling: Sampling
    dtype: Mapping[str, str]
    facts: Mapping[str, Any]


def read_pair(spec: Sequence[str], max_model_len: int | None = None) -> tuple[Pair, dict[str, Any]]:
    """The pair that ``spec`` names and its tokenizers by role.

    Args:
        spec: a pair's folder, ``playground``, or the folders of a long and a short model.
        max_model_len: tokens of context to serve with; None: what the pair says.

    Raises:
        ValueError: a file is missing, tokenizers or prompts are not those of ``pair.json``, or a context is too long.
    """
    if len(spec) == 2:
        pair = _bare("pair", dict(zip(ROLES, spec, strict=True)), DEFAULT_LIMITS)
    elif list(spec) == [PLAYGROUND]:
        from longshort.playground import model_path

        pair = _bare(PLAYGROUND, {role: str(model_path(role)) for role in ROLES}, PLAYGROUND_LIMITS)
    elif len(spec) == 1:
        pair = _from_folder(Path(spec[0]).expanduser())
    else:
        raise ValueError(f"{len(spec)} models make no pair; give a pair's folder, {PLAYGROUND}, or two models")
    if max_model_len is not None:
        pair = replace(pair, contexts=dict.fromkeys(pair.protocol.roles, max_model_len))
    tokenizers = {role: _load_tokenizer(pair, role) for role in pair.protocol.roles}
    pair = replace(pair, contexts={role: _context(pair, role) for role in pair.protocol.roles})
    for role, told in (pair.facts.get("fingerprints") or {}).items():
        for what, now in fingerprints(pair.protocol, role, tokenizers[role]).items():
            if told[what] != now:
                raise ValueError(
                    f"the {what} of {pair.models[role]} is not the one of {FILE} (fingerprint {now} instead of "
                    f"{told[what]}), so the model would read what it was not trained on; export the pair again"
                )
    return pair, tokenizers


def fingerprints(protocol: Protocol, role: str, tokenizer: Tokenizer) -> dict[str, str]:
    """Short digests: of how ``role`` encodes text, and of the prompt that it starts from."""
    vocabulary = sorted(tokenizer.get_vocab().items())
    probe = tokenizer.encode(PROBE + "".join(TAGS), add_special_tokens=False)
    prompt: Ids = render_prompt(protocol, role, tokenizer, PROBE)
    return {
        "tokenizer": _digest([vocabulary, tokenizer.eos_token_id, probe]),
        "prompt": _digest([list(prompt), protocol.system_prompts[role], protocol.instructions.get(role, "")]),
    }


def to_json(pair: Pair, tokenizers: Mapping[str, Tokenizer]) -> str:
    """``pair.json`` of ``pair``."""
    limits = asdict(pair.limits)
    limits.pop("reserve")
    return json.dumps(
        {
            "format": FORMAT,
            "name": pair.name,
            "protocol": asdict(pair.protocol),
            "limits": limits,
            "sampling": {name: getattr(pair.sampling, name) for name in ("temperature", "top_p", "top_k")},
            "context": dict(pair.contexts),
            "dtype": dict(pair.dtype),
            "fingerprints": {role: fingerprints(pair.protocol, role, t) for role, t in tokenizers.items()},
            **pair.facts,
        },
        indent=1,
        ensure_ascii=False,
    )


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _bare(name: str, models: Mapping[str, str], limits: Limits) -> Pair:
    """Two models that say nothing of being a pair."""
    return Pair(
        name=name,
        protocol=LONG_SHORT,
        models=models,
        contexts=dict.fromkeys(models, 0),
        limits=limits,
        sampling=Sampling(temperature=1.0, top_p=1.0, top_k=-1),
        dtype=dict.fromkeys(models, "auto"),
        facts={},
    )


def _from_folder(folder: Path) -> Pair:
    file = folder / FILE
    if not file.is_file():
        raise ValueError(f"{folder} is no pair: it has no {FILE}; make one with `longshort export RUN {folder}`")
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            raise ValueError(
                f"{file} has format {told['format']}, and this version reads {FORMAT}; export the pair again"
            )
        protocol = Protocol(**told["protocol"])
        return Pair(
            name=str(told["name"]),
            protocol=protocol,
            models={role: str(folder / role) for role in protocol.roles},
            contexts={role: int(told["context"][role]) for role in protocol.roles},
            limits=Limits(**told["limits"]),
            sampling=Sampling(**told["sampling"]),
            dtype={role: str(told["dtype"][role]) for role in protocol.roles},
            facts={key: told[key] for key in ("fingerprints", "evaluation", "training", "versions")},
        )
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{file} cannot be read ({type(error).__name__}: {' '.join(str(error).split())}); export the pair again"
        ) from error


def _load_tokenizer(pair: Pair, role: str) -> Any:
    from transformers import AutoTokenizer

    path = pair.models[role]
    folder = Path(path).expanduser()
    if not folder.is_dir() and ("fingerprints" in pair.facts or path.startswith((".", "/", "~"))):
        raise ValueError(f"the folder {path} of the {role} model is missing; give one that is there")
    if folder.is_dir() and not any(folder.glob(WEIGHTS)):
        raise ValueError(f"{path} of the {role} model holds no weights ({WEIGHTS}); copy them there")
    refuse_pickles({"path": path}, role)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} of the {role} model has no tokenizer: {' '.join(str(error).split())}") from error
    if not tokenizer.chat_template:
        raise ValueError(f"the tokenizer of {path} has no chat template, so it cannot read a conversation; add one")
    if (opened := opened_turn(tokenizer, role, pair.protocol)) is not None:
        raise ValueError(
            f"the chat template of {path} writes the model's opening tag itself, as in {opened[-20:]!r}, so no turn "
            "could be well formed; take the tag out of its chat_template.jinja"
        )
    return tokenizer


def _context(pair: Pair, role: str) -> int:
    """Tokens of context that ``role`` is served with: what was asked for, else its model's own."""
    from transformers import AutoConfig

    path, wanted = pair.models[role], pair.contexts[role]
    try:
        model = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} of the {role} model has no configuration: {' '.join(str(error).split())}") from error
    own = int(getattr(model.get_text_config(), "max_position_embeddings", None) or wanted)
    if wanted > own:
        raise ValueError(f"a context of {wanted} tokens is longer than the {own} of {path}; lower max_model_len")
    return wanted or own
