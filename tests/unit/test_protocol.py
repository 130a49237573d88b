"""The rules of Long⊗Short: what a turn must look like, who speaks next, what may be closed for its author.

Not proved here: that a model follows its system prompt, and that an engine stops at the stop strings.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshort.protocol import LONG_SHORT, TAGS
from longshort.protocols import TRAINABLE, protocol_of, roles_of
from longshort.solo import INSTRUCTIONS, SOLO, solo_protocol

FORM = LONG_SHORT.well_formed
BLANK = " \t\n\r\u3000"
# Text without tags, with the characters that tags are made of.
BODIES = st.text(st.sampled_from("<>/thinkaswer x=5\n") | st.characters(codec="utf-8"), max_size=20).filter(
    lambda body: not any(tag in body for tag in TAGS)
)
SPACES = st.text(st.sampled_from(BLANK), max_size=3)
PIECES = st.lists(st.sampled_from([*TAGS, "x", "<", "</", ">", " ", "think>", "\\boxed{5}"]), max_size=6).map("".join)
TEMPLATES = {
    "long": re.compile(r"\s*<think>(?P<body>.*)</think>\s*", re.DOTALL),
    "short": re.compile(r"\s*<answer>(?P<body>.*)(?:</answer>|</rethink>)\s*", re.DOTALL),
}
ENDS = [("long", "<think>", "</think>"), ("short", "<answer>", "</answer>"), ("short", "<answer>", "</rethink>")]


# The template


@given(SPACES, BODIES.filter(str.strip), SPACES, st.sampled_from(ENDS))
def test_any_body_between_the_right_tags_is_well_formed(
    before: str, body: str, after: str, end: tuple[str, str, str]
) -> None:
    role, opening, closing = end
    turn = f"{before}{opening}{body}{closing}{after}"
    # A body such as "</ans" joins no tag: every tag begins with "<" and ends with ">".
    assert FORM(role, turn)
    assert LONG_SHORT.closing(role, turn) == closing


@given(st.one_of(PIECES, BODIES), st.sampled_from(("long", "short")))
def test_well_formed_is_one_opening_and_one_closing_tag_around_a_body_that_is_not_blank(text: str, role: str) -> None:
    match = TEMPLATES[role].fullmatch(text)
    tags = sum(text.count(tag) for tag in TAGS)
    assert FORM(role, text) == (match is not None and tags == 2 and match["body"].strip() != "")


@pytest.mark.parametrize(
    "body",
    [
        "0<x and x<5",
        "a<b>c",
        "x</y",
        "<thinking>",
        "1 << 3 >= 2",
        "<br/>",
        r"\left< u, v \right> < \boxed{5}",
        "< think >",
        "<think",
        "/answer>",
    ],
)
def test_angle_brackets_of_mathematics_are_no_format_error(body: str) -> None:
    assert FORM("long", f"<think>{body}</think>")
    assert FORM("short", f"<answer>{body}</answer>")


@pytest.mark.parametrize(
    ("role", "text"),
    [
        ("long", ""),
        ("long", "<think>"),
        ("long", "</think>"),
        ("long", "<think></think>"),
        ("long", "<think> \n </think>"),
        ("long", "<think>a"),
        ("long", "a</think>"),
        ("long", "well <think>a</think>"),
        ("long", "<think>a</think> so"),
        ("long", "<think>a<think>b</think>"),
        ("long", "<think>a</think></think>"),
        ("long", "<think><think>a</think></think>"),
        ("long", "<answer>a</answer>"),
        ("long", "<think>a</answer>"),
        ("long", "<think>a</rethink>"),
        ("short", "<think>a</think>"),
        ("short", "<answer>a"),
        ("short", "<answer>\\boxed{5}"),
        ("short", "\\boxed{5}</answer>"),
        ("short", "<answer></answer>"),
        ("short", "<answer></rethink>"),
        ("short", "<answer>a</answer></rethink>"),
        ("short", "<answer>a</rethink>b</answer>"),
        ("short", "<answer><answer>a</answer>"),
        ("short", "<answer><think>\\boxed{5}</think></answer>"),
        ("short", "<ANSWER>a</ANSWER>"),
    ],
)
def test_anything_else_is_malformed(role: str, text: str) -> None:
    assert not FORM(role, text)


# Closing tags


@given(BODIES, SPACES, st.sampled_from(ENDS))
def test_a_turn_closes_with_the_tag_at_its_end_white_space_aside(
    body: str, after: str, end: tuple[str, str, str]
) -> None:
    role, _, closing = end
    assert LONG_SHORT.closing(role, f"{body}{closing}{after}") == closing
    assert LONG_SHORT.closing(role, f"{closing}{body}x") is None


def test_a_role_closes_with_its_own_tags_only() -> None:
    assert LONG_SHORT.closing("long", "<think>a</answer>") is None
    assert LONG_SHORT.closing("short", "<answer>a</think>") is None


def test_only_the_thinking_turn_may_be_closed_for_its_author() -> None:
    assert LONG_SHORT.default_closing("long") == "</think>"
    assert LONG_SHORT.default_closing("short") is None


# Who speaks


def test_long_opens_and_the_closing_tag_says_who_follows() -> None:
    assert LONG_SHORT.first == "long"
    assert LONG_SHORT.closings["long"] == {"</think>": "short"}
    assert LONG_SHORT.closings["short"] == {"</answer>": None, "</rethink>": "long"}


@pytest.mark.parametrize("name", TRAINABLE)
def test_every_protocol_can_end_and_names_only_its_own_roles_and_tags(name: str) -> None:
    protocol = protocol_of({"protocol": name, "max_episode_tokens": 100, "family": "plain"})
    roles = set(protocol.roles)
    assert roles == set(roles_of(name))
    assert protocol.first in roles
    assert set(protocol.opening) == set(protocol.closings) == roles
    followers = {follower for closings in protocol.closings.values() for follower in closings.values()}
    assert None in followers or any(protocol.ends_itself(role) for role in roles)
    assert followers - {None} <= roles
    for role in roles:
        assert protocol.stop(role) == tuple(protocol.closings[role])
        assert {protocol.opening[role], *protocol.stop(role)} <= set(TAGS)


def test_each_role_is_told_every_tag_and_which_assistant_it_is() -> None:
    for role, which in (("long", "first"), ("short", "second")):
        prompt = LONG_SHORT.system_prompts[role]
        assert all(tag in prompt for tag in TAGS)
        assert f"You are the {which} assistant" in prompt


@pytest.mark.parametrize("family", INSTRUCTIONS)
def test_solo_is_told_its_limit_and_answers_after_its_thoughts(family: str) -> None:
    protocol = solo_protocol(321, family)
    assert "321 tokens" in protocol.system_prompts[SOLO]
    assert ("\\boxed{}" in protocol.instructions[SOLO]) == (family != "plain")
    assert protocol.stop(SOLO) == () and protocol.default_closing(SOLO) is None


@pytest.mark.parametrize(("named", "told"), [(None, 100), (30, 30)])
def test_solos_prompt_names_the_cap_or_the_limit_that_is_set_for_it(named: int | None, told: int) -> None:
    team = {"protocol": "solo", "max_episode_tokens": 100, "limit_in_prompt": named, "family": "plain"}
    assert f" {told} tokens" in protocol_of(team).system_prompts[SOLO]


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("<think>a</think>b", True),
        ("a</think>b", True),
        ("<think>a</think>", False),
        ("<think> </think>b", False),
        ("<think>a</think>b</think>c", False),
        ("<think>a<think></think>b", False),
        ("<think>a</think><answer>b</answer>", False),
        ("a", False),
    ],
)
def test_a_solo_turn_is_thoughts_and_an_answer(text: str, good: bool) -> None:
    assert solo_protocol(9, "plain").well_formed(SOLO, text) == good
