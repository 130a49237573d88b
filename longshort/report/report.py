"""``longshort report RUN [RUN …]``: read runs, draw, and write one file.

<out>           the page, which needs nothing else
<stem>_files/   every table as .tex and .md, every plot as .png and .svg
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from longshort.display import Display
from longshort.drawing import draw
from longshort.folders import write_whole
from longshort.report.contents import tables_of
from longshort.report.pack import pack
from longshort.report.page import page
from longshort.report.plots import plots_of
from longshort.report.problems import told_apart
from longshort.report.sources import named_apart, read_run
from longshort.report.svg import inline
from longshort.report.tables import Table, as_latex, as_markdown


def report(folders: Sequence[Path], out: Path, display: Display, first: Sequence[Table] = ()) -> None:
    """Write ``out`` and the folder of tables and plots beside it; tables of the caller's own come ``first``.

    Raises:
        ValueError: a folder is none of a run, or ``out`` is no name for a page.
    """
    if out.is_dir() or out.suffix not in (".html", ".htm"):
        raise ValueError(f"--out {out} is no name for a page; give one that ends in .html")
    display.stage("reading runs")
    runs = told_apart(named_apart([read_run(folder) for folder in folders], folders))
    beside = out.with_name(f"{out.stem}_files")
    beside.mkdir(parents=True, exist_ok=True)
    tables = [*first, *tables_of(runs)]
    for table in tables:
        write_whole(beside / f"{table.name}.tex", as_latex(table))
        write_whole(beside / f"{table.name}.md", as_markdown(table))
    display.stage("drawing")
    plots = []
    for number, plot in enumerate(plots_of(runs)):
        (beside / f"{plot.name}.png").write_bytes(draw(plot.paint, plot.height, "png"))
        svg = draw(plot.paint, plot.height, "svg").decode()
        write_whole(beside / f"{plot.name}.svg", svg)
        plots.append((plot.title, inline(svg, f"plot{number}", plot.title)))
    display.stage("packing episodes")
    write_whole(out, page(runs, tables, plots, pack(runs)))
    episodes = sum(len(run.samples) for run in runs)
    rows = [(run.name, run.kind, len(run.samples)) for run in runs]
    display.table(
        f"{out}: {len(tables)} tables, {len(plots)} plots, {episodes} episodes", ("run", "kind", "episodes"), rows
    )
