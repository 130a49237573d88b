"""What travels with a Ray job: ``python -m workers.upload FOLDER WORD…`` checks folder and command before it is sent.

Exit code 1 and the largest files where Ray would refuse the folder, or the name of what the command should not tell.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from longshort.hiding import hide

# Ray keeps packages in the memory of its control store, and refuses a larger one after it has packed it.
LIMIT = 100 * 2**20
NAMED = 5


def files_that_travel(folder: Path) -> dict[Path, int]:
    """Files that Ray would send and their bytes, by ``.gitignore`` and ``.rayignore`` in ``folder``."""
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    found: dict[Path, int] = {}

    def note(path: Path) -> None:
        if path.is_file():
            found[path.relative_to(folder)] = path.stat().st_size

    _dir_travel(folder, [_get_excludes(folder, [])], note, include_gitignore=True)
    return found


def check_size(files: dict[Path, int], limit: int = LIMIT) -> None:
    """Raises ``ValueError`` that names the largest files where they are too much together."""
    total = sum(files.values())
    if total >= limit:
        largest = sorted(files, key=lambda path: files[path], reverse=True)[:NAMED]
        named = ", ".join(f"{path} ({files[path] / 2**20:.1f} MiB)" for path in largest)
        raise ValueError(
            f"the working directory has {total / 2**20:.0f} MiB, and Ray takes less than {limit / 2**20:.0f}; "
            f"name in .rayignore what a job does not need; the largest: {named}"
        )


def refuse_secrets(words: Sequence[str]) -> None:
    """Raises ``ValueError`` that names a word of a job's command with a secret in it; who lists jobs sees it."""
    for word in words:
        told = word.partition("=")[2].strip("'\"").startswith("${")
        if not told and hide(word) != word:
            raise ValueError(
                f"{hide(word)} holds a secret, which `ray job list` would show; let the setting read it from the "
                "environment of the node where the job runs: '<key>=${oc.env:NAME}'"
            )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m workers.upload", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("words", nargs=argparse.REMAINDER, help="the job's command")
    options = parser.parse_args(arguments)
    folder = options.folder.resolve()
    if not (folder / ".rayignore").is_file():
        sys.stderr.write(f"{folder} has no .rayignore, so everything in it would travel; submit from the repository\n")
        return 1
    try:
        refuse_secrets(options.words)
        files = files_that_travel(folder)
        check_size(files)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stderr.write(f"{len(files)} files travel, {sum(files.values()) / 2**20:.1f} MiB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
