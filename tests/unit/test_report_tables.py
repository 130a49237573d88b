"""Tables: what a cell becomes in HTML, Markdown and LaTeX."""

from __future__ import annotations

import math
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshort.report.tables import Column, Form, Table, as_html, as_latex, as_markdown, latex_escaped, written
from longshort.report.text import one_line, plain

HOSTILE = "<script>alert(1)</script> & 50% of $x_1$ | \\input{/etc/passwd} `a` \x1b[31m \u202eabc"


def table_of(*cells: str) -> Table:
    return Table("name", "Title", tuple(Column(f"c{i}") for i in range(len(cells))), (cells,))


class Cells(HTMLParser):
    """Tags, and the texts within them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@given(st.text(max_size=150))
def test_a_cell_of_html_is_text(text: str) -> None:
    found = Cells()
    found.feed(as_html(table_of("first", text)))
    assert found.tags == {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    shown = one_line(text)
    assert "".join(found.texts) == "Titlec0c1first" + shown


@given(st.text(max_size=150))
def test_a_row_of_markdown_stays_one_row_with_its_cells(text: str) -> None:
    *_, row = as_markdown(table_of("first", text)).splitlines()
    bars = [i for i, char in enumerate(row) if char == "|" and (len(row[:i]) - len(row[:i].rstrip("\\"))) % 2 == 0]
    assert len(bars) == 3
    assert "<script" not in row.replace("\\<", "")


def test_latex_has_no_command_of_a_cell() -> None:
    assert latex_escaped(r"50% & a_b \input{x} $y$ ~^#") == (
        r"50\% \& a\_b \textbackslash{}input\{x\} \$y\$ \textasciitilde{}\textasciicircum{}\#"
    )
    row = as_latex(table_of("first", HOSTILE)).splitlines()[8]
    assert row.startswith("first & ") and row.endswith(r" \\") and row.count(" & ") == 1
    assert r"\input" not in row and "\x1b" not in row and "\u202e" not in row


def test_latex_aligns_numbers_right_and_has_the_rules_of_booktabs() -> None:
    text = as_latex(Table("t", "A ⊗ B", (Column("run"), Column("AES", "signed")), (("a", 0.5), ("b", None)), "A note."))
    assert r"\begin{tabular}{lr}" in text and r"\caption{A $\otimes$ B}" in text
    assert "a & +0.50 \\\\\nb &  \\\\\n\\bottomrule" in text and "A note." in text


@pytest.mark.parametrize(
    ("cell", "form", "text"),
    [
        (0.944, "share", "94.4%"),
        (1234.0, "count", "1,234"),
        (170.572, "tokens", "170.6"),
        (2.448, "turns", "2.45"),
        (-0.479, "signed", "-0.48"),
        (None, "share", ""),
        (math.nan, "tokens", ""),
        ("start", "text", "start"),
    ],
)
def test_cells_are_written_by_the_form_of_their_column(cell: str | float | None, form: Form, text: str) -> None:
    assert written(cell, form) == text


def test_columns_without_values_are_left_out() -> None:
    table = Table("t", "T", (Column("a"), Column("b"), Column("c")), (("1", None, "2"), ("3", None, None)))
    left = table.without_empty_columns()
    assert [column.name for column in left.columns] == ["a", "c"] and left.rows == (("1", "2"), ("3", None))


def test_what_would_act_on_a_reader_is_spelt() -> None:
    assert plain("a\x1b[0m\u202eb\ud800\tc\n") == "a\\x1b[0m\\u202eb\\ud800\tc\n"
    assert one_line("a\n  b\u2066") == "a b\\u2066"
    assert one_line("x" * 10_000_000, 10) == "x" * 9 + "…"


@given(st.text(alphabet=st.characters(), max_size=50))
def test_plain_text_has_nothing_left_to_spell(text: str) -> None:
    assert plain(plain(text)) == plain(text)
    plain(text).encode("utf-8")
