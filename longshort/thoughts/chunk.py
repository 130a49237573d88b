"""Thoughts: runs of steps that serve one purpose, and how they were found.

**A chunking that ends early.** Models often leave out the last steps; the authors' own example ends at step 133 of
135. A tail of at most ``SHORT_TAIL`` steps joins the last thought. A longer one is asked for again where there is a
model to ask (:mod:`longshort.thoughts.llm_chunker`), and otherwise divided by the rules of
:mod:`longshort.thoughts.rules`. No step is ever dropped, and the chunking counts as ``"repaired"``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from longshort.chains import Block, Chain
from longshort.chains import split_steps as split_as_published
from longshort.thoughts.json_reply import read_json
from longshort.thoughts.rules import RuleLimits, chunk_by_rules
from longshort.thoughts.steps import Response, split_response, split_steps
from longshort.thoughts.thought import Thought

MadeBy = Literal["llm", "repaired", "rules"]
SHORT_TAIL = 3

_TYPE_KEYS = ("block type", "block_type", "type")


@dataclass(frozen=True, slots=True)
class Chunking:
    """The thoughts of one thinking, and how they were made.

    Attributes:
        thoughts: in order; joined, their texts are the thinking, byte for byte. Empty only where the thinking is.
        made_by: ``"llm"``; ``"repaired"`` where a model's blocks ended early; ``"rules"``.
        repaired_steps: steps at the end that no block of the model held.
        faults: why answers of the model were refused, one sentence each.
    """

    thoughts: tuple[Thought, ...]
    made_by: MadeBy
    repaired_steps: int = 0
    faults: tuple[str, ...] = ()


class UnfinishedError(ValueError):
    """Blocks that are right as far as they go and end before the last step.

    Attributes:
        blocks: these blocks.
    """

    def __init__(self, message: str, blocks: tuple[Block, ...]) -> None:
        super().__init__(message)
        self.blocks = blocks


def count_made_by(chunkings: Iterable[Chunking]) -> dict[MadeBy, int]:
    """How many chunkings were made in each way."""
    counts = Counter(chunking.made_by for chunking in chunkings)
    return {way: counts[way] for way in get_args(MadeBy)}


def parse_blocks(raw: str, steps: Sequence[str]) -> tuple[Block, ...]:
    """The blocks in a model's answer, in order.

    The answer is JSON, bare or in a code fence, as ``{"block 1": {"start": 1, "end": 4, "block type": "…"}, …}`` or as
    the list of its values.

    Raises:
        UnfinishedError: all is right but the end: the last block ends before the last step.
        ValueError: anything else that is wrong, in one sentence that a model can act on.
    """
    answer = read_json(raw)
    if isinstance(answer, list):
        named = [(f"block {number}", value) for number, value in enumerate(answer, start=1)]
    elif isinstance(answer, dict):
        named = list(answer.items())
    else:
        named = []
    if not named:
        raise ValueError('the answer holds no blocks: give at least "block 1"')
    blocks = sorted(((_block(name, value), name) for name, value in named), key=lambda pair: pair[0].start)
    expected, before = 1, ""
    for block, name in blocks:
        _check_place(block, name, expected, before, len(steps))
        expected, before = block.end + 1, name
    found = tuple(block for block, _ in blocks)
    if expected <= len(steps):
        raise UnfinishedError(
            f'"{before}" ends at step {expected - 1}, but the last step is {len(steps)}: '
            f"put {_span(expected, len(steps))} into blocks too",
            found,
        )
    return found


def thoughts_of(steps: Sequence[str], blocks: Sequence[Block]) -> tuple[Thought, ...]:
    """The thought of each block."""
    return tuple(Thought("".join(steps[b.start - 1 : b.end]), b.type, b.start, b.end) for b in blocks)


def repaired(
    steps: Sequence[str], blocks: Sequence[Block], faults: tuple[str, ...] = (), limits: RuleLimits | None = None
) -> Chunking:
    """The chunking of blocks that end early, by the rule at the top of this file."""
    done = blocks[-1].end
    tail = len(steps) - done
    if tail <= SHORT_TAIL:
        longer = replace(blocks[-1], end=len(steps))
        return Chunking(thoughts_of(steps, [*blocks[:-1], longer]), "repaired", tail, faults)
    rest = [replace(t, start=t.start + done, end=t.end + done) for t in chunk_by_rules(steps[done:], limits)]
    return Chunking((*thoughts_of(steps, blocks), *rest), "repaired", tail, faults)


def published_chunking(chain: Chain) -> tuple[Response, Chunking]:
    """Parts and thoughts of a chain that its authors divided.

    Their blocks count the steps of the whole response between exact ``"\\n\\n"``, tags and answer included. Here they
    are cut to the thinking; steps keep their numbers. A chain whose blocks are broken is divided by rules.
    """
    response = split_response(chain.thought)
    if chain.chunking == "broken":
        return response, Chunking(chunk_by_rules(split_steps(response.thinking)), "rules")
    start, end = len(response.opening), len(response.opening) + len(response.thinking)
    steps, place = [], 0
    for step in split_as_published(chain.thought):
        # The separator behind the last step lies outside of the chain, hence of the thinking.
        steps.append(chain.thought[max(start, place) : min(end, place + len(step) + 2)])
        place += len(step) + 2
    while steps and not steps[-1]:
        steps.pop()
    blocks = [replace(b, end=min(b.end, len(steps))) for b in chain.blocks if b.start <= len(steps)]
    if not blocks:
        return response, Chunking((), "rules")
    if blocks[-1].end < len(steps):
        return response, repaired(steps, blocks)
    return response, Chunking(thoughts_of(steps, blocks), "llm")


def _block(name: str, value: object) -> Block:
    if not isinstance(value, dict):
        raise ValueError(f'"{name}" is no object: give it "start", "end" and "block type"')
    kind = next((value[key] for key in _TYPE_KEYS if key in value), None)
    if not isinstance(kind, str) or not kind.strip():
        raise ValueError(f'"{name}" has no "block type": say in a few words what the block does')
    block = Block(_number(name, "start", value), _number(name, "end", value), kind.strip())
    if block.end < block.start:
        raise ValueError(
            f'"{name}" starts at step {block.start} and ends at step {block.end}: a block may not end before it starts'
        )
    return block


def _number(name: str, key: str, value: dict[str, object]) -> int:
    number = value.get(key)
    if isinstance(number, str) and number.strip().isdecimal() and len(number) < 10:
        return int(number)
    if isinstance(number, float) and number.is_integer():
        return int(number)
    if isinstance(number, bool) or not isinstance(number, int):
        raise ValueError(f'"{name}" has "{key}": {number!r}, which is no step number: give a whole number from 1')
    return number


def _check_place(block: Block, name: str, expected: int, before: str, last: int) -> None:
    if block.start < 1:
        raise ValueError(f'"{name}" starts at step {block.start}: steps are numbered from 1')
    if block.end > last:
        raise ValueError(f'"{name}" ends at step {block.end}, but the last step is {last}: end the last block there')
    if block.start > expected:
        where = f'"{before}" ends at step {expected - 1} and "{name}" starts at step {block.start}'
        start = f'the first block, "{name}", starts at step {block.start}'
        raise ValueError(f"{where if before else start}: {_span(expected, block.start - 1)} must be in a block too")
    if block.start < expected:
        raise ValueError(
            f'"{before}" ends at step {expected - 1} and "{name}" starts at step {block.start}: '
            f"{_span(block.start, min(expected - 1, block.end))} may be in one block only"
        )


def _span(first: int, last: int) -> str:
    return f"step {first}" if first == last else f"steps {first} to {last}"
