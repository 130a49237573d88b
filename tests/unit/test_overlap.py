"""Questions that training and validation share, and what a run says about them.

Not shown: that reworded questions are found; they are not.
"""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from longshort.display import Display
from longshort.episode import Problem
from longshort.overlap import question_key, shared_questions
from longshort.usable import warn_of_overlap

SPACES = st.sampled_from([" ", "  ", "\n", "\t", "~", r"\,", r"\;", r"\:", r"\!", r"\ ", r"\quad ", r"\\", "$", r"\$"])
# LaTeX and words; a command ends where a space, a digit or a sign begins.
PARTS = st.sampled_from([r"\frac", "{", "}", "+", "=", "Find", "the", "12", "3", ".", "?", r"\pi"])


def problems(prefix: str, *questions: str) -> list[Problem]:
    return [Problem(f"{prefix}-{index}", question, "1") for index, question in enumerate(questions)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Find  $x + 1$.", "find $x+1$."),
        ("What is\n$1{,}000 \\cdot 2$?", "What is $1{,}000\\cdot2$?"),
        (r"$a\,b\;c\!d\quad e$", "$a b c d e$"),
        (r"It costs \$5.", "It costs $5."),
        (r"$f(x) = x \\ g(x) = 1$", "$f(x)=x g(x)=1$"),
    ],
)
def test_case_and_spacing_do_not_matter(one: str, other: str) -> None:
    assert question_key(one) == question_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Sort 1 23.", "Sort 12 3."),
        ("Find $x+1$.", "Find $x-1$."),
        (r"$\alpha b$", r"$\alphab$"),
        (r"$a \\, b$", "$a b$"),
        (r"\quadrant", "rant"),
    ],
)
def test_anything_else_matters(one: str, other: str) -> None:
    assert question_key(one) != question_key(other)


@given(st.lists(st.tuples(PARTS, SPACES, SPACES), max_size=12))
def test_any_spacing_between_parts_is_the_same(parts: list[tuple[str, str, str]]) -> None:
    one, other = ("".join(part[0] + part[which] + " " for part in parts) for which in (1, 2))
    assert question_key(one) == question_key(other)


@given(st.text(st.sampled_from("\\$~,;! \nqud{}aZ1")) | st.text())
def test_a_key_is_its_own_key(text: str) -> None:
    assert question_key(question_key(text)) == question_key(text)


def test_shared_questions_are_named_by_both_ids() -> None:
    training = problems("train", "Find $x$.", "Find $y$.", "find x .")
    validation = problems("val", "Find z.", "FIND $x$.", "find x.")
    assert shared_questions(training, validation) == {"train-0": "val-1", "train-2": "val-1"}
    assert shared_questions(training, []) == {}


def test_a_run_warns_of_shared_questions_and_says_nothing_where_there_are_none() -> None:
    shown = io.StringIO()
    display = Display(Console(file=shown, force_terminal=False))
    warn_of_overlap(problems("train", "Find $x$."), problems("val", "Find z."), display)
    assert not shown.getvalue()
    warn_of_overlap(problems("train", "Find $x$.", "Find $y$."), problems("val", "find $x$ ."), display)
    assert "warning: 1 of 2 training questions are also in data.val_files" in shown.getvalue()
    assert "train-0" in shown.getvalue() and "val-0" in shown.getvalue()
