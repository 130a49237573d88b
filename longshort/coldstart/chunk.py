"""``longshort chunk``: the thoughts of every chain."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import asdict

from longshort.coldstart.distill import CHAINS, chain_from
from longshort.coldstart.setting import Setting
from longshort.episode import Problem
from longshort.generation import Generator
from longshort.policy_checks import choice
from longshort.stages import Record, StageResult, read_stage, run_stage
from longshort.thoughts.chunk import Chunking, count_made_by, published_chunking
from longshort.thoughts.llm_chunker import ModelChunking, chunk_with_model
from longshort.thoughts.rules import RuleLimits, chunk_by_rules
from longshort.thoughts.steps import split_response, split_steps
from longshort.thoughts.thought import Thought

THOUGHTS = "thoughts"


async def chunk(setting: Setting) -> StageResult:
    """One record per chain whose thinking ended: its thoughts, how they were found, what was wrong on the way.

    Raises:
        ValueError: there are no chains.
    """
    settings = setting.config.coldstart.chunk
    choice("coldstart.chunk.by", settings.by, ("model", "rules"))
    limits = RuleLimits(**settings.limits)
    chains = {key: chain for key, chain in read_stage(setting.folder, CHAINS).items() if chain["closed"]}
    asks = settings.by == "model" and not all("published" in chain for chain in chains.values())
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(setting.open_model("instruct")) if asks else None
        setting.display.stage("dividing chains into thoughts")

        async def divide(chain: Record) -> Record:
            chunking = await _chunking(chain, model, setting, limits)
            return asdict(chunking)

        facts = setting.settings("chunk", *(["instruct"] if asks else []))
        result = await run_stage(setting.folder, THOUGHTS, chains, divide, facts, setting.display.advance)
    made_by = count_made_by(chunking_from(record) for record in result.records.values())
    setting.display.table(f"{len(result.records)} chains divided", ("by", "chains"), list(made_by.items()))
    return result


async def _chunking(chain: Record, model: Generator | None, setting: Setting, limits: RuleLimits) -> Chunking:
    if "published" in chain:
        return published_chunking(chain_from(chain["published"]))[1]
    steps = split_steps(split_response(chain["response"]).thinking)
    if model is None:
        return Chunking(chunk_by_rules(steps, limits), "rules")
    settings = setting.config.coldstart.chunk
    asking = ModelChunking(
        settings.max_tokens, settings.temperature, setting.config.seed, settings.max_characters, limits
    )
    return await chunk_with_model(model, Problem(**chain["problem"]), steps, settings.retries, asking)


def chunking_from(record: Record) -> Chunking:
    """Inverse of :func:`dataclasses.asdict`."""
    thoughts = tuple(Thought(**thought) for thought in record["thoughts"])
    return Chunking(thoughts, record["made_by"], record["repaired_steps"], tuple(record["faults"]))
