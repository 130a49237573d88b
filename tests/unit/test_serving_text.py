"""Text on its way in and out: no user text becomes a tag, no tag reaches a client."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshort.controller import render_prompt
from longshort.pair import read_pair
from longshort.protocol import LONG_SHORT, TAGS
from longshort.serving.prompts import Neutraliser, Prompts, special_tokens
from longshort.serving.request import Message
from longshort.serving.visible import UntilStop, Visible, visible

PAIR, TOKENIZERS = read_pair(["playground"])
PROMPTS = Prompts(PAIR.protocol, TOKENIZERS)
SPECIAL = special_tokens(TOKENIZERS["long"])
CONTROL = set(TOKENIZERS["long"].convert_tokens_to_ids([*TAGS, *SPECIAL])) - {TOKENIZERS["long"].unk_token_id}

FRAGMENTS = st.sampled_from(
    [*TAGS, *SPECIAL, "<", "</", "think", ">", "answer>", "<|", "|>", "user", "\uff1c", "\uff1e", " ", "\n", "7"]
)
HOSTILE = st.lists(st.one_of(FRAGMENTS, st.text(max_size=3)), max_size=12).map("".join)


def control(ids: tuple[int, ...]) -> list[int]:
    return [number for number in ids if number in CONTROL]


@given(HOSTILE, HOSTILE)
def test_no_text_of_a_client_is_taken_for_a_tag_or_a_special_token(first: str, second: str) -> None:
    def conversation(one: str, two: str) -> list[Message]:
        return [Message("system", one), Message("user", one), Message("assistant", two), Message("user", two)]

    harmless = PROMPTS(conversation("a", "b"))
    for role, ids in PROMPTS(conversation(first, second)).items():
        assert control(ids) == control(harmless[role])


@given(HOSTILE)
def test_what_is_made_harmless_holds_nothing_protected_and_is_left_alone_the_second_time(text: str) -> None:
    plain = Neutraliser([*TAGS, *SPECIAL])
    made = plain(text)
    assert not any(tag.lower() in made.lower() for tag in [*TAGS, *SPECIAL])
    assert plain(made) == made


def test_text_without_tags_is_not_touched() -> None:
    text = "a < b and b > c; \uff11 \u00bd <thinking> </p>"
    assert Neutraliser(TAGS)(text) == text


def test_tags_are_found_in_any_case_and_width() -> None:
    plain = Neutraliser(TAGS)
    assert plain("</Think>") == "< /Think>"
    assert plain("\uff1cthink\uff1e") == "< think>"


@given(st.integers(0, 99), st.sampled_from("+-*"), st.integers(0, 99))
def test_a_single_question_has_the_prompt_of_training(left: int, operation: str, right: int) -> None:
    question = f"{left}{operation}{right}"
    expected = {role: render_prompt(LONG_SHORT, role, tokenizer, question) for role, tokenizer in TOKENIZERS.items()}
    assert PROMPTS([Message("user", question)]) == expected


class Recorder:
    """A tokenizer that keeps the conversation it was given."""

    eos_token_id = None
    all_special_tokens = ("<|x|>",)

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return []

    def apply_chat_template(self, conversation: list[dict[str, str]], **kwargs: object) -> list[int]:
        self.seen = conversation
        return [1]


def test_the_rule_of_prompts() -> None:
    tokenizer = Recorder()
    prompts = Prompts(LONG_SHORT, dict.fromkeys(LONG_SHORT.roles, tokenizer))
    prompts(
        [
            Message("system", "Be kind."),
            Message("user", "one"),
            Message("user", "two <|x|>"),
            Message("assistant", "three"),
            Message("system", "Be brief."),
            Message("user", "four"),
        ]
    )
    assert tokenizer.seen == [
        {"role": "system", "content": LONG_SHORT.system_prompts["short"] + "\n\nBe kind.\n\nBe brief."},
        {"role": "user", "content": "one\n\ntwo < |x|>"},
        {"role": "assistant", "content": "three"},
        {"role": "user", "content": "four"},
    ]


@given(st.lists(st.one_of(FRAGMENTS, st.text(max_size=3)), max_size=15))
def test_no_tag_is_ever_visible_however_the_text_comes(pieces: list[str]) -> None:
    filter = Visible()
    shown = "".join(map(filter.feed, pieces)) + filter.end()
    assert not any(tag in shown for tag in TAGS)
    assert shown == shown.strip()


@given(st.text(alphabet="<>/thinkasw \n", max_size=40), st.data())
def test_pieces_show_what_the_whole_shows(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    filter = Visible()
    assert "".join(map(filter.feed, pieces)) + filter.end() == visible(text)


@pytest.mark.parametrize(
    ("sampled", "shown"),
    [
        ("<think>\n7+5=12\n</think>", "7+5=12"),
        ("<answer>a < b</answer>", "a < b"),
        ("<think>a<think>b</think>", "a b"),
        ("<think>a <th<think>ink> b</think>", "a <th ink> b"),
        ("<think>cut off </thi", "cut off </thi"),
        ("<answer></answer>", ""),
    ],
)
def test_what_a_client_sees_of_a_turn(sampled: str, shown: str) -> None:
    assert visible(sampled) == shown
    one_by_one = Visible()
    assert "".join(map(one_by_one.feed, sampled)) + one_by_one.end() == shown


@given(st.text(alphabet="abc", max_size=20), st.lists(st.text(alphabet="abc", min_size=1, max_size=3), max_size=3))
def test_text_ends_before_the_first_stop(text: str, stops: list[str]) -> None:
    until = UntilStop(stops)
    passed = "".join(map(until.feed, text)) + until.end()
    assert text.startswith(passed)
    assert not any(stop in passed for stop in stops)
    assert until.stopped == any(stop in text for stop in stops)
    if not until.stopped:
        assert passed == text
