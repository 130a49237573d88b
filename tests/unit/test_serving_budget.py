"""A hard budget: never exceeded, and an answer within it whenever the models keep to the protocol."""

from __future__ import annotations

import asyncio
import random

import pytest
from fakes import FakeTokenizer
from hypothesis import given
from hypothesis import strategies as st
from serving_fakes import LIMITS

from longshort.controller import Limits, Member, Sampling, SynergyController
from longshort.episode import Episode, Problem
from longshort.protocol import LONG_SHORT, TAGS
from longshort.scripted import Request, ScriptedGenerator
from longshort.serving.budget import budget_of
from longshort.serving.errors import RequestError
from longshort.serving.play import Choice, Played, play_choice

TOKENIZER = FakeTokenizer()
CONTEXTS = {"long": 4000, "short": 4000}
PROMPTS = {"long": (1, 2), "short": (1, 2)}
QUESTION = Problem("p", "?", "")


def team(limits: Limits, seed: int, answer: int = 6, context: int = 4000) -> SynergyController:
    """A long model that writes much, and a short one that hands back whenever it may, else answers in few tokens."""
    rng = random.Random(seed)

    def think(request: Request) -> str:
        return "<think>" + "x" * rng.choice([3, 30, 300]) + rng.choice(["</think>", ""])

    def answer_or_hand_back(request: Request) -> str:
        if "</rethink>" in request.params.forbid or rng.random() < 0.3:
            return "<answer>" + "y" * rng.randint(1, answer - 2) + "</answer>"
        return "<answer>" + "z" * rng.choice([1, 5, 17]) + "</rethink>"

    members = {
        role: Member(ScriptedGenerator(script, TOKENIZER), TOKENIZER, context)
        for role, script in (("long", think), ("short", answer_or_hand_back))
    }
    return SynergyController(LONG_SHORT, members, limits)


def play(controller: SynergyController) -> tuple[Episode, Played]:
    return asyncio.run(_play(controller))


async def _play(controller: SynergyController) -> tuple[Episode, Played]:
    played = await play_choice(controller, PROMPTS, "p", 0, Sampling(), Choice())
    return played.episode, played


@given(st.integers(1, 250), st.integers(0, 10**6))
def test_a_budget_is_never_exceeded_and_no_tag_is_shown(budget: int, seed: int) -> None:
    limits = budget_of(LIMITS, LONG_SHORT, CONTEXTS, PROMPTS, budget, None).limits
    episode, played = play(team(limits, seed, answer=30))
    assert episode.tokens <= budget
    assert not any(tag in played.reasoning + played.content for tag in TAGS)


@given(st.integers(12, 250), st.integers(0, 10**6))
def test_an_answer_that_fits_the_reserve_always_comes(budget: int, seed: int) -> None:
    limits = budget_of(LIMITS, LONG_SHORT, CONTEXTS, PROMPTS, budget, None).limits
    episode, played = play(team(limits, seed))
    assert episode.outcome == "answered"
    assert played.content
    assert played.finish_reason == "stop"


@given(st.integers(30, 120), st.integers(0, 10**6))
def test_a_context_that_fills_up_keeps_the_reserve_too(context: int, seed: int) -> None:
    contexts = {"long": context, "short": context}
    limits = budget_of(LIMITS, LONG_SHORT, contexts, PROMPTS, 200, "high").limits
    controller = team(Limits(**{**vars(limits), "reserve": 8}), seed, context=context)
    assert play(controller)[0].outcome == "answered"


def test_without_a_budget_the_pairs_own_limits_hold() -> None:
    budget = budget_of(LIMITS, LONG_SHORT, CONTEXTS, PROMPTS, None, None)
    assert (budget.limits, budget.hard) == (LIMITS, False)


@pytest.mark.parametrize(
    ("tokens", "effort", "expected"),
    [
        (None, "low", (2, 50, 20)),
        (None, "medium", (4, 100, 20)),
        (None, "high", (6, 200, 20)),
        (30, None, (6, 30, 20)),
        (30, "low", (2, 30, 20)),
        (5000, None, (6, 200, 20)),
        (1, None, (6, 1, 1)),
    ],
)
def test_turns_tokens_and_reserve(tokens: int | None, effort: str | None, expected: tuple[int, int, int]) -> None:
    limits = budget_of(LIMITS, LONG_SHORT, CONTEXTS, PROMPTS, tokens, effort).limits
    assert (limits.max_turns, limits.max_episode_tokens, limits.reserve) == expected


def test_the_reserve_is_half_of_a_budget_and_more_of_a_small_one() -> None:
    roomy = Limits(6, {"long": 900, "short": 900}, 2000)
    reserves = {
        tokens: budget_of(roomy, LONG_SHORT, CONTEXTS, PROMPTS, tokens, None).limits.reserve
        for tokens in (10, 100, 500, 2000)
    }
    assert reserves == {10: 10, 100: 64, 500: 250, 2000: 900}


def test_a_prompt_that_fills_a_context_is_refused() -> None:
    with pytest.raises(RequestError, match="has 39 tokens for the short model, whose context of 40 leaves no room"):
        budget_of(LIMITS, LONG_SHORT, {"long": 90, "short": 40}, {"long": (1,), "short": (1,) * 39}, None, None)


def test_training_keeps_no_reserve_and_forbids_nothing() -> None:
    controller = team(LIMITS, 0)
    asyncio.run(controller.play(QUESTION, 0, Sampling(), PROMPTS))
    requests = controller.members["short"].generator.requests  # type: ignore[attr-defined]
    assert requests
    assert {request.params.forbid for request in requests} == {()}


def test_other_limits_leave_the_controller_as_it_is() -> None:
    controller = team(LIMITS, 0)
    other = controller.within(Limits(2, {"long": 1, "short": 1}, 2))
    assert (controller.limits, other.limits.max_turns) == (LIMITS, 2)
    assert other.members is controller.members
