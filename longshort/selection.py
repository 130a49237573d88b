"""Which rows of a source become training problems: a chain of generators that each row passes once.

``candidates`` makes problems of rows, ``without_shared`` leaves out what validation asks, ``draw`` takes some of them,
``noted`` counts what comes out. A :class:`Tally` goes along. What is held is a hash of each question where questions
repeat, and, with a limit, as many problems as are drawn.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from longshort.chains import Chain, read_chain
from longshort.episode import Problem
from longshort.overlap import question_key
from longshort.sources import Source

REPEATED = "its question was there before"
UNGRADABLE = "its answer cannot be graded"
OVERLAPPING = "validation asks its question"

# Problems that are graded, and written, at a time.
BATCH = 512


@dataclass(frozen=True, slots=True)
class Validation:
    """What a validation path holds: ids by question key, and how many problems and unreadable records there are."""

    path: str
    ids: Mapping[str, str]
    problems: int
    unreadable: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A problem on its way into the file.

    Attributes:
        index: of its row in the source, from 0.
        key: see :func:`longshort.overlap.question_key`.
        columns: what is kept beside the problem.
    """

    index: int
    problem: Problem
    key: str
    columns: Mapping[str, str]
    chain: Chain | None


@dataclass(slots=True)
class Tally:
    """What became of the rows.

    Attributes:
        dropped: rows by the reason they were left out for.
        shared: per validation path, from training id to the id of the problem with the same question.
        chunking: kept chains by the state of their blocks.
    """

    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    shared: defaultdict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    chunking: Counter[str] = field(default_factory=Counter)

    @property
    def not_drawn(self) -> int:
        """Rows that the limit left out; whether their answers can be graded was not asked of all."""
        return self.read - self.kept - self.dropped.total()


def candidates(source: Source, rows: Iterable[tuple[int, object]], prefix: str, tally: Tally) -> Iterator[Candidate]:
    """Problems of the rows, with ids ``<prefix>-<index>``; of rows that repeat a question, the first."""
    seen: set[bytes] = set()
    for index, (_, row) in enumerate(rows):
        tally.read += 1
        try:
            problem = replace(source.problem(row), id=f"{prefix}-{index}", source=source.data_source)
            fields = row if isinstance(row, Mapping) else {}
            chain = read_chain(fields, problem) if source.chains else None
        except ValueError as error:
            # Details in brackets differ from row to row.
            tally.dropped[str(error).partition(" (")[0]] += 1
            continue
        key = question_key(problem.question)
        if not source.one_row_per_problem:
            digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
            if digest in seen:
                tally.dropped[REPEATED] += 1
                continue
            seen.add(digest)
        yield Candidate(index, problem, key, {name: str(fields.get(name) or "") for name in source.columns}, chain)


def without_shared(found: Iterable[Candidate], known: Sequence[Validation], tally: Tally) -> Iterator[Candidate]:
    """Candidates whose question validation does not ask; the others are noted and dropped."""
    for candidate in found:
        if _note_shared(candidate, known, tally):
            tally.dropped[OVERLAPPING] += 1
        else:
            yield candidate


def draw(
    found: Iterable[Candidate],
    limit: int | None,
    seed: int,
    gradable: Callable[[Sequence[str]], Sequence[bool]],
    tally: Tally,
) -> Iterator[Candidate]:
    """``limit`` candidates with gradable answers in their order, or all of them; one pass, memory of ``limit``.

    Every candidate has a random rank, a hash of seed and index, and the lowest ranks win: a uniform draw without
    replacement. Answers are graded only where the rank is among the lowest so far.
    """
    # The head is the first to go: ranks are negated. Indices are distinct, so candidates are never compared.
    lowest: list[tuple[int, int, Candidate]] = []

    def wanted(candidate: Candidate) -> bool:
        return limit is None or len(lowest) < limit or _rank(seed, candidate) < -lowest[0][0]

    for batch in batches(filter(wanted, found)):
        good = gradable([candidate.problem.answer for candidate in batch])
        for candidate, is_good in zip(batch, good, strict=True):
            if not is_good:
                tally.dropped[UNGRADABLE] += 1
            elif limit is None:
                yield candidate
            else:
                heapq.heappush(lowest, (-_rank(seed, candidate), candidate.index, candidate))
                if len(lowest) > limit:
                    heapq.heappop(lowest)
    yield from sorted((candidate for _, _, candidate in lowest), key=lambda candidate: candidate.index)


def noted(chosen: Iterable[Candidate], known: Sequence[Validation], tally: Tally) -> Iterator[Candidate]:
    """The same candidates, counted."""
    for candidate in chosen:
        tally.kept += 1
        _note_shared(candidate, known, tally)
        if candidate.chain is not None:
            tally.chunking[candidate.chain.chunking] += 1
        yield candidate


def _note_shared(candidate: Candidate, known: Sequence[Validation], tally: Tally) -> bool:
    hits = {file.path: file.ids[candidate.key] for file in known if candidate.key in file.ids}
    for path, name in hits.items():
        tally.shared[path][candidate.problem.id] = name
    return bool(hits)


def _rank(seed: int, candidate: Candidate) -> int:
    text = f"{seed}/{candidate.index}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def batches(found: Iterable[Candidate]) -> Iterator[list[Candidate]]:
    batch: list[Candidate] = []
    for candidate in found:
        batch.append(candidate)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
