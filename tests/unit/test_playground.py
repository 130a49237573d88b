"""The playground's problems, tokenizer, corpus and shipped files.

Not proved here: that the shipped pair answers well (``python -m longshort.playground.check`` measures it), that
training again gives the same weights, and that an engine such as vLLM reads the tokenizer as Hugging Face does.
"""

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from longshort.episode import Problem
from longshort.playground import MODELS, ROLES, corpus, difficulty, generate_problems, model_path
from longshort.playground.check import Played
from longshort.playground.completer import ArithmeticCompleter
from longshort.playground.problems import split_of, steps_of
from longshort.playground.tokenizer import ALPHABET, END, TAGS, UNKNOWN, build_tokenizer, render_prompt
from longshort.thoughts.segments import Gap, Kept, Segment
from longshort.thoughts.steps import split_steps

Make = Callable[[list[Problem], int], Iterator[corpus.Document]]
TOKENIZER = build_tokenizer()


def evaluate(question: str) -> int:
    """Left to right, by bracketing every prefix and letting Python compute it."""
    head, *rest = re.findall(r"[-+*]?\d+", question)
    return eval("(" * len(rest) + head + "".join(f"{part})" for part in rest))


def test_problems_are_a_function_of_their_arguments():
    assert generate_problems(50, 1, "train") == generate_problems(50, 1, "train")
    assert generate_problems(50, 1, "train") != generate_problems(50, 2, "train")


def test_splits_are_disjoint_and_questions_unique():
    train, test = generate_problems(3000, 1, "train"), generate_problems(1000, 1, "test")
    questions = [problem.question for problem in train + test]
    assert len(set(questions)) == len(questions)
    assert len({problem.id for problem in train + test}) == len(questions)
    assert {split_of(problem.question) for problem in train} == {"train"}
    assert {split_of(problem.question) for problem in test} == {"test"}


@pytest.mark.parametrize("split", ["train", "test"])
def test_answers_are_right_and_values_small(split: str):
    problems = generate_problems(500, 3, split)
    for problem in problems:
        assert int(problem.answer) == evaluate(problem.question)
        assert all(0 <= after <= 29 for _, _, _, after in steps_of(problem.question))
    assert {difficulty(problem) for problem in problems} == {2, 3, 4}


def test_evaluation_has_no_precedence():
    assert steps_of("7+5*3-4")[-1][-1] == 32


@pytest.mark.parametrize("question", ["", "7", "7+", "+7", "7/2", "7 + 5", "(7+5)"])
def test_anything_but_a_chain_is_refused(question: str):
    with pytest.raises(ValueError, match="no chain"):
        steps_of(question)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="'dev'"):
        generate_problems(1, 0, "dev")
    with pytest.raises(ValueError, match="found only"):
        generate_problems(10_000, 0, "test", operations=(1, 1))
    with pytest.raises(ValueError, match="'judge'"):
        model_path("judge")


@given(st.lists(st.one_of(st.text(ALPHABET), st.sampled_from(TAGS))).map("".join))
def test_text_survives_the_tokenizer(text: str):
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == text
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == text


@given(st.lists(st.one_of(st.text(ALPHABET), st.sampled_from(TAGS)), min_size=2, max_size=4))
def test_turns_can_be_joined_as_ids(parts: list[str]):
    # Only a tag that arises across a seam could differ.
    joined = "".join(parts)
    if sum(joined.count(tag) for tag in TAGS) == sum(part.count(tag) for part in parts for tag in TAGS):
        assert TOKENIZER.encode(joined) == [token for part in parts for token in TOKENIZER.encode(part)]


def test_each_tag_is_one_ordinary_token():
    for tag in TAGS:
        (token,) = TOKENIZER.encode(tag)
        assert not TOKENIZER.added_tokens_decoder[token].special
    assert TOKENIZER.eos_token == END


def test_other_characters_are_unknown():
    assert TOKENIZER.convert_ids_to_tokens(TOKENIZER.encode("é7½")) == [UNKNOWN, "7", UNKNOWN]


def test_chat_template_keeps_only_the_mark_of_the_system_text():
    messages = [{"role": "system", "content": "You are Long."}, {"role": "user", "content": "7+5*3"}]
    rendered = TOKENIZER.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert rendered == render_prompt("7+5*3")
    assert len(TOKENIZER.encode(rendered)) == len("7+5*3") + 3


@pytest.mark.parametrize("make", [corpus.general, corpus.reasoning])
def test_corpora_are_functions_of_their_arguments(make: Make):
    problems = generate_problems(50, 1, "train")
    assert list(make(problems, 4)) == list(make(problems, 4))
    assert list(make(problems, 4)) != list(make(problems, 5))


@pytest.mark.parametrize("make", [corpus.general, corpus.reasoning])
def test_every_written_step_and_answer_is_right(make: Make):
    problems = generate_problems(500, 11, "train")
    for problem, document in zip(problems, make(problems, 12), strict=True):
        assert document.question == problem.question
        for step, result in re.findall(r"(\d+[-+*]\d+)=(\d+)", document.given + document.text):
            assert evaluate(step) == int(result)
        assert re.findall(r"\\boxed\{(\d+)\}", document.given + document.text) == [problem.answer]


