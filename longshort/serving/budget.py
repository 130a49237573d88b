"""Limits of one request's episode: a hard budget with a reserve for the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from longshort.controller import Limits
from longshort.episode import Ids
from longshort.protocol import Protocol
from longshort.serving.errors import RequestError

# Shares of the pair's own limits of turns and tokens.
EFFORTS: Mapping[str, float] = {"low": 0.25, "medium": 0.5, "high": 1.0}
# Share of a budget that is kept for the answer, and the tokens that a boxed line takes, which are kept of small ones.
RESERVED, LEAST_RESERVED = 0.5, 64
# Two turns are one exchange, the least that gives an answer.
EXCHANGE = 2


@dataclass(frozen=True, slots=True)
class Budget:
    """What a request may spend.

    Attributes:
        limits: what the controller plays by.
        hard: whether it was asked for: then a reserve is kept.
    """

    limits: Limits
    hard: bool


def budget_of(
    own: Limits,
    protocol: Protocol,
    contexts: Mapping[str, int],
    prompts: Mapping[str, Ids],
    max_tokens: int | None,
    effort: str | None,
) -> Budget:
    """Limits of a request.

    Without ``max_tokens`` and ``effort`` they are the pair's own, so that an evaluation is repeated token for token.
    With either, the conversation has at most that many tokens, the effort's share of turns, and a reserve: as many
    tokens as the answering role's turn may have, at most half of the budget, or ``LEAST_RESERVED`` of a small one.

    Raises:
        RequestError: a prompt leaves no room in a model's context.
    """
    for role, prompt in prompts.items():
        if len(prompt) + EXCHANGE > contexts[role]:
            raise RequestError(
                f"the conversation has {len(prompt)} tokens for the {role} model, whose context of {contexts[role]} "
                "leaves no room for an answer; shorten it",
                "messages",
                code="context_length_exceeded",
            )
    if max_tokens is None and effort is None:
        return Budget(own, False)
    share = EFFORTS[effort or "high"]
    tokens = min(max_tokens or own.max_episode_tokens, max(1, round(share * own.max_episode_tokens)))
    answering = max(own.max_turn_tokens[role] for role in protocol.roles if protocol.may_answer(role))
    turns = max(EXCHANGE, EXCHANGE * round(share * own.max_turns / EXCHANGE))
    limits = replace(
        own,
        max_turns=turns,
        max_episode_tokens=tokens,
        close_cut_turns=True,
        reserve=max(1, min(answering, tokens, max(LEAST_RESERVED, round(RESERVED * tokens)))),
    )
    return Budget(limits, True)
