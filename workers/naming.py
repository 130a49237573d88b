"""Names that two policies, and two runs on one machine, never share."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import ray

SERVER_PREFIX = "longshort_"
SOCKET_VARIABLE = "LONGSHORT_WEIGHT_SOCKET"
# Of threads of the driver that wait for Ray.
RAY_CALLS = "Ray:"


def server_prefix(policy: str) -> str:
    """Prefix of the Ray names of a policy's engine servers."""
    return f"{SERVER_PREFIX}{policy}_"


def policy_of_server(actor_name: str) -> str:
    """Inverse of :func:`server_prefix` for a server's full name, e.g. ``longshort_long_server_0_0``."""
    return actor_name.removeprefix(SERVER_PREFIX).rsplit("_server_", 1)[0]


def run_id() -> str:
    """Of the Ray cluster and job that this process belongs to."""
    context = ray.get_runtime_context()
    return hashlib.sha256(f"{context.gcs_address}/{context.get_job_id()}".encode()).hexdigest()[:12]


def user_folder() -> Path:
    """For sockets and the like, on this node; nobody else can enter it."""
    folder = Path(tempfile.gettempdir()) / f"longshort-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user; remove it or set TMPDIR to a folder of yours")
    return folder


def weight_socket(policy: str, replica: int) -> str:
    """Prefix of the socket over which a policy's weights reach one replica; the local rank is appended.

    Unique per user, Ray cluster, job, policy and replica, and short enough for a Unix socket.
    """
    return f"ipc://{user_folder()}/{run_id()}-{policy}-{replica}-"
