"""Thoughts without a model: steps grouped by the words they begin with, within limits on size.

A step that begins with a *turn* ("Wait", "Alternatively", "Let me check", 等等, …) starts a new thought once the one
before it has ``RuleLimits.least`` characters; one that begins with a *link* ("So", "Next", "First", 所以, …) once it
has ``RuleLimits.enough``; any step where the thought would otherwise exceed ``RuleLimits.most``. A step is never cut,
so one that is longer than ``most`` is a thought of its own. What is left at the end with fewer than ``least``
characters joins the thought before it, if the two fit. The kind of a thought is that of its first cue.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from longshort.thoughts.thought import Thought

OPENING, PLAIN = "problem understanding", "derivation"

# Kind, whether the cue is a turn, and the beginnings. The first that fits counts.
_CUES: tuple[tuple[str, bool, str], ...] = (
    (
        "verification",
        True,
        r"(?:but |now,? |so,? |wait,? )*(?:let me|let's|i should|i'll|we can|to) (?:just )?"
        r"(?:re-?check|double[- ]?check|check|verify|confirm|test|make sure|see if)"
        r"|(?:double[- ])?checking\b|verifying\b|as a check|sanity check"
        r"|(?:让|我|我们|再|来)*(?:检查|验证|检验|验算|核对)",
    ),
    (
        "another approach",
        True,
        r"(?:or |but )?alternatively|another (?:way|approach|method|idea)|a different (?:way|approach)|instead,"
        r"|(?:或者|另一种|另外一种|另外|换一种|换个|换句话说|还有一种)",
    ),
    (
        "reconsideration",
        True,
        r"(?:but |oh,? |no,? )*(?:wait|hold on|hmm+|actually|oops)\b|(?:but )?(?:that's|this is) (?:not right|wrong)"
        r"|on second thought|(?:等等|等一下|等下|嗯|不对|不过|但是等|其实|稍等)",
    ),
    (
        "final answer",
        True,
        r"\W*final answer|(?:so,? |therefore,? |thus,? )?the (?:final )?answer (?:is|should be|must be)"
        r"|in conclusion|to summari[sz]e|(?:最终答案|最后答案|综上|总结|答案是)",
    ),
    ("conclusion", False, r"(?:so|therefore|thus|hence|consequently|which means)\b|(?:所以|因此|因而|于是|故|那么)"),
    (
        "next step",
        False,
        r"(?:first|firstly|second|secondly|third|thirdly|next|then|now|finally|lastly|moving on|case \d|step \d)\b"
        r"|(?:首先|其次|第一|第二|第三|接下来|接着|然后|现在|最后|情况)",
    ),
    (
        OPENING,
        False,
        r"(?:okay|ok|alright)\b.{0,40}(?:problem|question|need to|have to)|(?:the problem|we are given|we need to find)"
        r"|(?:好的|题目|问题是|已知|我们需要)",
    ),
)
_PATTERNS = tuple((kind, turn, re.compile(rf"[\s*#>\-(]*(?:{words})", re.IGNORECASE)) for kind, turn, words in _CUES)


@dataclass(frozen=True, slots=True)
class RuleLimits:
    """Sizes of thoughts in characters; ``1 <= least <= enough <= most``."""

    least: int = 200
    enough: int = 600
    most: int = 4_000

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.enough <= self.most:
            raise ValueError(
                f"limits of {self.least}, {self.enough} and {self.most} characters are out of order: "
                "give least, enough and most so that none is smaller than the one before it"
            )


def chunk_by_rules(steps: Sequence[str], limits: RuleLimits | None = None) -> tuple[Thought, ...]:
    """Thoughts of ``steps`` by the rules at the top of this file; joined, their texts are the joined steps."""
    limits = limits or RuleLimits()
    starts: list[int] = []
    size = 0
    for place, step in enumerate(steps):
        _, turn = _cue(step)
        enough = {True: limits.least, False: limits.enough, None: limits.most}[turn]
        if not starts or size + len(step) > limits.most or size >= enough:
            starts.append(place)
            size = 0
        size += len(step)
    if len(starts) > 1 and size < limits.least:
        before = sum(map(len, steps[starts[-2] : starts[-1]]))
        if before + size <= limits.most:
            starts.pop()
    ends = [*starts[1:], len(steps)] if starts else []
    return tuple(
        Thought("".join(steps[start:end]), _kind(steps, start, end), start + 1, end)
        for start, end in zip(starts, ends, strict=True)
    )


def _cue(step: str) -> tuple[str, bool | None]:
    """Kind of a step, and whether it begins with a turn, with a link, or with neither (None)."""
    for kind, turn, pattern in _PATTERNS:
        if pattern.match(step):
            return kind, turn
    return PLAIN, None


def _kind(steps: Sequence[str], start: int, end: int) -> str:
    cues = (_cue(step)[0] for step in steps[start:end])
    found = next((kind for kind in cues if kind != PLAIN), PLAIN)
    return OPENING if start == 0 and found in (PLAIN, "conclusion", "next step") else found
