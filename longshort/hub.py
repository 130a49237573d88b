"""Data sets of the Hugging Face hub, or local folders in its layout."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_DATA_SET = re.compile(r"(?P<name>[\w.-]+/[\w.-]+|[./~].*?)(?::(?P<split>[\w]+))?(?:@(?P<config>[\w.-]+))?")

_FILE_SUFFIX = re.compile(r"\.[A-Za-z]+$")


def is_data_set(path: str) -> bool:
    """Whether ``path`` reads as ``owner/name[:split][@config]`` or as a folder, rather than as a data file."""
    match = _DATA_SET.fullmatch(path)
    return match is not None and _FILE_SUFFIX.search(match["name"]) is None


def split_of(path: str) -> str:
    """The split that ``path`` names: ``train`` where it names none, as a file does not."""
    match = _DATA_SET.fullmatch(path) if is_data_set(path) else None
    return (match and match["split"]) or "train"


def records(path: str, streaming: bool = False) -> Iterator[object]:
    """Rows of ``owner/name[:split][@config]``; the split is ``train`` where none is given.

    With ``streaming`` rows come as they are downloaded and are not stored; without, the data set is cached on disk.

    Raises:
        ValueError: the data set cannot be loaded.
    """
    import datasets

    match = _DATA_SET.fullmatch(path)
    assert match is not None, f"{path} was checked by is_data_set"
    name, config = match["name"], match["config"]
    try:
        yield from datasets.load_dataset(
            str(Path(name).expanduser()) if name[0] in "./~" else name,
            config,
            split=split_of(path),
            streaming=streaming,
        )
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"Data set {path} cannot be loaded ({reason}): correct its name, split or config.") from error
