"""What the papers train on: which data set it is, and how one of its rows becomes a problem."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from longshort.data import parse_problem
from longshort.episode import Problem

NUMINA = "numina_amc_aime"

# Eurus-2 ends its mathematical prompts so. Our system prompts ask for the box, and benchmarks quote the bare problem.
_EURUS_INSTRUCTION = re.compile(r"\s*Present the answer in LaTex format: \\boxed\{Your answer\}\s*\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Source:
    """A data set to train on.

    Attributes:
        path: where it is on the hub, with its split, or None where that must be said.
        data_source: verl's name for it, which reward functions may be routed by.
        problem: makes a problem of a row; its id and source are set later. ValueError, with a clause for the reason,
            where the row is none or does not belong to the set.
        one_row_per_problem: false where rows are solutions, so that the same problem comes in many rows.
        columns: text that is kept beside the problem, in ``extra_info``.
        chains: whether rows hold chains of thought, see :mod:`longshort.chains`.
    """

    path: str | None
    data_source: str
    problem: Callable[[object], Problem]
    one_row_per_problem: bool = True
    columns: tuple[str, ...] = ()
    chains: bool = False


def _any_shape(row: object) -> Problem:
    return parse_problem(row, "")


def _numina(row: object) -> Problem:
    if isinstance(row, Mapping) and row.get("data_source") != NUMINA:
        raise ValueError(f"its data_source is not {NUMINA}")
    problem = parse_problem(row, "")
    return replace(problem, question=_EURUS_INSTRUCTION.sub("", problem.question))


SOURCES: Mapping[str, Source] = {
    # Long⊗Short, reinforcement learning (arXiv 2505.11827, section 4.2).
    "math": Source(
        "DigitalLearningGmbH/MATH-lighteval:train",
        "DigitalLearningGmbH/MATH-lighteval",
        _any_shape,
        columns=("level", "type"),
    ),
    # ThinkPrune (arXiv 2504.01296).
    "numina_amc_aime": Source("PRIME-RL/Eurus-2-RL-Data:train", NUMINA, _numina),
    # Long⊗Short, cold start (section 4.1): the problems, and the authors' chains for 1.8K of them.
    "openmathinstruct": Source(
        "nvidia/OpenMathInstruct-2:train",
        "nvidia/OpenMathInstruct-2",
        _any_shape,
        one_row_per_problem=False,
        columns=("problem_source",),
    ),
    "thoughtchunk": Source(None, "OpenMath-ThoughtChunk1.8K", _any_shape, chains=True),
}
