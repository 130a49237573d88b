"""Playing and grading beside each other: what training, validation and evaluation have in common."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from longshort.controller import Sampling, SynergyController
from longshort.custom_reward import MATHEMATICS, CustomRewards
from longshort.episode import Episode, Problem
from longshort.grading import Grade
from longshort.grading_pool import GradingPool
from longshort.rewards import failure, is_correct

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class GradedEpisodes:
    """Episodes problem by problem (sample s of problem p at p * samples + s) with their grades."""

    episodes: tuple[Episode, ...]
    grades: tuple[Grade, ...]
    samples: int
    seconds: float

    @property
    def correct(self) -> list[bool]:
        return [is_correct(e, g) for e, g in zip(self.episodes, self.grades, strict=True)]


@dataclass(frozen=True)
class Player:
    """A controller and what grades its episodes.

    Concurrency: each episode is graded as soon as it is there, while others still play.
    """

    controller: SynergyController
    grader: GradingPool
    custom_rewards: CustomRewards = MATHEMATICS

    async def play(
        self,
        problems: Sequence[Problem],
        samples: int,
        sampling: Sampling,
        progress: Progress = lambda done, total: None,
    ) -> GradedEpisodes:
        """Play and grade ``samples`` episodes of every problem; a grade that failed is recorded on its episode."""
        started = time.perf_counter()
        total = len(problems) * samples
        episodes: dict[int, Episode] = {}
        grades: dict[int, asyncio.Task[Grade]] = {}
        async for index, episode in self.controller.play_all(problems, samples, sampling):
            episodes[index] = episode
            grades[index] = asyncio.create_task(self._grade(episode))
            progress(len(episodes), total)
        done = tuple([await grades[index] for index in range(total)])
        played = tuple(replace(episodes[i], error=failure(episodes[i], done[i])) for i in range(total))
        return GradedEpisodes(played, done, samples, time.perf_counter() - started)

    async def play_one(self, problem: Problem, sample: int, sampling: Sampling) -> tuple[Episode, bool]:
        """One episode, and whether its answer is right; a grade that failed is recorded on it."""
        episode = await self.controller.play(problem, sample, sampling)
        grade = await self._grade(episode)
        return replace(episode, error=failure(episode, grade)), is_correct(episode, grade)

    async def _grade(self, episode: Episode) -> Grade:
        if episode.outcome != "answered":
            return Grade(correct=False, extracted=None)
        if (own := self.custom_rewards.of(episode.problem)) is not None:
            return await own(episode)
        return await self.grader.grade(episode.final_text, episode.problem.answer)
