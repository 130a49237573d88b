"""The Episode: one problem and the turns that a team of policies wrote about it.

Every stage works on episodes: cold start, RL, evaluation and the transcript viewer read and write the same records.
Tokens go in and tokens come out: a policy's own turns are never decoded and encoded again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

FinishReason = Literal["stop", "length"]
Outcome = Literal["answered", "turn_limit", "token_limit", "malformed"]

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with a gold answer.

    Attributes:
        id: unique within its data set.
        question: text shown to every policy.
        answer: gold answer as text, e.g. ``"27"`` or ``"\\frac{1}{2}"``.
        source: where it comes from; reward functions may be routed by it (verl's ``data_source``).
    """

    id: str
    question: str
    answer: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one policy wrote in one go.

    Attributes:
        role: the policy that sampled the turn, e.g. ``"long"``.
        token_ids: sampled ids in the author's tokenizer, an end-of-sequence token included.
        text: what a reader sees: the decoded ids without end-of-sequence token, plus the controller's closing text.
        log_probs: log-probability of each sampled id under the weights that sampled it, in nats; same length.
        finish_reason: ``"stop"`` (stop string or end of sequence) or ``"length"`` (the turn's cap was hit).
        well_formed: whether the sampled text follows the protocol's template for this role.
        closing_ids: ids that the controller appended to close a cut turn, in the author's tokenizer; never trained.
        read_as: the turn in the ids of a reader whose context differs from ``token_ids + closing_ids``.
        cached_tokens: prompt tokens that the engine's prefix cache held, if it says so.
        prompt_tokens: length of the prompt that the turn was sampled from.
    """

    role: str
    token_ids: Ids
    text: str
    log_probs: tuple[float, ...]
    finish_reason: FinishReason
    well_formed: bool = True
    closing_ids: Ids = ()
    read_as: Mapping[str, Ids] = field(default_factory=dict)
    cached_tokens: int | None = None
    prompt_tokens: int = 0

    def ids_for(self, role: str) -> Ids:
        """Ids of this turn in the context of ``role``."""
        if role in self.read_as:
            return self.read_as[role]
        return self.token_ids + self.closing_ids


@dataclass(frozen=True, slots=True)
class View:
    """What one policy saw and wrote in an episode, ready for a single forward pass.

    Attributes:
        prompt_ids: everything before the policy's first turn, at least one id.
        response_ids: from the policy's first sampled id to its last.
        mask: 1 exactly on the ids that this policy sampled, same length as ``response_ids``.
        log_probs: sampled log-probabilities where the mask is 1, else 0.0.
    """

    prompt_ids: Ids
    response_ids: Ids
    mask: Ids
    log_probs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Episode:
    """One played conversation.

    Attributes:
        problem: what was asked.
        prompts: per role, the ids of system prompt and question, before any turn.
        turns: in the order they were written.
        outcome: how it ended; only ``"answered"`` can earn a correctness reward.
        sample: index within the problem's group.
        error: why the episode could not be rewarded; it then scores 0.
    """

    problem: Problem
    prompts: Mapping[str, Ids]
    turns: tuple[Turn, ...]
    outcome: Outcome
    sample: int = 0
    error: str | None = None

    @property
    def tokens(self) -> int:
        """Sampled tokens of the whole conversation."""
        return sum(len(turn.token_ids) for turn in self.turns)

    def tokens_of(self, role: str) -> int:
        """Sampled tokens of one role."""
        return sum(len(turn.token_ids) for turn in self.turns if turn.role == role)

    @property
    def final_text(self) -> str:
        """Text of the last turn, which holds the answer where the outcome is ``"answered"``."""
        return self.turns[-1].text if self.turns else ""

    def view(self, role: str) -> View | None:
        """The episode as ``role`` saw it, or None where the role sampled nothing.

        Example: with prompts ``{"long": (1, 2), "short": (3,)}`` and turns long ``(7, 8)``, short ``(9,)``, the view of
        ``short`` has prompt ``(3, 7, 8)``, response ``(9,)`` and mask ``(1,)``.
        """
        own = [i for i, turn in enumerate(self.turns) if turn.role == role and turn.token_ids]
        if not own:
            return None
        prompt = list(self.prompts[role])
        for turn in self.turns[: own[0]]:
            prompt.extend(turn.ids_for(role))
        response: list[int] = []
        mask: list[int] = []
        log_probs: list[float] = []
        for turn in self.turns[own[0] : own[-1] + 1]:
            ids = turn.ids_for(role)
            sampled = len(turn.token_ids) if turn.role == role else 0
            response.extend(ids)
            mask.extend([1] * sampled + [0] * (len(ids) - sampled))
            log_probs.extend(turn.log_probs if turn.role == role else ())
            log_probs.extend([0.0] * (len(ids) - sampled))
        # Closing ids after the last sampled one have nothing to train and nothing to condition.
        while mask and not mask[-1]:
            for column in (response, mask, log_probs):
                column.pop()
        return View(tuple(prompt), tuple(response), tuple(mask), tuple(log_probs))

    def context(self, role: str) -> Ids:
        """Ids that ``role`` continues from: its prompt and every turn so far."""
        ids = list(self.prompts[role])
        for turn in self.turns:
            ids.extend(turn.ids_for(role))
        return tuple(ids)

    def to_json(self) -> str:
        """One JSONL line, without line end."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> Episode:
        """Inverse of :meth:`to_json`."""
        return cls.from_dict(json.loads(line))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Episode:
        """Build from :func:`dataclasses.asdict` or parsed JSON."""
        turns = tuple(
            Turn(
                **{
                    **turn,
                    "token_ids": tuple(turn["token_ids"]),
                    "log_probs": tuple(turn["log_probs"]),
                    "closing_ids": tuple(turn["closing_ids"]),
                    "read_as": {role: tuple(ids) for role, ids in turn["read_as"].items()},
                }
            )
            for turn in data["turns"]
        )
        return cls(
            problem=Problem(**data["problem"]),
            prompts={role: tuple(ids) for role, ids in data["prompts"].items()},
            turns=turns,
            outcome=data["outcome"],
            sample=data["sample"],
            error=data["error"],
        )
