"""Metrics survive a crash and a resume; transcripts show an episode whole and obey nothing in it."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longshort.episode import Episode, Problem, Turn
from longshort.tracking import MetricsLog, TranscriptLog, read_metrics, transcript, visible, write_episodes

METRICS = st.dictionaries(
    st.text(min_size=1).filter(lambda key: key != "step"), st.floats() | st.integers(), max_size=5
)


def episode(number: int = 0, text: str = "<think>1+1</think>", **changes: object) -> Episode:
    turns = (
        Turn("long", (1, 2, 3), text, (-0.1, -0.2, -0.3), "length", well_formed=False, closing_ids=(9,)),
        Turn("short", (4, 5), r"\boxed{2}", (-0.1, -0.2), "stop", read_as={"long": (6,)}),
    )
    fields = {"turns": turns, "outcome": "answered", "sample": number} | changes
    return Episode(Problem(f"p-{number}", "1+1?", "2", "tiny"), {"long": (1,), "short": (2,)}, **fields)  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.lists(METRICS, max_size=5))
def test_what_is_logged_is_read(tmp_path_factory: pytest.TempPathFactory, logged: list[dict[str, float]]) -> None:
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    path.touch()
    for step, metrics in enumerate(logged):
        # A new object each time is a run that was stopped and resumed.
        MetricsLog(path).log(step, metrics)
    rows = read_metrics(path)
    assert [row.pop("step") for row in rows] == list(range(len(logged)))
    for row, metrics in zip(rows, logged, strict=True):
        assert row.keys() == metrics.keys()
        for key, value in metrics.items():
            assert row[key] == value if math.isfinite(value) else math.isnan(row[key])


def test_not_a_number_is_null(tmp_path: Path) -> None:
    MetricsLog(tmp_path / "new" / "metrics.jsonl").log(1, {"a": math.nan, "b": math.inf, "c": 2})
    assert (tmp_path / "new" / "metrics.jsonl").read_text() == '{"step": 1, "a": null, "b": null, "c": 2}\n'


@settings(deadline=None)
@given(st.integers(min_value=0))
def test_a_crash_in_mid_line_costs_that_line_alone(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    for step in (1, 2):
        MetricsLog(path).log(step, {"loss": 0.5})
    first, second, _ = path.read_bytes().split(b"\n")
    half = second[: cut % (len(second) + 1)]
    path.write_bytes(first + b"\n" + half)
    assert [row["step"] for row in read_metrics(path)] == [1]
    MetricsLog(path).log(3, {"loss": 0.25})
    # A line that lacks only its line end is complete.
    assert [row["step"] for row in read_metrics(path)] == ([1, 2, 3] if half == second else [1, 3])


def test_a_dropped_line_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"ste')
    with caplog.at_level(logging.WARNING):
        MetricsLog(tmp_path / "metrics.jsonl")
    assert "metrics.jsonl" in caplog.text and "dropped 5 bytes" in caplog.text
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_a_broken_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"ste\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_transcript_tells_all() -> None:
    text = transcript(episode(3), {"correct": 1.0, "total": 0.75})
    for part in (
        "p-3, sample 3, tiny",
        "1+1?",
        "Gold answer\n\n```text\n2\n```",
        "Turn 1, long: 3 tokens, length, not well-formed",
        "<think>1+1</think>",
        "Turn 2, short: 2 tokens, stop, well-formed",
        r"\boxed{2}",
        "Outcome: answered",
        "5 tokens (long 3, short 2)",
        "- correct: 1\n- total: 0.75",
    ):
        assert part in text


def test_transcript_without_turns_or_rewards() -> None:
    text = transcript(episode(turns=(), outcome="error", error="engine died"))
    assert "Outcome: error" in text and "engine died" in text
    assert "Reward" not in text


@given(st.text())
def test_texts_stand_unchanged_and_control_characters_visible(text: str) -> None:
    shown = transcript(episode(text=text))
    assert f"\n{visible(text)}\n" in shown
    assert all(char.isprintable() or not char.isascii() or char in "\n\t" for char in shown)
    if text.isprintable():
        assert visible(text) == text


def test_a_terminal_sequence_is_spelt_out() -> None:
    assert visible("\x1b[31mred\r\x07\x9b\n\t<b>*é") == "\\x1b[31mred\\x0d\\x07\\x9b\n\t<b>*é"


def test_backticks_do_not_end_the_fence() -> None:
    assert "`````text\na\n````\nb\n`````" in transcript(episode(text="a\n````\nb"))


def test_files_come_every_so_many_steps(tmp_path: Path) -> None:
    episodes = [episode(number) for number in range(6)]
    rewards = [{"total": float(number)} for number in range(6)]
    log = TranscriptLog(tmp_path, every=5, count=2)
    for step in range(1, 12):
        log.write(step, episodes, rewards)
    names = [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*.*"))]
    assert names == ["transcripts/step-000005.md", "transcripts/step-000010.md"]
    text = (tmp_path / names[1]).read_text()
    assert text.startswith("# Step 10: 2 of 6 episodes\n")
    # Rewards stay with their episodes.
    assert [f"- total: {n}\n" in text for n in range(6)] == [f"p-{n}, sample" in text for n in range(6)]
    assert text.count("### Question") == 2
    log.write(10, episodes, rewards)
    assert (tmp_path / names[1]).read_text() == text


def test_kept_episodes_are_read_back(tmp_path: Path) -> None:
    episodes = [episode(number, text="\ud800\u2028é") for number in range(3)]
    write_episodes(tmp_path / "new", 7, episodes, [0.5, 0.25, 0.0], rewards=[{"long/total": 0.5}] * 3)
    lines = (tmp_path / "new" / "7.jsonl").read_text().rstrip("\n").split("\n")
    assert [Episode.from_json(line) for line in lines] == episodes
    row = json.loads(lines[1])
    assert row["rewards"] == {"long/total": 0.5}
    # verl's keys
    assert (row["input"], row["gts"], row["score"], row["step"]) == ("1+1?", "2", 0.25, 7)
    assert row["output"] == "".join(turn.text for turn in episodes[1].turns)


def test_no_steps_and_no_episodes(tmp_path: Path) -> None:
    TranscriptLog(tmp_path / "off", every=0).write(0, [episode()], None)
    assert not (tmp_path / "off").exists()
    TranscriptLog(tmp_path, every=1).write(1, [], [])
    assert (tmp_path / "transcripts" / "step-000001.md").read_text() == "# Step 1: 0 of 0 episodes\n"
