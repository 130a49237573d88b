"""Phases of reasoning, labelled by a model that reads the conversation (ThinkPrune, arXiv 2504.01296, analysis)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longshort.chains import Block
from longshort.episode import Episode
from longshort.generation import Generator, SamplingParams
from longshort.protocol import TAGS
from longshort.stages import Record
from longshort.thoughts.asking import ask
from longshort.thoughts.asking_blocks import blocks_request, blocks_schema
from longshort.thoughts.chunk import parse_blocks
from longshort.thoughts.steps import split_steps

# What each phase is, in the words that the judge is shown.
PHASES: Mapping[str, str] = {
    "understanding": "reads the problem, says what is given and what is asked",
    "reformulating": "puts the problem into other words, symbols or a simpler form",
    "applying theorems": "names or uses a theorem, formula or known fact",
    "breaking down": "splits the problem into parts or cases, or makes a plan",
    "computing": "calculates or transforms expressions",
    "substituting": "puts values or expressions into others",
    "verifying locally": "checks the step or the result just obtained",
    "reassessing the whole": "doubts or goes over the whole solution again",
    "exploring alternatives": "tries another way",
    "finalising": "draws the conclusion, states the answer",
}
SYSTEM = "You read how someone solved a mathematical problem and say what each part of the reasoning does."
REQUEST = blocks_request(
    "Here are a problem and the reasoning about it, cut into {count} numbered steps. Divide the steps into blocks, "
    "runs of steps that do the same, and give each block one of these ten types:\n{phases}",
    example="understanding",
)
PHASES_SCHEMA = blocks_schema(list(PHASES))


@dataclass(frozen=True, slots=True)
class Judging:
    """How the judge is asked; conversations of more than ``max_characters`` are not, None for no limit."""

    retries: int = 2
    max_tokens: int = 4_096
    temperature: float = 0.0
    seed: int | None = 0
    max_characters: int | None = None


async def label_phases(judge: Generator, episode: Episode, settings: Judging) -> Record:
    """Characters of a conversation in each phase, or why there are none.

    ``{"phases": {"computing": 120}, "faults": []}``, with ``phases`` None where the judge gave no answer that could be
    read, or was not asked; ``faults`` says why answers were refused.
    """
    steps = steps_of(episode)
    size = sum(map(len, steps))
    if settings.max_characters is not None and size > settings.max_characters:
        fault = f"the conversation has {size} characters, more than the {settings.max_characters} that a judge is shown"
        return {"phases": None, "faults": [fault], "asked": False}
    if not size:
        return {"phases": None, "faults": ["the conversation is empty"], "asked": False}
    params = SamplingParams(
        settings.max_tokens, temperature=settings.temperature, seed=settings.seed, json_schema=PHASES_SCHEMA
    )
    session = f"phases/{episode.problem.id}/{episode.sample}"
    asked = await ask(
        judge, messages_for(episode, steps), params, session, lambda raw: _read(raw, steps), settings.retries
    )
    if asked.value is None:
        return {"phases": None, "faults": list(asked.faults), "asked": True}
    sizes: Counter[str] = Counter()
    for block in asked.value:
        sizes[block.type] += sum(map(len, steps[block.start - 1 : block.end]))
    return {"phases": dict(sizes), "faults": list(asked.faults), "asked": True}


def phase_numbers(records: Iterable[Record]) -> dict[str, Any]:
    """Shares of the ten phases, in characters over all conversations that were labelled, and how the judge did.

    ``judged`` conversations have labels, ``refused`` have none after all attempts, ``skipped`` were not asked about;
    ``refused_answers`` counts all answers that could not be read, and ``faults`` names the most frequent reasons.
    """
    found = list(records)
    sizes: Counter[str] = Counter()
    for record in found:
        sizes.update(record["phases"] or {})
    total = sum(sizes.values())
    asked = [record for record in found if record["asked"]]
    faults = Counter(fault for record in asked for fault in record["faults"])
    return {
        "shares": {phase: sizes[phase] / total for phase in PHASES} if total else None,
        "judged": sum(record["phases"] is not None for record in found),
        "refused": sum(record["phases"] is None for record in asked),
        "skipped": len(found) - len(asked),
        "refused_answers": sum(len(record["faults"]) for record in asked),
        "faults": dict(faults.most_common(3)),
    }


def steps_of(episode: Episode) -> tuple[str, ...]:
    """Steps of all turns in a row, without the protocol's tags."""
    texts = []
    for turn in episode.turns:
        text = turn.text
        for tag in TAGS:
            text = text.replace(tag, "\n\n")
        texts += [step for step in split_steps(text.strip()) if step.strip()]
    return tuple(texts)


def messages_for(episode: Episode, steps: Sequence[str]) -> tuple[Mapping[str, str], ...]:
    """What the judge is shown."""
    request = REQUEST.format(
        count=len(steps),
        phases="\n".join(f'- "{name}": {meaning}' for name, meaning in PHASES.items()),
        question=episode.problem.question.strip(),
        steps="\n".join(f"Step {number}: {step.strip()}" for number, step in enumerate(steps, start=1)),
    )
    return {"role": "system", "content": SYSTEM}, {"role": "user", "content": request}


def _read(raw: str, steps: Sequence[str]) -> tuple[Block, ...]:
    blocks = parse_blocks(raw, steps)
    for block in blocks:
        if block.type not in PHASES:
            raise ValueError(f'"{block.type}" is none of the ten types: choose of {", ".join(PHASES)}')
    return blocks
