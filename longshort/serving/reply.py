"""Replies in OpenAI's shapes, with what it has no place for under ``longshort``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from longshort.controller import Limits
from longshort.serving.play import Piece, Played, PlayedTurn

DONE = b"data: [DONE]\n\n"


class Reply:
    """Makes the parts of one reply.

    Args:
        id, created, model: of the reply, as OpenAI has them.
        hard: the limits of a request with a budget, or None.
        token_ids: whether turns have their sampled ids.
    """

    def __init__(self, id: str, created: int, model: str, hard: Limits | None, token_ids: bool) -> None:
        self._head = {"id": id, "created": created, "model": model}
        self._hard = hard
        self._token_ids = token_ids

    def completion(self, played: Sequence[Played]) -> dict[str, Any]:
        """``chat.completion``."""
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": each.content, "reasoning_content": each.reasoning},
                "logprobs": None,
                "finish_reason": each.finish_reason,
                "longshort": self._extension(each),
            }
            for index, each in enumerate(played)
        ]
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": usage(played)}

    def first(self, index: int) -> dict[str, Any]:
        """The chunk that opens a choice."""
        return self._chunk(index, {"role": "assistant", "content": ""})

    def piece(self, index: int, piece: Piece) -> dict[str, Any]:
        """``chat.completion.chunk`` with some text; its ``longshort`` says which turn of which model it is from."""
        told: dict[str, Any] = {"turn": piece.turn, "role": piece.role}
        if piece.channel == "turn":
            return self._chunk(index, {"longshort": {**told, "text": piece.text}})
        return self._chunk(index, {piece.channel: piece.text, "longshort": told})

    def last(self, index: int, played: Played) -> dict[str, Any]:
        """The chunk that closes a choice."""
        return self._chunk(index, {}, played.finish_reason, {"longshort": self._extension(played)})

    def usage(self, played: Sequence[Played]) -> dict[str, Any]:
        """The chunk that ends a stream with ``include_usage``."""
        return {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage(played)}

    def _chunk(
        self, index: int, delta: Mapping[str, Any], finish: str | None = None, more: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish, **(more or {})}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}

    def _extension(self, played: Played) -> dict[str, Any]:
        told: dict[str, Any] = {
            "outcome": played.episode.outcome,
            "turns": [self._turn(each) for each in played.turns],
        }
        if self._hard is not None:
            own = self._hard.max_turn_tokens
            told["budget"] = {
                "tokens": self._hard.max_episode_tokens,
                "used": played.episode.tokens,
                "reserve": self._hard.reserve,
                "ended_turns": [
                    number
                    for number, each in enumerate(played.turns)
                    if each.turn.finish_reason == "length" and each.budget < own[each.turn.role]
                ],
            }
        return told

    def _turn(self, played: PlayedTurn) -> dict[str, Any]:
        turn = played.turn
        told = {
            "role": turn.role,
            "completion_tokens": len(turn.token_ids),
            "prompt_tokens": turn.prompt_tokens,
            "cached_tokens": turn.cached_tokens or 0,
            "finish_reason": turn.finish_reason,
            "well_formed": turn.well_formed,
            "seconds": round(played.seconds, 4),
        }
        return {**told, "token_ids": list(turn.token_ids)} if self._token_ids else told


def usage(played: Sequence[Played]) -> dict[str, Any]:
    """Tokens of a reply: ``prompt_tokens`` is what the opening model read first, once for all choices.

    Under ``longshort``, by role: what the model read over all its turns, how much of it a prefix cache held, and what
    it wrote.
    """
    turns = [each.turn for one in played for each in one.turns]
    opening = next((one.turns[0].turn for one in played if one.turns), None)
    answers = sum(len(one.turns[-1].turn.token_ids) for one in played if one.turns and one.content)
    read = 0 if opening is None else opening.prompt_tokens
    wrote = sum(len(turn.token_ids) for turn in turns)
    roles = {turn.role: [other for other in turns if other.role == turn.role] for turn in turns}
    return {
        "prompt_tokens": read,
        "completion_tokens": wrote,
        "total_tokens": read + wrote,
        "prompt_tokens_details": {"cached_tokens": 0 if opening is None else opening.cached_tokens or 0},
        "completion_tokens_details": {"reasoning_tokens": wrote - answers},
        "longshort": {
            role: {
                "turns": len(own),
                "prompt_tokens": sum(turn.prompt_tokens for turn in own),
                "cached_tokens": sum(turn.cached_tokens or 0 for turn in own),
                "completion_tokens": sum(len(turn.token_ids) for turn in own),
            }
            for role, own in roles.items()
        },
    }


def event(data: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + msgspec.json.encode(data) + b"\n\n"
