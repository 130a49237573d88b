"""``longshort synthesize``: from scored thoughts to the conversations that both models are fine-tuned on."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path

from longshort.coldstart.distill import CHAINS
from longshort.coldstart.score import adaptive_of, scored_chains
from longshort.coldstart.setting import Setting
from longshort.conversation import as_episode
from longshort.episode import Problem
from longshort.folders import write_whole
from longshort.model_folder import load_tokenizer
from longshort.policy_checks import choice
from longshort.protocols import protocol_of
from longshort.stages import Record, StageResult, read_stage, run_stage
from longshort.thoughts.adaptive import Adaptive, AdaptiveScoring, Request, Split
from longshort.thoughts.completer import Completer, ModelCompleter
from longshort.thoughts.figures import write_figures
from longshort.thoughts.partition import Partition
from longshort.thoughts.scored import ScoredChain
from longshort.thoughts.synthesis import DividedChain, synthesise

CONVERSATIONS = "conversations"
TRAIN, VALIDATION = "train.jsonl", "validation.jsonl"
# Reasons for which a chain never gets as far as its conversation.
CUT, WRONG, UNSCORED = "cut chain", "wrong chain", "not scored"


async def synthesize(setting: Setting) -> StageResult:
    """One record per scored chain: its conversation, or why there is none.

    Writes ``train.jsonl`` and ``validation.jsonl``, files of episodes, and the figures of the paper.

    Raises:
        ValueError: there are no scored chains, or settings are wrong.
    """
    config, settings = setting.config, setting.config.coldstart.synthesize
    choice("coldstart.synthesize.completer", settings.completer, ("model", "playground"))
    partition = Partition(settings.rule, config.seed, settings.share, settings.k, settings.threshold)
    chains = scored_chains(config)
    divided = {chain.problem.id: chain for chain in _divided(setting, chains, partition)}
    asks = settings.completer == "model"
    async with AsyncExitStack() as stack:
        completer = await _completer(setting, stack) if asks else _program()
        setting.display.stage("writing conversations")

        async def write(chain: DividedChain) -> Record:
            return asdict(await synthesise(chain, completer, setting.grader.grade, settings.frame))

        facts = setting.settings("synthesize", *(["instruct"] if asks else []))
        facts["score"] = {"decay": config.coldstart.score.decay, "rollouts": config.coldstart.score.rollouts}
        result = await run_stage(setting.folder, CONVERSATIONS, divided, write, facts, setting.display.advance)
    _write_episodes(setting, {chain.problem.id: chain.problem for chain in chains}, result.records)
    write_figures(chains, setting.folder / "figures", config.coldstart.score.decay)
    kept = sum(record["conversation"] is not None for record in result.records.values())
    dropped = dropped_chains(setting.folder)
    setting.display.table(
        f"{kept} conversations of {kept + sum(dropped.values())} chains", ("dropped", "chains"), list(dropped.items())
    )
    return result


def dropped_chains(folder: Path) -> dict[str, int]:
    """Why chains made no conversation, and how many."""
    records = read_stage(folder, CONVERSATIONS)
    reasons: Counter[str] = Counter()
    for key, chain in read_stage(folder, CHAINS).items():
        if not chain["closed"]:
            reasons[CUT] += 1
        elif not chain["correct"]:
            reasons[WRONG] += 1
        elif key not in records:
            reasons[UNSCORED] += 1
        elif records[key]["dropped"] is not None:
            reasons[records[key]["dropped"]] += 1
    return dict(reasons.most_common())


def _divided(setting: Setting, chains: Sequence[ScoredChain], partition: Partition) -> list[DividedChain]:
    """Which thoughts of each chain stay long."""
    settings = setting.config.coldstart.score
    scanning = partition.rule == "scan"
    if settings.adaptive.enabled:
        splits = _splits(chains, adaptive_of(settings))
        long = [s.long if scanning else partition(s.scores, c.problem.id) for c, s in zip(chains, splits, strict=True)]
    else:
        long = [partition(c.scores(settings.decay, settings.rollouts), c.problem.id) for c in chains]
    return [DividedChain(c.problem, c.thoughts, flags) for c, flags in zip(chains, long, strict=True)]


def _splits(chains: Sequence[ScoredChain], settings: Adaptive) -> list[Split]:
    """What the adaptive mode decides from the stored samples."""
    scoring = AdaptiveScoring([chain.lengths for chain in chains], settings)
    for place, chain in enumerate(chains):
        for prefix, samples in enumerate(chain.rollouts):
            known = samples[: settings.rollouts]
            scoring.observe(Request(place, prefix, 0, len(known)), sum(rollout.correct for rollout in known))
    return scoring.splits()


async def _completer(setting: Setting, stack: AsyncExitStack) -> Completer:
    settings = setting.config.coldstart.synthesize
    model = await stack.enter_async_context(setting.open_model("instruct"))
    return ModelCompleter(model, settings.retries, settings.max_tokens, settings.temperature, setting.config.seed)


def _program() -> Completer:
    from longshort.playground.completer import ArithmeticCompleter

    return ArithmeticCompleter()


def _write_episodes(setting: Setting, problems: Mapping[str, Problem], records: Mapping[str, Record]) -> None:
    """Conversations as episodes of the policies, some set apart for validation."""
    config = setting.config
    protocol = protocol_of(config.team)
    tokenizers = {name: load_tokenizer(config.policies[name], name, protocol) for name in config.policies}
    lines = [
        as_episode(problems[key], record["conversation"], tokenizers, protocol).to_json() + "\n"
        for key, record in records.items()
        if record["conversation"] is not None
    ]
    if len(lines) < 2:
        raise ValueError(f"{len(lines)} of {len(records)} chains made a conversation, too few to learn from")
    random.Random(config.seed).shuffle(lines)
    apart = max(1, round(len(lines) * config.coldstart.synthesize.validation))
    for name, part in ((VALIDATION, lines[:apart]), (TRAIN, lines[apart:])):
        write_whole(setting.folder / name, "".join(part))
