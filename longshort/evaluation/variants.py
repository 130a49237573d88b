"""The ways to play that a recipe evaluates: one, or one for each budget of budget forcing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig

from longshort.controller import Limits, Member, SynergyController, render_prompt
from longshort.evaluation.baselines import (
    ANSWER,
    BUDGET_FORCING,
    CHAIN_OF_DRAFT,
    DRAFT_REQUEST,
    FIRST_THOUGHT,
    TALE_EP,
    ends_with_think,
    forced,
    with_request,
)
from longshort.evaluation.identity import play_settings
from longshort.evaluation.tale import EstimatingController
from longshort.generation import Tokenizer
from longshort.protocol import Protocol
from longshort.protocols import protocol_of
from longshort.solo import SOLO


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to play.

    Attributes:
        name: of the folder in the evaluation's; empty for that itself.
        settings: see :func:`longshort.evaluation.identity.play_settings`.
        controller: plays so.
    """

    name: str
    settings: Mapping[str, Any]
    controller: SynergyController


def make_variants(config: DictConfig, members: Mapping[str, Member], limits: Limits) -> list[Variant]:
    """All ways to play that ``evaluation.baseline`` asks for."""
    baseline, protocol = config.evaluation.baseline, protocol_of(config.team)

    def one(controller: SynergyController) -> list[Variant]:
        return [Variant("", play_settings(config, None), controller)]

    if baseline.name == TALE_EP:
        return one(EstimatingController(protocol, members, limits, baseline.estimate_tokens))
    if baseline.name == CHAIN_OF_DRAFT:
        return one(SynergyController(with_request(protocol, DRAFT_REQUEST), members, limits))
    if baseline.name == FIRST_THOUGHT:
        cap = limits.max_turn_tokens[SOLO]
        return one(_forced(config, protocol, members, limits, cap, (baseline.thought_end,)))
    if baseline.name == BUDGET_FORCING:
        return [
            Variant(
                f"budget-{budget}",
                play_settings(config, budget),
                _forced(config, protocol, members, limits, budget, ()),
            )
            for budget in baseline.budgets
        ]
    return one(SynergyController(protocol, members, limits))


def opens_thinking(protocol: Protocol, tokenizer: Tokenizer) -> bool:
    """Whether the chat template of a team of one writes ``<think>`` itself."""
    return ends_with_think(render_prompt(protocol, SOLO, tokenizer, "1+1=?"), tokenizer)


def _forced(
    config: DictConfig,
    protocol: Protocol,
    members: Mapping[str, Member],
    limits: Limits,
    budget: int,
    cuts: tuple[str, ...],
) -> SynergyController:
    baseline, member = config.evaluation.baseline, members[SOLO]
    return SynergyController(
        forced(protocol, baseline.cue, opens_thinking(protocol, member.tokenizer), cuts),
        {SOLO: member, ANSWER: member},
        replace(
            limits, max_turns=2, max_turn_tokens={SOLO: budget, ANSWER: baseline.answer_tokens}, close_cut_turns=True
        ),
    )
