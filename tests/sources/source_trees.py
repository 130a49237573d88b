"""Python sources of packages that are read and never imported: an installed package, or a wheel on the package index.

A wheel of several hundred megabytes is not downloaded. pip says where it is, and only the files that are asked for are
read from it, by HTTP ranges; they stay in the user's cache folder.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import urllib.request
import zipfile
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

# What a GPU machine installs; pip matches these names exactly.
TARGET = ["--python-version=3.12", *(f"--platform=manylinux_2_{minor}_x86_64" for minor in (17, 28, 31, 34, 35))]
READ_AHEAD = 1 << 18
TIMEOUT_S = 30


class Unavailable(Exception):
    """The sources cannot be had here, for example without a network."""


class Tree(Protocol):
    """Files of one package by their path from the package's parent folder, e.g. ``verl/utils/device.py``."""

    def text(self, path: str) -> str | None:
        """A file's text; None if there is no such file."""
        ...


class FolderTree:
    """A package in a folder."""

    def __init__(self, parent: Path) -> None:
        self._parent = parent

    def text(self, path: str) -> str | None:
        file = self._parent / path
        return file.read_text() if file.is_file() else None


def installed(package: str) -> FolderTree:
    spec = find_spec(package)
    assert spec is not None and spec.submodule_search_locations, f"{package} is not installed"
    return FolderTree(Path(spec.submodule_search_locations[0]).parent)


class WheelTree:
    """A wheel that pip finds, read where it lies.

    Args:
        requirement: e.g. ``"vllm==0.24.0"``.
        cache: folder for what was read.

    Raises:
        Unavailable: a file is neither in the cache nor to be had.
    """

    def __init__(self, requirement: str, cache: Path) -> None:
        self._requirement = requirement
        self._cache = cache
        self._wheel: zipfile.ZipFile | None = None
        names = cache / "names.json"
        if not names.is_file():
            _write(names, json.dumps(self._open().namelist()))
        self._names = frozenset(json.loads(names.read_text()))

    def text(self, path: str) -> str | None:
        if path not in self._names:
            return None
        file = self._cache / path
        if not file.is_file():
            try:
                _write(file, self._open().read(path).decode())
            except (OSError, HTTPException, zipfile.BadZipFile) as error:
                raise Unavailable(f"{path} of {self._requirement}: {error}") from error
        return file.read_text()

    def _open(self) -> zipfile.ZipFile:
        if self._wheel is None:
            url = _wheel_url(self._requirement)
            try:
                local = url2pathname(urlsplit(url).path) if url.startswith("file:") else None
                self._wheel = zipfile.ZipFile(local or io.BufferedReader(_RangeReader(url), READ_AHEAD))
            except (OSError, HTTPException, zipfile.BadZipFile) as error:
                raise Unavailable(f"{self._requirement}: {error}") from error
        return self._wheel


def user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longshort"


def _write(file: Path, text: str) -> None:
    """Whole or not at all, also if two test runs meet."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}")
    part.write_text(text)
    part.replace(file)


def _wheel_url(requirement: str) -> str:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
    command += ["--disable-pip-version-check", "--retries=0", "--timeout=10", "--only-binary=:all:", "--target=unused"]
    command += [*TARGET, "--report=-", requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=2 * TIMEOUT_S)
        return str(json.loads(done.stdout)["install"][0]["download_info"]["url"])
    except (subprocess.TimeoutExpired, json.JSONDecodeError, LookupError) as error:
        raise Unavailable(f"pip finds no wheel of {requirement}") from error


class _RangeReader(io.RawIOBase):
    """A remote file of which only parts are read."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._at = 0
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=TIMEOUT_S) as answer:
            self._size = int(answer.headers["Content-Length"])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        last = min(self._at + len(buffer), self._size) - 1
        if last < self._at:
            return 0
        request = urllib.request.Request(self._url, headers={"Range": f"bytes={self._at}-{last}"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            if answer.status != 206:
                raise OSError("the package index does not serve parts of a file")
            part = answer.read()
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)
