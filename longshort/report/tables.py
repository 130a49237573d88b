"""A table as HTML, Markdown and LaTeX."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from longshort.report.text import one_line

Form = Literal["text", "share", "count", "tokens", "turns", "signed"]
Cell = str | float | None

_LATEX = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "⊗": r"$\otimes$",
    "±": r"$\pm$",
    "µ": r"$\mu$",
    "δ": r"$\delta$",
    "…": r"\ldots{}",
    "→": r"$\to$",
}
_MARKDOWN = "\\`*_{}[]()<>#+-!|~$&"


@dataclass(frozen=True, slots=True)
class Column:
    """A column's name and how its cells are written: a share of 0.944 as ``94.4%``."""

    name: str
    form: Form = "text"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells, one for each column; None is an empty cell.

    Attributes:
        name: of its files.
        title: what it shows.
        note: what a reader must know to read it, or empty.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def without_empty_columns(self) -> Table:
        """The columns that have a value in some row."""
        kept = [i for i in range(len(self.columns)) if any(row[i] is not None for row in self.rows)]
        rows = tuple(tuple(row[i] for i in kept) for row in self.rows)
        return Table(self.name, self.title, tuple(self.columns[i] for i in kept), rows, self.note)


def as_html(table: Table) -> str:
    """``<table>`` with its caption; the first column heads the rows."""
    head = "".join(f'<th scope="col"{_class(c)}>{_text(c.name)}</th>' for c in table.columns)
    rows = []
    for row in _written(table):
        first, *rest = [f"{_class(column)}>{_text(cell)}" for column, cell in zip(table.columns, row, strict=True)]
        rows.append(f'<tr><th scope="row"{first}</th>' + "".join(f"<td{cell}</td>" for cell in rest) + "</tr>")
    caption = f"<caption>{_text(table.title)}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def as_markdown(table: Table) -> str:
    """A table of GitHub's Markdown below its title."""
    lines = [
        [_escaped(column.name) for column in table.columns],
        ["---:" if _right(c) else "---" for c in table.columns],
    ]
    lines += [[_escaped(cell) for cell in row] for row in _written(table)]
    note = f"\n{_escaped(table.note)}\n" if table.note else ""
    return f"**{_escaped(table.title)}**\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines) + note


def as_latex(table: Table) -> str:
    """A ``table`` for the package booktabs."""
    lines = [[latex_escaped(cell) for cell in row] for row in ([c.name for c in table.columns], *_written(table))]
    head, *body = [" & ".join(line) + r" \\" for line in lines]
    note = [r"\par\smallskip\footnotesize " + latex_escaped(table.note)] if table.note else []
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_escaped(table.title)}}}",
            rf"\label{{tab:{table.name}}}",
            rf"\begin{{tabular}}{{{''.join('r' if _right(c) else 'l' for c in table.columns)}}}",
            r"\toprule",
            head,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            *note,
            r"\end{table}",
            "",
        ]
    )


def latex_escaped(text: str) -> str:
    """``text`` as it stands, for LaTeX with Unicode fonts."""
    return "".join(_LATEX.get(char, char) for char in one_line(text))


def written(cell: Cell, form: Form) -> str:
    """A cell as text; a number that is not finite is an empty cell."""
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return ""
    if isinstance(cell, str):
        return cell
    match form:
        case "share":
            return f"{cell:.1%}"
        case "signed":
            return f"{cell:+.2f}"
        case "count":
            return f"{cell:,.0f}"
        case "tokens":
            return f"{cell:,.1f}"
        case "turns":
            return f"{cell:.2f}"
        case _:
            return str(cell)


def _written(table: Table) -> Sequence[list[str]]:
    return [[written(cell, c.form) for c, cell in zip(table.columns, row, strict=True)] for row in table.rows]


def _right(column: Column) -> bool:
    return column.form != "text"


def _class(column: Column) -> str:
    return ' class="number"' if _right(column) else ""


def _text(text: str) -> str:
    return html.escape(one_line(text))


def _escaped(text: str) -> str:
    return "".join(f"\\{char}" if char in _MARKDOWN else char for char in one_line(text))
