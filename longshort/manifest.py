"""``manifest.json``: the size and checksum of every file of a folder, written last, so that damage is seen.

It finds what a disk, a copy or a hand did to a file. It is no signature: who can write the folder can write this too.
"""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

FILE = "manifest.json"
# Processors have instructions for SHA-256, and `sha256sum FILE` prints the same. Files are hashed beside each other;
# hashlib lets go of the interpreter for pieces of this size.
THREADS = min(16, os.cpu_count() or 1)
PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class _Entry:
    size: int
    sha256: str


def write(folder: Path) -> None:
    """Bring every file below ``folder`` to the disk, then the manifest, then the folders themselves."""
    files = _files(folder)
    with ThreadPoolExecutor(THREADS) as threads:
        digests = list(threads.map(_digest_on_disk, [folder / name for name in files]))
    content = {
        name: {"size": (folder / name).stat().st_size, "sha256": digest}
        for name, digest in zip(files, digests, strict=True)
    }
    with (folder / FILE).open("w") as file:
        json.dump({"files": content}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    for inner in [*(each for each in folder.rglob("*") if each.is_dir()), folder]:
        sync_folder(inner)


def damage(folder: Path, checksums: bool = False) -> str | None:
    """What is wrong with ``folder``, or None; without ``checksums``, only names and sizes are compared.

    Raises:
        PermissionError: a file may not be read; it says nothing of its content.
    """
    try:
        entries = _read(folder)
    except FileNotFoundError:
        return f"it has no {FILE}"
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its {FILE} cannot be read ({type(error).__name__})"
    try:
        for name, entry in entries.items():
            if not (folder / name).is_file():
                return f"{name} is missing"
            size = (folder / name).stat().st_size
            if size != entry.size:
                return f"{name} has {size} bytes instead of {entry.size}"
        if not checksums:
            return None
        with ThreadPoolExecutor(THREADS) as threads:
            digests = {name: threads.submit(_digest, folder / name) for name in entries}
            for name, each in digests.items():
                if (digest := each.result()) != entries[name].sha256:
                    return f"{name} has other content than was written (its SHA-256 is {digest[:12]}…)"
    except PermissionError:
        raise
    except OSError as error:
        return f"{name} cannot be read ({error.strerror or error})"
    return None


def sync_folder(folder: Path) -> None:
    """Bring the names in ``folder`` to the disk: a rename is only then safe from a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files(folder: Path) -> list[str]:
    """Names relative to ``folder``, in order, without the manifest's own."""
    return sorted(
        name for file in folder.rglob("*") if file.is_file() and (name := file.relative_to(folder).as_posix()) != FILE
    )


def _read(folder: Path) -> dict[str, _Entry]:
    content = json.loads((folder / FILE).read_text())["files"]
    entries = {str(name): _Entry(int(each["size"]), str(each["sha256"])) for name, each in content.items()}
    if not entries:
        raise ValueError("a checkpoint has files")
    return entries


def _digest(file: Path, on_disk: bool = False) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(PIECE):
            digest.update(piece)
        if on_disk:
            os.fsync(stream.fileno())
    return digest.hexdigest()


def _digest_on_disk(file: Path) -> str:
    return _digest(file, on_disk=True)
