"""What does grading in worker processes cost over math-verify alone? And what does an answer cost that never ends?

``ours_to_baseline`` is the speed of a :class:`GradingPool` with one worker per core, over cores times the speed of
math-verify called directly in this process, on the same (response, answer) pairs: parse the gold, parse the response,
verify. The pool is called as training calls it, one ``await`` per answer, and lives through all measurements. Both
sides have warmed up on other answers, and each answer is measured once. ``cpu_ours_to_baseline`` compares CPU times,
the driver's and the workers' together: what the ratio would be if no core had other work or ran slower beside another.

Half of the responses are right, in another form than the gold where it has one. Answers have the shapes of MATH:

- ``as in MATH``: 68 of 100 golds are numbers, which our grader compares without math-verify; that is its gain.
- ``expressions``: fractions, roots, tuples, intervals, polynomials and the like, for which both need math-verify.
- ``MATH-500 solutions``: the 500 written solutions with their golds, where ``LONGSHORT_SHARED`` (``../shared``) has
  them, in as many parts as there are repetitions.

``distinct`` golds have one response each. ``groups of 8`` have eight, as in training, with two answers between them;
the pool asks once for equal answers, math-verify keeps what it parsed.

``hang``: an answer that math-verify, its own time limits on, does not leave within twice our limit, amid 200 numbers.
``cost_s`` is what the batch takes longer by it, ``one_worker_cost_s`` the same with a single worker, which has to be
started again (``start_s``) and to warm up, and ``others_harmed`` counts the other answers that got another grade by it.

    python -m benchmarks.grading [--quick]

Medians of repetitions, ours and the baseline in turn. Prints JSON; exit code 1 where a target falls short: 0.9 of the
baseline, no other answer harmed, and a cost of the limit, plus a worker's start where there is one worker only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import psutil
from math_verify import parse, verify

from longshort.grading import Grade
from longshort.grading_pool import GradingPool

Pair = tuple[str, str]
# A gold, the same in another form, and something else.
Forms = tuple[str, str, str]

SHARED = Path(os.environ.get("LONGSHORT_SHARED", Path(__file__).parents[2] / "shared"))
MATH500 = SHARED / "data" / "benchmarks" / "math500.json"
CORES = len(os.sched_getaffinity(0))
NUMBERS = 0.68
GROUP = 8
# Parsers and sympy build tables over their first answers.
WARM_UP = 150
LEAST = 0.9
# The recipes' limit, and a shorter one for what is known to hang.
TIME_S, LIMIT_S, HANG = 10.0, 2.0, r"\boxed{9^{9^{9^{9}}}}"
# What a clock says of two runs of the same batch differs by as much.
SLACK_S = 0.2


def number(rng: random.Random) -> Forms:
    """An integer, decimal, amount or angle."""
    n = rng.randint(-99, 9999)
    return rng.choice(
        [
            (f"{n}", f"{n}.0", f"{n + 1}"),
            (f"{n}", rf"\frac{{{2 * n}}}{{2}}", rf"\frac{{{2 * n + 1}}}{{2}}"),
            (f"{n}", f"x={n}", f"x={-n - 1}"),
            (f"{n / 100:.2f}", f"{n / 100:.2f}", f"{n / 100 + 1:.2f}"),
            (rf"{n}^\circ", f"{n}", f"{n + 5}"),
            (rf"\${n}.50", f"{n}.5", f"{n}.05"),
        ]
    )


def expression(rng: random.Random) -> Forms:
    """Anything of MATH's shapes that is not a plain number, about as often as in MATH-500."""
    a, b, c = rng.sample(range(2, 60), 3)
    shapes: dict[Forms, int] = {
        (rf"\frac{{{a}}}{{{b}}}", rf"\frac{{{3 * a}}}{{{3 * b}}}", rf"\frac{{{a}}}{{{b + 1}}}"): 33,
        (rf"{a}\sqrt{{{b}}}", rf"\sqrt{{{a * a * b}}}", rf"{a}\sqrt{{{b + 1}}}"): 15,
        (f"(x+{a})(x-{b})", f"x^2+{a}x-{b}x-{a * b}", f"x^2+{a}x+{b}"): 14,
        (rf"({a}, -{b})", rf"\left( {a}, -{b} \right)", f"(-{b}, {a})"): 9,
        (rf"({a},{a + b}]", rf"\left({a}, {a + b}\right]", f"[{a},{a + b}]"): 7,
        (rf"\frac{{{a}\pi}}{{{b}}}", rf"\frac{{{a}}}{{{b}}} \pi", rf"\frac{{\pi}}{{{a}}}"): 6,
        (
            rf"\begin{{pmatrix}} {a} \\ {b} \end{{pmatrix}}",
            rf"\begin{{bmatrix}} {a} \\ {b} \end{{bmatrix}}",
            rf"\begin{{pmatrix}} {b} \\ {a} \end{{pmatrix}}",
        ): 5,
        (f"{a}+{b}i", f"{b}i + {a}", f"{a}-{b}i"): 3,
        (f"{a}, {a + b}", f"{a + b}, {a}", f"{a}, {b}, {c}"): 3,
        (f"y = {a}x + {b}", f"y = {b} + {a}x", f"y = {b}x + {a}"): 2,
        (rf"{a} \pm \sqrt{{{b}}}", rf"{a} + \sqrt{{{b}}}, {a} - \sqrt{{{b}}}", rf"{a} + \sqrt{{{b}}}"): 2,
        (rf"\{{{a}, {b}, {c}\}}", rf"\{{{c}, {a}, {b}\}}", rf"\{{{a}, {b}\}}"): 1,
    }
    return rng.choices(list(shapes), list(shapes.values()))[0]


