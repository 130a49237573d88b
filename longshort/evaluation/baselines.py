"""Ways to play a team of one that others proposed to make it shorter, as protocols: nothing is trained.

=================  ==============================================================================================
chain_of_draft     the model is asked for drafts of a few words a step (arXiv 2502.18600)
tale_ep            the model estimates the tokens that it needs, and is asked to keep to them (arXiv 2412.18547)
budget_forcing     thinking is cut at a budget and closed, with a cue for the answer (s1, arXiv 2501.19393)
first_thought      thinking is cut after its first thought, and closed in the same way
=================  ==============================================================================================

Prompts are in our own words.
"""

from __future__ import annotations

import re
from dataclasses import replace

from longshort.episode import Ids
from longshort.generation import Tokenizer
from longshort.protocol import END_THINK, THINK, Protocol
from longshort.solo import SOLO

NO_BASELINE, CHAIN_OF_DRAFT, TALE_EP = "none", "chain_of_draft", "tale_ep"
BUDGET_FORCING, FIRST_THOUGHT = "budget_forcing", "first_thought"
BASELINES = (NO_BASELINE, CHAIN_OF_DRAFT, TALE_EP, BUDGET_FORCING, FIRST_THOUGHT)

# The second turn of thinking that was cut: the same model, in a role of its own so that its tokens are told apart.
ANSWER = "answer"
# The first turn of tale_ep, likewise.
ESTIMATE = "estimate"

DRAFT_REQUEST = (
    "\nThink step by step, but note down only a draft of each step, of five words at the most. Then give the answer in "
    "\\boxed{}."
)
ESTIMATE_REQUEST = (
    "\nDo not solve this problem. Judge how many tokens somebody needs at least who solves it step by step, and answer "
    "with the number alone, as in [[80]]."
)
BUDGET_REQUEST = "\nThink step by step and use less than {budget} tokens. Give the answer in \\boxed{{}}."
BRIEF_REQUEST = "\nThink step by step and use as few tokens as you can. Give the answer in \\boxed{}."

_WHOLE = r"(\d{1,3}(?:,\d{3})+|\d{1,6})"
_BRACKETED = re.compile(rf"\[\[\s*{_WHOLE}\s*\]\]")
_NUMBER = re.compile(rf"(?<![\d.,]){_WHOLE}(?![\d.,]*\d)")


def with_request(protocol: Protocol, request: str) -> Protocol:
    """The protocol of a team of one, with ``request`` in place of the text behind the question."""
    return replace(protocol, instructions={SOLO: request})


def forced(protocol: Protocol, cue: str, opened: bool, cuts: tuple[str, ...] = ()) -> Protocol:
    """Thinking and answer as two turns of the same model; thinking that was cut gets ``</think>`` and ``cue``.

    Where thinking ends, by itself or at its cap, is up to the controller's limits; one that ended by itself in
    ``</think>`` is followed by no cue.

    Args:
        protocol: of a team of one.
        opened: whether the chat template writes ``<think>`` itself.
        cuts: strings that cut thinking too.
    """
    asked = {
        "system_prompts": dict.fromkeys((SOLO, ANSWER), protocol.system_prompts[SOLO]),
        "instructions": dict.fromkeys((SOLO, ANSWER), protocol.instructions[SOLO]),
    }
    return Protocol(
        first=SOLO,
        opening={SOLO: "" if opened else THINK, ANSWER: ""},
        # The controller closes a cut turn with the first.
        closings={SOLO: {f"{END_THINK}{cue}": ANSWER, END_THINK: ANSWER}, ANSWER: {}},
        cuts={SOLO: cuts},
        **asked,
    )


def ends_with_think(prompt: Ids, tokenizer: Tokenizer) -> bool:
    """Whether a prompt's chat template wrote ``<think>`` itself."""
    return tokenizer.decode(list(prompt), skip_special_tokens=False).rstrip().endswith(THINK)


def estimated_budget(text: str, opened: bool = False) -> int | None:
    """The number of tokens in an estimate: the bracketed one, else the last whole number, as in ``2,500``.

    None without any, and where thinking was not closed: its numbers are no estimate yet.

    Args:
        opened: whether the chat template writes ``<think>`` itself.
    """
    _, closed, visible = text.rpartition(END_THINK)
    if THINK in visible or (opened and not closed):
        return None
    found = _BRACKETED.findall(visible) or _NUMBER.findall(visible)
    budget = int(found[-1].replace(",", "")) if found else 0
    return budget or None
