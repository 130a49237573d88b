"""From long and short thoughts to conversations: the protocol's exact form, the right answer, and nothing unaccounted.

Not proved here: that the completed thoughts are good.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshort.episode import Problem
from longshort.generation import Chat, Completion, Prompt, SamplingParams
from longshort.grading import Grade
from longshort.grading import grade as grade_now
from longshort.protocol import LONG_SHORT, TAGS
from longshort.thoughts.completer import COMPLETED_SCHEMA, Completed, ModelCompleter, parse_completed
from longshort.thoughts.segments import FINAL, Gap, Kept, Segment, gaps_of, segments_of
from longshort.thoughts.synthesis import REASONS, DividedChain, Synthesis, count_dropped, synthesise
from longshort.thoughts.thought import Thought

PROBLEM = Problem("p1", "What is 3 + 4?", "7")
FLAGS = st.lists(st.booleans(), max_size=30).map(lambda flags: (True, *flags))


async def grade(response: str, answer: str) -> Grade:
    return grade_now(response, answer)


def thoughts_named(letters: str) -> tuple[Thought, ...]:
    return tuple(Thought(f"\n{letter}.\n\n", f"kind {letter}", n, n) for n, letter in enumerate(letters, start=1))


@dataclass
class ProgramCompleter:
    """Fills every gap by a rule; ``answer`` ends the last one."""

    answer: str = "\\boxed{7}"
    asked: list[Sequence[Segment]] = field(default_factory=list)

    async def complete(self, problem: Problem, segments: Sequence[Segment]) -> Completed:
        self.asked.append(segments)
        texts = [" + ".join(gap.kinds) for gap in gaps_of(segments)]
        return Completed((*texts[:-1], f"{texts[-1]} {self.answer}"))


async def made(letters: str, flags: str, answer: str = "\\boxed{7}", frame: str = "\n") -> Synthesis:
    """The synthesis of thoughts with these letters, long where ``flags`` has an L."""
    chain = DividedChain(PROBLEM, thoughts_named(letters), tuple(flag == "L" for flag in flags))
    return await synthesise(chain, ProgramCompleter(answer), grade, frame)


# Turns


async def test_runs_are_merged_and_tags_say_who_follows() -> None:
    record = await made("abcdef", "LLSSLS")
    assert record.conversation == (
        ("long", "<think>\na.\n\n\nb.\n</think>"),
        ("short", "<answer>\nkind c + kind d\n</rethink>"),
        ("long", "<think>\ne.\n</think>"),
        ("short", "<answer>\nkind f \\boxed{7}\n</answer>"),
    )
    assert (record.thoughts, record.long_thoughts, record.turns, record.answer) == (6, 3, 4, "7")
    assert (record.dropped, record.answer_appended) == (None, False)


@pytest.mark.parametrize("flags", ["L", "LL", "LSL"])
async def test_a_chain_that_ends_long_gets_a_short_answer(flags: str) -> None:
    record = await made("abc"[: len(flags)], flags)
    assert record.answer_appended
    assert record.conversation is not None
    assert record.conversation[-1] == ("short", f"<answer>\n{FINAL} \\boxed{{7}}\n</answer>")


async def test_the_frame_may_be_empty() -> None:
    record = await made("ab", "LS", frame="")
    assert record.conversation == (("long", "<think>a.</think>"), ("short", "<answer>kind b \\boxed{7}</answer>"))


@given(FLAGS)
async def test_every_conversation_alternates_in_the_form_of_the_protocol(flags: tuple[bool, ...]) -> None:
    thoughts = tuple(Thought(f"thought {n}\n\n", "derivation", n, n) for n in range(1, len(flags) + 1))
    record = await synthesise(DividedChain(PROBLEM, thoughts, flags), ProgramCompleter(), grade)
    assert record.conversation is not None
    speaker: str | None = LONG_SHORT.first
    for role, text in record.conversation:
        assert role == speaker
        assert LONG_SHORT.well_formed(role, text)
        closing = LONG_SHORT.closing(role, text)
        assert closing is not None
        speaker = LONG_SHORT.closings[role][closing]
    assert speaker is None, "only the last turn ends the conversation"
    kept = [thought.text.strip() for thought, long in zip(thoughts, flags, strict=True) if long]
    told = "".join(text for role, text in record.conversation if role == "long")
    assert all(text in told for text in kept)
    assert len(record.conversation) == record.turns


@given(FLAGS)
def test_segments_hold_every_thought_once(flags: tuple[bool, ...]) -> None:
    thoughts = [Thought(f"thought {n}\n\n", "derivation", n, n) for n in range(1, len(flags) + 1)]
    segments = segments_of(thoughts, flags)
    texts = [s.text if isinstance(s, Kept) else "".join(s.texts) for s in segments]
    assert "".join(texts) == "".join(thought.text for thought in thoughts)
    assert [isinstance(s, Kept) for s in segments] == [n % 2 == 0 for n in range(len(segments))]
    assert isinstance(segments[-1], Gap)


@pytest.mark.parametrize(("letters", "flags"), [("ab", (True,)), ("ab", (False, True)), ("", ())])
def test_flags_that_do_not_fit_are_refused(letters: str, flags: tuple[bool, ...]) -> None:
    with pytest.raises(ValueError, match=r"flags for|not long"):
        segments_of(thoughts_named(letters), flags)


async def test_two_thousand_thoughts_become_a_conversation() -> None:
    thoughts = tuple(Thought(f"thought {n}\n\n", "derivation", n, n) for n in range(2_000))
    flags = tuple(n % 2 == 0 for n in range(2_000))
    record = await synthesise(DividedChain(PROBLEM, thoughts, flags), ProgramCompleter(), grade)
    assert record.conversation is not None
    assert len(record.conversation) == 2_000


# What is dropped


@pytest.mark.parametrize("tag", TAGS)
async def test_a_kept_thought_with_a_tag_drops_the_chain_and_one_that_is_replaced_does_not(tag: str) -> None:
    thoughts = [Thought("a", "x", 1, 1), Thought(f"b {tag} c", "x", 2, 2)]
    kept = DividedChain(PROBLEM, tuple(thoughts), (True, True))
    replaced = DividedChain(PROBLEM, tuple(thoughts), (True, False))
    completer = ProgramCompleter()
    assert (await synthesise(kept, completer, grade)).dropped == "tag in a thought"
    assert not completer.asked, "nothing is completed in vain"
    assert (await synthesise(replaced, completer, grade)).dropped is None


async def test_angle_brackets_of_mathematics_stay() -> None:
    thoughts = (Thought("0<x and x</y, a<b>c", "x", 1, 1),)
    record = await synthesise(DividedChain(PROBLEM, thoughts, (True,)), ProgramCompleter("x < 8, \\boxed{7}"), grade)
    assert record.conversation is not None
    assert "0<x and x</y, a<b>c" in record.conversation[0][1]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("7", "no boxed answer"),
        ("\\boxed{7", "no boxed answer"),
        ("\\boxed{8}", "wrong answer"),
        ("\\boxed{7}</answer>", "tag in a completion"),
        ("<think> \\boxed{7}", "tag in a completion"),
        ("\\boxed{" + "1" * 2_000 + "}", "ungradable answer"),
    ],
)
async def test_an_answer_that_is_not_boxed_and_right_drops_the_chain(answer: str, reason: str) -> None:
    record = await made("abc", "LSS", answer)
    assert (record.conversation, record.dropped) == (None, reason)


async def test_a_gold_answer_that_cannot_be_graded_drops_the_chain() -> None:
    chain = DividedChain(Problem("p", "?", ""), thoughts_named("a"), (True,))
    assert (await synthesise(chain, ProgramCompleter(), grade)).dropped == "ungradable answer"


@dataclass
class SilentCompleter:
    """Returns what it was made with."""

    completed: Completed

    async def complete(self, problem: Problem, segments: Sequence[Segment]) -> Completed:
        return self.completed


async def test_every_other_reason_is_counted() -> None:
    short = (True, False)
    two = thoughts_named("ab")
    blank = (Thought("\n\n", "x", 1, 1), two[1])
    records = [
        await synthesise(DividedChain(PROBLEM, (), ()), ProgramCompleter(), grade),
        await synthesise(DividedChain(PROBLEM, blank, short), ProgramCompleter(), grade),
        await synthesise(DividedChain(PROBLEM, two, short), SilentCompleter(Completed(None, ("why",))), grade),
        await synthesise(DividedChain(PROBLEM, two, short), SilentCompleter(Completed((" ",))), grade),
        await made("ab", "LS"),
    ]
    assert [r.dropped for r in records] == ["no thoughts", "blank thought", "not completed", "blank completion", None]
    assert records[2].faults == ("why",)
    counts = count_dropped(records)
    assert set(counts) == set(REASONS)
    assert sum(counts.values()) == 4


async def test_thinking_that_was_never_closed_is_noted() -> None:
    chain = DividedChain(PROBLEM, thoughts_named("ab"), (True, False), closed=False)
    record = await synthesise(chain, ProgramCompleter(), grade)
    assert (record.closed, record.dropped) == (False, None)


# A model as completer

GAPS = (Gap(("derivation", "derivation", "check"), ("b", "c", "d")), Gap(("conclusion",), ("f",)))
SEGMENTS: tuple[Segment, ...] = (Kept("a\n\n"), GAPS[0], Kept("e\n\n"), GAPS[1])


def completed_json(*contents: str) -> str:
    return json.dumps({"Completed Steps": [{"thought": "x", "content": content} for content in contents]})


@pytest.mark.parametrize(
    "raw",
    [
        completed_json("one", "so \\boxed{7}"),
        "```json\n" + completed_json("one", "so \\boxed{7}") + "\n```",
        json.dumps([{"thought": "x", "content": " one\n"}, {"thought": "y", "content": "so \\boxed{7}"}]),
        r'{"Completed Steps": [{"thought": "x", "content": "one"}, {"thought": "y", "content": "so \boxed{7}"}]}',
    ],
)
def test_completed_steps_are_read_as_object_and_as_list(raw: str) -> None:
    assert parse_completed(raw, GAPS) == ("one", "so \\boxed{7}")


def test_one_entry_for_each_missing_thought_is_joined_by_gap() -> None:
    assert parse_completed(completed_json("b", "c", "d", "\\boxed{7}"), GAPS) == ("b\n\nc\n\nd", "\\boxed{7}")


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ("no", "the answer holds no JSON object"),
        ('{"steps": []}', 'there is no list "Completed Steps"'),
        (completed_json(), "there are 0 entries for 2 gaps"),
        (completed_json("a", "b", "\\boxed{7}"), "there are 3 entries for 2 gaps"),
        (completed_json(" ", "\\boxed{7}"), 'entry 1 has no text in "content"'),
        ('["a", "b"]', 'entry 1 has no text in "content"'),
        (completed_json("a", "</answer> \\boxed{7}"), "entry 2 holds </answer>, which is reserved"),
        (completed_json("\\boxed{7}", "seven"), "the last entry gives no final answer"),
    ],
)
def test_the_error_says_what_is_wrong_with_completed_steps(raw: str, sentence: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_completed(raw, GAPS)
    assert str(error.value).startswith(sentence)


@given(
    st.text()
    | st.lists(st.sampled_from(['{"', "[", "]", "}", '"Completed Steps":', '{"content":"a"}', ","])).map("".join)
)
def test_any_answer_is_read_or_refused(raw: str) -> None:
    try:
        parse_completed(raw, GAPS)
    except ValueError as error:
        assert str(error)


@dataclass
class ScriptedModel:
    """Answers chats with the script's texts, one after the other."""

    script: Sequence[str]
    chats: list[Chat] = field(default_factory=list)
    params: list[SamplingParams] = field(default_factory=list)

    async def generate(self, prompt: Prompt, params: SamplingParams, session: str) -> Completion:
        assert isinstance(prompt, Chat)
        self.chats.append(prompt)
        self.params.append(params)
        return Completion((), (), "stop", text=self.script[len(self.chats) - 1])


