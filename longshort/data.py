"""Problems from files, and the order in which training visits them."""

from __future__ import annotations

import json
import math
import random
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from longshort import hub
from longshort.episode import Problem
from longshort.extraction import last_boxed
from longshort.grading import gold_text

QUESTION_KEYS = ("problem", "question", "prompt", "raw_prompt")
ANSWER_KEYS = ("answer", "expected_answer", "reward_model", "solution")
ID_KEYS = ("id", "unique_id", "problem_id")
SOURCE_KEYS = ("source", "data_source")
PLAYGROUND = "playground:"

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class SkippedLine:
    """A record that is no problem.

    Attributes:
        path: the file, or the playground path, as the user gave it.
        line: line of a JSONL file, counted from 1; elsewhere the record's index, counted from 0.
        reason: what is wrong with it.
    """

    path: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{_place(self.path, self.line)}: {self.reason}"


@dataclass(frozen=True, slots=True)
class ProblemSet:
    """Problems with distinct ids in file order, and the records that were left out."""

    problems: list[Problem]
    skipped: tuple[SkippedLine, ...] = ()


# A user's own data set class: from paths to rows, in place of the formats known here.
Reader = Callable[[Sequence[str]], Sequence[object]]


def load_problems(
    paths: Sequence[str],
    on_error: Literal["raise", "skip"] = "raise",
    reader: Reader | None = None,
    shape: Callable[[object], object] = lambda row: row,
) -> ProblemSet:
    """Read ``.json`` (a list), ``.jsonl``, ``.parquet``, data sets of the hub, ``playground:<split>:<count>:<seed>``.

    A record without id is called ``<stem>-<index>``, and one without source ``<stem>``; where files share a stem, the
    folder's name stands before it (``gsm8k-train-0``). Of two records with one id, the later is bad. What ``reader``
    reads is one file called ``custom``. ``shape`` makes a row that :func:`parse_problem` knows of one that it does not.

    Raises:
        ValueError: a file that is missing or unreadable as a whole, or no problem at all; with ``on_error="raise"``
            also any bad record, naming the first one and how many there are.
    """
    problems: list[Problem] = []
    bad: list[SkippedLine] = []
    seen: dict[str, str] = {}
    known = zip(paths, _stems(paths), map(records, paths), strict=True)
    custom = [] if reader is None else [("data.custom_cls", "custom", _rows(reader, paths))]
    for path, stem, rows in custom or known:
        for line, row in rows:
            try:
                problem = parse_problem(shape(row), f"{stem}-{line - _first_line(path)}", stem)
                if problem.id in seen:
                    raise ValueError(f"its id {problem.id!r} is already taken by {seen[problem.id]}")
            except ValueError as error:
                bad.append(SkippedLine(path, line, str(error)))
            else:
                seen[problem.id] = _place(path, line)
                problems.append(problem)
    if bad and on_error == "raise":
        share = f"{len(bad)} of {len(bad) + len(problems)} records are bad"
        raise ValueError(f"{bad[0]} ({share}): correct them, or leave them out with data.on_error=skip.")
    if not problems:
        files = ", ".join(paths) or "an empty list of paths"
        only_bad = f" ({len(bad)} records are bad, the first is {bad[0]})" if bad else ""
        raise ValueError(f"No problem found in {files}{only_bad}: name other files.")
    return ProblemSet(problems, tuple(bad))


