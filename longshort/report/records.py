"""What is known of a run, whatever kind it is of: read by :mod:`longshort.report.sources`, shown by the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

from longshort.episode import Problem
from longshort.rounds.record import Record
from longshort.thoughts.figures import AccuracyAndLength, ScoresByRollouts

Kind = Literal["training", "cold start", "evaluation"]
Origin = Literal["training", "validation", "evaluation", "cold start", "transcript"]


@dataclass(frozen=True, slots=True)
class ShownTurn:
    """A turn for the viewer.

    Attributes:
        role: who wrote it.
        text: as a reader sees it.
        tokens: sampled.
        cut: whether its cap was hit.
        well_formed: whether it follows the template.
        trained: whether its sampled tokens were trained on; None where that is not known.
        closing: UTF-16 units at the end of ``text`` that the controller added; never trained.
        surprise: -log p of each sampled token in tenths of a nat, at most 255; empty where it is not known.
        pieces: UTF-16 units of ``text`` that each sampled token stands for; empty where its tokenizer is not at hand.
        prompt_tokens, cached_tokens: what the turn was sampled from, and what of it a cache held; None if unknown.
    """

    role: str
    text: str
    tokens: int
    cut: bool
    well_formed: bool
    trained: bool | None = None
    closing: int = 0
    surprise: bytes = b""
    pieces: tuple[int, ...] = ()
    prompt_tokens: int | None = None
    cached_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """An episode for the viewer.

    Attributes:
        problem: with its source as what it is filtered by.
        number: index within the problem's group.
        correct: None where it was not graded.
        outcome: how it ended.
        origin: what it was played for.
        round: name of the round, or empty.
        step: None where there are no steps.
        turns: in the order they were written.
        rewards: parts by ``role/part``; empty where there are none.
        error: why it could not be rewarded.
    """

    problem: Problem
    number: int
    correct: bool | None
    outcome: str
    origin: Origin
    turns: tuple[ShownTurn, ...]
    round: str = ""
    step: int | None = None
    rewards: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None

    @property
    def text(self) -> str:
        """Of all turns."""
        return "\n".join(turn.text for turn in self.turns)

    @property
    def tokens(self) -> int:
        """Sampled tokens of the conversation."""
        return sum(turn.tokens for turn in self.turns)


@dataclass(frozen=True, slots=True)
class RoleFigures:
    """Means of one role: turns and tokens per conversation, shares of its turns; None where unknown."""

    turns: float
    tokens: float
    cut_turns: float | None
    well_formed_turns: float | None


@dataclass(frozen=True, slots=True)
class Measure:
    """A model on a set of problems.

    Attributes:
        stage: when: ``"start"``, ``"reasoner"``, a round's name, or ``""`` for an evaluation.
        problems: their name; measures are compared where these are the same, see
            :func:`longshort.report.problems.told_apart`.
        accuracy: share of right answers, mean over problems.
        error: its standard error, where known.
        tokens, turns: means per conversation.
        outcomes: share of each.
        roles: by name.
        aes: against the base that an evaluation was given, if any.
        digest: the same for the same problems; None where these are not known.
    """

    stage: str
    problems: str
    accuracy: float
    error: float | None
    tokens: float
    turns: float
    outcomes: Mapping[str, float]
    roles: Mapping[str, RoleFigures]
    aes: float | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Run:
    """One folder.

    Attributes:
        name: unique in a report.
        kind: what made it.
        settings: those that may be shown, by dotted key.
        measures: in the order in which they were made.
        steps: of training, by step: lines of metrics.
        record: rounds of training.
        benchmarks: of an evaluation, its numbers by benchmark.
        chains: of a cold start: what became of them, from its summary.
        by_thoughts, scores: of a cold start, where it scored thoughts.
        words: by round of training, or by benchmark, what :func:`longshort.evaluation.behaviour.words.numbers_of_texts`
            finds in the episodes that are here, and how many ``conversations`` these are.
        behaviour: of an evaluation by benchmark, what ``longshort behaviour`` wrote.
        samples: episodes that it kept.
        remarks: what a reader should know of what is not here, in whole sentences.
    """

    name: str
    kind: Kind
    settings: Mapping[str, str] = field(default_factory=dict)
    measures: tuple[Measure, ...] = ()
    steps: tuple[Mapping[str, float], ...] = ()
    record: Record = field(default_factory=Record)
    benchmarks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    chains: Mapping[str, Any] = field(default_factory=dict)
    by_thoughts: AccuracyAndLength | None = None
    scores: ScoresByRollouts | None = None
    words: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    behaviour: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def base(self) -> Measure | None:
        """What the others are compared with: the reasoner, or else the start."""
        named = {measure.stage: measure for measure in self.measures}
        return named.get("reasoner") or named.get("start")

    def series(self, key: str) -> list[tuple[float, float]]:
        """Steps and values of a metric, where it is there and finite."""
        return [(line["step"], line[key]) for line in self.steps if key in line and isfinite(line[key])]
