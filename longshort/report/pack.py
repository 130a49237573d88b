"""Episodes as the viewer reads them: an index that is small enough to search, and texts in compressed chunks.

Everything is JSON, deflated by gzip and written in base64, in which no character means anything to HTML.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from longshort.report.records import Run, Sample, ShownTurn

# Characters of a question, an answer or a name that the index holds; the whole question and answer are with the turns.
QUESTION, ANSWER, NAME = 400, 200, 200
# A chunk is closed when its JSON has so many characters: small enough to be opened at once.
CHUNK = 1_000_000
COLUMNS = (
    *("run", "problem", "sample", "correct", "outcome", "source", "round", "origin", "step", "tokens"),
    *("turns", "chunk", "place"),
)


@dataclass(frozen=True, slots=True)
class Packed:
    """``index`` and ``chunks``, each in base64.

    The index has the names of runs, roles and so on, the problems, and for every episode a number in each of its
    columns: places in those lists, or -1; ``chunk`` and ``place`` say where its turns are.
    """

    index: str
    chunks: tuple[str, ...]


class _Names:
    """Different names, numbered as they come."""

    def __init__(self) -> None:
        self.places: dict[Any, int] = {}

    def __call__(self, name: Any) -> int:
        return self.places.setdefault(name, len(self.places))


def pack(runs: Sequence[Run]) -> Packed:
    """All samples of all runs, in their order."""
    lists = {name: _Names() for name in ("run", "source", "outcome", "round", "origin", "role")}
    problems = _Names()
    columns: dict[str, list[int]] = {name: [] for name in COLUMNS}
    chunks: list[str] = []
    waiting: list[str] = []
    size = 0
    for run, sample in _samples(runs):
        body = json.dumps(_payload(sample, lists["role"]), separators=(",", ":"))
        if waiting and size + len(body) > CHUNK:
            chunks.append(_packed(f"[{','.join(waiting)}]"))
            waiting, size = [], 0
        problem = sample.problem
        row = {
            "run": lists["run"](run.name),
            "problem": problems((problem.id, problem.question, problem.answer)),
            "sample": sample.number,
            "correct": -1 if sample.correct is None else int(sample.correct),
            "outcome": lists["outcome"](sample.outcome),
            "source": lists["source"](problem.source),
            "round": lists["round"](sample.round),
            "origin": lists["origin"](sample.origin),
            "step": -1 if sample.step is None else sample.step,
            "tokens": sample.tokens,
            "turns": len(sample.turns),
            "chunk": len(chunks),
            "place": len(waiting),
        }
        for name, value in row.items():
            columns[name].append(value)
        waiting.append(body)
        size += len(body)
    if waiting:
        chunks.append(_packed(f"[{','.join(waiting)}]"))
    index = {
        "columns": columns,
        "problems": [[id[:NAME], question[:QUESTION], answer[:ANSWER]] for id, question, answer in problems.places],
        **{f"{name}s": [text[:NAME] for text in names.places] for name, names in lists.items()},
    }
    return Packed(_packed(json.dumps(index, separators=(",", ":"))), tuple(chunks))


def unpack(text: str) -> Any:
    """What was packed into an index or a chunk."""
    return json.loads(gzip.decompress(base64.b64decode(text)))


def _samples(runs: Sequence[Run]) -> Iterator[tuple[Run, Sample]]:
    for run in runs:
        for sample in run.samples:
            yield run, sample


def _payload(sample: Sample, roles: _Names) -> dict[str, Any]:
    problem = sample.problem
    return {
        "turns": [_turn(turn, roles) for turn in sample.turns],
        "rewards": dict(sample.rewards),
        "error": sample.error,
        "question": problem.question if len(problem.question) > QUESTION else None,
        "answer": problem.answer if len(problem.answer) > ANSWER else None,
    }


def _turn(turn: ShownTurn, roles: _Names) -> dict[str, Any]:
    found: dict[str, Any] = {
        "role": roles(turn.role),
        "text": turn.text,
        "tokens": turn.tokens,
        "cut": turn.cut,
        "well_formed": turn.well_formed,
        "trained": turn.trained,
        "closing": turn.closing,
        # One character a token, as JSON arrays of small numbers are slow to read.
        "surprise": turn.surprise.decode("latin-1"),
        "pieces": list(turn.pieces),
        "prompt": turn.prompt_tokens,
        "cached": turn.cached_tokens,
    }
    # False says something; nothing, and none of it, go without saying.
    return {key: value for key, value in found.items() if isinstance(value, bool) or value or key in ("role", "text")}


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode("ascii"), compresslevel=6, mtime=0)).decode("ascii")
