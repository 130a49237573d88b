"""Secrets stay out of what a run writes: files, logs, error sentences, trackers.

A secret is the value of an environment variable whose name says so (``HF_TOKEN``, ``WANDB_API_KEY``), of a setting
whose key says so (``….engine_kwargs.vllm.api_key``), and what an address carries of one
(``https://user:password@host/?token=…``).
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

HIDDEN = "(hidden)"
# Shorter values would be found in ordinary words.
SHORTEST = 8
_NAME = (
    r"(?:(?:api|access|auth|private|secret|signing)[_-]?key|token|passw(?:or)?d|passphrase|secret|authorization"
    r"|credentials?)"
)
# As PGPASSWORD and OPENAI_KEY.
_VARIABLE = re.compile(rf"(?:(?:^|_)(?:{_NAME}|key)|passw(?:or)?d)$", re.IGNORECASE)
_KEY = re.compile(rf"(?:^|[_\-]){_NAME}$", re.IGNORECASE)
# key=value or key: value, as overrides and headers have it.
_ASSIGNED = re.compile(
    rf"((?:^|[\s._\-'\"{{,]){_NAME}['\"]?\s*[=:]\s*['\"]?(?:(?:bearer|basic|token)\s+)?)([^\s'\",}}]+)", re.IGNORECASE
)
_LOGIN = re.compile(r"(\b[a-z][a-z0-9+.\-]*://)[^/?#\s'\"]+@", re.IGNORECASE)
_QUERY = re.compile(rf"([?&][^=&\s]*{_NAME}[^=&\s]*=)[^&\s'\"]+", re.IGNORECASE)


def hide(text: str, environment: Mapping[str, str] | None = None) -> str:
    """``text`` without secrets; ``environment`` is by default that of the process."""
    for name, value in (os.environ if environment is None else environment).items():
        if len(value) >= SHORTEST and _VARIABLE.search(name):
            text = text.replace(value, HIDDEN)
    text = _LOGIN.sub(rf"\g<1>{HIDDEN}@", text)
    return _ASSIGNED.sub(rf"\g<1>{HIDDEN}", _QUERY.sub(rf"\g<1>{HIDDEN}", text))


def shown(config: DictConfig, resolve: bool = False) -> dict[str, Any]:
    """A configuration as it may be written down."""
    content = OmegaConf.to_container(config, resolve=resolve)
    hidden = _without_secrets(content)
    assert isinstance(hidden, dict), "a configuration is a mapping"
    return hidden


def as_yaml(config: DictConfig) -> str:
    """The same, as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(shown(config)))


class HidingFilter(logging.Filter):
    """For a handler of the log: its lines carry no secret."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = hide(record.getMessage()), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = hide(logging.Formatter().formatException(record.exc_info))
        return True


def _without_secrets(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _without_secrets(each, str(name)) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_secrets(each, key) for each in value]
    if _KEY.search(key) and value and not isinstance(value, bool):
        # An interpolation is no secret: what it leads to is hidden where it stands.
        return value if str(value).startswith("${") else HIDDEN
    return hide(value) if isinstance(value, str) else value
