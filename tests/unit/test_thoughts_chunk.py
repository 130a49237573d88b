"""From a response to thoughts: nothing is lost, and what is wrong with a model's blocks is said exactly.

Not proved here: that the kinds and borders of thoughts make sense to a reader.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshort.chains import Block, read_chain
from longshort.episode import Problem
from longshort.generation import Chat, Completion, Prompt, SamplingParams
from longshort.thoughts.chunk import (
    SHORT_TAIL,
    Chunking,
    UnfinishedError,
    count_made_by,
    parse_blocks,
    published_chunking,
    repaired,
    thoughts_of,
)
from longshort.thoughts.json_reply import read_json
from longshort.thoughts.llm_chunker import BLOCKS_SCHEMA, ModelChunking, chunk_with_model
from longshort.thoughts.rules import RuleLimits, chunk_by_rules
from longshort.thoughts.steps import split_response, split_steps
from longshort.thoughts.thought import Thought

PROBLEM = Problem("p1", "What is 3 + 4?", "7")
SPACES = ["\n", "\n\n", "\r\n", "\r\n\r\n", " \n\t\n", "\n\n\n\n", "  ", "\x0b", "\u2028", "\r"]
WORDS = [
    "Wait, ",
    "so ",
    "等等",
    "0 < x < 5",
    "x",
    "a<b>c",
    "</answer>",
    "<think>",
    "</think>",
    "<answer>",
    "\\boxed{7}",
    "**",
]
PIECES = st.sampled_from([*SPACES, *WORDS])
TEXTS = st.lists(PIECES, max_size=40).map("".join) | st.text()
STEPS = ("One.\n\n", "Two.\n\n", "Three.\n\n", "Four.\n\n", "Five.")


def joined(thoughts: Sequence[Thought]) -> str:
    return "".join(thought.text for thought in thoughts)


def blocks_json(*spans: tuple[int, int], kind: str = "derivation") -> str:
    blocks = {f"block {n}": {"start": s, "end": e, "block type": kind} for n, (s, e) in enumerate(spans, start=1)}
    return json.dumps(blocks)


# The response and its steps


@given(TEXTS)
def test_the_parts_of_a_response_are_the_response(text: str) -> None:
    response = split_response(text)
    assert response.opening + response.thinking + response.closing == text
    assert response.closed == ("</think>" in text[len(response.opening) :])
    assert "</think>" not in response.thinking


@given(TEXTS)
def test_steps_join_to_the_thinking_and_are_divided_by_blank_lines(thinking: str) -> None:
    steps = split_steps(thinking)
    assert "".join(steps) == thinking
    assert len(steps) <= 1 or all(step.strip() for step in steps)
    for step in steps[:-1]:
        ends = step[len(step.rstrip()) :].count("\n")
        assert ends >= 2, "a step that another follows ends with a blank line"


@pytest.mark.parametrize(
    ("text", "thinking", "closed"),
    [
        ("<think>\na\n</think>\n\nSo \\boxed{5}", "\na\n", True),
        (" \n<think>a</think>", "a", True),
        ("a</think>b", "a", True),
        ("<think>a, then </answer> and <answer> and x < 5", "a, then </answer> and <answer> and x < 5", False),
        ("no tags at all", "no tags at all", False),
        ("<think>0<x and x</y</think><think>b</think>", "0<x and x</y", True),
        ("well <think>a</think>", "well <think>a", True),
        ("", "", False),
    ],
)
def test_only_the_thinking_is_divided(text: str, thinking: str, closed: bool) -> None:
    response = split_response(text)
    assert (response.thinking, response.closed) == (thinking, closed)


@pytest.mark.parametrize(
    ("thinking", "steps"),
    [
        ("", ()),
        ("\n \n", ("\n \n",)),
        ("one line", ("one line",)),
        ("a\nb\nc", ("a\nb\nc",)),
        ("a\r\nb", ("a\r\nb",)),
        ("a\r\n\r\nb\r\n", ("a\r\n\r\n", "b\r\n")),
        ("\n\na\n\n\n\nb \n\t \nc\n\n", ("\n\na\n\n\n\n", "b \n\t \n", "c\n\n")),
        ("a  \n\n  b", ("a  \n\n", "  b")),
    ],
)
def test_steps_of(thinking: str, steps: tuple[str, ...]) -> None:
    assert split_steps(thinking) == steps


def test_blank_lines_without_end_take_linear_time() -> None:
    thinking = "\n" * 200_000 + " " * 200_000 + "\r" * 200_000 + "a"
    assert split_steps(thinking) == (thinking,)


# Blocks of a model


@pytest.mark.parametrize(
    "frame",
    [
        "{}",
        "```json\n{}\n```",
        "Here it is:\n```\n{}\n``` Done.",
        "<think>{{x}} [1]</think>\n{}",
        "The set {{1, 2}}: {}",
    ],
)
def test_blocks_are_read_bare_in_a_fence_and_after_thoughts(frame: str) -> None:
    raw = frame.format(blocks_json((1, 2), (3, 5), kind="问题理解"))
    assert parse_blocks(raw, STEPS) == (Block(1, 2, "问题理解"), Block(3, 5, "问题理解"))


@pytest.mark.parametrize(
    "raw",
    [
        '[{"start": 1, "end": 2, "type": "a"}, {"start": 3, "end": 5, "type": "b"}]',
        '{"block 2": {"start": 3, "end": 5, "block_type": "b"}, "block 1": {"start": "1", "end": 2.0, "type": " a "}}',
    ],
)
def test_lists_disorder_and_other_spellings_are_read(raw: str) -> None:
    assert parse_blocks(raw, STEPS) == (Block(1, 2, "a"), Block(3, 5, "b"))


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ("", "the answer holds no JSON object"),
        ("I cannot do that.", "the answer holds no JSON object"),
        ("{}", "the answer holds no blocks"),
        ("[]", "the answer holds no blocks"),
        ('{"block 1": {"start": 1, "end": 5, "block type": "a"', "the JSON is malformed at its line 1"),
        ("[" * 100_000, "the JSON is nested too deeply"),
        ('{"block 1": 5}', '"block 1" is no object'),
        ('{"block 1": {"start": 1, "end": 5}}', '"block 1" has no "block type"'),
        ('{"block 1": {"start": 1, "end": 5, "block type": " "}}', '"block 1" has no "block type"'),
        ('{"block 1": {"end": 5, "block type": "a"}}', '"block 1" has "start": None, which is no step number'),
        ('{"block 1": {"start": "", "end": 5, "block type": "a"}}', '"block 1" has "start": \'\''),
        ('{"block 1": {"start": true, "end": 5, "block type": "a"}}', '"block 1" has "start": True'),
        ('{"block 1": {"start": 1.5, "end": 5, "block type": "a"}}', '"block 1" has "start": 1.5'),
        ('{"block 1": {"start": 1, "end": Infinity, "block type": "a"}}', '"block 1" has "end": inf'),
        (blocks_json((0, 5)), '"block 1" starts at step 0: steps are numbered from 1'),
        (blocks_json((2, 5)), 'the first block, "block 1", starts at step 2: step 1 must be in a block too'),
        (blocks_json((1, 1), (4, 5)), '"block 1" ends at step 1 and "block 2" starts at step 4: steps 2 to 3 must be'),
        (
            blocks_json((1, 3), (2, 5)),
            '"block 1" ends at step 3 and "block 2" starts at step 2: steps 2 to 3 may be in',
        ),
        (blocks_json((1, 5), (2, 2)), '"block 1" ends at step 5 and "block 2" starts at step 2: step 2 may be in one'),
        (blocks_json((1, 6)), '"block 1" ends at step 6, but the last step is 5'),
        (blocks_json((1, 2), (3, 1)), '"block 2" starts at step 3 and ends at step 1'),
        (blocks_json((1, 2), (3, 4)), '"block 2" ends at step 4, but the last step is 5: put step 5 into blocks too'),
        ('{"a": {"start": 1, "end": 1, "type": "x"}, "a": 1}', 'the key "a" comes twice'),
    ],
)
def test_the_error_says_what_is_wrong(raw: str, sentence: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_blocks(raw, STEPS)
    assert str(error.value).startswith(sentence)
    assert isinstance(error.value, UnfinishedError) == ("put step" in str(error.value))


@given(st.text() | st.lists(st.sampled_from(['{"', "[", "]", "}", ":", "1", '"a"', ",", "\\", "```json"])).map("".join))
def test_any_answer_is_read_or_refused_in_a_sentence(raw: str) -> None:
    try:
        parse_blocks(raw, STEPS)
    except ValueError as error:
        assert str(error) and "\n" not in str(error)


@given(st.data(), st.integers(1, 60))
def test_blocks_that_cover_all_steps_once_are_accepted_and_lose_nothing(data: st.DataObject, count: int) -> None:
    steps = [f"step {number}\n\n" for number in range(count)]
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, count - 1)), max_size=8)) if count > 1 else [])
    spans = list(zip([1, *[cut + 1 for cut in cuts]], [*cuts, count], strict=True))
    blocks = parse_blocks(blocks_json(*spans), steps)
    thoughts = thoughts_of(steps, blocks)
    assert [(t.start, t.end) for t in thoughts] == spans
    assert joined(thoughts) == "".join(steps)


# LaTeX in JSON


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (r'["\boxed{\frac{1}{2}}"]', r"\boxed{\frac{1}{2}}"),
        (r'["\\boxed{\\frac{1}{2}}"]', r"\boxed{\frac{1}{2}}"),
        (r'["\(x \neq 3 \times \theta\)"]', r"\(x \neq 3 \times \theta\)"),
        (r'["a\n\\(x\\)\nnext\tb"]', "a\n\\(x\\)\nnext\tb"),
        (r'["\\alpha\neq"]', "\\alpha\neq"),
        (r'["\u4f60 \underline{x} \"q\" \/"]', '你 \\underline{x} "q" /'),
        ('["a\nb"]', "a\nb"),
    ],
)
def test_latex_that_nobody_escaped_is_read_as_latex(raw: str, text: str) -> None:
    assert read_json(raw) == [text]


@given(st.text(st.sampled_from("\\nbfrtu{}/\"' \nabc123中") | st.characters(codec="utf-8")))
def test_json_that_is_escaped_throughout_is_read_as_it_is(text: str) -> None:
    # The doubled command tells that its author escapes.
    assert read_json(json.dumps(["\\alpha", text.replace("\b", "").replace("\f", "")])) == [
        "\\alpha",
        text.replace("\b", "").replace("\f", ""),
    ]


# Chunkings that end early


@pytest.mark.parametrize("tail", [1, SHORT_TAIL, SHORT_TAIL + 1, 40])
def test_a_missing_tail_joins_the_last_thought_or_is_divided_by_rules(tail: int) -> None:
    steps = [f"Wait, step {number}. {'x' * 150}\n\n" for number in range(10 + tail)]
    chunking = repaired(steps, [Block(1, 4, "a"), Block(5, 10, "b")])
    assert joined(chunking.thoughts) == "".join(steps)
    assert (chunking.made_by, chunking.repaired_steps) == ("repaired", tail)
    starts = [thought.start for thought in chunking.thoughts]
    assert starts[:2] == [1, 5]
    assert (len(starts) == 2) == (tail <= SHORT_TAIL)
    assert [thought.end + 1 for thought in chunking.thoughts] == [*starts[1:], len(steps) + 1]


def published(thought: str, *spans: tuple[int, int]) -> tuple[str, Chunking]:
    row = {"thought": thought, "block": json.loads(blocks_json(*spans))}
    response, chunking = published_chunking(read_chain(row, PROBLEM))
    assert joined(chunking.thoughts) == response.thinking
    return response.thinking, chunking


def test_a_published_chunking_that_stops_two_steps_before_its_thinking_is_repaired() -> None:
    thinking = "\n\n".join(f"step {number}" for number in range(1, 136))
    answer = "\n\n".join(f"answer {number}" for number in range(136, 151))
    text = f"<think>\n{thinking}\n</think>\n\n{answer}"
    spans = [(1, 4), (5, 12), (13, 28), (29, 48), (49, 64), (65, 91), (92, 131), (132, 133)]
    _, chunking = published(text, *spans)
    assert (chunking.made_by, chunking.repaired_steps) == ("repaired", 2)
    assert [(t.start, t.end) for t in chunking.thoughts] == [*spans[:-1], (132, 135)]
    assert parse_blocks(blocks_json(*spans[:-1], (132, 135)), split_steps(f"\n{thinking}\n"))


@pytest.mark.parametrize(
    ("text", "spans", "made_by", "thoughts"),
    [
        ("<think>a\n\nb</think>\n\nc", [(1, 1), (2, 3)], "llm", ["a\n\n", "b"]),
        ("<think>a\n\nb</think>\n\nc", [(1, 1), (2, 2), (3, 3)], "llm", ["a\n\n", "b"]),
        ("<think>\n\na\n\n</think>\n\nc", [(1, 2)], "llm", ["\n\na\n\n"]),
        ("<think>a\n\n\n\nb\n\n", [(1, 2), (3, 4)], "llm", ["a\n\n\n\n", "b\n\n"]),
        ("<think>a\n\nb</think>", [(2, 2)], "rules", ["a\n\nb"]),
        ("<think>a\n\nb</think>", [], "rules", ["a\n\nb"]),
        ("<think></think>c", [(1, 1)], "rules", []),
    ],
)
def test_published_blocks_are_cut_to_the_thinking(
    text: str, spans: list[tuple[int, int]], made_by: str, thoughts: list[str]
) -> None:
    _, chunking = published(text, *spans)
    assert chunking.made_by == made_by
    assert [thought.text for thought in chunking.thoughts] == thoughts


# Rules


@given(TEXTS, st.integers(1, 30), st.integers(0, 50), st.integers(0, 100))
def test_rules_lose_nothing_and_keep_within_their_limits(text: str, least: int, more: int, yet_more: int) -> None:
    steps = split_steps(text)
    limits = RuleLimits(least, least + more, least + more + yet_more)
    thoughts = chunk_by_rules(steps, limits)
    assert joined(thoughts) == text
    assert [t.start for t in thoughts] == [1, *[t.end + 1 for t in thoughts[:-1]]][: len(thoughts)]
    for thought in thoughts:
        assert len(thought.text) <= limits.most or thought.start == thought.end


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        ("Wait, that is wrong.", "reconsideration"),
        ("Hmm. Not sure.", "reconsideration"),
        ("Alternatively, use symmetry.", "another approach"),
        ("Let me double-check this.", "verification"),
        ("Wait, let me check.", "verification"),
        ("**Final Answer**", "final answer"),
        ("等等,这里不对。", "reconsideration"),
        ("让我检查一下。", "verification"),
        ("或者用另一种方法。", "another approach"),
        ("综上所述,答案是 7。", "final answer"),
    ],
)
def test_a_turn_starts_a_thought_of_its_kind(step: str, kind: str) -> None:
    thoughts = chunk_by_rules(["a" * 300 + "\n\n", f"{step}\n\n", "b" * 300])
    assert [(t.start, t.end, t.kind) for t in thoughts] == [(1, 1, "problem understanding"), (2, 3, kind)]


@pytest.mark.parametrize("cue", ["So", "Therefore,", "First,", "Now", "所以", "首先"])
def test_a_link_starts_a_thought_only_after_a_longer_one(cue: str) -> None:
    link, limits = f"{cue} x = 1. {'b' * 300}\n\n", RuleLimits()
    assert len(chunk_by_rules(["a" * (limits.enough - 1), link])) == 1
    assert len(chunk_by_rules(["a" * limits.enough, link])) == 2


def test_words_that_only_look_like_cues_start_nothing() -> None:
    steps = [
        "a" * 700 + "\n\n",
        "Some numbers.\n\n",
        "Waiting times add up.\n\n",
        "Thenar.\n\n",
        "Sort them." + "b" * 300,
    ]
    assert len(chunk_by_rules(steps)) == 1


def test_two_thousand_thoughts_are_kept() -> None:
    thinking = "".join(f"Wait, number {number}: {'x' * 200}\n\n" for number in range(2_000))
    thoughts = chunk_by_rules(split_steps(thinking))
    assert len(thoughts) == 2_000
    assert joined(thoughts) == thinking


def test_limits_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="out of order"):
        RuleLimits(300, 200, 4_000)


# A model


@dataclass
class ScriptedModel:
    """Answers chats with the script's texts, one after the other; a text that ends with an ellipsis broke off."""

    script: Sequence[str]
    chats: list[Chat] = field(default_factory=list)
    params: list[SamplingParams] = field(default_factory=list)

    async def generate(self, prompt: Prompt, params: SamplingParams, session: str) -> Completion:
        assert isinstance(prompt, Chat)
        self.chats.append(prompt)
        self.params.append(params)
        text = self.script[len(self.chats) - 1]
        return Completion((), (), "length" if text.endswith("…") else "stop", text=text)


