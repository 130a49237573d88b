"""Where the answer is in a response.

First what may hold it:

1. Thoughts, ``<think>…</think>``, are left out where anything else is written. A ``<think>`` that never closes was cut:
   nothing after it counts.
2. If ``<answer>`` is left, only the last complete ``<answer>…</answer>`` counts; with none complete there is no answer.
   Without the tag everything counts.

Then, in the last ``MAX_SEARCHED`` characters of that, the content of the last complete ``\\boxed{…}`` or ``\\fbox{…}``
that is not blank. Without braces a number is boxed, as in ``\\boxed 5``. A text with boxes of which none is complete
has no answer. A text without boxes has its answer in the last line with a letter or digit, less a lead such as "The
answer is"; if that line is not equal to a mathematical gold, the last expression that math-verify finds in it may be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_SEARCHED = 100_000
# Longer answers are not compared.
MAX_COMPARED = 1_000

_LEAD = re.compile(
    r"^.*\b(?:answer|result|solution|option|choice)\b[^:=]{0,40}?(?:\bis\b|:|=)[\s:*]*(?:(?:option|choice)\b\s*)?",
    re.IGNORECASE,
)
BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![a-zA-Z])\s*")
# Escapes are tokens too: \{ is no brace, but \\{ is a line break and a brace.
_BOX_TOKEN = re.compile(
    rf"(?P<box>{BOX.pattern}\{{)|{BOX.pattern}(?P<number>[-+]?(?:\d[\d,]*(?:[./]\d+)?|\.\d+))|\\.|[{{}}]", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Extracted:
    """The answer found in a response.

    Attributes:
        text: as written, without the box; at most ``MAX_SEARCHED`` characters.
        boxed: whether ``text`` as a whole is the answer. If not, it is a line with the answer somewhere.
    """

    text: str
    boxed: bool


def extract_answer(response: str) -> Extracted | None:
    """The answer in ``response`` by the rules at the top of this file, or None. Takes time linear in its length."""
    part = _answer_part(_without_thoughts(response))
    if part is None:
        return None
    part = part[-MAX_SEARCHED:]
    boxed = last_boxed(part)
    if boxed is not None:
        return Extracted(boxed, boxed=True)
    lines = [line for line in part.splitlines() if any(map(str.isalnum, line))]
    if not lines or BOX.search(part):
        return None
    return Extracted(_LEAD.sub("", lines[-1].strip()[-MAX_COMPARED:]).strip(), boxed=False)


def last_boxed(text: str) -> str | None:
    """Content of the last complete box that is not blank, stripped, or None. Takes time linear in its length.

    The last box is the one that closes last: of nested boxes the outer one. Braces count unless escaped.

    Example: ``r"\\boxed{1}, then \\boxed{\\frac{1}{2}}, then \\boxed{3"`` gives ``r"\\frac{1}{2}"``.
    """
    content: str | None = None
    # Where the content of each open brace starts if the brace is a box's, else None.
    opened: list[int | None] = []
    for token in _BOX_TOKEN.finditer(text):
        if token["box"]:
            opened.append(token.end())
        elif token["number"]:
            content = token["number"]
        elif token[0] == "{":
            opened.append(None)
        elif token[0] == "}" and opened:
            start = opened.pop()
            if start is not None:
                content = text[start : token.start()].strip() or content
    return content


def _without_thoughts(text: str) -> str:
    """``text`` less its thoughts, or ``text`` where complete thoughts are all there is."""
    outside: list[str] = []
    inside = False
    for piece in re.split(r"(</?think>)", text):
        if piece == "<think>":
            inside = True
        elif piece == "</think>":
            if not inside:
                # The prompt ended with the opening tag: all so far was thought.
                outside.clear()
            inside = False
        elif not inside:
            outside.append(piece)
    rest = "".join(outside)
    return rest if inside or rest.strip() else text


def _answer_part(text: str) -> str | None:
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, end) if end >= 0 else -1
    if start >= 0:
        return text[start + len("<answer>") : end]
    return None if "<answer>" in text else text