def as_in_math(rng: random.Random) -> Forms:
    return number(rng) if rng.random() < NUMBERS else expression(rng)


def response(rng: random.Random, answer: str) -> str:
    """A short model's last turn with ``answer`` boxed."""
    a, b = rng.randint(2, 99), rng.randint(2, 99)
    return (
        f"<answer>Let $x$ be what is asked for. From ${a}x + {b} = y$ we get $x = \\frac{{y - {b}}}{{{a}}}$, and since "
        f"$y$ is known from the thoughts above, the rest is substitution. We check that $x^2 \\ge {a}$ holds as well.\n"
        f"Therefore the answer is $\\boxed{{{answer}}}$.</answer>"
    )


def made_up(shape: Callable[[random.Random], Forms], golds: int, group: int, seed: int) -> list[Pair]:
    """``golds`` times ``group`` pairs, ordered gold by gold, in turn right and wrong."""
    rng = random.Random(seed)
    pairs = []
    for i in range(golds):
        gold, same, other = shape(rng)
        pairs += [(response(rng, other if (i + sample) % 2 else same), gold) for sample in range(group)]
    return pairs


def math500() -> list[Pair]:
    return [(problem["solution"], problem["answer"]) for problem in json.loads(MATH500.read_text())]


def directly(pairs: list[Pair]) -> tuple[list[bool], float]:
    """math-verify's verdicts in this process, and the seconds they took."""
    started = time.perf_counter()
    verdicts = []
    for text, gold in pairs:
        expected = parse(f"\\boxed{{{gold}}}", parsing_timeout=None)
        verdicts.append(verify(expected, parse(text, parsing_timeout=None), timeout_seconds=None))
    return verdicts, time.perf_counter() - started


def pooled(pairs: list[Pair], pool: GradingPool) -> tuple[list[Grade], float]:
    """The pool's grades, and the seconds they took."""

    async def grade_all() -> list[Grade]:
        return await asyncio.gather(*[pool.grade(text, gold) for text, gold in pairs])

    started = time.perf_counter()
    return asyncio.run(grade_all()), time.perf_counter() - started


def cpu_s() -> float:
    """CPU seconds of this process and of the workers that live."""
    this = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (this, *this.children()))


def warm_up(pool: GradingPool) -> None:
    """Each worker sees as many answers of all shapes as the baseline did."""
    for part in range(CORES):
        pooled(made_up(expression, WARM_UP, 1, -1 - part), pool)


def compare(answers: str, golds: str, batches: list[list[Pair]], pool: GradingPool) -> dict[str, float | int | str]:
    """One row: each batch once directly and once in the pool."""
    directly_s, pooled_s, cpu_ratios, agreeing, failed, total = [], [], [], 0, 0, 0
    for pairs in batches:
        started = cpu_s()
        verdicts, seconds = directly(pairs)
        directly_s.append(seconds / len(pairs))
        between = cpu_s()
        grades, seconds = pooled(pairs, pool)
        pooled_s.append(seconds / len(pairs))
        cpu_ratios.append((between - started) / (cpu_s() - between))
        agreeing += sum(verdict == grade.correct for verdict, grade in zip(verdicts, grades, strict=True))
        failed += sum(grade.error is not None for grade in grades)
        total += len(pairs)
    ratios = [alone / (CORES * ours) for alone, ours in zip(directly_s, pooled_s, strict=True)]
    return {
        "answers": answers,
        "golds": golds,
        "pairs": len(batches[0]),
        "cores": CORES,
        "baseline_ms": round(1000 * median(directly_s), 3),
        "ours_ms": round(1000 * median(pooled_s), 3),
        "ours_to_baseline": round(median(ratios), 3),
        "cpu_ours_to_baseline": round(median(cpu_ratios), 3),
        "same_verdicts": round(agreeing / total, 4),
        "failed": failed,
    }


