"""A user's own correctness: verl's ``custom_reward_function``, called with verl's arguments.

    def compute_score(data_source, solution_str, ground_truth, extra_info=None) -> float | dict

A dict has ``score`` and, if it likes, ``acc``. The score takes the place of EM in equation (9); an answer counts as
right where ``acc`` is true or, without it, where the score is above zero.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from omegaconf import DictConfig

from longshort.episode import Episode, Problem
from longshort.extern import load_object
from longshort.grading import Grade
from longshort.hiding import hide
from longshort.threads import in_thread

# What grades an answered episode in place of mathematics.
OwnGrading = Callable[[Episode], Awaitable[Grade]]


# Calls of a function at a time; beyond, they wait.
THREADS = 32


class CustomReward:
    """Grades episodes with the function ``named.name`` of ``named.path``; calls run in threads.

    Args:
        timeout_s: that a call may take. Its thread cannot be ended; it is left alone and does not keep the run.

    Raises:
        ValueError: see :func:`longshort.extern.load_object`.
    """

    def __init__(self, key: str, named: DictConfig, timeout_s: float) -> None:
        self.where = f"{named.path}:{named.name}"
        self.timeout_s = timeout_s
        self._function = load_object(key, named)
        self._room = asyncio.Semaphore(THREADS)

    async def __call__(self, episode: Episode) -> Grade:
        """The function's verdict; what goes wrong in it is the grade's error and names the episode."""
        problem = episode.problem
        extra = {"turns": len(episode.turns), "sample": episode.sample, "tokens": episode.tokens}
        call = partial(
            self._function,
            data_source=problem.source,
            solution_str=episode.final_text,
            ground_truth=problem.answer,
            extra_info={"index": problem.id, **extra},
        )
        try:
            async with self._room:
                done, _ = await asyncio.wait([answer := in_thread(call, "reward")], timeout=self.timeout_s)
            if not done:
                return self._failed(episode, f"took longer than reward.function_timeout_s={self.timeout_s:g}")
            result = answer.result()
        except (Exception, SystemExit) as error:  # the user's code may raise anything; it is recorded and counted
            return self._failed(episode, f"raised {type(error).__name__}: {error}")
        score = result.get("score") if isinstance(result, Mapping) else result
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            return self._failed(episode, f"returned {score!r}, which is no finite number")
        right = result.get("acc", score > 0) if isinstance(result, Mapping) else score > 0
        return Grade(bool(right), episode.final_text, score=float(score))

    def _failed(self, episode: Episode, reason: str) -> Grade:
        # It goes into transcripts and to trackers, and an error may quote a key.
        return Grade(False, None, hide(f"{self.where} {reason}, for episode {episode.problem.id}/{episode.sample}"))


@dataclass(frozen=True)
class CustomRewards:
    """Whose answers a user's function grades: ``by_source`` those of its data source, ``default`` all others.

    Where neither is set, mathematics is graded (:mod:`longshort.grading`), or what ``by_id`` has for the problem, such
    as multiple choice.
    """

    default: OwnGrading | None = None
    by_source: Mapping[str, OwnGrading] = field(default_factory=dict)
    by_id: Mapping[str, OwnGrading] = field(default_factory=dict)

    def of(self, problem: Problem) -> OwnGrading | None:
        """The function for this problem, or None."""
        return self.by_source.get(problem.source) or self.default or self.by_id.get(problem.id)


MATHEMATICS = CustomRewards()


def custom_rewards(config: DictConfig) -> CustomRewards:
    """The functions of ``custom_reward_function`` and ``reward.functions``."""
    own, limit = config.custom_reward_function, float(config.reward.function_timeout_s)
    return CustomRewards(
        CustomReward("custom_reward_function", own, limit) if own.path else None,
        {source: CustomReward(f"reward.functions.{source}", f, limit) for source, f in config.reward.functions.items()},
    )
