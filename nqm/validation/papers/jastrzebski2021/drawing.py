"""How this paper's figures are drawn: lines against the step, settings as points, methods side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...._table import Table
from ....plotting import MARKERS, logarithmic, new_figure, sequential, series
from ...experiments.drawing import Look, draw_lines, legend_beside
from ...experiments.samples import MEAN, means

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

__all__ = ["curves", "draw_compared", "draw_settings", "looks_of", "shades_of"]


def looks_of(names: Sequence[str]) -> dict[str, Look]:
    """Colour and line of each series, the same in all panels of a figure; no markers."""
    return {name: {**series(number), "marker": ""} for number, name in enumerate(names)}


def shades_of(names: Sequence[str]) -> dict[str, Look]:
    """Dark to light, for series in the order of a quantity."""
    shades = sequential(len(names))
    return {
        name: {"color": shade, "linestyle": ("-", "--", "-.", ":")[number % 4], "marker": ""}
        for number, (name, shade) in enumerate(zip(names, shades, strict=True))
    }


def draw_settings(ax: Axes, table: Table, across: str, up: str, panel: str) -> None:
    """A point with bars for each setting (series): the mean of one quantity against that of another."""
    wide, high = (means(table, panel=panel, quantity=name) for name in (across, up))
    names = wide.distinct("series")
    for number, (name, shade) in enumerate(zip(names, sequential(len(names)), strict=True)):
        x, y = wide.select(series=name), high.select(series=name)
        ax.errorbar(x["value"], y["value"], y["error"], x["error"], color=shade, linestyle="", capsize=2,
                    marker=MARKERS[number % len(MARKERS)], markersize=7, label=name)  # fmt: skip


def draw_compared(ax: Axes, table: Table, looks: Mapping[str, Look], **conditions: object) -> None:
    """A point with its bar, and the seeds' own numbers beside it, for each series, the series side by side."""
    shown = table.select(**conditions)
    names = shown.distinct("series")
    for place, name in enumerate(names):
        own, color = shown.select(series=name), looks[name]["color"]
        single, mean = own.where(own["seed"] != MEAN), own.select(seed=MEAN)
        beside = place + 0.12 + 0.16 * np.linspace(0.0, 1.0, max(single.rows, 1))
        ax.plot(beside, single["value"], ".", color=color, alpha=0.45, markersize=4, label=f"_{name}, seeds")
        ax.errorbar([place], mean["value"], mean["error"], color=color, marker="o", markersize=6, capsize=3,
                    label=f"_{name}")  # fmt: skip
    slanted = len(names) > 3
    ax.set_xticks(range(len(names)), names, rotation=30 if slanted else 0, ha="right" if slanted else "center")
    ax.set_xlim(-0.5, len(names) - 0.3)


def curves(
    table: Table, panels: Sequence[tuple[str, str, str]], looks: Mapping[str, Look], log: Sequence[str] = (),
    across: str = "step", label: Callable[[str], str] = str,
) -> Picture:  # fmt: skip
    """A row of panels (panel, quantity, label of the vertical axis) against the step; one legend. log: quantities with
    a logarithmic axis."""
    figure, axes = new_figure(len(panels), width=4.4 * len(panels) + 1.6, height=4.2, squeeze=False)
    for ax, (panel, quantity, said) in zip(axes[0], panels, strict=True):
        draw_lines(ax, table, looks, label, panel=panel, quantity=quantity)
        ax.set(xlabel=across, ylabel=said)
        logarithmic(ax, "x")
        if quantity in log:
            ax.set_yscale("log")
    legend_beside(axes[0][-1])
    return figure