async def test_a_right_answer_is_taken_at_once() -> None:
    model = ScriptedModel([f"```json\n{blocks_json((1, 2), (3, 5))}\n```"])
    chunking = await chunk_with_model(model, PROBLEM, STEPS, retries=2)
    assert (chunking.made_by, chunking.faults) == ("llm", ())
    assert joined(chunking.thoughts) == "".join(STEPS)
    [params] = model.params
    assert (params.max_tokens, params.temperature, params.json_schema) == (7_120, 0.1, BLOCKS_SCHEMA)
    shown = model.chats[0].messages[-1]["content"]
    assert PROBLEM.question in shown
    assert all(f"Step {number}: {step.strip()}" in shown for number, step in enumerate(STEPS, start=1))


async def test_the_model_is_shown_what_was_wrong_with_its_latest_answer() -> None:
    model = ScriptedModel(["no", blocks_json((1, 1), (3, 5)), blocks_json((1, 5))])
    chunking = await chunk_with_model(model, PROBLEM, STEPS, retries=2)
    assert chunking.made_by == "llm"
    assert len(chunking.faults) == 2
    assert [len(chat.messages) for chat in model.chats] == [2, 4, 4]
    assert model.chats[2].messages[2] == {"role": "assistant", "content": model.script[1]}
    assert "step 2 must be in a block too" in model.chats[2].messages[3]["content"]
    assert [params.seed for params in model.params] == [0, 1, 2]


