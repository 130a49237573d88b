"""The page: one file that runs nothing but its own script, whatever its runs contain."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshort.cli import main
from longshort.episode import Problem
from longshort.report.contents import tables_of
from longshort.report.pack import CHUNK, pack, unpack
from longshort.report.page import page
from longshort.report.records import Run, Sample, ShownTurn
from longshort.report.sources import read_run
from tests.report_runs import HOSTILE, hostile_episodes, write_evaluation, write_training


class Parts(HTMLParser):
    """Scripts and style sheets with their texts, and every attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.styles: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, *attribute) for attribute in attrs]
        self._open.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag == "style":
            self.styles.append("")

    def handle_endtag(self, tag: str) -> None:
        if self._open:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open[-1:] == ["script"]:
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        if self._open[-1:] == ["style"]:
            self.styles[-1] += data


def parts_of(text: str) -> Parts:
    found = Parts()
    found.feed(text)
    return found


def run_of(*samples: Sample, name: str = "run") -> Run:
    return Run(name, "training", samples=samples)


def sample_of(text: str, id: str = "p", correct: bool | None = True) -> Sample:
    turn = ShownTurn("long", text, 3, False, True, True, 0, b"\x00\x05\xff", (1, 1, 1))
    return Sample(
        Problem(id, text, text, text), 0, correct, "answered", "training", (turn,), "r1", 1, {"long/total": 0.5}
    )


@given(st.lists(st.text(alphabet=st.characters(), max_size=40), max_size=6))
def test_what_is_packed_is_unpacked_as_it_was(texts: list[str]) -> None:
    packed = pack([run_of(*map(sample_of, texts))])
    index, chunks = unpack(packed.index), list(map(unpack, packed.chunks))
    columns = index["columns"]
    places = zip(columns["chunk"], columns["place"], strict=True)
    turns = [chunks[chunk][place]["turns"][0] for chunk, place in places]
    assert [turn["text"] for turn in turns] == texts
    assert [index["problems"][place][1] for place in columns["problem"]] == texts
    assert all(turn["surprise"] == "\x00\x05\xff" and turn["pieces"] == [1, 1, 1] for turn in turns)
    assert re.fullmatch(r"[A-Za-z0-9+/=]*", packed.index + "".join(packed.chunks))


def test_grades_have_three_values_and_steps_may_be_missing() -> None:
    samples = [sample_of("a", correct=correct) for correct in (True, False, None)]
    columns = unpack(pack([run_of(*samples)]).index)["columns"]
    assert columns["correct"] == [1, 0, -1] and columns["problem"] == [0, 0, 0]


def test_runs_share_the_problems_that_they_have_in_common() -> None:
    index = unpack(pack([run_of(sample_of("a")), run_of(sample_of("a"), sample_of("b"), name="other")]).index)
    assert index["columns"]["problem"] == [0, 0, 1] and index["columns"]["run"] == [0, 1, 1]


def test_a_huge_turn_has_a_chunk_of_its_own_and_the_index_stays_small() -> None:
    packed = pack([run_of(sample_of("a"), sample_of("b" * 10_000_000), sample_of("c"))])
    index = unpack(packed.index)
    assert index["columns"]["chunk"] == [0, 1, 2] and len(str(index)) < 3000
    assert unpack(packed.chunks[1])[0]["question"] == "b" * 10_000_000
    small = pack([run_of(*[sample_of("d" * 1000) for _ in range(5000)])])
    assert all(len(str(unpack(chunk))) < 1.2 * CHUNK for chunk in small.chunks)


def test_the_policy_allows_exactly_the_script_and_the_styles_of_the_page() -> None:
    parts = parts_of(page([run_of(sample_of("a"))], [], [], pack([run_of(sample_of("a"))])))
    policies = [value for _, name, value in parts.attributes if name == "content" and value and "-src" in value]
    (policy,) = policies
    programs = [text for attributes, text in parts.scripts if attributes.get("type") != "text/plain"]
    (style,) = parts.styles
    for directive, (text,) in (("script-src", programs), ("style-src", [style])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_nothing_of_a_hostile_run_becomes_markup(tmp_path: Path) -> None:
    name = "<script>x<" + chr(92) + "script> ${csp}"
    run = read_run(write_evaluation(tmp_path / name, hostile_episodes()))
    calm = read_run(write_evaluation(tmp_path / "calm"))
    pages = [page([each], tables_of([each]), [], pack([each])) for each in (run, calm)]
    hostile, harmless = map(parts_of, pages)
    assert len(hostile.scripts) == len(harmless.scripts) and len(hostile.styles) == 1
    assert [(tag, key) for tag, key, _ in hostile.attributes] == [(tag, key) for tag, key, _ in harmless.attributes]
    assert "onerror" not in pages[0] and all(text not in pages[0] for text in HOSTILE)
    pages[0].encode("utf-8")


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(write_training(tmp_path / "run"))
    for arguments, sentence in (
        ([str(tmp_path)], "holds no run"),
        ([run, run], "the same folder is given twice"),
        ([run, "--out", str(tmp_path)], "give one that ends in .html"),
    ):
        assert main(["report", *arguments]) == 2
        assert sentence in capsys.readouterr().err
