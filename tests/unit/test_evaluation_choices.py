"""Multiple choice: which order options come in, and which answers to it are right."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from fakes import play

from longshort.evaluation.choices import ChoiceGrader, MultipleChoice, choice_of_row, multiple_choice
from longshort.grading import Grade
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


def test_a_number_is_an_option_even_where_it_is_zero() -> None:
    row = {**ROW, "Correct Answer": 0, "Incorrect Answer 1": 1.0, "Incorrect Answer 2": False}
    choice = choice_of_row(row, 0)
    assert choice.text == "0" and sorted(choice.options) == ["0", "1", "15 m/s", "False"]


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (r"\boxed{B}", True),
        (r"\boxed{B.}", True),
        (r"\boxed{$\mathrm{B}$}", True),
        (r"\boxed{Option B}", True),
        (r"\boxed{\text{Option B}}", True),
        (r"\boxed{\textbf{(B) 12}}", True),
        (r"\boxed{B: 12}", True),
        (r"\boxed{B 12}", True),
        ("The answer is **B**.", True),
        (r"\boxed{B or A}", False),
        (r"\boxed{\frac{24}{2}}", True),
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
    choice = MultipleChoice("Which?\n\n(A) 13\n(B) 12", "B", ("13", "12"))
    assert graded(pool, choice, answer) is right


def test_an_option_whose_text_is_a_letter_is_not_taken_for_that_options_letter(pool: GradingPool) -> None:
    choice = MultipleChoice("Which element?\n\n(A) C\n(B) O\n(C) N", "A", ("C", "O", "N"))
    assert graded(pool, choice, r"\boxed{A}")
    assert not graded(pool, choice, r"\boxed{C}")
    assert not graded(pool, choice, r"\boxed{(C) none}")


@pytest.mark.parametrize(
    "text",
    [
        "10^-4 eV",
        "(1R,2S)-1,2-dimethylcyclohexane, racemic",
        "C2v -> D3h & more",
        "It rises (by half), then it falls.",
        "The solution is acidic",
        "A dimer of ethene",
        "T = 5 K",
        "E > 5",
        "N=3",
        "K^+",
        "I, II and III",
        "12 MeV",
        "c",
    ],
)
def test_the_right_text_is_right_as_it_is_written_and_no_other_options_is(pool: GradingPool, text: str) -> None:
    others = ("9 keV", "It falls (by half), then it rises.", "A trimer of ethene")
    choice = MultipleChoice("Which?", "D", (*others, text))
    for answer in (
        rf"\boxed{{{text}}}",
        rf"\boxed{{\text{{{text}}}}}",
        rf"\boxed{{D. {text}}}",
        f"The answer is {text}",
    ):
        assert graded(pool, choice, answer), answer
    assert not graded(pool, choice, rf"\boxed{{A. {text}}}")
    wrong = MultipleChoice("Which?", "A", (*others, text))
    assert not graded(pool, wrong, rf"\boxed{{{text}}}")


@pytest.mark.parametrize(
    ("answer", "options"),
    [
        (r"12 \text{ keV}", ("12 MeV", "13 MeV")),
        (r"12 \text{ keV}", ("12 MeV", "12 keV")),
        (r"10^{-4} \text{ eV}", ("10^-4 J", "10^-4 eV")),
        ("4, 3, 1", ("1, 3, 4", "4, 3, 1")),
        ("4, 3, 1", ("1, 3, 4", "5, 6, 7")),
        ("1 2", ("12", "13")),
        ("10^2", ("102", "103")),
        # Both are equal to it.
        (r"\frac{1}{2}", ("0.5", "0.50")),
        ("A dimer of ethene", ("A trimer of ethene", "none")),
        ("A < 5", ("A > 5", "A = 5")),
    ],
)
def test_another_text_is_wrong(pool: GradingPool, answer: str, options: tuple[str, ...]) -> None:
    assert not graded(pool, MultipleChoice("Which?", "A", options), rf"\boxed{{{answer}}}")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (r"10^{-4}\,\text{eV}", "10^-4 eV"),
        (r"12.0 \text{ MeV}", r"12 \text{ MeV}"),
        ("12", r"12 \text{ m/s}"),
        (r"\(C_{2v}\)", "C_2v"),
        ("a DIMER of ethene", "A dimer of ethene"),
        (r"2\sqrt 3", r"$2\sqrt{3}$"),
    ],
)
def test_the_right_text_may_be_set_in_another_way(pool: GradingPool, answer: str, text: str) -> None:
    assert graded(pool, MultipleChoice("Which?", "B", ("nothing", text)), rf"\boxed{{{answer}}}")


def test_an_answer_that_is_too_long_is_said_to_be(pool: GradingPool) -> None:
    choice = MultipleChoice("Which?", "A", ("x", "y"))
    grade = graded_whole(pool, choice, rf"\boxed{{{'x' * 2000}}}")
    assert not grade.correct and grade.error == "too_long"


def test_no_answer_is_an_error_whatever_the_options_are(pool: GradingPool) -> None:
    rng = random.Random(0)
    pieces = [
        "(B)",
        "A",
        "\\text{",
        "}",
        "{",
        "$",
        "12",
        " ",
        "keV",
        "^",
        "_",
        ",",
        "**",
        "\\",
        "\u0131",
        "C2v -> D3h & more",
    ]
    choice = MultipleChoice("Which?", "B", ("C2v -> D3h & more", "(1R,2S)-x, racemic", "C"))
    for _ in range(60):
        graded(pool, choice, "".join(rng.choices(pieces, k=8)))


@pytest.fixture(scope="module")
def pool() -> Iterator[GradingPool]:
    with GradingPool(1, 10.0) as opened:
        yield opened


def graded(pool: GradingPool, choice: MultipleChoice, answer: str) -> bool:
    grade = graded_whole(pool, choice, answer)
    assert grade.error is None
    return grade.correct


def graded_whole(pool: GradingPool, choice: MultipleChoice, answer: str) -> Grade:
    episode = play(["<think>so</think>"], ["<answer> </answer>"])
    last = replace(episode.turns[-1], text=f"<answer>{answer} </answer>")
    return asyncio.run(ChoiceGrader(choice, pool)(replace(episode, turns=(*episode.turns[:-1], last))))
