"""The look of all figures, and how one becomes an image.

Matplotlib is imported where something is drawn, and pyplot, which keeps a state, is not used.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Format = Literal["png", "svg"]
Paint = Callable[["Figure"], None]

# Of Okabe and Ito's palette, which colour-blind readers tell apart.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
GREY = "#555555"
WIDTH = 7.2
_DPI = 150
_STYLE: Any = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "font.size": 11.0,
    "grid.alpha": 0.25,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.0,
    # Letters are drawn, so that an SVG looks the same where the font is missing; ids do not change from run to run.
    "svg.fonttype": "path",
    "svg.hashsalt": "longshort",
}


def draw(paint: Paint, height: float, format: Format = "png") -> bytes:
    """What ``paint`` puts onto a figure ``WIDTH`` by ``height`` inches."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure, image = Figure(figsize=(WIDTH, height), layout="constrained"), io.BytesIO()
        FigureCanvasAgg(figure)
        paint(figure)
        metadata = {"Date": None} if format == "svg" else {}
        figure.savefig(image, format=format, dpi=_DPI, metadata=metadata)
    return image.getvalue()


def whole_ticks(axes: Axes) -> None:
    """Only whole numbers along x, also where there are one or two points."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


def note(figure: Figure, text: str) -> None:
    """A small line below the figure."""
    figure.supxlabel(text, fontsize=9, color=GREY)
