"""Scripted generation: the reply that was scripted, an engine's manners, faults on the call that was named."""

from __future__ import annotations

import asyncio

import pytest
from fakes import FakeTokenizer

from longshort.generation import Chat, Completion, GenerationFailedError, Prompt, SamplingParams, text_of
from longshort.scripted import Request, ScriptedGenerator

PARAMS = SamplingParams(max_tokens=100)
FAILED = GenerationFailedError("scripted", 500, 1, "overloaded")


def chat(question: str) -> Chat:
    return Chat(({"role": "system", "content": "Answer."}, {"role": "user", "content": question}))


async def text(
    generator: ScriptedGenerator, prompt: Prompt, session: str = "s", params: SamplingParams = PARAMS
) -> str:
    return text_of(await generator.generate(prompt, params, session), None)


async def test_a_mapping_answers_chats_by_their_question_and_ids_by_themselves() -> None:
    generator = ScriptedGenerator({"2+3": "5", (1, 2): "three"})
    assert [await text(generator, chat("2+3")), await text(generator, (1, 2))] == ["5", "three"]
    with pytest.raises(ValueError, match="no reply to '4'"):
        await text(generator, chat("4"))


async def test_a_function_sees_the_request_and_all_requests_are_kept() -> None:
    generator = ScriptedGenerator(lambda request: f"{request.session} {request.turn}")
    assert [await text(generator, chat("q"), session) for session in "aab"] == ["a 0", "a 1", "b 0"]
    assert generator.requests[1] == Request(chat("q"), PARAMS, "a", 1)


async def test_a_sequence_answers_turn_by_turn_and_repeats_its_last_reply() -> None:
    generator = ScriptedGenerator(["one", "two"])
    assert [await text(generator, (1,)) for _ in range(3)] == ["one", "two", "two"]
    assert [await text(ScriptedGenerator("same"), (1,)) for _ in range(2)] == ["same", "same"]


async def test_a_text_ends_with_its_first_stop_string() -> None:
    params = SamplingParams(max_tokens=100, stop=("</b>", "</a>"))
    assert await text(ScriptedGenerator("<a>x</a> and</b>"), (1,), params=params) == "<a>x</a>"


async def test_with_a_tokenizer_a_text_is_sampled_with_certainty_up_to_end_of_sequence_stop_string_or_cap() -> None:
    tokenizer = FakeTokenizer()
    generator = ScriptedGenerator("so 5", tokenizer)
    spelled = tokenizer.spell("so 5")
    assert await generator.generate((1,), SamplingParams(max_tokens=5), "s") == Completion(
        (*spelled, tokenizer.eos_token_id), (0.0,) * 5, "stop", text="so 5"
    )
    assert await generator.generate((1,), SamplingParams(max_tokens=2), "s") == Completion(
        spelled[:2], (0.0, 0.0), "length", text="so"
    )
    assert await generator.generate((1,), SamplingParams(max_tokens=9, stop=(" ",)), "s") == Completion(
        spelled[:3], (0.0,) * 3, "stop", text="so "
    )


async def test_the_named_call_fails_and_the_next_one_goes_on() -> None:
    generator = ScriptedGenerator("fine", faults={1: FAILED})
    assert await text(generator, (1,)) == "fine"
    with pytest.raises(GenerationFailedError):
        await text(generator, (1,))
    assert await text(generator, (1,)) == "fine"
    with pytest.raises(GenerationFailedError):
        await text(ScriptedGenerator([FAILED]), (1,))


async def test_a_gate_decides_when_a_reply_comes() -> None:
    released = asyncio.Event()
    generator = ScriptedGenerator("late", gate=lambda request: released.wait())
    asked = asyncio.ensure_future(text(generator, (1,)))
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(generator.requests) == 1 and not asked.done()
    released.set()
    assert await asked == "late"
