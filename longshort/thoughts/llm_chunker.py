"""Thoughts found by an instruct model (Long⊗Short, arXiv 2505.11827, section 3), with the rules to fall back on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from longshort.chains import Block
from longshort.episode import Problem
from longshort.generation import Generator, SamplingParams
from longshort.thoughts.asking import ask
from longshort.thoughts.asking_blocks import blocks_request, blocks_schema
from longshort.thoughts.chunk import SHORT_TAIL, Chunking, UnfinishedError, parse_blocks, repaired, thoughts_of
from longshort.thoughts.rules import RuleLimits, chunk_by_rules

SYSTEM = "You read how someone thought about a mathematical problem and say which parts the thinking has."
REQUEST = blocks_request(
    "Here are a problem and the thinking of someone who solves it, cut into {count} numbered steps. Divide the steps "
    "into blocks. A block is a run of steps with one purpose, for example: understanding the problem, making a plan, "
    "one line of derivation, trying another way, checking a result, stating the answer. Prefer a few large blocks to "
    "many small ones, and name the purpose of each in a few general words.",
    example="problem understanding",
)
BLOCKS_SCHEMA = blocks_schema()


@dataclass(frozen=True, slots=True)
class ModelChunking:
    """How the model is asked.

    Attributes:
        max_tokens, temperature: of an answer; the paper's.
        seed: of the first attempt; None for none.
        max_characters: thinking of more characters is divided by rules without asking, e.g. because the model's
            context could not hold it; None for no limit.
        limits: of the rules.
    """

    max_tokens: int = 7_120
    temperature: float = 0.1
    seed: int | None = 0
    max_characters: int | None = None
    limits: RuleLimits = field(default_factory=RuleLimits)


async def chunk_with_model(
    generator: Generator,
    problem: Problem,
    steps: Sequence[str],
    retries: int = 2,
    settings: ModelChunking | None = None,
) -> Chunking:
    """Thoughts of ``steps``, by the model if it can, and by rules if not.

    - Blocks that leave out at most ``SHORT_TAIL`` steps at the end are repaired at once.
    - Anything else that is wrong is shown to the model, up to ``retries`` times. Then the blocks that reached furthest
      among those that were right up to their end are repaired, and without any the rules divide everything.
    - Fewer than two steps are not worth a question.

    ``Chunking.made_by`` says which it was, ``Chunking.faults`` what was wrong with the answers.
    """
    settings = settings or ModelChunking()
    by_rules = Chunking(chunk_by_rules(steps, settings.limits), "rules")
    if len(steps) < 2:
        return by_rules
    size = sum(map(len, steps))
    if settings.max_characters is not None and size > settings.max_characters:
        fault = f"the thinking has {size} characters, more than the {settings.max_characters} that a model is shown"
        return Chunking(by_rules.thoughts, "rules", faults=(fault,))
    furthest: tuple[Block, ...] = ()

    def read(answer: str) -> tuple[Block, ...]:
        nonlocal furthest
        try:
            return parse_blocks(answer, steps)
        except UnfinishedError as error:
            if len(steps) - error.blocks[-1].end <= SHORT_TAIL:
                return error.blocks
            furthest = max(furthest, error.blocks, key=lambda blocks: blocks[-1].end if blocks else 0)
            raise

    params = SamplingParams(
        settings.max_tokens, temperature=settings.temperature, seed=settings.seed, json_schema=BLOCKS_SCHEMA
    )
    asked = await ask(generator, messages_for(problem, steps), params, f"chunk/{problem.id}", read, retries)
    blocks = asked.value or furthest
    if not blocks:
        return Chunking(by_rules.thoughts, "rules", faults=asked.faults)
    if blocks[-1].end < len(steps):
        return repaired(steps, blocks, asked.faults, settings.limits)
    return Chunking(thoughts_of(steps, blocks), "llm", faults=asked.faults)


def messages_for(problem: Problem, steps: Sequence[str]) -> tuple[Mapping[str, str], ...]:
    """What the model is shown."""
    numbered = "\n".join(f"Step {number}: {step.strip()}" for number, step in enumerate(steps, start=1))
    request = REQUEST.format(count=len(steps), question=problem.question.strip(), steps=numbered)
    return {"role": "system", "content": SYSTEM}, {"role": "user", "content": request}
