"""Grading: where the answer is, what equals the gold, and that no answer can hold up the others.

Not proven here: that math-verify is right about mathematics beyond these examples.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshort.extraction import MAX_COMPARED, extract_answer, last_boxed
from longshort.grading import Grade, gold_is_gradable, grade
from longshort.grading_pool import GradingPool

ROOT = Path(__file__).parents[2]
BENCHMARKS = Path(os.environ.get("LONGSHORT_SHARED", Path(__file__).parents[3] / "shared")) / "data" / "benchmarks"

# math-verify takes minutes or for ever over each of these.
HANGS = (r"\boxed{9^{9^{9^{9}}}}", r"\boxed{\sum_{n=1}^{10^9} \sin(n)}", r"\boxed{(x+1)^{100000}-(x-1)^{100000}}")
LIMIT = 2.0


def benchmark(name: str) -> list[dict[str, Any]]:
    path = BENCHMARKS / f"{name}.json"
    if not path.exists():
        pytest.skip(f"{path} is absent; LONGSHORT_SHARED names the folder that holds data/benchmarks")
    return json.loads(path.read_text())


def boxed(answer: str) -> str:
    return rf"So the answer is $\boxed{{{answer}}}$."


# Real problems


def test_every_solution_of_math500_is_graded_correct() -> None:
    wrong = [p["answer"] for p in benchmark("math500") if not grade(p["solution"], p["answer"]).correct]
    assert wrong == []


def perturbed(answer: str) -> str:
    """A nearby answer that is not equal: another first digit, letter or word."""
    if re.search(r"\d", answer):
        return re.sub(r"\d", lambda digit: str(int(digit[0]) % 9 + 1), answer, count=1)
    if "text" in answer:
        return re.sub(r"\w(?=\)?\})", "z", answer)
    return "2" + answer


def test_perturbed_answers_of_math500_are_graded_incorrect() -> None:
    problems = benchmark("math500")
    rewarded = [p["answer"] for p in problems if grade(boxed(perturbed(p["answer"])), p["answer"]).correct]
    assert rewarded == []


def test_solutions_of_other_problems_of_math500_are_graded_incorrect() -> None:
    problems = benchmark("math500")

    def canonical(answer: str) -> str:
        return answer.removeprefix("x=")

    rewarded = [
        (problem["answer"], other["answer"])
        for shift in (1, 7, 50)
        for problem, other in zip(problems, problems[shift:] + problems[:shift], strict=True)
        if canonical(problem["answer"]) != canonical(other["answer"])
        and grade(other["solution"], problem["answer"]).correct
    ]
    assert rewarded == []


@pytest.mark.parametrize("name", ["aime2024", "amc2023"])
def test_integer_and_float_golds_agree_with_every_form_of_the_number(name: str) -> None:
    for problem in benchmark(name):
        gold, number = problem["answer"], int(problem["answer"])
        forms = (f"{number}", f"{number}.", f"{number}.0", f"{number}.00", f"{number:,}", f"x={number}", f" {number} ")
        assert [form for form in forms if not grade(boxed(form), gold).correct] == []
        wrong = (f"{number + 1}", f"{-number - 1}", f"{number}.5", f"{number}1", rf"{number}, {number + 1}")
        assert [form for form in wrong if grade(boxed(form), gold).correct] == []
        assert gold_is_gradable(gold)


# Where the answer is


@pytest.mark.parametrize(
    ("response", "extracted"),
    [
        (r"\boxed{1} and then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \mid x < 3 \right\}}", r"\left\{ x \mid x < 3 \right\}"),
        (r"\boxed{5}, so \boxed{6", "5"),
        (r"\boxed{ \boxed{5}", "5"),
        (r"\boxed{5}. I was told to use \boxed{}", "5"),
        (r"\boxed 5", "5"),
        (r"$\boxed -3.5$.", "-3.5"),
        (r"\boxed{5} is what I put in \boxed as asked", "5"),
        (r"\fbox{7}", "7"),
        (r"a stray { brace, \boxed{3}", "3"),
        (r"a stray } brace, \boxed{3}", "3"),
        (r"\boxedfoo{4} \boxed{3} \unboxed{5}", "3"),
        (r"<answer>\boxed{1}</answer> <answer>\boxed{2}</answer> \boxed{3}", "2"),
        (r"<answer>1</answer> and <answer>2", "1"),
        (r"the tag <answer> comes here: <answer>7</answer>", "7"),
        (r"\boxed{9} <answer>7</answer>", "7"),
        (r"<think>\boxed{1}</think>\boxed{2}", "2"),
        (r"<think>use <answer></think><answer>2</answer>", "2"),
        (r"\boxed{2} <think>\boxed{1}</think>", "2"),
        (r"thinking \boxed{1} </think> The answer is 2.", "2."),
        (r"<think>\boxed{1}</think>", "1"),
        ("so x < 5 and y > 2\n\nThe answer is: **12**\n", "12**"),
        ("We add.\n\\[\nx = 5\n\\]\n", "x = 5"),
        ("Evelyn", "Evelyn"),
    ],
)
def test_extraction(response: str, extracted: str) -> None:
    found = extract_answer(response)
    assert found is not None
    assert found.text == extracted


@pytest.mark.parametrize(
    "response",
    [
        "",
        " \n ",
        "...",
        r"The answer is 5, \boxed{5",
        r"\boxed{}",
        r"\boxed{5} <answer>so",
        r"<answer>\boxed{5}",
        r"<answer>5</answer",
        r"<think>\boxed{5}",
        r"<think>a</think><think>\boxed{5}",
        r"<answer> </answer> \boxed{5}",
        r"<think>\boxed{5}</think><answer>",
    ],
)
def test_cut_or_empty_responses_have_no_answer(response: str) -> None:
    assert grade(response, 5) == Grade(False, None)


BALANCED = st.recursive(
    st.text(st.sampled_from(r"ab1 +-<>$^_,()[]"), max_size=5) | st.sampled_from([r"\{", r"\}", r"\\", r"\frac"]),
    lambda inner: st.lists(inner | inner.map("{{{}}}".format), max_size=4).map("".join),
    max_leaves=20,
)
PROSE = st.text(st.sampled_from("ab {}<>$\n"), max_size=30)
PIECES = st.lists(st.sampled_from([r"\boxed", "{", "}", "\\", "5", " ", r"\fbox{", r"\boxed{", "x"]), max_size=30)


@given(before=PROSE, content=BALANCED, after=PROSE)
def test_a_complete_box_is_found_whatever_is_around_it(before: str, content: str, after: str) -> None:
    assert last_boxed(rf"{before}\boxed{{{content}}}{after}") == (content.strip() or None)


@given(first=BALANCED, last=BALANCED, between=PROSE)
def test_the_last_complete_box_wins_over_earlier_and_open_ones(first: str, last: str, between: str) -> None:
    text = rf"\boxed{{{first}}}{between.replace('{', '')}\boxed{{{last}}} \boxed{{{first}"
    assert last_boxed(text) == (last.strip() or first.strip() or None)


@given(PIECES.map("".join))
def test_a_box_never_holds_more_than_the_text_between_balanced_braces(text: str) -> None:
    content = last_boxed(text)
    if content is not None:
        assert content in text
        assert content == content.strip() != ""
        unescaped = re.sub(r"\\.", "", content, flags=re.DOTALL)
        assert unescaped.count("{") == unescaped.count("}")


@pytest.mark.parametrize("filler", ["so we go on. ", r"\boxed{", "<think>", "<answer>", "{", "\n", r"\boxed{1} "])
def test_megabytes_take_seconds_at_most(filler: str) -> None:
    response = filler * (4_000_000 // len(filler))
    start = time.perf_counter()
    extract_answer(response)
    assert grade(f"{response}</think><answer>{boxed('5')}</answer>", 5).correct
    assert time.perf_counter() - start < 10


def test_long_answers_are_not_compared() -> None:
    assert grade(boxed("1" * (MAX_COMPARED + 1)), 5).error == "too_long"


# What equals the gold


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (27, "27"),
        (27, r"\frac{54}{2}"),
        (33, "033"),
        (27.0, "27.0"),
        (0.1, "0.1"),
        (0.1 + 0.2, "0.3"),
        (1e-7, "0.0000001"),
        ("27", "27 apples"),
        ("27", r"27\text{ dollars}"),
        ("27", r"\text{27}"),
        ("27", r"\mathbf{27}"),
        ("27", "x = 27"),
        ("27", r"27_{10}"),
        ("-3", "\u22123"),
        ("x=5", "5"),
        ("5", r"5.0 \text{ cm}^2"),
        (r"\frac{1}{2}", "0.5"),
        (r"\frac{1}{2}", r"\dfrac12"),
        (r"\frac{1}{2}", r"\boxed{\tfrac{1}{2}}"),
        (r"\frac{1}{3}", "0.333333"),
        (r"1\frac{4}{5}", r"\frac95"),
        (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt3}"),
        (r"10,\!080", "10,080"),
        (r"10,\!080", "10080"),
        ("10080", r"10{,}080"),
        ("10080", r"10\,080"),
        (r"\$18.90", "18.9"),
        (r"\$18.90", r"\$18.90"),
        ("18.90", r"\$18.90"),
        (r"90^\circ", "90"),
        ("90", r"90^{\circ}"),
        ("90", "90°"),
        (r"50\%", "50"),
        (r"50\%", "50%"),
        (r"12.5\%", "0.125"),
        ("0.5", r"50\%"),
        (r"50\%", r"\frac{1}{2}"),
        (r"\frac{1}{2}", r"50\text{ percent}"),
        (r"\frac{1}{3}", r"33\frac{1}{3}\%"),
        ("2516_8", "2516_{8}"),
        ("2516_8", "2516"),
        ("1A_{16}", "1a_{16}"),
        (r"\{1, 2\}", r"\{2, 1\}"),
        ("1,-2", r"x = -2 \text{ or } x = 1"),
        (r"1 \pm \sqrt{19}", r"1+\sqrt{19}, 1-\sqrt{19}"),
        ("(3,4]", r"\left(3, 4\right]"),
        (r"(-\infty, 2) \cup (3, \infty)", r"(3,\infty)\cup(-\infty,2)"),
        (r"x \in [-2,7]", "[-2,7]"),
        ("[-2,7]", r"-2 \le x \le 7"),
        ("(1,2,3)", r"\left( 1, 2, 3 \right)"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{bmatrix} 1 \\ 2 \end{bmatrix}"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} \frac{2}{2} \\ 2.0 \end{pmatrix}"),
        ("(a+5)(b+2)", "ab+2a+5b+10"),
        ("6 - 5i", "-5i + 6"),
        ("x < 5", "5 > x"),
        ("y = 2x + 3", "2x+3"),
        (r"\text{Evelyn}", "evelyn"),
        (r"\text{Evelyn}", r"\textbf{Evelyn.}"),
        ("an ellipse", r"\text{ellipse}"),
        ("yes", r"\text{Yes}"),
        ("No", "no"),
        ("north-east", r"\text{North East}"),
        ("A", "A"),
        ("A", "(A)"),
        ("(B)", r"\text{(B)}"),
        (r"\text{(C)}", "C"),
        (r"\text{(C)}", r"\textbf{(C)}\ 12"),
        ("C", r"\text{C) } \frac{1}{2}"),
        ("C", "C."),
        ("D", "(D) I and II only"),
        (r"$\frac{1}{2}$", r"\frac{1}{2}"),
        (r"\boxed{7}", "7"),
    ],
)
def test_equal(gold: str | int | float, answer: str) -> None:
    assert grade(boxed(answer), gold) == Grade(True, answer.strip())
    assert gold_is_gradable(gold)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("27", "28"),
        ("27", "27, 28"),
        ("27", r"27 \text{ or } 28 \text{ cm}"),
        ("27", r"\pm 27"),
        ("27", "not known"),
        ("27", "< 27"),
        ("27", "27x"),
        ("27", "2 7"),
        ("3", "1 2"),
        ("10000000000000000", "10000000000000001"),
        (".0000672", ".0000673"),
        (r"\frac{1}{15504000}", "0.0"),
        (r"\frac{1}{3}", "0.33"),
        (r"\pi", "3.14"),
        ("10080", "10,080,1"),
        ("2516_8", "2516_9"),
        ("2516_8", "1358"),
        ("2516", "2516_8"),
        (r"50\%", "5"),
        ("(3,4]", "(3,4)"),
        ("(3,4]", "[3,4]"),
        ("(2,4)", "[2,4]"),
        ("(8,-2)", "(-2,8)"),
        ("(1,2,3)", "(3,2,1)"),
        (r"\{1, 2\}", r"\{1\}"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}"),
        ("x", "y"),
        ("x < 5", r"x \le 5"),
        ("y = 2x + 3", "y = 3x + 2"),
        (r"\text{Evelyn}", r"\text{Evelyn or Navin}"),
        (r"\text{Evelyn}", r"\text{not Evelyn}"),
        (r"\text{even}", r"\text{seven}"),
        ("yes", "no"),
        ("A", "B"),
        ("A", "A and B"),
        ("A", "A, B"),
        ("A", "(A) and (B)"),
        ("A", "(A) or B"),
        ("A", "ABC"),
        ("C", "12"),
        ("27", r"\frac{27"),
        ("27", r"\text{}"),
    ],
)
def test_not_equal(gold: str, answer: str) -> None:
    assert grade(f"<answer>{boxed(answer)}</answer>", gold).correct is False
    assert gold_is_gradable(gold)


@pytest.mark.parametrize(
    ("gold", "response"),
    [
        ("27", "We add 20 and 7.\nThe answer is 27."),
        ("27", "<answer>27</answer>"),
        ("27", "<answer>It takes 27 hours.</answer>"),
        (r"\frac{1}{2}", r"Therefore the probability is $\frac{1}{2}$."),
        (r"\frac{1}{2}", "Therefore\n$$\n\\frac{1}{2}\n$$"),
        ("x^2-1", "<answer>$(x-1)(x+1)$</answer>"),
        ("B", "Final answer: (B)"),
        ("B", "The correct option is B."),
        (r"\text{(B)}", "<answer> b </answer>"),
        (r"\text{Evelyn}", "**Answer:** Evelyn"),
        ("yes", "<answer>Yes</answer>"),
    ],
)
def test_equal_without_a_box(gold: str, response: str) -> None:
    assert grade(response, gold).correct


@pytest.mark.parametrize(
    ("gold", "response"),
    [
        ("27", "The answer is 27.\nOr perhaps 28."),
        ("A", "A man walks to town."),
        (r"\text{Evelyn}", "Evelyn is not the fastest."),
        ("27", "<answer>The answer is unknown</answer> 27"),
    ],
)
def test_not_equal_without_a_box(gold: str, response: str) -> None:
    assert not grade(response, gold).correct


@pytest.mark.parametrize(
    "gold", ["", "  ", r"\frac{", r"\frac{1}{2", "{27", "?", "1" * 2000, float("nan"), float("inf"), r"\begin{x}"]
)
def test_a_gold_that_cannot_be_read_is_never_rewarded(gold: str | float) -> None:
    assert not gold_is_gradable(gold)
    for answer in (str(gold), "", "27", "0"):
        assert not grade(boxed(answer), gold).correct
    assert grade(boxed("27"), gold) == Grade(False, "27", "gold")


def test_grades_can_be_pickled_and_are_made_in_any_thread() -> None:
    grades: list[Grade] = []
    thread = threading.Thread(target=lambda: grades.append(grade(boxed(r"\frac{2}{4}"), r"\frac{1}{2}")))
    thread.start()
    thread.join()
    assert pickle.loads(pickle.dumps(grades)) == [Grade(True, r"\frac{2}{4}")]


# The pool


@pytest.fixture(scope="module")
def pool() -> Iterator[GradingPool]:
    with GradingPool(workers=2, timeout=LIMIT) as pool:
        yield pool


def worker_pids(parent: int) -> set[int]:
    """Live worker processes of ``parent``."""
    pids = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state, ppid = (path / "stat").read_text().rpartition(")")[2].split()[:2]
            command = (path / "cmdline").read_text()
        except OSError:
            continue
        if int(ppid) == parent and state != "Z" and "grading_pool" in command:
            pids.add(int(path.name))
    return pids


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_pool_grades_as_grade_does_and_in_order(pool: GradingPool) -> None:
    pairs: list[tuple[str, Any]] = [(boxed(str(i)), 7) for i in range(20)]
    pairs += [("", 5), (boxed("27"), 27.0), (boxed("5"), r"\frac{"), (boxed("\ud800"), "5"), (boxed("x\n"), "x")]
    assert pool.grade_many(pairs) == [grade(response, answer) for response, answer in pairs]


@pytest.mark.parametrize("hang", HANGS)
def test_a_hanging_answer_costs_its_limit_and_harms_no_other(pool: GradingPool, hang: str) -> None:
    pool.grade_many([(boxed("5"), "5")] * 4)
    start = time.perf_counter()
    before, hung, *after = pool.grade_many([(boxed("5"), "5"), (hang, "5"), *[(boxed("6"), "6")] * 20])
    seconds = time.perf_counter() - start
    assert hung == Grade(False, last_boxed(hang), "timeout")
    assert before.correct
    assert all(grade.correct for grade in after)
    assert LIMIT <= seconds < LIMIT + 10


def test_more_hanging_answers_than_workers(pool: GradingPool) -> None:
    hanging = [(boxed(f"9^{{9^{{9^{{{i}}}}}}}"), "5") for i in range(6, 10)]
    grades = pool.grade_many([*hanging, *[(boxed("5"), "5")] * 4])
    assert [grade.error for grade in grades] == ["timeout"] * 4 + [None] * 4
    assert [grade.correct for grade in grades] == [False] * 4 + [True] * 4


def test_a_group_with_the_same_hanging_answer_costs_one_limit(pool: GradingPool) -> None:
    pool.grade_many([(boxed(answer), "4") for answer in "12"])
    start = time.perf_counter()
    grades = pool.grade_many([(HANGS[0], "4")] * 8)
    assert [grade.error for grade in grades] == ["timeout"] * 8
    assert time.perf_counter() - start < 2 * LIMIT


def test_who_gives_up_on_a_grade_takes_it_from_nobody_else(pool: GradingPool) -> None:
    async def main() -> list[Grade]:
        # Both workers are busy, so that the answers below wait in the queue.
        busy = [asyncio.create_task(pool.grade(hang, "3")) for hang in HANGS[:2]]
        await asyncio.sleep(0.1)
        impatient, *others = (asyncio.create_task(pool.grade(boxed("30"), "30")) for _ in range(3))
        await asyncio.sleep(0.1)
        impatient.cancel()
        grades = await asyncio.gather(*others)
        with pytest.raises(asyncio.CancelledError):
            await impatient
        await asyncio.gather(*busy)
        return grades

    assert [grade.correct for grade in asyncio.run(main())] == [True, True]


def test_a_hanging_gold_is_not_gradable(pool: GradingPool) -> None:
    assert pool.gradable_many(["5", "(" * 400 + "x" + ")" * 400, r"\frac{"]) == [True, False, False]


def test_pool_in_a_running_event_loop(pool: GradingPool) -> None:
    async def main() -> tuple[list[Grade], list[Grade], int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.01)

        ticking = asyncio.create_task(tick())
        awaited = await asyncio.gather(pool.grade(HANGS[0], "5"), *[pool.grade(boxed(str(i)), "3") for i in range(9)])
        ticking.cancel()
        return list(awaited), pool.grade_many([(boxed("5"), "5")]), ticks

    (hung, *others), blocking, ticks = asyncio.run(main())
    assert hung.error == "timeout"
    assert [grade.correct for grade in others] == [i == 3 for i in range(9)]
    assert blocking[0].correct
    assert ticks > LIMIT / 0.01 / 10, "the loop stood still while the pool worked"


def test_pool_outside_the_main_thread(pool: GradingPool) -> None:
    grades: list[Grade] = []
    thread = threading.Thread(target=lambda: grades.extend(pool.grade_many([(boxed("5"), "5"), (HANGS[0], "5")])))
    thread.start()
    thread.join()
    assert [grade.correct for grade in grades] == [True, False]


def test_a_killed_worker_is_replaced() -> None:
    with GradingPool(workers=1, timeout=30.0) as pool:
        others = worker_pids(os.getpid())
        assert pool.grade_many([(boxed("5"), "5")])[0].correct
        (idle,) = worker_pids(os.getpid()) - others
        os.kill(idle, signal.SIGKILL)
        os.waitid(os.P_PID, idle, os.WEXITED | os.WNOWAIT)
        assert pool.grade_many([(boxed("6"), "6")])[0].correct
        (busy,) = worker_pids(os.getpid()) - others
        threading.Timer(1.0, os.kill, (busy, signal.SIGKILL)).start()
        assert pool.grade_many([(HANGS[0], "5")]) == [Grade(False, last_boxed(HANGS[0]), "crash")]
        assert pool.grade_many([(boxed("7"), "7")])[0].correct


def test_a_verdict_is_remembered_and_what_a_worker_died_of_is_not() -> None:
    others = worker_pids(os.getpid())
    with GradingPool(workers=1, timeout=LIMIT) as pool:
        pairs = [(boxed("5"), "5"), (boxed("6"), "5"), (boxed("1" * (MAX_COMPARED + 1)), "5")]
        grades = pool.grade_many(pairs)
        assert grades == [grade(*pair) for pair in pairs]
        for _ in range(2):
            assert pool.grade_many([(HANGS[0], "5")])[0].error == "timeout"
        # The worker is gone and none is started, as none is needed.
        assert pool.grade_many([(f"Once more: {response}", gold) for response, gold in pairs]) == grades
        assert worker_pids(os.getpid()) == others


def test_workers_start_when_needed_and_end_with_the_pool() -> None:
    others = worker_pids(os.getpid())
    with GradingPool(workers=2, timeout=LIMIT) as pool:
        assert worker_pids(os.getpid()) == others
        pool.grade_many([(boxed("5"), "5")])
        assert len(worker_pids(os.getpid()) - others) == 1
    assert worker_pids(os.getpid()) == others


@pytest.mark.parametrize("busy", [False, True])
def test_no_worker_outlives_a_killed_parent(busy: bool) -> None:
    # The parent reads its program from standard input: such a __main__ cannot be imported a second time.
    program = f"""
import sys, threading, time
from longshort.grading_pool import GradingPool

pool = GradingPool(workers=1, timeout=4.0)
pool.grade_many([({boxed("5")!r}, "5")])
if {busy}:
    threading.Thread(target=pool.grade_many, args=([({HANGS[0]!r}, "5")],)).start()
    time.sleep(0.5)
sys.stdout.write("ready\\n")
sys.stdout.flush()
time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as parent:
        assert parent.stdin and parent.stdout
        parent.stdin.write(program)
        parent.stdin.close()
        assert parent.stdout.readline() == "ready\n"
        (worker,) = worker_pids(parent.pid)
        parent.kill()
    deadline = time.monotonic() + 10
    while is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(worker)


def test_the_worker_imports_neither_torch_nor_ray() -> None:
    heavy = {"torch", "ray", "numpy", "transformers"}
    program = f"import sys, longshort.grading_pool; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(("workers", "timeout", "named"), [(0, 5.0, "workers is 0"), (1, 0.0, "timeout is 0.0")])
def test_bad_settings_are_named(workers: int, timeout: float, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        GradingPool(workers, timeout)