def parse_problem(row: object, default_id: str, default_source: str = "") -> Problem:
    """Make a problem of one record in any of the shapes that math data sets have.

    - question: ``problem``, ``question``, ``prompt`` or ``raw_prompt`` (text, or chat messages of which the last user
      message counts);
    - answer: ``answer`` or ``expected_answer`` (text or number; GSM8K's worked answers end in ``#### 72``), verl's
      ``reward_model.ground_truth``, or ``solution``, whose last ``\\boxed{}`` holds it;
    - id: ``id``, ``unique_id`` or ``problem_id``; source: ``source`` or ``data_source``.

    Raises:
        ValueError: what is missing; a clause to stand after the record's place.
    """
    if isinstance(row, Problem):
        return row
    if isinstance(row, _Broken):
        raise ValueError(row.reason)
    if not isinstance(row, Mapping):
        raise ValueError(f"expected an object, found {type(row).__name__}")
    for wanted in (QUESTION_KEYS, ANSWER_KEYS):
        if not any(key in row for key in wanted):
            found = ", ".join(sorted(map(str, row))) or "none"
            raise ValueError(f"unknown shape, it needs one of the keys {', '.join(wanted)} and has {found}")
    question = _question(row)
    if not question.strip():
        raise ValueError("it has no question")
    answer = _answer(row)
    if not answer:
        box = " (its solution has no complete \\boxed{})" if _scalar(row.get("solution")) else ""
        raise ValueError(f"it has no answer that is text or a number{box}")
    name = _first_scalar(row, ID_KEYS) or default_id
    source = _first_scalar(row, SOURCE_KEYS) or default_source
    # JSON can spell half a surrogate pair, which no tokenizer and no UTF-8 file takes.
    if any(_SURROGATE.search(text) for text in (question, answer, name, source)):
        raise ValueError("it holds half of a surrogate pair, which is no Unicode text")
    return Problem(id=name, question=question, answer=answer, source=source)


