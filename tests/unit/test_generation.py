"""The generation interface: prompts as ids, completions as text, an error that crosses processes."""

from __future__ import annotations

import pickle

import pytest
from fakes import EOS, FakeTokenizer

from longshort.generation import Chat, Completion, GenerationFailedError, chat_ids, text_of
from longshort.playground.tokenizer import build_tokenizer

QUESTION = ({"role": "system", "content": "You are Long."}, {"role": "user", "content": "7+5*3"})


def test_a_chats_ids_are_those_of_its_rendered_text_and_of_what_the_turn_is_opened_with() -> None:
    tokenizer = build_tokenizer()
    rendered = tokenizer.apply_chat_template(list(QUESTION), add_generation_prompt=True, tokenize=False)
    opened = "<think>7+5=12\n"
    assert chat_ids(tokenizer, Chat(QUESTION)) == tuple(tokenizer.encode(rendered, add_special_tokens=False))
    assert chat_ids(tokenizer, Chat(QUESTION, opened)) == (
        *tokenizer.encode(rendered, add_special_tokens=False),
        *tokenizer.encode(opened, add_special_tokens=False),
    )


def test_the_opened_text_is_encoded_apart_from_the_prompt_as_if_it_had_been_sampled() -> None:
    # The prompt ends with "]"; a tokenizer that merged it with the next character would change the prompt.
    tokenizer = FakeTokenizer(pieces=["]a"])
    assert chat_ids(tokenizer, Chat(QUESTION, "ab"))[-3:] == tokenizer.spell("]ab")


def test_text_is_the_endpoints_or_the_decoded_ids_without_the_end_of_sequence() -> None:
    tokenizer = FakeTokenizer()
    ended = tuple(tokenizer.encode(f"so 5{EOS}", add_special_tokens=False))
    assert text_of(Completion(ended, (0.0,) * len(ended), "stop"), tokenizer) == "so 5"
    assert text_of(Completion(ended[:-1], (0.0,) * 4, "length"), tokenizer) == "so 5"
    assert text_of(Completion((), (), "stop", text=""), None) == ""


@pytest.mark.parametrize(
    ("completion", "tokens"),
    [
        (Completion((7, 8), (0.0, 0.0), "stop"), 2),
        (Completion((), (), "stop", text="so 5", sampled_tokens=3), 3),
        (Completion((), (), "stop", text="so 5"), None),
    ],
)
def test_length_is_the_endpoints_count_or_that_of_the_ids_or_unknown(
    completion: Completion, tokens: int | None
) -> None:
    assert completion.tokens == tokens


def test_a_failed_generation_crosses_processes_with_what_it_says() -> None:
    error = GenerationFailedError("https://host/v1/completions", 503, 6, "overloaded")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.url, copy.status, copy.attempts, copy.reason) == (error.url, 503, 6, "overloaded")
    assert (
        str(copy) == str(error) == "https://host/v1/completions gave no completion (status 503, attempts 6): overloaded"
    )
