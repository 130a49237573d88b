"""From a response to its thinking, and from the thinking to numbered steps; joined again, both give the same text."""

from __future__ import annotations

import re
from dataclasses import dataclass

from longshort.protocol import END_THINK, THINK

_OPENING = re.compile(rf"\s*{re.escape(THINK)}")
# A line end and at least one blank line after it; "\r\n" is one line end.
_BLANK_LINES = re.compile(r"\r?\n(?:[ \t]*\r?\n)+")


@dataclass(frozen=True, slots=True)
class Response:
    """A response in three parts; ``opening + thinking + closing`` is the response, byte for byte.

    Attributes:
        opening: ``<think>`` and the white space before it, or nothing where the response does not begin with them.
        thinking: what is divided into thoughts.
        closing: from the first ``</think>`` on, the answer included; nothing where the thinking was never closed.
    """

    opening: str
    thinking: str
    closing: str

    @property
    def closed(self) -> bool:
        """Whether the thinking ended by itself; if not, all of the response counts as thinking."""
        return bool(self.closing)


def split_response(text: str) -> Response:
    """The parts of ``text``. Other tags, and ``<think>`` anywhere but at the beginning, are text like any other."""
    match = _OPENING.match(text)
    start = match.end() if match else 0
    end = text.find(END_THINK, start)
    end = len(text) if end < 0 else end
    return Response(text[:start], text[start:end], text[end:])


def split_steps(thinking: str) -> tuple[str, ...]:
    """Steps, each with the blank lines behind it, so that ``"".join`` gives ``thinking`` back.

    Lines of spaces and tabs are blank, and lines may end as on Windows. Blank lines at the very beginning belong to the
    first step, so no step is blank unless all of ``thinking`` is.

    Example: ``"\\na\\n\\n\\nb\\nc"`` gives ``("\\na\\n\\n\\n", "b\\nc")``.
    """
    cuts = [0]
    for match in _BLANK_LINES.finditer(thinking):
        if thinking[cuts[-1] : match.start()].strip() and match.end() < len(thinking):
            cuts.append(match.end())
    steps = [thinking[start:end] for start, end in zip(cuts, [*cuts[1:], len(thinking)], strict=True)]
    if len(steps) > 1 and not steps[-1].strip():
        steps[-2:] = [steps[-2] + steps[-1]]
    return tuple(step for step in steps if step)
