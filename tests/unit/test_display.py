"""The display: plain lines where nobody can redraw, a live view where one can, and no metric that can break it.

Not shown: how the live view looks between two refreshes; the tests see its frames when they are asked for.
"""

from __future__ import annotations

import io
import math
import re
import subprocess
import sys
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from longshort.display import Display, duration

METRICS = {
    "accuracy": 0.53125,
    "reward/mean": 0.5,
    "tokens_per_episode": 411.6,
    "episodes_per_s": 36.96,
    "tokens_per_s": 3912.0,
    "time/step_s": 3.46,
    "other": 1.0,
}


class FakeClock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Screen:
    """A display on a console that keeps what is written to it, with its clock."""

    def __init__(self, terminal: bool) -> None:
        self.file = io.StringIO()
        self.clock = FakeClock()
        console = Console(
            file=self.file, force_terminal=terminal, force_interactive=terminal, width=100, color_system=None
        )
        self.display = Display(console, self.clock)

    @property
    def lines(self) -> list[str]:
        return self.file.getvalue().splitlines()

    @property
    def frame(self) -> str:
        """The last frame of a live display, once it is left, less its terminal sequences."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.file.getvalue().rsplit("\x1b[2K", 1)[-1])


def test_a_log_has_one_plain_line_per_step() -> None:
    screen = Screen(terminal=False)
    with screen.display as display:
        for step in (1, 2):
            screen.clock.now += 4
            display.step(step, 10, METRICS)
    shown = "accuracy 53.1%, reward 0.500, 412 tokens/episode, 37.0 episodes/s, 3.9k tokens/s, 3.5 s/step"
    # The first step lasted as long as its metrics say, the second as long as the clock says.
    assert screen.lines == [f"step 1/10, {shown}, 31s left", f"step 2/10, {shown}, 32s left"]
    assert screen.file.getvalue().isascii() and "\x1b" not in screen.file.getvalue()


def test_stages_of_a_log_begin_and_end_in_it_once() -> None:
    screen = Screen(terminal=False)
    with screen.display as display:
        display.stage("starting engines")
        screen.clock.now += 64
        for step in (1, 2):
            display.stage("playing")
            screen.clock.now += 2 if step == 1 else 30
            display.step(step, 2, {})
    assert screen.lines == [
        "starting engines",
        "starting engines: done after 1m04s",
        "playing",
        "step 1/2",
        "step 2/2, 0s left",
    ]


def test_a_long_stage_of_a_log_tells_each_minute() -> None:
    screen = Screen(terminal=False)
    with pytest.raises(KeyError), screen.display as display:
        display.stage("evaluating")
        for done in range(1, 6):
            screen.clock.now += 25
            display.advance(done, 500)
        raise KeyError
    assert screen.lines == ["evaluating", "evaluating: 3/500 after 1m15s", "evaluating: stopped after 2m05s"]


def test_time_left_follows_the_latest_steps() -> None:
    screen = Screen(terminal=False)
    with screen.display as display:
        for step in range(1, 61):
            screen.clock.now += 100 if step < 30 else 2
            display.step(step, 100, {})
        assert screen.lines[-1] == "step 60/100, 1m20s left"
        # Counting that begins anew forgets the old pace.
        display.step(1, 100, {"time/step_s": 1.0})
        assert screen.lines[-1] == "step 1/100, 1.0 s/step, 1m39s left"


@pytest.mark.parametrize("terminal", [False, True])
@settings(deadline=None)
@given(metrics=st.dictionaries(st.sampled_from(list(METRICS)), st.floats() | st.integers(0, 2) | st.none()))
def test_no_metrics_break_it(terminal: bool, metrics: Mapping[str, float]) -> None:
    screen = Screen(terminal)
    with screen.display as display:
        display.advance(1, 2)
        display.step(1, 2, metrics)
        display.step(5, 2, metrics)
        display.step(1, 0, {})
    assert "step 1/0" in screen.file.getvalue()


def test_the_live_view_shows_step_metrics_stage_and_time_left() -> None:
    screen = Screen(terminal=True)
    with screen.display as display:
        display.step(1, 10, {"accuracy": 0.25, "time/step_s": 9.0})
        display.stage("playing [red]")
        display.advance(32, 128)
        screen.clock.now += 2
        frame = capture(display)
        assert "step 1/10" in frame and "accuracy 25.0%" in frame
        # Markup is text, and a short stage shows no time.
        assert "playing [red] 32/128\n" in frame
        assert "1m19s left" in frame
        screen.clock.now += 2
        assert "playing [red] 32/128, 4s\n" in capture(display)
        display.step(2, 10, {})
        assert "playing" not in capture(display)
    assert "step 2/10" in screen.frame
    assert "playing [red]: done" not in screen.file.getvalue()


def capture(display: Display) -> str:
    """What the live display would draw now."""
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(display._render())
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("terminal", [False, True])
def test_a_table_shows_every_cell(terminal: bool) -> None:
    screen = Screen(terminal)
    with screen.display as display:
        display.table(
            "Results [1]", ["benchmark", "accuracy", "tokens"], [["aime2024", 0.53125, 12345.6], ["[b]", math.nan, 7]]
        )
    for part in ("Results [1]", "aime2024", "0.5312", "12346", "[b]", "nan"):
        assert part in screen.file.getvalue()


def test_a_table_in_a_log_is_aligned_and_never_cut() -> None:
    screen = Screen(terminal=False)
    screen.display.table("T", ["name", "n"], [["x" * 300, 5], ["y", 50]])
    assert screen.lines == ["T", "name" + " " * 296 + "   n", "x" * 300 + "   5", "y" + " " * 299 + "  50"]
    screen.display.table("Empty", ["name", "n"], [])
    assert screen.lines[-2:] == ["Empty", "name  n"]


def test_an_ascii_log_takes_any_text() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    display = Display(Console(file=file))
    display.table("Long⊗Short", ["é"], [["\ud800"]])
    file.flush()
    assert file.buffer.getvalue() == b"Long?Short\n?\n?\n"  # type: ignore[attr-defined]


def test_forced_colours_do_not_make_a_file_a_terminal() -> None:
    code = "from longshort.display import Display\nwith Display() as d: d.stage('a'); d.step(1, 2, {'accuracy': 1.0})"
    env = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env)
    assert (run.stdout, run.stderr) == ("a\nstep 1/2, accuracy 100.0%\n", "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (60, "1m00s"), (3599, "59m59s"), (7380, "2h03m"), (273600, "3d04h")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
