"""The hybrid reward of Long⊗Short: r = eta * EM + lambda * FM + mu * LM (arXiv 2505.11827, equation 9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from longshort.episode import Episode
from longshort.grading import Grade
from longshort.length_rewards.group import Group
from longshort.length_rewards.kimi import kimi_length_rewards

__all__ = [
    "HybridReward",
    "Ramp",
    "Reward",
    "follows_template",
    "group_rewards",
    "is_correct",
    "kimi_length_rewards",
    "length_group",
]

Scope = Literal["own", "all"]


@dataclass(frozen=True, slots=True)
class Ramp:
    """A weight that goes linearly from ``start`` to ``end`` over ``ramp_steps`` steps, then stays."""

    start: float
    end: float
    ramp_steps: int

    def at(self, step: int) -> float:
        """Weight at ``step``, counted from 1."""
        if self.ramp_steps == 0:
            return self.end
        done = min(max(step - 1, 0) / self.ramp_steps, 1.0)
        return self.start + (self.end - self.start) * done


@dataclass(frozen=True, slots=True)
class HybridReward:
    """Weights and scope of equation (9).

    Attributes:
        eta, format_weight, mu: weights of correctness, format and length.
        format_of: whose turns must follow the template: the trainee's ``own`` (the paper) or ``all``.
        length_of: whose tokens count: ``all`` of the conversation (the paper) or the trainee's ``own``.
    """

    eta: float
    format_weight: float
    mu: Ramp
    format_of: Scope = "own"
    length_of: Scope = "all"


@dataclass(frozen=True, slots=True)
class Reward:
    """Parts of one episode's reward for one role; ``total`` is their weighted sum.

    ``correct`` is 1 or 0, or the score of a user's own function.
    """

    correct: float
    format: float
    length: float
    total: float

    def parts(self) -> dict[str, float]:
        return asdict(self)


# Errors of a grade that mean "wrong" rather than "failed".
GRADE_REFUSALS = frozenset({"too_long"})

FAILED = Reward(0.0, 0.0, 0.0, 0.0)


def is_correct(episode: Episode, grade: Grade) -> bool:
    """A right answer counts only where the episode was answered: cut, malformed and empty answers earn nothing."""
    return episode.outcome == "answered" and grade.correct


def failure(episode: Episode, grade: Grade) -> str | None:
    """What failed for this episode, in playing or in grading it, or None."""
    if episode.error is not None:
        return episode.error
    return None if grade.error is None or grade.error in GRADE_REFUSALS else f"grade: {grade.error}"


def group_rewards(
    episodes: Sequence[Episode],
    grades: Sequence[Grade],
    role: str,
    weights: HybridReward,
    mu: float,
    length_rewards: Sequence[float],
) -> list[Reward]:
    """Rewards of ``role`` for one group: all episodes of the same problem, in the same step.

    ``mu`` and ``length_rewards``, one per episode (:mod:`longshort.length_rewards`), are those of the step.

    An episode with an error, of its own or of its grade, scores 0 in every part.
    """
    assert len({episode.problem.id for episode in episodes}) == 1, "a group holds one problem"
    correct = [is_correct(episode, grade) for episode, grade in zip(episodes, grades, strict=True)]
    rewards = []
    for episode, grade, right, length in zip(episodes, grades, correct, length_rewards, strict=True):
        if failure(episode, grade) is not None:
            rewards.append(FAILED)
            continue
        score = float(right) if grade.score is None else grade.score
        form = float(follows_template(episode, role, weights.format_of))
        total = weights.eta * score + weights.format_weight * form + mu * length
        rewards.append(Reward(score, form, length, total))
    return rewards


def length_group(episodes: Sequence[Episode], correct: Sequence[bool], role: str, scope: Scope, limit: int) -> Group:
    """What a length reward may know of one group.

    Args:
        scope: whose tokens count: of ``all`` turns, or of the ``own`` ones of ``role``.
        limit: most tokens that these can be.
    """
    return Group(
        lengths=tuple(episode.tokens_of(role) if scope == "own" else episode.tokens for episode in episodes),
        correct=tuple(correct),
        finished=tuple(episode.outcome == "answered" for episode in episodes),
        turns=tuple(len(episode.turns) for episode in episodes),
        limit=limit,
    )


def follows_template(episode: Episode, role: str, scope: Scope) -> bool:
    """FM of equation (9): every turn in scope is well formed, and there is one."""
    turns = [turn for turn in episode.turns if scope == "all" or turn.role == role]
    return bool(turns) and all(turn.well_formed for turn in turns)
