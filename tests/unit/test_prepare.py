"""``longshort data`` on small local copies of the shapes, through the hub's own loading code.

Not proven: that a data set of the hub itself still has its shape.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshort.chains import Block, Chain, read_chain
from longshort.cli import main
from longshort.data import load_problems
from longshort.episode import Problem
from longshort.selection import Candidate, Tally, draw

SHARED = Path(os.environ.get("LONGSHORT_SHARED", Path(__file__).parents[3] / "shared"))
CHUNKED = SHARED / "data" / "chunking" / "chunked_example.json"

MATH = [
    {"problem": "What is $1+1$?", "level": "Level 1", "type": "Algebra", "solution": "It is $\\boxed{2}$."},
    {"problem": "Halve $3$.", "level": "Level 2", "type": "Number Theory", "solution": r"So $\boxed{\frac{3}{2}}$."},
    {"problem": "Which one?", "level": "Level 5", "type": "Geometry", "solution": "There is no box."},
    {"problem": "Which two?", "level": "Level 5", "type": "Geometry", "solution": r"$\boxed{\frac{1}{}$ or $}$."},
]


def eurus(question: str, answer: str, data_source: str = "numina_amc_aime", index: int = 0) -> dict[str, Any]:
    return {
        "data_source": data_source,
        "prompt": [
            {"role": "system", "content": "Think in steps, and name each of them."},
            {"role": "user", "content": f"{question}\n\nPresent the answer in LaTex format: \\boxed{{Your answer}}"},
        ],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": answer},
        "extra_info": {"index": index, "split": "dummy"},
    }


def instruct(question: str, answer: str, solution: str = "Long words.") -> dict[str, str]:
    return {
        "problem": question,
        "generated_solution": solution,
        "expected_answer": answer,
        "problem_source": "augmented_math",
    }


def chunked(*blocks: tuple[int, int], **changes: object) -> dict[str, Any]:
    """A chain of five steps, of which three are thinking, with these blocks."""
    named = {f"block {i}": {"start": s, "end": e, "block type": "验证"} for i, (s, e) in enumerate(blocks, start=1)}
    thought = "<think>\nLet me add.\n\nOne and one.\n\nTwo.\n</think>\n\nThe sum is 2.\n\n\\boxed{2}"
    return {"question": "What is $1+1$?", "answer": 2, "thought": thought, "block": named, **changes}


def hub_folder(folder: Path, **splits: Sequence[dict[str, Any]]) -> str:
    """A data set in the hub's layout; its path as a user writes it."""
    (folder / "data").mkdir(parents=True)
    for split, rows in splits.items():
        table = pyarrow.Table.from_pylist(list(rows))
        pyarrow.parquet.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    return str(folder)


def jsonl(file: Path, *rows: object) -> str:
    file.write_text("\n".join(map(json.dumps, rows)))
    return str(file)


def longshort_data(*arguments: object) -> int:
    return main(["data", *map(str, arguments)])


def summary(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text())


def test_math_comes_with_answers_from_boxes_and_trains_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = hub_folder(tmp_path / "math", train=MATH, test=MATH[:1])
    assert longshort_data("math", "--source", source, "--out", tmp_path / "out") == 0
    name = "DigitalLearningGmbH/MATH-lighteval"
    assert load_problems([str(tmp_path / "out" / "train.parquet")]).problems == [
        Problem("math-train-0", "What is $1+1$?", "2", name),
        Problem("math-train-1", "Halve $3$.", r"\frac{3}{2}", name),
    ]
    facts = summary(tmp_path / "out" / "train-summary.json")
    assert (facts["read"], facts["kept"], facts["not_drawn"]) == (4, 2, 0)
    assert facts["dropped"] == {
        "it has no answer that is text or a number": 1,
        "its answer cannot be graded": 1,
    }
    shown = capsys.readouterr().out
    assert "4  read" in shown and "2  kept" in shown and "1  dropped: its answer cannot be graded" in shown


