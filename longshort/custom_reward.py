"""A user's own correctness: verl's ``custom_reward_function``, called with verl's arguments.

    def compute_score(data_source, solution_str, ground_truth, extra_info=None) -> float | dict

A dict has ``score`` and, if it likes, ``acc``. The score takes the place of EM in equation (9); an answer counts as
right where ``acc`` is true or, without it, where the score is above zero.
"""

from __future__ import annotations

import asyncio
import importlib.util
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from longshort.episode import Episode
from longshort.grading import Grade


class CustomReward:
    """Grades episodes with the function ``name`` of the Python file ``path``; calls run in threads.

    Raises:
        ValueError: the file is not there, does not import, or has no such function.
    """

    def __init__(self, path: str, name: str) -> None:
        self.where = f"{path}:{name}"
        self._function = _load(Path(path).expanduser(), name)

    async def __call__(self, episode: Episode) -> Grade:
        """The function's verdict; what goes wrong in it is the grade's error and names the episode."""
        problem = episode.problem
        extra = {"turns": len(episode.turns), "sample": episode.sample, "tokens": episode.tokens}
        try:
            result = await asyncio.to_thread(
                self._function,
                data_source=problem.source,
                solution_str=episode.final_text,
                ground_truth=problem.answer,
                extra_info={"index": problem.id, **extra},
            )
        except Exception as error:  # the user's code may raise anything; it is recorded and counted
            return self._failed(episode, f"raised {type(error).__name__}: {error}")
        score = result.get("score") if isinstance(result, Mapping) else result
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            return self._failed(episode, f"returned {score!r}, which is no finite number")
        right = result.get("acc", score > 0) if isinstance(result, Mapping) else score > 0
        return Grade(bool(right), episode.final_text, score=float(score))

    def _failed(self, episode: Episode, reason: str) -> Grade:
        return Grade(False, None, f"{self.where} {reason}, for episode {episode.problem.id}/{episode.sample}")


def _load(file: Path, name: str) -> Callable[..., Any]:
    key = "custom_reward_function"
    if not file.is_file():
        raise ValueError(f"{key}.path={file} is no file; correct it or set it to null")
    spec = importlib.util.spec_from_file_location("longshort_custom_reward", file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{key}.path={file} is no Python file; name one that ends in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's file raises on import
        raise ValueError(f"{key}.path={file} does not import ({type(error).__name__}: {error}); correct it") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"{key}.name={name} is no function of {file}; name one that it defines")
    return function
