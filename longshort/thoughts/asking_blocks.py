"""How a model is asked for blocks of numbered steps: what a request ends with, and the schema of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

REQUEST = """\
Problem:
{question}

Steps:
{steps}

Answer with JSON only, with the blocks in order:
{{"block 1": {{"start": 1, "end": 4, "block type": "%s"}}, "block 2": {{…}}, …}}
"start" and "end" are numbers of steps, both inclusive. The first block starts at step 1, each further block starts at \
the step after the end of the one before it, and the last block ends at step {count}."""


def blocks_request(task: str, example: str) -> str:
    """A format string of ``question``, ``steps`` (numbered) and ``count``: ``task``, then how to answer.

    Args:
        task: what the blocks are; it may have ``{count}`` and names of its own.
        example: a type of a block.
    """
    return f"{task}\n\n{REQUEST % example}"


def blocks_schema(types: Sequence[str] = ()) -> dict[str, Any]:
    """JSON schema of the answer; a block's type is one of ``types``, or any text where there are none."""
    return {
        "type": "object",
        "additionalProperties": {
            "type": "object",
            "properties": {
                "start": {"type": "integer"},
                "end": {"type": "integer"},
                "block type": {"type": "string", **({"enum": list(types)} if types else {})},
            },
            "required": ["start", "end", "block type"],
            "additionalProperties": False,
        },
    }