def test_the_table_has_verls_shape(tmp_path: Path) -> None:
    source = hub_folder(tmp_path / "math", train=MATH, test=MATH[1:])
    assert longshort_data("math", "--source", f"{source}:test", "--out", tmp_path / "out") == 0
    assert pyarrow.parquet.read_table(tmp_path / "out" / "test.parquet").to_pylist() == [
        {
            "id": "math-test-0",
            "data_source": "DigitalLearningGmbH/MATH-lighteval",
            "prompt": [{"role": "user", "content": "Halve $3$."}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": r"\frac{3}{2}"},
            "extra_info": {"index": 0, "split": "test", "level": "Level 2", "type": "Number Theory"},
        }
    ]


def test_of_eurus_only_the_amc_and_aime_part_is_kept_and_without_its_instruction(tmp_path: Path) -> None:
    rows = [eurus("Sort 3, 1.", "1", "numina_cn_k12"), eurus("Find $n$.", "113"), eurus("Code it.", "{}", "taco")]
    source = hub_folder(tmp_path / "eurus", train=rows)
    assert longshort_data("numina_amc_aime", "--source", source, "--out", tmp_path / "out") == 0
    assert load_problems([str(tmp_path / "out" / "train.parquet")]).problems == [
        Problem("numina_amc_aime-train-1", "Find $n$.", "113", "numina_amc_aime")
    ]
    facts = summary(tmp_path / "out" / "train-summary.json")
    assert facts["dropped"] == {"its data_source is not numina_amc_aime": 2}


def test_of_openmathinstruct_each_problem_is_kept_once(tmp_path: Path) -> None:
    rows = [
        instruct("Add $1$ and $2$.", "3", "First."),
        instruct("Add $1$  and $2$.", "3", "Second."),
        instruct("Name $x$.", "7"),
    ]
    source = hub_folder(tmp_path / "instruct", train=rows, train_1M=rows[2:])
    assert longshort_data("openmathinstruct", "--source", source, "--out", tmp_path / "out") == 0
    table = pyarrow.parquet.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    assert [(row["id"], row["reward_model"]["ground_truth"]) for row in table] == [
        ("openmathinstruct-train-0", "3"),
        ("openmathinstruct-train-2", "7"),
    ]
    assert table[0]["extra_info"] == {"index": 0, "split": "train", "problem_source": "augmented_math"}
    facts = summary(tmp_path / "out" / "train-summary.json")
    assert facts["dropped"] == {"its question was there before": 1}
    assert longshort_data("openmathinstruct", "--source", f"{source}:train_1M", "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "train_1M.parquet").is_file()


def test_a_limit_draws_so_many_that_can_be_graded_and_the_seed_says_which(tmp_path: Path) -> None:
    rows = [instruct(f"Name {i}.", r"\frac{1}{" if i % 4 == 0 else str(i)) for i in range(40)]
    source = hub_folder(tmp_path / "instruct", train=rows)

    def drawn(seed: int) -> list[str]:
        out = tmp_path / f"out-{seed}"
        assert longshort_data("openmathinstruct", "--source", source, "--limit", 10, "--seed", seed, "--out", out) == 0
        facts = summary(out / "train-summary.json")
        assert facts["kept"] == 10 and facts["read"] == 40
        assert facts["not_drawn"] + sum(facts["dropped"].values()) == 30
        return [problem.answer for problem in load_problems([str(out / "train.parquet")]).problems]

    first = drawn(0)
    assert first == drawn(0) == sorted(first, key=int)
    assert first != drawn(1)


@pytest.mark.parametrize("drop", [False, True])
def test_questions_of_validation_are_reported_and_dropped_where_asked(tmp_path: Path, drop: bool) -> None:
    rows = [*MATH[:2], {**MATH[0], "problem": "What is $5+1$?", "solution": r"$\boxed{6}$"}]
    source = hub_folder(tmp_path / "math", train=rows)
    first = jsonl(tmp_path / "first.jsonl", {"question": "what is $1 + 1$?", "answer": 2}, {"question": "Broken."})
    second = jsonl(tmp_path / "second.jsonl", {"question": "Another?", "answer": 2})
    more = ["--drop-overlap"] if drop else []
    out = tmp_path / "out"
    assert longshort_data("math", "--source", source, "--out", out, "--validation", first, second, *more) == 0
    kept = [problem.id for problem in load_problems([str(out / "train.parquet")]).problems]
    assert kept == ["math-train-1", "math-train-2"] if drop else ["math-train-0", "math-train-1", "math-train-2"]
    facts = summary(out / "train-summary.json")
    assert facts["overlap"] == {
        first: {"problems": 1, "unreadable": 1, "shared": 1, "ids": {"math-train-0": "first-0"}},
        second: {"problems": 1, "unreadable": 0, "shared": 0, "ids": {}},
    }
    assert facts["dropped"] == ({"validation asks its question": 1} if drop else {})


def test_chains_are_kept_with_their_blocks_and_unfinished_ones_are_counted(tmp_path: Path) -> None:
    rows = [
        chunked((1, 2), (3, 3)),
        chunked((1, 2)),
        chunked((1, 1), (3, 3)),
        chunked((1, 3), answer=None),
        chunked((1, 3), thought=" "),
    ]
    (tmp_path / "chunked.json").write_text(json.dumps(rows))
    out = tmp_path / "out"
    assert longshort_data("thoughtchunk", "--source", tmp_path / "chunked.json", "--out", out) == 0
    chains = [json.loads(line) for line in (out / "train-chains.jsonl").read_text().splitlines()]
    assert [chain["id"] for chain in chains] == [f"thoughtchunk-train-{index}" for index in range(3)]
    assert [problem.id for problem in load_problems([str(out / "train.parquet")]).problems] == [c["id"] for c in chains]
    assert chains[0] == {
        "id": "thoughtchunk-train-0",
        "question": "What is $1+1$?",
        "answer": "2",
        "thought": rows[0]["thought"],
        "blocks": [{"start": 1, "end": 2, "type": "验证"}, {"start": 3, "end": 3, "type": "验证"}],
        "steps": 3,
        "chunking": "complete",
    }
    facts = summary(out / "train-summary.json")
    assert facts["chunking"] == {"complete": 1, "unfinished": 1, "broken": 1}
    assert facts["dropped"] == {"it has no answer that is text or a number": 1, "it has no chain of thought": 1}


def test_chains_of_the_hub_whose_blocks_share_one_table_are_read(tmp_path: Path) -> None:
    source = hub_folder(tmp_path / "chunked", train=[chunked((1, 3)), chunked((1, 1), (2, 2), (3, 5))])
    out = tmp_path / "out"
    assert longshort_data("thoughtchunk", "--source", source, "--out", out) == 0
    chains = [json.loads(line) for line in (out / "train-chains.jsonl").read_text().splitlines()]
    assert [len(chain["blocks"]) for chain in chains] == [1, 3]
    assert [chain["chunking"] for chain in chains] == ["complete", "complete"]


@pytest.mark.skipif(not CHUNKED.is_file(), reason=f"the authors' example is not at {CHUNKED}")
def test_the_authors_example_is_unfinished(tmp_path: Path) -> None:
    assert longshort_data("thoughtchunk", "--source", CHUNKED, "--out", tmp_path) == 0
    [chain] = [json.loads(line) for line in (tmp_path / "train-chains.jsonl").read_text().splitlines()]
    assert (chain["steps"], chain["blocks"][-1]["end"], chain["chunking"]) == (135, 133, "unfinished")
    assert (chain["answer"], len(chain["blocks"])) == ("33", 8)
    assert summary(tmp_path / "train-summary.json")["chunking"] == {"complete": 0, "unfinished": 1, "broken": 0}


def chain_of(row: dict[str, Any]) -> Chain:
    return read_chain(row, Problem("id", row["question"], "2"))


@pytest.mark.parametrize(
    ("blocks", "chunking"),
    [
        ([(1, 3)], "complete"),
        ([(1, 1), (2, 5)], "complete"),
        ([(1, 1), (2, 2)], "unfinished"),
        ([], "broken"),
        ([(2, 3)], "broken"),
        ([(1, 2), (2, 3)], "broken"),
        ([(1, 1), (3, 3)], "broken"),
        ([(1, 6)], "broken"),
        ([(1, 0), (1, 3)], "broken"),
    ],
)
def test_a_chunking_covers_the_thinking_without_gap_or_overlap(blocks: list[tuple[int, int]], chunking: str) -> None:
    assert chain_of(chunked(*blocks)).chunking == chunking


def test_blocks_are_read_as_models_write_them() -> None:
    written = {"block 2": {"start": "2", "end": "3", "block_type": "check"}, "block 1": {"start": 1, "end": 1}}
    assert chain_of(chunked(block=written)).chunking == "broken", "a block without type cannot be read"
    written["block 1"]["block type"] = "plan"
    assert chain_of(chunked(block=written)).blocks == (Block(1, 1, "plan"), Block(2, 3, "check"))
    assert chain_of(chunked(block="none")).chunking == "broken"


def stream(size: int) -> Iterator[Candidate]:
    for index in range(size):
        yield Candidate(index, Problem(str(index), "?", str(index)), "", {}, None)


def all_good(answers: Sequence[str]) -> list[bool]:
    return [True for _ in answers]


def test_every_problem_is_drawn_equally_often() -> None:
    counts = Counter(c.index for seed in range(2000) for c in draw(stream(20), 5, seed, all_good, Tally()))
    # 500 draws are expected of each; the binomial's standard deviation is 19.4.
    assert set(counts) == set(range(20))
    assert all(abs(count - 500) < 100 for count in counts.values())


@given(st.integers(0, 1500), st.none() | st.integers(1, 60), st.integers(0, 9), st.integers(1, 5))
def test_a_draw_is_of_the_size_in_order_and_of_the_lowest_ranks(
    size: int, limit: int | None, seed: int, one_in: int
) -> None:
    def gradable(answers: Sequence[str]) -> list[bool]:
        return [int(answer) % one_in == 0 for answer in answers]

    tally = Tally(read=size)
    drawn = [candidate.index for candidate in draw(stream(size), limit, seed, gradable, tally)]
    good = list(range(0, size, one_in))
    assert drawn == sorted(drawn)
    assert len(drawn) == len(good if limit is None else good[:limit])
    assert set(drawn) <= set(good)
    if limit is not None:
        good_alone = (candidate for candidate in stream(size) if candidate.index % one_in == 0)
        assert drawn == [candidate.index for candidate in draw(good_alone, limit, seed, all_good, Tally())]
    tally.kept = len(drawn)
    assert tally.not_drawn >= 0 and (limit is not None or tally.not_drawn == 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["math", "--source", "nowhere.jsonl"], ["nowhere.jsonl", "does not exist"]),
        (["math", "--source", "{folder}:nowhere"], ["nowhere", "cannot be loaded"]),
        (["thoughtchunk"], ["thoughtchunk", "--source"]),
        (["math", "--source", "{folder}", "--limit", "0"], ["--limit is 0"]),
        (["math", "--source", "{folder}", "--drop-overlap"], ["--validation"]),
        (["math", "--source", "{folder}", "--validation", "missing.json"], ["missing.json"]),
        (["math", "--source", "{folder}", "--out", "{file}"], ["--out", "name another"]),
        (
            ["numina_amc_aime", "--source", "{folder}"],
            ["no problem for numina_amc_aime", "4 of 4 rows: its data_source"],
        ),
    ],
)
def test_a_user_error_is_one_sentence_and_leaves_no_file(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"folder": hub_folder(tmp_path / "math", train=MATH), "file": jsonl(tmp_path / "file")}
    assert longshort_data(*(argument.format(**places) for argument in arguments)) == 2
    errors = capsys.readouterr().err
    assert all(word in errors for word in words)
    assert len(errors.strip().splitlines()) == 1
    assert not [file for file in (tmp_path / "data").rglob("*") if file.is_file()]


def test_a_run_that_fails_leaves_the_former_files_in_place(tmp_path: Path) -> None:
    source, out = hub_folder(tmp_path / "math", train=MATH), tmp_path / "out"
    assert longshort_data("math", "--source", source, "--out", out) == 0
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    (tmp_path / "bad.json").write_text("{")
    assert longshort_data("math", "--source", tmp_path / "bad.json", "--out", out) == 2
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    assert set(before) == {"train.parquet", "train-summary.json"}


@pytest.mark.parametrize("arguments", [["math", "seed=1"], ["nothing"], ["math", "--config-name", "local"]])
def test_the_command_takes_no_overrides_and_no_other_names(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        longshort_data(*arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err


def test_the_command_line_imports_without_torch() -> None:
    code = (
        "import sys, longshort.cli, longshort.prepare; "
        "assert not {'torch', 'ray', 'vllm', 'verl', 'pyarrow', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
