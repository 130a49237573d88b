"""Names that two policies, and two runs on one machine, never share."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

import ray

SERVER_PREFIX = "longshort_"
SOCKET_VARIABLE = "LONGSHORT_WEIGHT_SOCKET"
# Of threads of the driver that wait for Ray.
RAY_CALLS = "Ray:"
# The sockets below it have up to 64 characters more, and 107 in all.
RAY_FOLDER_LENGTH = 43


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


def logs_folder() -> Path:
    """Of the Ray that this process has joined, on each of its nodes."""
    return Path(ray._private.worker._global_node.get_logs_dir_path())


def user_folder(root: Path | None = None) -> Path:
    """For sockets and the like, on this node; nobody else can enter it. ``root`` is by default ``TMPDIR`` or ``/tmp``.

    Raises:
        ValueError: somebody else made it.
    """
    folder = (root or Path(tempfile.gettempdir())) / f"longshort-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        raise ValueError(f"{folder} is not a folder of yours; remove it or set TMPDIR to one that is")
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)
    return folder


def ray_folder() -> Path:
    """Where a Ray of a run's own has its files; it opens them to everybody, so the folder above does not."""
    folder = user_folder() / "ray"
    return folder if len(str(folder)) <= RAY_FOLDER_LENGTH else user_folder(Path("/tmp")) / "ray"


def weight_socket(policy: str, replica: int) -> str:
    """Prefix of the socket over which a policy's weights reach one replica; the local rank is appended.

    Unique per user, Ray cluster, job, policy and replica, and short enough for a Unix socket.
    """
    return f"ipc://{user_folder()}/{run_id()}-{policy}-{replica}-"
