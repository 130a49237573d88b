"""What vLLM replicas are asked for, and what is made of their answers.

Not proved here: that an engine guides its decoding by the schema it is given.
"""

from __future__ import annotations

from typing import Any

from fakes import EOS, FakeTokenizer
from verl.workers.rollout.replica import TokenOutput

from longshort.generation import Chat, Completion, Prompt, SamplingParams, chat_ids
from workers.rollout import VLLMGenerator

SCHEMA = {"type": "object", "properties": {"blocks": {"type": "array"}}, "required": ["blocks"]}
CHAT = Chat(({"role": "system", "content": "Answer."}, {"role": "user", "content": "2+3"}), opened="<think>")
TOKENIZER = FakeTokenizer(pieces=["</think>."])
# The stop string ends inside a token.
SAMPLED = TOKENIZER.encode(f"5</think>.{EOS}", add_special_tokens=False)


class FakeServer:
    """A replica's handle: ``generate.remote`` as Ray has it."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    @property
    def generate(self) -> FakeServer:
        return self

    async def remote(self, **request: Any) -> TokenOutput:
        self.asked.append(request)
        return TokenOutput(token_ids=SAMPLED, log_probs=[-0.5] * len(SAMPLED), stop_reason="completed")


async def generate(prompt: Prompt, params: SamplingParams) -> tuple[Completion, dict[str, Any]]:
    """What came back, and what the server was asked for."""
    server = FakeServer()
    completion = await VLLMGenerator("long", [server], TOKENIZER, priorities=False).generate(prompt, params, "s")
    return completion, server.asked[0]


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
