"""How a regime looks, the same in all figures; lines with bands of one standard error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...._table import Table
from ....plotting import COLORS
from ...experiments.samples import means

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

__all__ = ["LOOKS", "draw_lines", "legend_below"]

LOOKS: dict[str, dict[str, Any]] = {
    "SB": {"color": COLORS[0], "linestyle": "-", "marker": "o"},
    "LB": {"color": COLORS[1], "linestyle": "-", "marker": "s"},
    "LB + full": {"color": COLORS[2], "linestyle": "--", "marker": "^"},
    "LB + true full": {"color": COLORS[3], "linestyle": "-.", "marker": "v"},
    "LB + multiplicative": {"color": "black", "linestyle": ":", "marker": "P"},
    "LB + diagonal": {"color": COLORS[4], "linestyle": "-", "marker": "D"},
    "LB + trace": {"color": "black", "linestyle": "--", "marker": "o"},
    "LB + K-FAC": {"color": COLORS[4], "linestyle": "-.", "marker": "s"},
}


def draw_lines(ax: Axes, table: Table, **conditions: Any) -> None:
    """A line with its band for each series; broad ones for SB and LB, on which others may lie."""
    shown = means(table, **conditions)
    for name in shown.distinct("series"):
        own, look = shown.select(series=name), {**LOOKS[name], "marker": ""}
        broad = name in ("SB", "LB")
        ax.plot(
            own["x"], own["value"], label=name, linewidth=4.5 if broad else 1.6, alpha=0.45 if broad else 1.0, **look
        )
        ends = (own["value"] - own["error"], own["value"] + own["error"])
        ax.fill_between(own["x"], *ends, color=look["color"], alpha=0.12, linewidth=0.0)


def legend_below(figure: Picture, ax: Axes, columns: int = 4) -> None:
    """The entries of one panel under all of them."""
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=columns)
