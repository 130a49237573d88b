"""A user's own function or class, named by file or package as in verl."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import DictConfig

PACKAGE = "pkg://"


def load_object(key: str, named: DictConfig) -> Callable[..., Any]:
    """The callable ``named.name`` of ``named.path``, a Python file or ``pkg://a.module``; ``key`` is where it is set.

    Raises:
        ValueError: it does not import, or holds no such callable.
    """
    module = _load_module(key, named.path)
    found = getattr(module, named.name or "", None)
    if not callable(found):
        raise ValueError(f"{key}.name={named.name} is nothing callable in {named.path}; name one that it defines")
    return found


def _load_module(key: str, path: str) -> ModuleType:
    file = Path(path.removeprefix("file://")).expanduser()
    if not path.startswith(PACKAGE) and not (file.is_file() and file.suffix == ".py"):
        raise ValueError(f"{key}.path={path} is no Python file; correct it or set it to null")
    try:
        if path.startswith(PACKAGE):
            return importlib.import_module(path.removeprefix(PACKAGE).replace("/", "."))
        spec = importlib.util.spec_from_file_location(f"longshort_extern_{file.stem}", file)
        assert spec is not None and spec.loader is not None, "Python files have a loader"
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    except Exception as error:  # whatever the user's file raises on import
        raise ValueError(f"{key}.path={path} does not import ({type(error).__name__}: {error}); correct it") from error
