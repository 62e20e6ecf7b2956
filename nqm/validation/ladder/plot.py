"""Rungs drawn: a panel a cell, the predictions over the measured band, and a panel of ratios."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .rung import MODELS, Rung

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 3


def plot_rung(rung: Rung) -> Figure:
    """Excess loss against the step in every cell, and predicted over measured steps to the target below.

    Dark band: mean +- z standard errors of the runs; light band: 5% to 95% of single runs. Imports matplotlib.
    """
    from ...plotting import new_figure, style

    with style():
        rows = math.ceil(len(rung.cells) / COLUMNS) + 1
        figure = new_figure(width=4.2 * COLUMNS, height=3.0 * rows)[0]
        figure.clear()
        grid = figure.add_gridspec(rows, COLUMNS)
        for i, cell in enumerate(rung.cells):
            ax = figure.add_subplot(grid[i // COLUMNS, i % COLUMNS])
            _panel(ax, rung, cell)
            if i == 0:
                ax.legend()
        _ratios(figure.add_subplot(grid[-1, :]), rung)
        figure.suptitle(rung.title)
    return figure


def _panel(ax: Any, rung: Rung, cell: str) -> None:
    from matplotlib.ticker import NullFormatter

    from ...plotting import COLORS, LINES

    here = rung.curves["cell"] == cell
    c = {key: column[here] for key, column in rung.curves.items()}
    width = rung.z * c["standard_error"]
    ax.fill_between(c["step"], c["low"], c["high"], color="#dddddd", label="90% of runs")
    ax.fill_between(c["step"], c["mean"] - width, c["mean"] + width, color="#999999", label=f"mean ± {rung.z:.1f} SE")
    for model, color, line in zip((*MODELS, "exact"), COLORS, (LINES[1], LINES[2], LINES[0], LINES[3]), strict=False):
        predicted = c[f"predicted_{model}"]
        shown = np.where(predicted < 10.0 * c["high"].max(), predicted, np.nan)
        if not np.all(np.isnan(shown)):
            ax.plot(c["step"], shown, color=color, linestyle=line, linewidth=1.4, label=model)
    ax.set_xscale("log")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_yscale("log")
    ax.set_title(f"{cell}, lr {c['lr'][0]:.3g}", fontsize=10)
    ax.set_xlabel("step")
    ax.set_ylabel("excess loss")


def _ratios(ax: Any, rung: Rung) -> None:
    from ...plotting import COLORS, MARKERS

    pairs = zip(rung.ratios["cell"], rung.ratios["optimizer"], strict=True)
    names = [f"{cell} {label}".strip() for cell, label in pairs]
    for i, name in enumerate(dict.fromkeys(names)):
        for kind, filled in (("same", False), ("tuned", True)):
            here = (np.array(names) == name) & (rung.ratios["learning_rate"] == kind)
            here &= np.isfinite(rung.ratios["ratio"]) & (rung.ratios["ratio"] > 0.0)
            if not here.any():
                continue
            c = {key: column[here] for key, column in rung.ratios.items()}
            error = np.where(np.isfinite(c["error"]), c["error"], 0.0) * c["ratio"] / c["measured"]
            ax.errorbar(
                c["batch_size"] * 1.04 ** (2 * i + filled), c["ratio"], 2.0 * error, color=COLORS[i % len(COLORS)],
                linestyle="none", marker=MARKERS[i % len(MARKERS)], fillstyle="full" if filled else "none",
                label=f"{name}, {'each at its best lr' if filled else 'same lr'}",
            )  # fmt: skip
    ax.axhline(1.0, color="#555555", linewidth=1.0)
    ax.set_xscale("log", base=2)
    ax.set_xlabel("batch size (examples)")
    ax.set_ylabel("steps, predicted / measured")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
