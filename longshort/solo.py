"""A team of one, as ThinkPrune trains it (arXiv 2504.01296): one turn that has to end by itself within a limit."""

from __future__ import annotations

from collections.abc import Mapping

from longshort.protocol import THINK, Protocol

SOLO = "solo"
PREAMBLE = (
    "Solve the user's problem. Reason first, between <think> and </think>, and give the answer after that. All that "
    "you write, reasoning and answer, has to fit into {limit} tokens."
)
# Behind the question, in the wording that a family of models was trained with or near it.
INSTRUCTIONS: Mapping[str, str] = {
    "plain": "",
    "deepseek": "\nPlease reason step by step and put the final answer within \\boxed{}.",
    "qwen": "\nThink step by step; the final answer belongs in \\boxed{}.",
}


def solo_protocol(limit: int, family: str) -> Protocol:
    """Rules of a team of one.

    Args:
        limit: tokens that the model is told to keep to; where ``team.limit_in_prompt`` gives another, not the cap.
        family: one of ``INSTRUCTIONS``.
    """
    return Protocol(
        first=SOLO,
        system_prompts={SOLO: PREAMBLE.format(limit=limit)},
        opening={SOLO: THINK},
        closings={SOLO: {}},
        instructions={SOLO: INSTRUCTIONS[family]},
    )
