"""Transcripts that a run wrote for people (:func:`longshort.tracking.transcript`), read back as samples.

A run that keeps no episodes as data still has these. Log-probabilities and token ids are not in them, and control
characters stay spelt as they are there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from longshort.episode import Problem
from longshort.report.records import Sample, ShownTurn

_FILE = re.compile(r"step-(\d+)\.md")
_SAMPLE = re.compile(r"## (?P<id>.*), sample (?P<number>\d+)(?:, (?P<source>.*))?")
_TURN = re.compile(
    r"### Turn \d+, (?P<role>.+): (?P<tokens>\d+) tokens, (?P<finish>\w+), (?P<form>not well-formed|well-formed)"
)
_OUTCOME = re.compile(r"### Outcome: (?P<outcome>\w+)")
_PART = re.compile(r"- (?P<name>\S+): (?P<value>\S+)")
_FENCE = re.compile(r"(?P<fence>`{3,})text")


def read_transcripts(folder: Path) -> list[Sample]:
    """Samples of all steps in their order; none where there are no transcripts."""
    files = {int(match[1]): file for file in folder.glob("step-*.md") if (match := _FILE.fullmatch(file.name))}
    return [sample for step in sorted(files) for sample in _samples(files[step], step)]


def _samples(file: Path, step: int) -> Iterator[Sample]:
    sections: list[list[tuple[str, str]]] = []
    for heading, body in _blocks(file.read_text(encoding="utf-8", errors="replace").split("\n")):
        if heading.startswith("## "):
            sections.append([])
        if sections:
            sections[-1].append((heading, body))
    for section in sections:
        sample = _sample(section, step)
        if sample is not None:
            yield sample


def _blocks(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Headings with what stands fenced, or else listed, below each; a heading within a fence is text."""
    heading, fence = "", ""
    body: list[str] = []
    fenced: str | None = None
    for line in lines:
        if fence:
            if line == fence:
                fence, fenced = "", "\n".join(body)
            else:
                body.append(line)
        elif opening := _FENCE.fullmatch(line):
            fence, body = opening["fence"], []
        elif line.startswith("#"):
            if heading:
                yield heading, fenced if fenced is not None else "\n".join(body)
            heading, body, fenced = line, [], None
        else:
            body.append(line)
    if heading:
        yield heading, fenced if fenced is not None else "\n".join(body)


def _sample(section: list[tuple[str, str]], step: int) -> Sample | None:
    title = _SAMPLE.fullmatch(section[0][0])
    if title is None:
        return None
    texts = {heading: body for heading, body in section if heading in ("### Question", "### Gold answer", "### Reward")}
    turns = [
        ShownTurn(m["role"], body, int(m["tokens"]), m["finish"] == "length", m["form"] == "well-formed")
        for heading, body in section
        if (m := _TURN.fullmatch(heading))
    ]
    outcomes = [m["outcome"] for heading, _ in section if (m := _OUTCOME.fullmatch(heading))]
    rewards = {m["name"]: float(m["value"]) for m in _PART.finditer(texts.get("### Reward", ""))}
    problem = Problem(
        title["id"], texts.get("### Question", ""), texts.get("### Gold answer", ""), title["source"] or ""
    )
    return Sample(
        problem=problem,
        number=int(title["number"]),
        correct=correct_by(rewards),
        outcome=outcomes[0] if outcomes else "unknown",
        origin="transcript",
        turns=tuple(turns),
        step=step,
        rewards=rewards,
    )


def correct_by(rewards: dict[str, float]) -> bool | None:
    """Whether an episode was right, by the correctness part of any role; None without one.

    The part may be the score of a user's own function, whose answers are right above zero. What such a function said in
    ``acc`` is not in it.
    """
    parts = [value for name, value in rewards.items() if name.rsplit("/", 1)[-1] == "correct"]
    return parts[0] > 0 if parts else None
