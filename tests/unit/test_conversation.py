"""Written conversations become the episodes that the controller would have recorded.

Not proved here: that a model's own tokens of such a text would have been the same.
"""

from __future__ import annotations

import pytest
from fakes import FakeTokenizer

from longshort.conversation import as_episode
from longshort.episode import Problem
from longshort.protocol import LONG_SHORT

PROBLEM = Problem("p", "1+1?", "2")
TURNS = [
    ("long", "<think>a</think>"),
    ("short", "<answer>b</rethink>"),
    ("long", "<think>c</think>"),
    ("short", r"<answer>\boxed{2}</answer>"),
]


def test_each_role_learns_its_own_turns_and_reads_the_others_in_its_own_tokens() -> None:
    tokenizers = {"long": FakeTokenizer(0), "short": FakeTokenizer(1)}
    episode = as_episode(PROBLEM, TURNS, tokenizers, LONG_SHORT)
    assert episode.outcome == "answered"
    for role, other in (("long", "short"), ("short", "long")):
        view = episode.view(role)
        assert view is not None
        trained = [i for i, own in zip(view.response_ids, view.mask, strict=True) if own]
        own = "".join(text for author, text in TURNS if author == role)
        assert tokenizers[role].decode(trained, skip_special_tokens=False).startswith(own)
        everything = tokenizers[role].decode([*view.prompt_ids, *view.response_ids], skip_special_tokens=False)
        assert all(text in everything for author, text in TURNS[:3] if author == other)


def test_the_answer_ends_with_its_authors_end_token() -> None:
    tokenizer = FakeTokenizer()
    episode = as_episode(PROBLEM, TURNS, {"long": tokenizer, "short": tokenizer}, LONG_SHORT)
    assert episode.turns[-1].token_ids[-1] == tokenizer.eos_token_id
    assert all(turn.token_ids[-1] != tokenizer.eos_token_id for turn in episode.turns[:-1])


@pytest.mark.parametrize(
    ("turns", "named"),
    [
        ([], "ends without an answer: long would be next"),
        (TURNS[:2], "ends without an answer: long would be next"),
        (TURNS[1:], "turn 1 of p, by short"),
        ([TURNS[0], ("long", "<think>a</think>")], "turn 2 of p, by long"),
        ([("long", "<think></think>")], "turn 1 of p"),
        ([("long", "a")], "turn 1 of p"),
        ([("judge", "<think>a</think>")], "turn 1 of p, by judge"),
    ],
)
def test_what_is_no_conversation_of_the_protocol(turns: list[tuple[str, str]], named: str) -> None:
    tokenizers = dict.fromkeys(("long", "short"), FakeTokenizer())
    with pytest.raises(ValueError, match=named):
        as_episode(PROBLEM, turns, tokenizers, LONG_SHORT)