async def test_without_a_right_answer_the_rules_divide() -> None:
    model = ScriptedModel(["no", '{"block 1": …'])
    chunking = await chunk_with_model(model, PROBLEM, STEPS, retries=1)
    assert chunking.thoughts == chunk_by_rules(STEPS)
    assert chunking.made_by == "rules"
    assert "broke off after 7120 tokens" in chunking.faults[1]
    assert count_made_by([chunking]) == {"llm": 0, "repaired": 0, "rules": 1}


async def test_a_short_tail_is_repaired_without_asking_and_a_long_one_is_asked_for() -> None:
    steps = [f"step {number}\n\n" for number in range(12)]
    chunking = await chunk_with_model(ScriptedModel([blocks_json((1, 9))]), PROBLEM, steps, retries=2)
    assert (chunking.made_by, chunking.repaired_steps, chunking.faults) == ("repaired", 3, ())
    model = ScriptedModel([blocks_json((1, 8)), blocks_json((1, 12))])
    assert (await chunk_with_model(model, PROBLEM, steps, retries=2)).made_by == "llm"
    assert "steps 9 to 12" in model.chats[1].messages[3]["content"]


async def test_of_answers_that_end_early_the_one_that_reached_furthest_is_repaired() -> None:
    steps = [f"step {number}\n\n" for number in range(12)]
    model = ScriptedModel([blocks_json((1, 3)), blocks_json((1, 2), (3, 7)), "no"])
    chunking = await chunk_with_model(model, PROBLEM, steps, retries=2)
    assert (chunking.made_by, chunking.repaired_steps) == ("repaired", 5)
    assert [t.start for t in chunking.thoughts][:2] == [1, 3]
    assert joined(chunking.thoughts) == "".join(steps)


@pytest.mark.parametrize("steps", [(), ("one line without a blank one",)])
async def test_fewer_than_two_steps_are_not_asked_about(steps: tuple[str, ...]) -> None:
    chunking = await chunk_with_model(ScriptedModel([]), PROBLEM, steps)
    assert (joined(chunking.thoughts), chunking.made_by) == ("".join(steps), "rules")


async def test_thinking_that_no_context_holds_is_divided_by_rules() -> None:
    chunking = await chunk_with_model(ScriptedModel([]), PROBLEM, STEPS, settings=ModelChunking(max_characters=10))
    assert chunking.made_by == "rules"
    assert "more than the 10 that a model is shown" in chunking.faults[0]


@given(st.text(string.printable, max_size=200), st.lists(st.text(), max_size=3))
async def test_whatever_the_model_says_nothing_is_lost(thinking: str, script: list[str]) -> None:
    steps = split_steps(thinking)
    model = ScriptedModel([*script, "…", "…", "…"])
    chunking = await chunk_with_model(model, PROBLEM, steps, retries=2)
    assert joined(chunking.thoughts) == thinking
