"""``longshort distill``: long chains of thought from a reasoning model, or from a file of divided ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from longshort.chains import Block, Chain
from longshort.coldstart.setting import Setting
from longshort.config import as_list
from longshort.controller import turn_seed
from longshort.data import load_problems
from longshort.episode import Problem
from longshort.generation import Chat, SamplingParams
from longshort.stages import Record, StageResult, run_stage
from longshort.thoughts.steps import split_response

CHAINS = "chains"
# Apart from the seeds of training steps and of evaluation.
SEED_STEP = -2


async def distill(setting: Setting) -> StageResult:
    """One record per chain: problem, response, tokens, whether it ended by itself, whether its answer is right.

    Raises:
        ValueError: problems or chains cannot be read.
    """
    if setting.config.coldstart.chains:
        return await _published(setting)
    config, settings = setting.config, setting.config.coldstart.distill
    problems = load_problems(as_list(config.data.train_files), config.data.on_error).problems
    items = {
        f"{problem.id}#{sample}" if settings.samples > 1 else problem.id: (problem, sample)
        for problem in problems
        for sample in range(settings.samples)
    }
    params = SamplingParams(settings.max_tokens, temperature=settings.temperature, top_p=settings.top_p)

    async with setting.open_model("reasoner") as reasoner:
        setting.display.stage("distilling")

        async def think(item: tuple[Problem, int]) -> Record:
            problem, sample = item
            seed = turn_seed(config.seed, SEED_STEP, problem.id, sample, 0)
            chat = Chat(({"role": "user", "content": problem.question + settings.instruction},))
            completion = await reasoner.generate(chat, replace(params, seed=seed), f"{problem.id}#{sample}")
            assert completion.text is not None, "a chat is answered in text"
            closed = completion.finish_reason == "stop" and split_response(completion.text).closed
            grade = await setting.grader.grade(completion.text, problem.answer)
            return {
                "problem": asdict(problem),
                "response": completion.text,
                "tokens": completion.tokens,
                "closed": closed,
                "correct": closed and grade.correct,
            }

        return await run_stage(
            setting.folder, CHAINS, items, think, setting.settings("distill", "reasoner"), setting.display.advance
        )


async def _published(setting: Setting) -> StageResult:
    """Records of chains that were written and divided elsewhere."""
    file = Path(setting.config.coldstart.chains).expanduser()
    if not file.is_file():
        raise ValueError(f"coldstart.chains={file} is no file; give one that `longshort data thoughtchunk` wrote")
    setting.display.stage(f"reading {file}")
    chains = {chain.id: chain for chain in _read(file)}

    async def take(chain: Chain) -> Record:
        grade = await setting.grader.grade(chain.thought, chain.answer)
        return {
            "problem": asdict(Problem(chain.id, chain.question, chain.answer)),
            "response": chain.thought,
            "tokens": None,
            "closed": True,
            "correct": grade.correct,
            "published": asdict(chain),
        }

    facts = {"chains": str(file)}
    return await run_stage(setting.folder, CHAINS, chains, take, facts, setting.display.advance)


def _read(file: Path) -> Iterator[Chain]:
    for number, line in enumerate(file.read_bytes().split(b"\n"), start=1):
        if line.strip():
            try:
                yield chain_from(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{file}:{number} is no chain ({error}); correct or remove it") from error


def chain_from(data: dict[str, object]) -> Chain:
    """Inverse of :func:`dataclasses.asdict`."""
    blocks = data["blocks"]
    assert isinstance(blocks, list)
    return Chain(**{**data, "blocks": tuple(Block(**block) for block in blocks)})  # type: ignore[arg-type]