def leaves_alone(seconds: float) -> bool:
    """Whether math-verify, called directly with its own time limits, gives up on :data:`HANG` within ``seconds``."""
    program = f"from math_verify import parse, verify; verify(parse('5'), parse({HANG!r}))"
    try:
        subprocess.run([sys.executable, "-c", program], timeout=seconds, capture_output=True, check=False)
    except subprocess.TimeoutExpired:
        return False
    return True


def hang(pairs: list[Pair], repetitions: int) -> dict[str, float | int | bool]:
    """What :data:`HANG` in the middle of a batch costs."""
    middle = len(pairs) // 2
    with_hang = [*pairs[:middle], (HANG, "5"), *pairs[middle:]]
    costs: dict[int, list[float]] = {}
    harmed = 0
    starts = []
    for _ in range(repetitions):
        for workers in (1, CORES):
            with GradingPool(workers, LIMIT_S) as pool:
                warm_up(pool)
                calm, calm_s = pooled(pairs, pool)
            with GradingPool(workers, LIMIT_S) as pool:
                warm_up(pool)
                grades, hung_s = pooled(with_hang, pool)
            costs.setdefault(workers, []).append(hung_s - calm_s)
            hung = grades.pop(middle)
            assert hung.error == "timeout", f"math-verify was through with {HANG} before the limit"
            harmed += sum(before != after for before, after in zip(calm, grades, strict=True))
        with GradingPool(1, LIMIT_S) as pool:
            started = time.perf_counter()
            pool.grade_many([(r"\boxed{1}", "1")])
            starts.append(time.perf_counter() - started)
    return {
        "limit_s": LIMIT_S,
        "cost_s": round(median(costs[CORES]), 2),
        "one_worker_cost_s": round(median(costs[1]), 2),
        "start_s": round(median(starts), 2),
        "others": len(pairs),
        "others_harmed": harmed,
        "math_verify_gives_up": leaves_alone(2 * LIMIT_S + median(starts)),
    }


def falls_short(row: dict[str, float | int | str]) -> list[str]:
    """Targets that a row misses."""
    return ["ours_to_baseline"] if float(row["ours_to_baseline"]) < LEAST else []


def harms(cost: dict[str, float | int | bool]) -> list[str]:
    """Targets that the hanging answer misses."""
    missed = []
    start = cost["start_s"] if CORES == 1 else 0.0
    if cost["cost_s"] > LIMIT_S + start + SLACK_S:
        missed.append("cost_s")
    if cost["one_worker_cost_s"] > LIMIT_S + cost["start_s"] + SLACK_S:
        missed.append("one_worker_cost_s")
    if cost["others_harmed"]:
        missed.append("others_harmed")
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer answers, one repetition, no MATH-500")
    quick = parser.parse_args().quick
    pairs, repetitions = (160, 1) if quick else (800, 5)
    rows = []
    with GradingPool(CORES, TIME_S) as pool:
        directly(made_up(expression, WARM_UP, 1, -1))
        warm_up(pool)
        for name, shape in (("as in MATH", as_in_math), ("expressions", expression)):
            for golds, group in (("distinct", 1), (f"groups of {GROUP}", GROUP)):
                batches = [made_up(shape, pairs // group, group, 10 * group + r) for r in range(repetitions)]
                rows.append(compare(name, golds, batches, pool))
        if MATH500.is_file() and not quick:
            batches = [math500()[part::repetitions] for part in range(repetitions)]
            rows.append(compare("MATH-500 solutions", "distinct", batches, pool))
    cost = hang(made_up(number, 200, 1, 0), repetitions=1 if quick else 3)
    missed = {f"{row['answers']}, {row['golds']}": m for row in rows if (m := falls_short(row))}
    if m := harms(cost):
        missed["hang"] = m
    sys.stdout.write(json.dumps({"rows": rows, "hang": cost, "missed": missed}, indent=1) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
