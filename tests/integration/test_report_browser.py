"""A report in a real headless Chromium: it opens, filters, pages and compares, by mouse and by keys, and runs no data.

What is quick with 20,000 episodes is measured by ``benchmarks/report.py``; here that measuring works with a few.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from benchmarks.report import BROWSERS, opened, run
from longshort.cli import main
from longshort.report.pack import unpack
from tests.report_runs import (
    HOSTILE,
    SECRET,
    episode,
    hostile_episodes,
    write_coldstart,
    write_evaluation,
    write_training,
)

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(not any(map(which, BROWSERS)), reason="there is no Chromium on this machine")

MANY = 120
HUGE = "word " * 2_000_000


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a run of each kind, with hostile texts and a turn of 10 MB."""
    folder = tmp_path_factory.mktemp("report")
    training = [episode(i, sample=i % 3) for i in range(MANY)]
    runs = [
        write_training(folder / "train", [*training, *hostile_episodes()]),
        write_evaluation(
            folder / "<b>eval", [episode(0, ("Wait, other.", "words")), episode(1, (HUGE,)), *hostile_episodes()]
        ),
        write_coldstart(folder / "cold"),
    ]
    assert main(["report", *map(str, runs), "--out", str(folder / "out" / "all.html")]) == 0
    return folder / "out" / "all.html"


@pytest.fixture
def page(file: Path) -> Iterator[Any]:
    """The page, just opened; at the end no script error, dialog or request has come."""
    with opened(file) as page:
        asked: list[str] = []
        page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        page.wait_for_selector("#shown .turn")
        asked.remove(file.as_uri())
        yield page
        assert asked == [] and page.evaluate("window.hurt") is None


def count(page: Any, text: str) -> None:
    page.locator("#count", has_text=re.compile(f"^{text} of [0-9,]+ episodes$")).wait_for()


def test_it_opens_with_tables_plots_and_the_first_episode(page: Any) -> None:
    assert page.locator("table caption").first.inner_text() == "All runs"
    assert page.locator("svg.plot").count() >= 8
    assert page.locator("#list li").count() == 50
    turns = page.locator("#shown .turn")
    assert turns.count() == 2 and "Let me think." in turns.first.inner_text()


