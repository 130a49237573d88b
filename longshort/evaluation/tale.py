"""TALE-EP (arXiv 2412.18547): the model's own estimate of its budget, then the problem with that budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from longshort.controller import Limits, Listener, Member, Sampling, SynergyController, turn_seed
from longshort.episode import Episode, Ids, Problem, Turn
from longshort.evaluation.baselines import (
    BRIEF_REQUEST,
    BUDGET_REQUEST,
    ESTIMATE,
    ESTIMATE_REQUEST,
    ends_with_think,
    estimated_budget,
    with_request,
)
from longshort.generation import Chat, SamplingParams, chat_ids, text_of
from longshort.protocol import Protocol
from longshort.solo import SOLO


class EstimatingController(SynergyController):
    """Plays a team of one in two turns: the estimate, which the second turn does not see, and the answer.

    The estimate's tokens count as the conversation's, in the role ``ESTIMATE``. Where it holds no number, was cut or
    did not end its thinking, its turn is not well formed and the model is asked to be brief. ``max_episode_tokens``
    caps the answer.

    Args:
        estimate_tokens: cap of the estimate.
    """

    def __init__(self, protocol: Protocol, members: Mapping[str, Member], limits: Limits, estimate_tokens: int) -> None:
        super().__init__(with_request(protocol, ""), members, limits)
        self.estimate_tokens = estimate_tokens

    async def play(
        self,
        problem: Problem,
        sample: int,
        sampling: Sampling,
        prompts: Mapping[str, Ids] | None = None,
        listener: Listener | None = None,
    ) -> Episode:
        """See :meth:`SynergyController.play`; prompts are always the question's, and nobody listens."""
        assert prompts is None and listener is None, "an evaluation asks questions"
        turn, prompt, budget = await self._estimate(problem, sample, sampling)
        request = BRIEF_REQUEST if budget is None else BUDGET_REQUEST.format(budget=budget)
        asked = replace(problem, question=problem.question + request)
        episode = await super().play(asked, sample, sampling)
        asked_with = {ESTIMATE: prompt, **episode.prompts}
        return replace(episode, problem=problem, prompts=asked_with, turns=(turn, *episode.turns))

    async def _estimate(self, problem: Problem, sample: int, sampling: Sampling) -> tuple[Turn, Ids, int | None]:
        """The turn, its prompt and the budget in it."""
        member = self.members[SOLO]
        # Without the system prompt, which asks to reason first.
        prompt = chat_ids(member.tokenizer, Chat(({"role": "user", "content": problem.question + ESTIMATE_REQUEST},)))
        params = SamplingParams(
            max_tokens=min(self.estimate_tokens, member.max_model_len - len(prompt)),
            temperature=member.temperature if sampling.temperature is None else sampling.temperature,
            top_p=member.top_p if sampling.top_p is None else sampling.top_p,
            top_k=member.top_k if sampling.top_k is None else sampling.top_k,
            # Apart from the seeds of the turns that follow.
            seed=turn_seed(sampling.run, sampling.step, f"{problem.id}/{ESTIMATE}", sample, 0),
        )
        completion = await member.generator.generate(prompt, params, f"{ESTIMATE}/{problem.id}/{sample}")
        text = text_of(completion, member.tokenizer)
        opened = ends_with_think(prompt, member.tokenizer)
        budget = None if completion.finish_reason == "length" else estimated_budget(text, opened)
        turn = Turn(
            role=ESTIMATE,
            token_ids=completion.token_ids,
            text=text,
            log_probs=completion.log_probs,
            finish_reason=completion.finish_reason,
            well_formed=budget is not None,
            read_as={SOLO: ()},
            cached_tokens=completion.cached_tokens,
            prompt_tokens=len(prompt),
        )
        return turn, prompt, budget