@given(st.integers(0, 10**6))
def test_a_chain_has_every_step_and_then_only_repetitions(seed: int):
    (problem,) = generate_problems(1, seed, "train")
    lines = [corpus.line_of(step) for step in steps_of(problem.question)]
    thoughts = corpus.chain(problem, random.Random(seed))
    assert split_steps("".join(thoughts)) == thoughts
    found = [re.findall(r"\d+[-+*]\d+=\d+", thought) for thought in thoughts]
    assert [set(each) for each in found] == [{line} for line in lines * (len(thoughts) // len(lines))]
    assert all(len(each) == 1 for each in found[len(lines) :])
    assert all(thought.startswith(corpus.CUES) for thought in thoughts[len(lines) :: len(lines)])


def test_waste_is_as_documented():
    problems = generate_problems(4000, 11, "train")
    assert corpus.needless_share(problems, 1) == pytest.approx(corpus.NEEDLESS_SHARE, abs=0.01)
    assert corpus.needless_share(problems, 1, passes=False) == pytest.approx(corpus.NEEDLESS_SHARE_OF_STEPS, abs=0.01)


def test_a_base_model_learns_to_answer_from_any_thought_on():
    problems = generate_problems(2000, 11, "train")
    documents = [document for document in corpus.general(problems, 3) if "<think>" not in document.text]
    assert 1 - len(documents) / len(problems) == pytest.approx(corpus.P_CHAIN, abs=0.04)
    unfinished = [d for d in documents if d.given.count(corpus.BREAK) < len(steps_of(d.question))]
    at_once = sum(d.text.startswith("\\boxed") for d in unfinished) / len(unfinished)
    assert at_once == pytest.approx(corpus.P_ANSWER, abs=0.05)
    assert all(d.text.startswith("\\boxed") for d in documents if d not in unfinished)


QUESTION = Problem("p", "7+5*3-4", "32")


@pytest.mark.parametrize(
    ("segments", "texts"),
    [
        ([Kept("7+5=12 ok 7+5=12\n\n"), Gap(("derivation",))], ["12*3=36\n36-4=32\n\\boxed{32}"]),
        ([Kept("7+5=12\n\n12*3=36\n\n36-4=32\n\n"), Gap(("final answer",))], ["\\boxed{32}"]),
        ([Kept("7+5=12\n\n"), Gap(("x",)), Kept("36-4=32\n\n"), Gap(("y",))], ["12*3=36", "\\boxed{32}"]),
        # Nothing is missing where the kept thoughts go on.
        ([Kept("7+5=12\n\n"), Gap(("x",)), Kept("12*3=36\n\n"), Gap(("y",))], ["so 12", "36-4=32\n\\boxed{32}"]),
        (
            [Kept("7+5=12\n\n12*3=36\n\n"), Gap(("x",)), Kept("Wait 7+5=12"), Gap(("y",))],
            ["so 36", "36-4=32\n\\boxed{32}"],
        ),
        # It goes on from what was written, right or wrong, so that a wrong chain makes no right conversation.
        ([Kept("7+5=13\n\n"), Gap(("x",))], ["13*3=39\n39-4=35\n\\boxed{35}"]),
        ([Kept("hm"), Gap(("x",))], ["7+5=12\n12*3=36\n36-4=32\n\\boxed{32}"]),
    ],
)
async def test_the_completer_writes_what_is_missing(segments: list[Segment], texts: list[str]):
    assert list((await ArithmeticCompleter().complete(QUESTION, segments)).texts or ()) == texts


def test_shipped_models_are_small_enough_for_the_repository():
    weights = [model_path(role) / "model.safetensors" for role in ROLES]
    assert sum(path.stat().st_size for path in weights) <= 4_000_000


@pytest.mark.parametrize("role", MODELS)
def test_shipped_tokenizer_is_the_built_one(role: str):
    shipped = AutoTokenizer.from_pretrained(model_path(role))
    assert shipped.get_vocab() == TOKENIZER.get_vocab()
    assert shipped.chat_template == TOKENIZER.chat_template
    text = "<think>7+5=12\nwait\n</think><answer>so 7+5=12 \\boxed{12}</answer></rethink>"
    assert shipped.encode(text) == TOKENIZER.encode(text)
    assert shipped.decode(shipped.encode(text)) == text


@pytest.mark.parametrize("role", MODELS)
def test_shipped_model_fits_its_tokenizer(role: str):
    config = json.loads((model_path(role) / "config.json").read_text())
    assert config["vocab_size"] == len(TOKENIZER)
    assert config["eos_token_id"] == TOKENIZER.eos_token_id
    assert config["head_dim"] == 32


def test_import_needs_no_torch():
    code = "import sys, longshort.playground; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


def test_what_is_seen_in_a_played_conversation():
    turns = ("<think>7+5=12\n\n7+5=12\n\n</think>", "<answer>12*3=35</rethink>", "<think>36-4=32</think>")
    played = Played(QUESTION, (*turns, "<answer>\\boxed{32}</answer>"), (9, 5, 6, 4))
    assert played.correct and played.well_formed
    assert (played.repeated_steps, played.wrong_lines, played.rethinks) == (1, 1, 1)
    assert not replace(played, turns=turns).correct
    assert not replace(played, turns=("7+5=12</think>",)).well_formed
