"""What ``longshort serve`` and ``longshort chat`` can be told as ``key=value``."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

KEY = "LONGSHORT_API_KEY"
LOOPBACK_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost")


@dataclass
class ServingSettings:
    """Settings with their defaults.

    Attributes:
        host, port: where to listen; anywhere but loopback ``LONGSHORT_API_KEY`` has to be set. Port 0: any free one.
        name: of the model for clients; None: the pair's.
        device: ``cpu``, ``cuda``, or ``auto``: cuda where there is one.
        max_model_len: tokens of context of both models; None: what the pair says.
        replicas: per role, engines; on this machine, or with ``cluster`` wherever Ray has room.
        cluster: whether the engines are deployments of Ray Serve: on the cluster of ``RAY_ADDRESS``, or a local one.
        max_replicas: per role, up to how many engines a cluster scales; by default as many as ``replicas``.
        engine: vLLM's engine arguments for all, ``long`` and ``short`` for one role.
        max_requests: choices that are played at the same time; more are answered with 429.
        max_body_bytes, max_messages, max_choices: of a request.
        body_timeout_s: seconds in which a request has to have arrived.
        drain_s: seconds that running requests are given on SIGTERM.
        events_per_s: most events that all streams are sent together; beyond, text is sent in larger pieces.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    name: str | None = None
    device: str = "auto"
    max_model_len: int | None = None
    replicas: dict[str, int] = field(default_factory=lambda: {"long": 1, "short": 1})
    cluster: bool = False
    max_replicas: dict[str, int] = field(default_factory=dict)
    engine: dict[str, Any] = field(default_factory=dict)
    long: dict[str, Any] = field(default_factory=dict)
    short: dict[str, Any] = field(default_factory=dict)
    max_requests: int = 512
    max_body_bytes: int = 2**20
    max_messages: int = 256
    max_choices: int = 16
    body_timeout_s: float = 30.0
    drain_s: float = 30.0
    events_per_s: float = 500.0


# At least this much each.
LEAST = {
    "port": 0,
    "max_requests": 1,
    "max_body_bytes": 1024,
    "max_messages": 1,
    "max_choices": 1,
    "body_timeout_s": 0.1,
    "drain_s": 0.0,
    "events_per_s": 1.0,
}


def read_settings(overrides: Sequence[str]) -> ServingSettings:
    """Settings with ``key=value`` on top.

    Raises:
        ValueError: an unknown key, or a value that is none for it.
    """
    known = [each.name for each in fields(ServingSettings)]
    for override in overrides:
        key = override.split("=")[0]
        if "=" not in override:
            raise ValueError(f"{override!r} is not key=value; the keys are {', '.join(known)}")
        if key.split(".")[0] not in known:
            raise ValueError(f"{override!r} sets {key}, which is unknown; the keys are {', '.join(known)}")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(ServingSettings), OmegaConf.from_dotlist(list(overrides)))
        settings = OmegaConf.to_object(merged)
    except (OmegaConfBaseException, YAMLError) as error:
        raise ValueError(f"{' '.join(overrides)}: {' '.join(str(error).split())}") from error
    assert isinstance(settings, ServingSettings), "that is what was merged into"
    _check(settings)
    return settings


def _check(settings: ServingSettings) -> None:
    for key, least in LEAST.items():
        if getattr(settings, key) < least:
            raise ValueError(f"{key}={getattr(settings, key)} is too little; give at least {least}")
    if settings.port > 65535:
        raise ValueError(f"port={settings.port} is no port; give 0 to 65535")
    if settings.device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device={settings.device} is unknown; choose auto, cpu or cuda")
    for role, count in settings.replicas.items():
        if count < 1:
            raise ValueError(f"replicas.{role}={count} leaves nobody to speak; give at least 1")

    for role, most in settings.max_replicas.items():
        if not settings.cluster:
            raise ValueError(f"max_replicas.{role}={most} needs a cluster to scale on; set cluster=true")
        if most < settings.replicas.get(role, 1):
            raise ValueError(f"max_replicas.{role}={most} is less than replicas.{role}; raise it")


def api_key(settings: ServingSettings) -> str | None:
    """The key that clients have to give, or None.

    Raises:
        ValueError: there is none, and others than this machine could connect.
    """
    key = os.environ.get(KEY) or None
    if key is None and not is_loopback(settings.host):
        raise ValueError(
            f"host={settings.host} lets other machines in; set {KEY} to a secret that clients give, or host=127.0.0.1"
        )
    return key


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to ``host``."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() in LOOPBACK_NAMES
