"""What people see while a run goes: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

# Seconds after which a stage shows how long it has taken.
SLOW = 3.0
# Seconds between two plain lines about one stage.
HEARTBEAT = 60.0
# Steps that the time left is estimated from.
WINDOW = 20


@dataclass(frozen=True, slots=True)
class _Stage:
    """What goes on at the moment.

    Attributes:
        began: clock when it began, in seconds.
        done, total: sub-progress; 0 for ``total`` where there is none.
        told: clock of the latest plain line about it, or None.
    """

    name: str
    began: float
    done: int = 0
    total: int = 0
    told: float | None = None


@dataclass(frozen=True, slots=True)
class _Progress:
    """The latest step: ``step`` of ``total``, its metrics, and the clock at which the last step should be over."""

    step: int
    total: int
    metrics: Mapping[str, float]
    ends_at: float | None
    round: str = ""

    @property
    def place(self) -> str:
        return f"{self.round + ', ' if self.round else ''}step {self.step}/{self.total}"

    def words(self) -> list[str]:
        values = {key: self.metrics.get(key) for key in _WORDING}
        return [_WORDING[key](value) for key, value in values.items() if value is not None]


class Display:
    """Progress of a run: stages, and steps with their metrics.

    On a terminal, a bar, the latest metrics and the current stage are redrawn in place. Elsewhere there is one plain
    line per step; and about stages, a line when one of a new name begins, one each minute while it advances, and one
    when a stage that had a line ends after more than a few seconds.

    Example::

        with Display() as display:
            display.stage("starting engines")
            for step in range(1, 101):
                display.stage("playing")
                display.advance(32, 128)
                display.step(step, 100, {"accuracy": 0.5})
            display.table("Results", ["benchmark", "accuracy"], [["aime2024", 0.5]])
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """``console`` is where to draw, by default stdout; ``clock`` counts seconds and never runs backwards."""
        if console is None:
            # Colours can be forced onto a file by FORCE_COLOR, redrawing must not be.
            console = Console(force_interactive=None if sys.stdout.isatty() else False)
        self._console = console
        self._clock = clock
        self._live: Live | None = None
        self._stage: _Stage | None = None
        self._announced: set[str] = set()
        self._progress: _Progress | None = None
        self._steps: deque[tuple[int, float]] = deque(maxlen=WINDOW + 1)

    def __enter__(self) -> Display:
        if self._console.is_interactive:
            self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end_stage(finished=error is None)
        if self._live is not None:
            self._live.stop()
            self._live = None

    def stage(self, name: str) -> None:
        """What goes on from now until the next stage, step or exit."""
        self._end_stage()
        now = self._clock()
        told = None
        if name not in self._announced:
            self._announced.add(name)
            self._plain(name)
            told = now
        self._stage = _Stage(name, now, told=told)

    def advance(self, done: int, total: int) -> None:
        """Sub-progress of the current stage; without a stage, nothing."""
        if self._stage is None:
            return
        self._stage = replace(self._stage, done=done, total=total)
        now = self._clock()
        silent_since = self._stage.began if self._stage.told is None else self._stage.told
        if now - silent_since >= HEARTBEAT:
            self._plain(f"{self._stage.name}: {done}/{total} after {duration(now - self._stage.began)}")
            self._stage = replace(self._stage, told=now)

    def step(self, step: int, total: int, metrics: Mapping[str, float], round: str = "") -> None:
        """A step is complete: ``step`` of ``total``, counted from 1; ``round`` says in which one, if there are several.

        Metrics that are shown where they are given: ``accuracy``, ``tokens_per_episode``, ``reward/mean``,
        ``episodes_per_s``, ``tokens_per_s`` and ``time/step_s`` (seconds).
        """
        self._end_stage()
        if self._steps and step <= self._steps[-1][0]:
            # Counting has begun anew.
            self._steps.clear()
        now = self._clock()
        self._steps.append((step, now))
        pace = self._pace(metrics)
        left = None if pace is None else max(0, total - step) * pace
        self._progress = _Progress(step, total, dict(metrics), None if left is None else now + left, round)
        left_words = [] if left is None else [f"{duration(left)} left"]
        self._plain(", ".join([self._progress.place, *self._progress.words(), *left_words]))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table with one cell per column in each row; numbers are aligned right."""
        cells = [[self._encodable(_cell(value)) for value in row] for row in rows]
        numeric = [bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(columns))]
        if not self._console.is_interactive:
            self._plain(title)
            for line in _aligned([list(columns), *cells], numeric):
                self._plain(line)
            return
        table = Table(title=Text(title), title_justify="left")
        for name, right in zip(columns, numeric, strict=True):
            table.add_column(Text(name), justify="right" if right else "left")
        for row in cells:
            table.add_row(*map(Text, row))
        self._console.print(table)

    def _end_stage(self, finished: bool = True) -> None:
        stage, self._stage = self._stage, None
        if stage is None or stage.told is None:
            return
        elapsed = self._clock() - stage.began
        if elapsed >= SLOW:
            self._plain(f"{stage.name}: {'done' if finished else 'stopped'} after {duration(elapsed)}")

    def _pace(self, metrics: Mapping[str, float]) -> float | None:
        """Seconds per step over the latest steps, for the first step what its metrics say, or None."""
        (first, began), (last, ended) = self._steps[0], self._steps[-1]
        pace = (ended - began) / (last - first) if last > first else metrics.get("time/step_s")
        return pace if pace is not None and math.isfinite(pace) else None

    def _render(self) -> RenderableType:
        """The live display; rich's refreshing thread calls it too, so it reads each field once."""
        progress, stage, now = self._progress, self._stage, self._clock()
        lines: list[RenderableType] = []
        if progress is not None:
            bar = ProgressBar(total=max(progress.total, 1), completed=progress.step, width=40)
            left = "" if progress.ends_at is None else f"{duration(max(0, progress.ends_at - now))} left"
            line = Table.grid(padding=(0, 2))
            line.add_row(progress.place, bar, left)
            lines.append(line)
            if words := progress.words():
                lines.append(Text(", ".join(words)))
        if stage is not None:
            share = f" {stage.done}/{stage.total}" if stage.total else ""
            elapsed = f", {duration(now - stage.began)}" if now - stage.began >= SLOW else ""
            lines.append(Text(stage.name + share + elapsed, style="dim"))
        return Group(*lines)

    def _plain(self, line: str) -> None:
        if not self._console.is_interactive:
            self._console.print(Text(self._encodable(line)), soft_wrap=True)
            # A block-buffered stdout would hold lines back until the job ends.
            self._console.file.flush()

    def _encodable(self, text: str) -> str:
        """``text`` with a question mark for what the console's encoding lacks."""
        encoding = self._console.encoding
        return text.encode(encoding, errors="replace").decode(encoding)


def duration(seconds: float) -> str:
    """``"12s"``, ``"1m04s"``, ``"2h03m"`` or ``"3d04h"``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def _short(value: float) -> str:
    """Three digits and a letter for thousands: ``"3.9"``, ``"412"``, ``"3.9k"``, ``"1.2M"``."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.1f}{letter}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"


_WORDING: Mapping[str, Callable[[float], str]] = {
    "accuracy": lambda value: f"accuracy {value:.1%}",
    "reward/mean": lambda value: f"reward {value:.3f}",
    "tokens_per_episode": lambda value: f"{value:.0f} tokens/episode",
    "episodes_per_s": lambda value: f"{_short(value)} episodes/s",
    "tokens_per_s": lambda value: f"{_short(value)} tokens/s",
    "time/step_s": lambda value: f"{value:.1f} s/step",
}


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def _aligned(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    """Lines of columns two spaces apart, as wide as they need to be: a log has no width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    ]
