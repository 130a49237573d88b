"""The page: one HTML file that asks for nothing when it is opened.

Its content security policy allows the one script and the one style sheet in it, by their hashes, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Sequence
from importlib.resources import files
from string import Template

from longshort.report.pack import Packed
from longshort.report.records import Run
from longshort.report.tables import Table, as_html, as_latex, as_markdown
from longshort.report.text import one_line, plain

# Tables with more rows are folded.
_LONG = 30


def page(runs: Sequence[Run], tables: Sequence[Table], plots: Sequence[tuple[str, str]], packed: Packed) -> str:
    """The whole document.

    Args:
        plots: title and inline SVG of each.
    """
    script, style = _data("viewer.js"), _data("viewer.css")
    sections = [("tables", "Tables", "".join(map(_table, tables)))]
    if plots:
        figures = "".join(f"<figure><figcaption>{_text(title)}</figcaption>{svg}</figure>" for title, svg in plots)
        sections.append(("plots", "Plots", f'<div class="plots">{figures}</div>'))
    links = [*[(name, title) for name, title, _ in sections], ("transcripts", "Transcripts")]
    return Template(_data("page.html")).substitute(
        csp=policy(script, style),
        title=_text("longshort report: " + ", ".join(run.name for run in runs)),
        style=style,
        navigation="".join(f'<a href="#{name}">{title}</a>' for name, title in links),
        runs="".join(map(_run, runs)),
        body="".join(
            f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{title}</h2>{body}</section>'
            for name, title, body in sections
        ),
        index=packed.index,
        script=script,
        chunks="\n".join(
            f'<script type="text/plain" id="chunk-{number}">{text}</script>'
            for number, text in enumerate(packed.chunks)
        ),
    )


def policy(script: str, style: str) -> str:
    """Content security policy for a page with this script and this style sheet."""
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _table(table: Table) -> str:
    note = f'<p class="note">{_text(table.note)}</p>' if table.note else ""
    sources = "".join(
        f"<details><summary>{name}</summary><pre>{html.escape(plain(text))}</pre></details>"
        for name, text in (("LaTeX", as_latex(table)), ("Markdown", as_markdown(table)))
    )
    scroll = f'<div class="scroll" tabindex="0" role="region" aria-label="{_text(table.title)}">{as_html(table)}</div>'
    block = f'{scroll}{note}<div class="sources">{sources}</div>'
    if len(table.rows) > _LONG:
        block = f"<details><summary>{_text(table.title)}: {len(table.rows)} rows</summary>{block}</details>"
    return f'<div class="block">{block}</div>'


def _run(run: Run) -> str:
    remarks = "".join(f'<p class="note">{_text(remark)}</p>' for remark in run.remarks)
    return f'<div class="run"><strong>{_text(run.name)}</strong><span>{run.kind}</span>{remarks}</div>'


def _text(text: str) -> str:
    return html.escape(one_line(text, 400))


def _data(name: str) -> str:
    return files("longshort.report").joinpath(name).read_text(encoding="utf-8")
