"""Multiple choice: which order options come in, and which answers to it are right."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from fakes import play

from longshort.evaluation.choices import ChoiceGrader, MultipleChoice, choice_of_row, multiple_choice
from longshort.grading_pool import GradingPool

ROW = {
    "Question": "Which is it?",
    "Correct Answer": "12 m/s",
    "Incorrect Answer 1": "13 m/s",
    "Incorrect Answer 2": "14 m/s",
    "Incorrect Answer 3": "15 m/s",
}


def test_a_seed_decides_the_order_and_the_letter_is_that_of_the_right_option() -> None:
    orders = {choice_of_row(ROW, seed).question for seed in range(40)}
    assert len(orders) > 10
    assert choice_of_row(ROW, 7) == choice_of_row(ROW, 7)
    letters = set()
    for seed in range(40):
        choice = choice_of_row(ROW, seed)
        assert f"({choice.letter}) 12 m/s\n" in choice.question + "\n"
        letters.add(choice.letter)
    assert letters == set("ABCD"), "no letter is a better guess"


def test_other_problems_of_a_seed_have_other_orders() -> None:
    letters = {multiple_choice(f"q{i}", "r", ["a", "b", "c"], f"0/q{i}").letter for i in range(30)}
    assert letters == set("ABCD")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"Question": "  "}, "it has no 'Question'"),
        ({"Correct Answer": None}, "it has no 'Correct Answer'"),
        ({"Incorrect Answer 3": ""}, "it has no 'Incorrect Answer 3'"),
        ({"Incorrect Answer 2": "12 m/s"}, "its right answer is among the wrong ones"),
    ],
)
def test_a_row_that_is_no_choice_is_refused(change: dict[str, object], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        choice_of_row({**ROW, **change}, 0)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (r"\boxed{B}", True),
        (r"\boxed{(B)}", True),
        (r"\boxed{\text{B}}", True),
        (r"\boxed{b}", True),
        (r"\boxed{(B) 12}", True),
        (r"\boxed{12}", True),
        (r"\boxed{12.0}", True),
        ("The answer is B.", True),
        (r"\boxed{A}", False),
        (r"\boxed{13}", False),
        # A letter names an option, whatever comes behind it.
        (r"\boxed{(A) 12}", False),
        ("", False),
    ],
)
def test_the_letter_is_right_and_so_is_the_text(pool: GradingPool, answer: str, right: bool) -> None:
    choice = MultipleChoice("Which?\n\n(A) 13\n(B) 12", "B", "12")
    assert graded(pool, choice, answer) is right


def test_an_option_whose_text_is_a_letter_is_not_taken_for_that_options_letter(pool: GradingPool) -> None:
    choice = MultipleChoice("Which element?\n\n(A) C\n(B) O\n(C) N", "A", "C")
    assert graded(pool, choice, r"\boxed{A}")
    assert not graded(pool, choice, r"\boxed{C}")


@pytest.fixture(scope="module")
def pool() -> Iterator[GradingPool]:
    with GradingPool(1, 10.0) as opened:
        yield opened


def graded(pool: GradingPool, choice: MultipleChoice, answer: str) -> bool:
    episode = play(["<think>so</think>"], [f"<answer>{answer} </answer>"])
    return asyncio.run(ChoiceGrader(choice, pool)(episode)).correct
