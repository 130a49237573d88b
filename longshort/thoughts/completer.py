"""Short thoughts in the place of those that were taken out, written by a model or by anything else that can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from longshort.episode import Problem
from longshort.extraction import last_boxed
from longshort.generation import Generator, SamplingParams
from longshort.protocol import TAGS
from longshort.thoughts.asking import ask
from longshort.thoughts.json_reply import read_json
from longshort.thoughts.segments import Gap, Kept, Segment, gaps_of

SYSTEM = "You fill the gaps in the solution of a mathematical problem, briefly and correctly."
REQUEST = """\
A problem is being solved in parts. Some parts are written out below. The others are gaps, of which only the purpose \
is known. Write what belongs into each gap, so that the whole is a correct and complete solution. Be brief: build on \
what stands before the gap, do not repeat it, and give what is needed to go on with what stands after it. The last gap \
states the final answer in \\boxed{{}}.

Problem:
{question}

Solution:
{parts}

Answer with JSON only, with one entry for each of the {count} gaps, in order:
{{"Completed Steps": [{{"thought": "purpose of gap 1", "content": "what you write there"}}, …]}}
In JSON a backslash is written twice: "\\\\boxed{{5}}"."""

COMPLETED_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "Completed Steps": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"thought": {"type": "string"}, "content": {"type": "string"}},
                "required": ["thought", "content"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["Completed Steps"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Completed:
    """What a completer made of a chain's gaps.

    Attributes:
        texts: one for each gap, in order, or None where it could not.
        faults: why answers were refused, one sentence each.
    """

    texts: tuple[str, ...] | None
    faults: tuple[str, ...] = ()


class Completer(Protocol):
    """Writes the short thoughts of a chain; the last one gives the answer in ``\\boxed{}``."""

    async def complete(self, problem: Problem, segments: Sequence[Segment]) -> Completed: ...


@dataclass(frozen=True, slots=True)
class ModelCompleter:
    """An instruct model as a completer.

    Attributes:
        generator: answers chats.
        retries: how often a wrong answer is shown to the model with what is wrong.
        max_tokens, temperature, seed: of an answer; ``seed`` is that of the first attempt.
    """

    generator: Generator
    retries: int = 2
    max_tokens: int = 7_120
    temperature: float = 0.1
    seed: int | None = 0

    async def complete(self, problem: Problem, segments: Sequence[Segment]) -> Completed:
        gaps = gaps_of(segments)
        params = SamplingParams(
            self.max_tokens, temperature=self.temperature, seed=self.seed, json_schema=COMPLETED_SCHEMA
        )
        asked = await ask(
            self.generator,
            messages_for(problem, segments),
            params,
            f"complete/{problem.id}",
            lambda answer: parse_completed(answer, gaps),
            self.retries,
        )
        return Completed(asked.value, asked.faults)


def messages_for(problem: Problem, segments: Sequence[Segment]) -> tuple[Mapping[str, str], ...]:
    """What the model is shown: the kept thoughts, and the kinds of the missing ones."""
    parts, number = [], 0
    for segment in segments:
        if isinstance(segment, Kept):
            parts.append(segment.text.strip())
        else:
            number += 1
            parts.append(f"[gap {number}: {_purpose(segment)}]")
    request = REQUEST.format(question=problem.question.strip(), parts="\n\n".join(parts), count=number)
    return {"role": "system", "content": SYSTEM}, {"role": "user", "content": request}


def parse_completed(raw: str, gaps: Sequence[Gap]) -> tuple[str, ...]:
    """The text for each gap in a model's answer: ``{"Completed Steps": [{"thought": …, "content": …}, …]}`` or the
    list alone.

    One entry for each gap, or one for each missing thought, whose texts are then joined by gap.

    Raises:
        ValueError: what is wrong, in one sentence that a model can act on.
    """
    answer = read_json(raw)
    entries = answer.get("Completed Steps") if isinstance(answer, dict) else answer
    if not isinstance(entries, list):
        raise ValueError('there is no list "Completed Steps": give one with an entry for each gap')
    texts = [_content(number, entry) for number, entry in enumerate(entries, start=1)]
    sizes = [len(gap.kinds) for gap in gaps]
    if len(texts) == len(gaps):
        found = texts
    elif len(texts) == sum(sizes):
        ends = [sum(sizes[: place + 1]) for place in range(len(sizes))]
        found = ["\n\n".join(texts[end - size : end]) for end, size in zip(ends, sizes, strict=True)]
    else:
        raise ValueError(f"there are {len(texts)} entries for {len(gaps)} gaps: give one for each gap, in order")
    if last_boxed(found[-1]) is None:
        raise ValueError("the last entry gives no final answer: state it in \\boxed{}")
    return tuple(found)


def _content(number: int, entry: object) -> str:
    content = entry.get("content") if isinstance(entry, dict) else None
    if not isinstance(content, str) or not content.strip():
        raise ValueError(f'entry {number} has no text in "content": write what belongs into the gap')
    if tag := next((tag for tag in TAGS if tag in content), None):
        raise ValueError(f"entry {number} holds {tag}, which is reserved: leave it out")
    return content.strip()


def _purpose(gap: Gap) -> str:
    """The kinds of a gap, less repetitions in a row: ``"derivation, then verification"``."""
    kinds = [kind for place, kind in enumerate(gap.kinds) if place == 0 or kind != gap.kinds[place - 1]]
    return ", then ".join(kinds)