class ProblemOrder:
    """An endless order of problems that can be stopped and resumed.

    Every epoch visits each problem once, shuffled by (seed, epoch). Where an epoch ends within a batch, the next epoch
    fills it up; problems that the batch already holds are put off to the head of the following batch, so that a batch
    never holds a problem twice and an epoch loses none.
    """

    def __init__(self, problems: Sequence[Problem], seed: int) -> None:
        """``problems`` have distinct ids; ``seed`` fixes every epoch's order."""
        self._problems = tuple(problems)
        self._seed = seed
        self._deferred: list[int] = []
        self._start_epoch(0)

    @property
    def epoch(self) -> int:
        """Epoch of the latest problem, from 0."""
        return self._epoch

    def take(self, n: int) -> list[Problem]:
        """The next ``n`` problems, all different.

        Raises:
            ValueError: there are fewer than ``n`` problems.
        """
        if n > len(self._problems):
            raise ValueError(
                f"A batch of {n} different problems cannot be made of {len(self._problems)}: "
                "add problems or lower the number of problems per step."
            )
        batch = self._deferred[:n]
        self._deferred = self._deferred[n:]
        held = set(batch)
        while len(batch) < n:
            if self._position == len(self._order):
                self._start_epoch(self._epoch + 1)
            index = self._order[self._position]
            self._position += 1
            if index in held:
                self._deferred.append(index)
            else:
                held.add(index)
                batch.append(index)
        return [self._problems[index] for index in batch]

    def state_dict(self) -> dict[str, int | list[int]]:
        """Where the order stands, in plain ints; ``deferred`` holds fewer indices than a batch."""
        return {
            "seed": self._seed,
            "problems": self._fingerprint(),
            "epoch": self._epoch,
            "position": self._position,
            "deferred": list(self._deferred),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken.

        Raises:
            ValueError: the state belongs to other problems or another seed.
        """
        if state["seed"] != self._seed:
            raise ValueError(
                f"The checkpoint's data order has seed {state['seed']} and this run has {self._seed}: "
                "resume with the checkpoint's seed or start a new run."
            )
        if state["problems"] != self._fingerprint():
            raise ValueError(
                f"The checkpoint's data order is over other problems than the {len(self._problems)} loaded: "
                "resume with the same files and limits or start a new run."
            )
        self._start_epoch(state["epoch"])
        self._position = state["position"]
        self._deferred = list(state["deferred"])

    def _start_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self._position = 0
        self._order = list(range(len(self._problems)))
        # A text seed is hashed with SHA-512: the same on every machine, unlike hash((seed, epoch)).
        random.Random(f"{self._seed}/{epoch}").shuffle(self._order)

    def _fingerprint(self) -> int:
        return zlib.crc32("\n".join(problem.id for problem in self._problems).encode())


@dataclass(frozen=True, slots=True)
class _Broken:
    """Stands for a record that cannot be parsed, so that the records after it are still read."""

    reason: str


def _rows(reader: Reader, paths: Sequence[str]) -> Iterator[tuple[int, object]]:
    rows = reader(paths)
    # By length: a Dataset of torch's need not know where it ends.
    return ((i, rows[i]) for i in range(len(rows)))


def records(path: str, streaming: bool = False) -> Iterator[tuple[int, object]]:
    """Records of a path with their line or index, as :class:`SkippedLine` counts them.

    Each is what :func:`parse_problem` takes. ``streaming`` reads a data set of the hub without storing it.

    Raises:
        ValueError: the path is missing or unreadable as a whole.
    """
    if path.startswith(PLAYGROUND):
        return enumerate(_playground(path))
    if hub.is_data_set(path):
        return enumerate(hub.records(path, streaming))
    file = Path(path).expanduser()
    if file.suffix not in (".json", ".jsonl", ".parquet"):
        raise ValueError(
            f"Data file {path} has an unknown format: name a .json, .jsonl or .parquet file, a data set as "
            f"owner/name:split, or {PLAYGROUND}<split>:<count>:<seed>."
        )
    if not file.is_file():
        raise ValueError(f"Data file {path} does not exist: correct the path (it was looked up as {file.absolute()}).")
    if file.suffix == ".jsonl":
        return _json_lines(file)
    return enumerate(_json_list(file) if file.suffix == ".json" else _parquet(file))


def _json_lines(file: Path) -> Iterator[tuple[int, object]]:
    # Bytes are split at line feeds alone; text would also be split at the U+2028 that JSON strings may hold.
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:
                row = _Broken(f"it is not valid JSON ({error})")
            yield number, row


def _json_list(file: Path) -> Iterator[object]:
    try:
        rows = json.loads(file.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"Data file {file} is not valid JSON ({error}): correct it, or call it .jsonl if each line is a record."
        ) from error
    if not isinstance(rows, list):
        raise ValueError(f"Data file {file} holds {type(rows).__name__} and no list: put its records into a list.")
    yield from rows


def _parquet(file: Path) -> Iterator[object]:
    import pyarrow
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches():
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"Data file {file} is not readable as Parquet ({error}): write it again.") from error


def _playground(path: str) -> list[Problem]:
    parts = path.removeprefix(PLAYGROUND).split(":")
    if len(parts) != 3 or not all(re.fullmatch("[0-9]+", part) for part in parts[1:]):
        raise ValueError(
            f"Data path {path} is not {PLAYGROUND}<split>:<count>:<seed>: write for example {PLAYGROUND}train:2000:0."
        )
    from longshort.playground.problems import generate_problems

    split, count, seed = parts
    # The generator checks the split.
    return generate_problems(int(count), int(seed), split)  # type: ignore[arg-type]


def _stems(paths: Sequence[str]) -> list[str]:
    """Short names of the files: the stem, with its folder where several of them share the stem."""
    files = [Path(path).expanduser().absolute() for path in paths]
    shared = Counter(file.stem for file in files)
    return [f"{file.parent.name}-{file.stem}" if shared[file.stem] > 1 else file.stem for file in files]


def _first_line(path: str) -> int:
    return 1 if path.endswith(".jsonl") else 0


def _place(path: str, line: int) -> str:
    return f"{path}:{line}" if path.endswith(".jsonl") else f"{path}, index {line}"


def _question(row: Mapping[Any, Any]) -> str:
    for key in QUESTION_KEYS:
        value = row.get(key)
        if isinstance(value, list):
            messages = [message for message in value if isinstance(message, Mapping) and message.get("role") == "user"]
            value = messages[-1].get("content") if messages else None
        if isinstance(value, str) and value.strip():
            return value
    return ""


def _answer(row: Mapping[Any, Any]) -> str:
    answer = _first_scalar(row, ("answer", "expected_answer"))
    if answer:
        return answer.rsplit("####", 1)[-1].strip()
    judge = row.get("reward_model")
    truth = _scalar(judge.get("ground_truth")) if isinstance(judge, Mapping) else ""
    return truth or (last_boxed(_scalar(row.get("solution"))) or "")


def _first_scalar(row: Mapping[Any, Any], keys: Sequence[str]) -> str:
    return next((text for key in keys if (text := _scalar(row.get(key)))), "")


def _scalar(value: object) -> str:
    """Stripped text of a string or finite number, ``""`` of anything else; ``27.0`` is ``"27"``."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    # Python's JSON reader accepts NaN and infinities; isfinite refuses integers beyond the floats.
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    return gold_text(value)
