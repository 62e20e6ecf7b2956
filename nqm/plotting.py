"""How pictures look: logarithmic axes in powers of two, lines that differ in grey too. Imported only to draw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

if TYPE_CHECKING:
    from .scaling.law import LossLaw
    from .schedules import Schedule
    from .sweep import Sweep

    class Drawn(Axes):
        """Axes whose figure is a whole one, so that ``plot().figure.savefig("name.png")``."""

        @property
        def figure(self) -> Figure: ...


# Colours of even steps in lightness: dark to light in grey print, and told apart by the common colour blindnesses.
COLORS = ("#1b1f6b", "#a3195b", "#1f8a70", "#e08e0b", "#6fa8dc")
LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v")
STYLE: Any = {
    "figure.figsize": (6.4, 4.6),
    "figure.dpi": 100,
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.constrained_layout.use": True,
}


@contextmanager
def style() -> Iterator[None]:
    """The look of all figures here, without touching the caller's settings."""
    before = {
        key: mpl.rcParams[key] for key in STYLE
    }  # rc_context would also undo what a notebook switches on meanwhile
    mpl.rcParams.update(STYLE)
    try:
        yield
    finally:
        mpl.rcParams.update(before)


def new_figure(columns: int = 1, width: float = 6.4, height: float = 4.6) -> tuple[Figure, Any]:
    """A figure that belongs to no window, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns)


def powers_of_two(ax: Axes, axis: str = "both") -> None:
    """Logarithmic axes with ticks labelled 2^k, at most about ten of them."""
    for name in ("x", "y") if axis == "both" else (axis,):
        getattr(ax, f"set_{name}scale")("log", base=2)
        target = getattr(ax, f"{name}axis")
        target.set_major_locator(LogLocator(base=2, numticks=11))
        target.set_major_formatter(FuncFormatter(lambda v, _: f"$2^{{{np.log2(v):.0f}}}$" if v > 0 else ""))
        target.set_minor_locator(NullLocator())
        target.set_minor_formatter(NullFormatter())


def plot_sweep(sweep: Sweep, ax: Axes | None = None) -> Drawn:
    """Steps to target against batch size; see :meth:`nqm.sweep.Sweep.plot`."""
    with style():
        if ax is None:
            ax = plt.subplots()[1]
        targets = np.unique(sweep.table["target"])[::-1]
        for i, name in enumerate(sweep.names):
            for j, target in enumerate(targets):
                here = sweep.rows(name, target)
                ax.plot(
                    here["batch_size"],
                    here["steps"],
                    label=name if targets.size == 1 else f"{name}, target {target:g}",
                    linestyle=LINES[(i if targets.size == 1 else j) % len(LINES)],
                    color=COLORS[i % len(COLORS)],
                    marker=MARKERS[i % len(MARKERS)],
                )
        powers_of_two(ax)
        ax.set_xlabel("batch size (examples)")
        ax.set_ylabel("steps to target")
        ax.legend()
    return cast("Drawn", ax)


def plot_schedule(schedule: Schedule, ax: Axes | None = None) -> Drawn:
    """Values against the step, on a logarithmic axis."""
    with style():
        if ax is None:
            ax = plt.subplots()[1]
        ax.stairs(schedule.values, np.concatenate([[0], schedule.ends]), baseline=None, color=COLORS[0], linewidth=1.6)
        ax.set_yscale("log")
        ax.set_xlabel("step")
    return cast("Drawn", ax)


def plot_predictions(fit: LossLaw, ax: Axes | None = None) -> Drawn:
    """Predicted against actual loss of the runs that a law was fitted to, with 90% intervals of a new run."""
    runs = fit.runs
    sizes = runs["N"], runs["B"], runs["K"]
    predicted = fit.losses(*sizes, draws=0)[0]
    low, high = fit.interval(*sizes)
    with style():
        if ax is None:
            ax = plt.subplots()[1]
        ends = [0.97 * min(predicted.min(), runs["loss"].min()), 1.03 * max(predicted.max(), runs["loss"].max())]
        ax.plot(ends, ends, color="#888888", linewidth=1.0, zorder=1)
        ax.errorbar(
            runs["loss"],
            predicted,
            yerr=[predicted - low, high - predicted],
            fmt="none",
            ecolor="#bbbbbb",
            linewidth=1.0,
        )
        points = ax.scatter(runs["loss"], predicted, c=np.log10(runs["N"]), cmap="viridis", s=22, zorder=3)
        ax.figure.colorbar(points, ax=ax, label="log10 of parameters")
        ax.set_xscale("log")
        ax.set_yscale("log")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 6, 8)))
            axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            axis.set_minor_formatter(NullFormatter())
        ax.set_xlabel("actual loss")
        ax.set_ylabel("predicted loss, 90% of new runs")
    return cast("Drawn", ax)
