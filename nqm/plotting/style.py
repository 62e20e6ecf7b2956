"""How pictures look: logarithmic axes in powers of two, lines that differ in grey too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

__all__ = [
    "COLORS",
    "LINES",
    "MARKERS",
    "STYLE",
    "drawing_on",
    "logarithmic",
    "new_figure",
    "powers_of_two",
    "sequential",
    "series",
    "style",
]

if TYPE_CHECKING:

    class Drawn(Axes):
        """Axes whose figure is a whole one, so that ``plot().figure.savefig("name.png")``."""

        @property
        def figure(self) -> Figure: ...


# Five of Tol's and of Okabe and Ito's colours. Any two, and black, are 20 or more apart (CIE 1976 colour difference),
# also as protanopes, deuteranopes and tritanopes see them (Machado et al. 2009), and in grey 9 or more in lightness L*.
COLORS = ("#332288", "#ee6677", "#0072b2", "#882255", "#e69f00")
# 5, 4 and 6: among 12 series any two differ in two or three of colour, line and marker.
LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P")
STYLE: Any = {
    "figure.figsize": (6.4, 4.6),
    "figure.dpi": 100,
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 3.0,  # so that dashes show
    "figure.constrained_layout.use": True,
}


@contextmanager
def style() -> Iterator[None]:
    """The look of all figures here, without touching the caller's settings."""
    before = {key: mpl.rcParams[key] for key in STYLE}  # rc_context would undo what a notebook switches on meanwhile
    mpl.rcParams.update(STYLE)
    try:
        yield
    finally:
        mpl.rcParams.update(before)


@contextmanager
def drawing_on(ax: Axes | None) -> Iterator[Axes]:
    """These axes, or new ones of pyplot where there are none, for what is drawn in the style of all."""
    with style():
        yield plt.subplots()[1] if ax is None else ax


def new_figure(
    columns: int = 1, width: float = 6.4, height: float = 4.6, rows: int = 1, **options: Any
) -> tuple[Figure, Any]:
    """A figure in the style of all, that belongs to no window, and its axes; options: those of ``Figure.subplots``."""
    with style():
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, **options)
        for ax in np.ravel(axes):
            ax.tick_params(labelbottom=True, labelleft=True)  # also where an axis is shared
        return figure, axes


def series(number: int) -> dict[str, Any]:
    """Colour, line and marker of the series of this number, from 0; the cycles are of different lengths."""
    cycles = {"color": COLORS, "linestyle": LINES, "marker": MARKERS}
    return {key: cycle[number % len(cycle)] for key, cycle in cycles.items()}


def sequential(count: int) -> list[str]:
    """So many colours from dark to light, for series in the order of a quantity: batch size, target, power."""
    return [mpl.colors.to_hex(color) for color in mpl.colormaps["viridis"](np.linspace(0.0, 0.8, count))]


def powers_of_two(ax: Axes, axis: str = "both") -> None:
    """Logarithmic axes of what is drawn, with ticks labelled 2^k, at most about ten; plain numbers where two would not
    fit."""
    for name in ("x", "y") if axis == "both" else (axis,):
        getattr(ax, f"set_{name}scale")("log", base=2)
        target = getattr(ax, f"{name}axis")
        low, high = getattr(ax, f"get_{name}lim")()
        if np.floor(np.log2(high)) <= np.ceil(np.log2(low)):
            logarithmic(ax, name)
            continue
        target.set_major_locator(LogLocator(base=2, numticks=11))
        target.set_major_formatter(FuncFormatter(lambda v, _: f"$2^{{{np.log2(v):.0f}}}$" if v > 0 else ""))
        target.set_minor_locator(NullLocator())
        target.set_minor_formatter(NullFormatter())


def logarithmic(ax: Axes, axis: str = "both") -> None:
    """Logarithmic axes of what is drawn, with plain numbers beside them also where it spans less than a decade."""
    for name in ("x", "y") if axis == "both" else (axis,):
        getattr(ax, f"set_{name}scale")("log")
        target = getattr(ax, f"{name}axis")
        low, high = getattr(ax, f"get_{name}lim")()
        few, many = high < 10.0 * low, high > 1000.0 * low
        subs = (1.0,) if many else (1.0, 2.0, 5.0)
        target.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]) if few else LogLocator(subs=subs))
        target.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        target.set_minor_locator(NullLocator())
        target.set_minor_formatter(NullFormatter())
