"""Lines with bands of the means in a table of :mod:`.samples`, and legends that hide nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..._table import Table
from .samples import means

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

__all__ = ["BARS", "Look", "draw_lines", "legend_below", "legend_beside"]

BARS = "Bands and bars: one standard error over the seeds."
Look = Mapping[str, Any]


def draw_lines(
    ax: Axes, table: Table, looks: Mapping[str, Look], label: Callable[[str], str] | None = str, **conditions: Any
) -> None:
    """A line with its band for each series that meets the conditions. label: None for no entries in a legend."""
    shown = means(table, **conditions)
    for name in shown.distinct("series"):
        own, look = shown.select(series=name), looks[name]
        ax.plot(own["x"], own["value"], label=label(name) if label else f"_{name}", **look)
        ends = (own["value"] - own["error"], own["value"] + own["error"])
        ax.fill_between(own["x"], *ends, color=look["color"], alpha=0.15, linewidth=0.0)


def legend_below(figure: Picture, ax: Axes, columns: int = 4) -> None:
    """The entries of one panel under all of them."""
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=columns)


def legend_beside(ax: Axes, **options: Any) -> None:
    """The legend right of the axes."""
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.0, **options)
