"""What a pair is compared with: the reasoning model that its cold start learned from, on the same test problems."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from longshort.coldstart.setting import opener, tokenizer_of
from longshort.config import as_list
from longshort.controller import Limits, Member, SynergyController
from longshort.data import load_problems
from longshort.display import Display
from longshort.grading_pool import GradingPool
from longshort.metrics import episode_metrics
from longshort.player import Player
from longshort.rounds.record import Record
from longshort.run import evaluation_samples, evaluation_sampling
from longshort.solo import SOLO, solo_protocol

REASONER = "reasoner"


async def measure_reasoner(config: DictConfig, grader: GradingPool, display: Display) -> None:
    """Play ``data.test_files`` with ``models.reasoner``, where both are given, and note it in the run's record.

    It may write as much as in the cold start, ``coldstart.distill.max_tokens``.
    """
    folder = Path(config.trainer.default_local_dir)
    known = Record.load(folder)
    if REASONER not in config.models or not config.data.test_files:
        return
    if known.reasoner and config.trainer.resume_mode == "auto":
        return
    problems = load_problems(as_list(config.data.test_files), config.data.on_error).problems
    limit = config.coldstart.distill.max_tokens
    protocol = solo_protocol(limit, config.team.family)
    tokenizer = tokenizer_of(config, REASONER)
    async with opener(config, display)(REASONER) as generator:
        member = Member(generator, tokenizer, limit + config.data.max_prompt_length)
        player = Player(SynergyController(protocol, {SOLO: member}, Limits(1, {SOLO: limit}, limit)), grader)
        sampling = evaluation_sampling(config)
        display.stage("testing the reasoner")
        graded = await player.play(problems, evaluation_samples(config), sampling, display.advance)
    metrics = episode_metrics(graded.episodes, graded.correct)
    replace(known, reasoner=metrics).save(folder)
