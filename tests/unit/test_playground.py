"""The playground's problems, tokenizer, corpus and shipped files.

Not proved here: that the shipped pair answers well (``python -m longshort.playground.check`` measures it), that
training again gives the same weights, and that an engine such as vLLM reads the tokenizer as Hugging Face does.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from longshort.playground import ROLES, corpus, difficulty, generate_problems, pair_path
from longshort.playground.problems import split_of, steps_of
from longshort.playground.tokenizer import ALPHABET, END, TAGS, UNKNOWN, build_tokenizer, render_prompt

TEMPLATES = {
    "long": re.compile(r"<think>[^<>]+</think>"),
    "short": re.compile(r"<answer>[^<>]+(?:</answer>|</rethink>)"),
}
TOKENIZER = build_tokenizer()


def evaluate(question: str) -> int:
    """Left to right, by bracketing every prefix and letting Python compute it."""
    head, *rest = re.findall(r"[-+*]?\d+", question)
    return eval("(" * len(rest) + head + "".join(f"{part})" for part in rest))


@pytest.fixture(scope="module")
def conversations() -> list[corpus.Conversation]:
    return list(corpus.converse(generate_problems(2000, 11, "train"), 12))


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
        pair_path("judge")


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


def test_corpus_is_a_function_of_its_arguments():
    problems = generate_problems(50, 1, "train")
    assert list(corpus.converse(problems, 4)) == list(corpus.converse(problems, 4))
    assert list(corpus.converse(problems, 4)) != list(corpus.converse(problems, 5))


def test_every_turn_is_well_formed(conversations: list[corpus.Conversation]):
    for conversation in conversations:
        roles = [turn.role for turn in conversation.turns]
        assert roles in (["long", "short"], ["long", "short"] * 2)
        for turn in conversation.turns:
            assert TEMPLATES[turn.role].fullmatch(turn.text)
        assert [turn.text.endswith("</answer>") for turn in conversation.turns[1::2]] in ([True], [False, True])


def test_every_written_step_and_answer_is_right(conversations: list[corpus.Conversation]):
    for conversation in conversations:
        text = "".join(turn.text for turn in conversation.turns)
        for step, result in re.findall(r"(\d+[-+*]\d+)=(\d+)", text):
            assert evaluate(step) == int(result)
        for rest in re.findall(r"left ([^<]+)", text):
            assert str(evaluate(rest)) == conversation.problem.answer
            assert conversation.problem.question.endswith(rest.lstrip("0123456789"))
        assert re.findall(r"\\boxed\{(\d+)\}", text) == [conversation.problem.answer]


def test_each_chain_is_written_out_before_it_is_repeated(conversations: list[corpus.Conversation]):
    for conversation in conversations:
        lines = [f"{before}{sign}{by}={after}" for before, sign, by, after in steps_of(conversation.problem.question)]
        thoughts = [turn for turn in conversation.turns if turn.role == "long"]
        bodies = [turn.text.removeprefix("<think>").removesuffix("</think>") for turn in thoughts]
        needed = "".join(body[: len(body) - turn.needless] for body, turn in zip(bodies, thoughts, strict=True))
        assert needed.splitlines() in (lines, [conversation.problem.answer])
        needless = "".join(body[len(body) - turn.needless :] for body, turn in zip(bodies, thoughts, strict=True))
        before, *chains = re.split("|".join(corpus.CUES), needless)
        assert before == ""
        assert all(chain.splitlines() == lines for chain in chains)


def test_special_conversations_are_as_frequent_as_documented(conversations: list[corpus.Conversation]):
    guesses = [c for c in conversations if re.fullmatch(r"<think>\d+</think>", c.turns[0].text)]
    hard = [c for c in conversations if difficulty(c.problem) >= corpus.HARD and c not in guesses]
    assert len(guesses) / len(conversations) == pytest.approx(corpus.P_GUESS, abs=0.015)
    assert sum(len(c.turns) == 4 for c in hard) / len(hard) == pytest.approx(corpus.P_STOP, abs=0.04)
    assert all(len(c.turns) == 2 for c in conversations if difficulty(c.problem) < corpus.HARD)


def test_waste_is_as_documented(conversations: list[corpus.Conversation]):
    assert corpus.needless_share(conversations, "long") == pytest.approx(corpus.NEEDLESS_SHARE_LONG, abs=0.02)
    assert corpus.needless_share(conversations, "short") == pytest.approx(corpus.NEEDLESS_SHARE_SHORT, abs=0.02)


def test_counted_tokens_are_the_tokenizers(conversations: list[corpus.Conversation]):
    for turn in [turn for conversation in conversations[:100] for turn in conversation.turns]:
        assert corpus.tokens_in(turn.text) == len(TOKENIZER.encode(turn.text))


def test_shipped_models_are_small_enough_for_the_repository():
    weights = [pair_path(role) / "model.safetensors" for role in ROLES]
    assert sum(path.stat().st_size for path in weights) <= 4_000_000


@pytest.mark.parametrize("role", ROLES)
def test_shipped_tokenizer_is_the_built_one(role: str):
    shipped = AutoTokenizer.from_pretrained(pair_path(role))
    assert shipped.get_vocab() == TOKENIZER.get_vocab()
    assert shipped.chat_template == TOKENIZER.chat_template
    text = "<think>7+5=12\nwait\n</think><answer>so 7+5=12 \\boxed{12}</answer></rethink>"
    assert shipped.encode(text) == TOKENIZER.encode(text)
    assert shipped.decode(shipped.encode(text)) == text


@pytest.mark.parametrize("role", ROLES)
def test_shipped_model_fits_its_tokenizer(role: str):
    config = json.loads((pair_path(role) / "config.json").read_text())
    assert config["vocab_size"] == len(TOKENIZER)
    assert config["eos_token_id"] == TOKENIZER.eos_token_id
    assert config["head_dim"] == 32


def test_import_needs_no_torch():
    code = "import sys, longshort.playground; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0