async def test_the_model_sees_the_kept_thoughts_and_only_the_kinds_of_the_missing_ones() -> None:
    secret = (Kept("a\n\n"), Gap(("derivation", "derivation", "check"), ("SECRET",) * 3), Kept("e"), GAPS[1])
    model = ScriptedModel([completed_json("one", "\\boxed{7}")])
    completed = await ModelCompleter(model).complete(PROBLEM, secret)
    assert completed == Completed(("one", "\\boxed{7}"))
    shown = model.chats[0].messages[-1]["content"]
    assert "a\n\n[gap 1: derivation, then check]\n\ne\n\n[gap 2: conclusion]" in shown
    assert PROBLEM.question in shown
    assert "SECRET" not in shown
    assert model.params[0].json_schema == COMPLETED_SCHEMA


async def test_a_wrong_answer_is_shown_with_what_is_wrong_and_given_up_after_the_retries() -> None:
    model = ScriptedModel([completed_json("one"), completed_json("one", "\\boxed{7}")])
    completed = await ModelCompleter(model, retries=1).complete(PROBLEM, SEGMENTS)
    assert completed.texts == ("one", "\\boxed{7}")
    assert "there are 1 entries for 2 gaps" in model.chats[1].messages[-1]["content"]
    refused = await ModelCompleter(ScriptedModel(["no", "no"]), retries=1).complete(PROBLEM, SEGMENTS)
    assert refused.texts is None
    assert len(refused.faults) == 2
