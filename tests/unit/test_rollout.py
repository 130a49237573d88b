"""What vLLM replicas are asked for, and what is made of their answers.

Not proved here: that an engine guides its decoding by the schema it is given.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fakes import EOS, FakeTokenizer
from ray.exceptions import ActorDiedError
from verl.workers.rollout.replica import TokenOutput

from longshort.generation import Chat, Completion, Prompt, SamplingParams, chat_ids
from workers.engine_guard import EngineGuard, FaultLimits
from workers.rollout import VLLMGenerator

SCHEMA = {"type": "object", "properties": {"blocks": {"type": "array"}}, "required": ["blocks"]}
CHAT = Chat(({"role": "system", "content": "Answer."}, {"role": "user", "content": "2+3"}), opened="<think>")
TOKENIZER = FakeTokenizer(pieces=["</think>."])
# The stop string ends inside a token.
SAMPLED = TOKENIZER.encode(f"5</think>.{EOS}", add_special_tokens=False)


class FakeReplica:
    """A replica and its server's handle at once: ``server_handle.generate.remote``, as Ray has it."""

    def __init__(self, *fails: Exception) -> None:
        self.server_handle = self.generate = self
        self.fails = list(fails)
        self.asked: list[dict[str, Any]] = []

    async def ping(self, deep: bool, timeout_s: float) -> None:
        return

    async def remote(self, **request: Any) -> TokenOutput:
        self.asked.append(request)
        # verl's server takes things out of it.
        request["sampling_params"].pop("max_tokens")
        if self.fails:
            raise self.fails.pop(0)
        return TokenOutput(token_ids=SAMPLED, log_probs=[-0.5] * len(SAMPLED), stop_reason="completed")


async def generate(prompt: Prompt, params: SamplingParams, *replicas: FakeReplica) -> tuple[Completion, dict[str, Any]]:
    """What came back, and what the first replica was asked for."""
    replicas = replicas or (FakeReplica(),)
    guard = EngineGuard("long", replicas, FaultLimits(), lambda number: asyncio.sleep(0))
    generator = VLLMGenerator("long", replicas, guard, TOKENIZER, priorities=False)
    try:
        return await generator.generate(prompt, params, "s"), replicas[0].asked[0]
    finally:
        guard.close()


async def test_a_chat_is_rendered_with_the_policys_tokenizer_and_ids_go_as_they_are() -> None:
    for prompt, ids in ((CHAT, chat_ids(TOKENIZER, CHAT)), ((7, 8, 9), (7, 8, 9))):
        completion, asked = await generate(prompt, SamplingParams(max_tokens=20))
        assert asked["prompt_ids"] == list(ids)
        assert completion.prompt_tokens == len(ids)


async def test_a_chat_is_answered_in_text_too_which_ends_with_the_stop_string() -> None:
    completion, _ = await generate(CHAT, SamplingParams(max_tokens=20))
    assert (completion.token_ids, completion.text) == (tuple(SAMPLED), "5</think>.")
    completion, _ = await generate(CHAT, SamplingParams(max_tokens=20, stop=("</think>",)))
    assert completion.text == "5</think>"
    assert (await generate((7, 8, 9), SamplingParams(max_tokens=20)))[0].text is None


async def test_a_schema_goes_to_vllm_as_the_structured_output_that_it_takes() -> None:
    from vllm import SamplingParams as VLLMSamplingParams

    sampling = (await generate(CHAT, SamplingParams(max_tokens=20, json_schema=SCHEMA)))[1]["sampling_params"]
    taken = VLLMSamplingParams(structured_outputs=sampling["structured_outputs"])
    assert taken.structured_outputs is not None and taken.structured_outputs.json == SCHEMA
    assert "structured_outputs" not in (await generate(CHAT, SamplingParams(max_tokens=20)))[1]["sampling_params"]


@pytest.mark.parametrize("replicas", [1, 2])
async def test_a_turn_whose_replica_is_lost_is_played_again_as_it_was_asked_for(replicas: int) -> None:
    played = FakeReplica(ActorDiedError()), FakeReplica()
    completion, _ = await generate((7, 8, 9), SamplingParams(max_tokens=20, seed=5), *played[:replicas])
    assert completion.token_ids == tuple(SAMPLED)
    first, second = [request for replica in played for request in replica.asked]
    assert first["request_id"] != second["request_id"]
    assert first | {"request_id": ""} == second | {"request_id": ""}
    assert len(played[0].asked) == 3 - replicas


async def test_a_request_that_fails_by_itself_costs_no_engine() -> None:
    replica = FakeReplica(ValueError("seed is negative"))
    with pytest.raises(ValueError, match="seed is negative"):
        await generate((7, 8, 9), SamplingParams(max_tokens=20), replica)
    assert len(replica.asked) == 1