def test_filters_and_the_search_narrow_the_list(page: Any) -> None:
    everything = 2 * (MANY + len(HOSTILE)) + 2 * (2 + len(HOSTILE)) + 3
    count(page, str(everything))
    page.locator("#correct").select_option("0")
    count(page, str((MANY + len(HOSTILE)) // 2 + 2 * (2 + len(HOSTILE)) // 2))
    page.locator("#source").select_option(label="aime2024")
    count(page, str((2 + len(HOSTILE)) // 2))
    page.get_by_role("button", name="Clear").click()
    count(page, str(everything))
    page.locator("#text").fill("WHAT IS 77+2")
    count(page, "2")
    page.locator("#text").fill("other.")
    count(page, "0")
    page.locator("#deep").check()
    count(page, "2")


def test_pages_turn_and_orders_hold_over_them(page: Any) -> None:
    first = page.locator("#list li").first.inner_text()
    page.locator("#next").click()
    assert page.locator("#page").inner_text().startswith("2 of ")
    assert page.locator("#list li").first.inner_text() != first
    page.locator("#order").select_option("most tokens")
    assert page.locator("#page").inner_text().startswith("1 of ")
    assert "2,500,001 tokens" in page.locator("#list li").first.inner_text()


def test_keys_alone_are_enough(page: Any) -> None:
    chosen = page.locator("#list li[aria-selected=true]")
    names = []
    for key in ("j", "j", "k"):
        page.keyboard.press(key)
        page.wait_for_timeout(100)
        names.append(chosen.get_attribute("id"))
    assert names == ["row-1", "row-2", "row-1"]
    page.keyboard.press("/")
    page.keyboard.type("hat is 5+2")
    count(page, "2")
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.locator("#shown h3", has_text="p5").wait_for()
    assert page.evaluate("document.activeElement.id") == "shown"
    page.keyboard.press("s")
    assert page.locator("#shading").input_value() == "surprise"
    page.keyboard.press("c")
    assert page.evaluate("document.activeElement.id") == "beside"


def test_two_runs_stand_beside_each_other_on_the_same_problem(page: Any) -> None:
    page.locator("#beside").select_option(label="<b>eval: 2 episodes")
    sides = page.locator("#shown .side")
    page.locator("#shown .sides.two").wait_for()
    assert "Let me think." in sides.nth(0).inner_text() and "Wait, other." in sides.nth(1).inner_text()
    # The choice holds for the next problem.
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.locator("#shown h3", has_text="p1").wait_for()
    assert sides.count() == 2


def test_every_sample_of_a_run_can_stand_beside_however_many_there_are(tmp_path: Path) -> None:
    for name in "ab":
        write_evaluation(tmp_path / name, [episode(0, (f"Run {name}, sample {i}.",), i) for i in range(300)])
    file = tmp_path / "many.html"
    assert main(["report", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(file)]) == 0
    with opened(file) as page:
        page.goto(file.as_uri())
        page.wait_for_selector("#shown .turn")
        runs = page.locator("#beside option")
        assert runs.all_inner_texts() == ["nothing", "a: 599 episodes", "b: 600 episodes"]
        page.locator("#beside").select_option(label="b: 600 episodes")
        page.locator("#besideEpisode option").nth(599).wait_for(state="attached")
        page.locator("#besideEpisode").select_option(index=299)
        page.locator("#shown .side", has_text="Run b, sample 299.").wait_for()
        assert page.evaluate("document.activeElement.id") == "besideEpisode"
        assert page.locator("#besideEpisode option").count() == 600
        # Of the next sample's problem, the same episode; of another run, the one that is like it.
        page.keyboard.press("Escape")
        page.keyboard.press("j")
        page.locator("#shown .side", has_text="Run a, sample 1.").wait_for()
        assert "Run b, sample 299." in page.locator("#shown .side").nth(1).inner_text()
        page.locator("#beside").select_option(label="a: 599 episodes")
        page.locator("#shown .side", has_text="Run a, sample 299.").wait_for()


def test_enter_in_an_empty_list_does_nothing(page: Any) -> None:
    page.locator("#text").fill("no such words anywhere")
    count(page, "0")
    page.locator("#list").focus()
    page.keyboard.press("Enter")
    page.wait_for_timeout(100)
    assert page.locator("#shown .turn").count() == 2 and page.evaluate("document.activeElement.id") == "list"


def test_keys_and_taps_tell_the_exact_log_probability_of_a_token(page: Any) -> None:
    page.locator("#shading").select_option("surprise")
    exact, tokens = page.locator("#exact"), page.locator("#shown .tokens").first
    exact.wait_for()
    tokens.focus()
    for text in ("log p = 0.0, p = 1.00", "log p = -0.1, p = 0.90"):
        page.keyboard.press("ArrowRight")
        assert exact.inner_text() == text
    tokens.locator("i").nth(3).click()
    assert exact.inner_text() == "log p = -0.3, p = 0.74" and page.locator("#shown .chosen").count() == 1
    page.keyboard.press("ArrowLeft")
    assert exact.inner_text() == "log p = -0.2, p = 0.82"


def test_shading_shows_what_was_trained_and_what_was_likely(page: Any) -> None:
    page.locator("#shading").select_option("mask")
    page.locator("#shown .trained").first.wait_for()
    assert page.locator("#shown .turn .trained").count() == 1 and page.locator("#shown .turn .untrained").count() == 1
    page.locator("#shading").select_option("surprise")
    # The tests' tokens have no tokenizer: a bar for each.
    page.locator("#shown .strip").first.wait_for()
    assert page.locator("#shown .turn").first.locator(".strip i").count() == 4


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_text_is_shown_as_text(page: Any, number: int) -> None:
    page.locator("#origin").select_option(label="evaluation")
    page.locator("#list li").nth(2 + number).click()
    text = page.locator("#shown .turn .text")
    wanted = HOSTILE[number].replace("\ud83d", "\\ud83d")
    wanted = "".join(
        f"\\x{ord(c):02x}" if ord(c) < 32 else f"\\u{ord(c):04x}" if "\u2000" < c < "\u2070" else c for c in wanted
    )
    page.locator("#shown .turn", has_text=wanted[:12]).wait_for()
    assert text.text_content() == wanted
    assert page.locator("#shown script, #shown img, #shown style, #list script, #list img").count() == 0


def test_ten_megabytes_are_shown_piece_by_piece(page: Any) -> None:
    page.locator("#order").select_option("most tokens")
    page.locator("#list li").first.click()
    more = page.locator("#shown .more")
    more.wait_for()
    before = len(page.locator("#shown .text").text_content())
    assert before < 10_000 and "characters are left" in more.inner_text()
    more.click()
    assert before < len(page.locator("#shown .text").text_content()) < 100_000


def test_a_phone_shows_the_list_or_an_episode_and_nothing_sticks_out(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.keyboard.press("Escape")
    assert not page.locator("#shown").is_visible()
    page.locator("#list li").nth(1).click()
    page.locator("#shown .turn").first.wait_for()
    assert not page.locator("#list").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="List").click()
    assert page.locator("#list").is_visible()


def test_the_file_asks_for_nothing_and_has_no_secret(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    packed = re.findall(r'<script type="text/plain"[^>]*>([^<]*)</script>', text)
    everything = "".join([text, *[str(unpack(part)) for part in packed]])
    assert len(packed) > 2 and SECRET not in everything
    markup = re.sub(r"<(script|style).*?</\1>", "", text, flags=re.S)
    assert not re.search(r'\s(src|style|srcdoc|on\w+)="', markup)
    ids = re.findall(r'\sid="([^"]+)"', markup)
    assert len(ids) == len(set(ids))
    for groups in re.findall(r'href="(?!#)([^"]+)"|href="#([^"]+)"|url\(#([^)]+)\)', markup):
        assert groups[0] == "" and "".join(groups) in ids


def test_every_table_and_plot_lies_beside_the_file(file: Path) -> None:
    names = {each.name for each in (file.parent / "all_files").iterdir()}
    plots = {
        "rounds",
        "pareto",
        "lengths",
        "steps",
        "rewards",
        "thoughts-1",
        "scores-1",
        "behaviour",
        "words",
        "phases",
    }
    tables = {"runs", "rounds", "checkpoints", "benchmarks", "turns", "lengths", "context", "chains", "settings"}
    tables |= {"words", "phases", "judge"}
    kinds = [(plots, ("png", "svg")), (tables, ("tex", "md"))]
    assert names == {f"{name}.{kind}" for group, ends in kinds for name in group for kind in ends}


def test_the_benchmark_measures_a_small_report() -> None:
    found = run(episodes=120)
    assert found["episodes"] == 120 and 0 < found["open_s"] < 30 and found["filter_ms"] > 0
