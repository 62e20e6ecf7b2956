"""Rungs drawn: a panel for each cell, the predictions over the measured band, and a panel of ratios."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .rung import MODELS, Rung

__all__ = ["plot_rung"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 3
SHIFT = 0.04
"""Points of one batch size are moved apart, by at most this share of it."""


def plot_rung(rung: Rung) -> Figure:
    """Excess loss against the step in every cell, and predicted over measured steps to the target below; a prediction
    that grows beyond ten times the runs leaves the panel, whose title gives its largest value.

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
        _ratios(figure.add_subplot(grid[-1, :-1]), rung)
        figure.suptitle(rung.title)
    return figure


def _panel(ax: Any, rung: Rung, cell: str) -> None:
    from matplotlib.ticker import NullFormatter

    from ...plotting import COLORS, LINES

    c = rung.curves.select(cell=cell)
    ax.set(xscale="log", yscale="log", xlabel="step", ylabel="excess loss")
    title = f"{cell}, lr {c['lr'][0]:.3g}"
    width, top = rung.z * c["standard_error"], 10.0 * c["high"].max()
    ax.fill_between(c["step"], c["low"], c["high"], color="#dddddd", label="90% of runs")
    ax.fill_between(c["step"], c["mean"] - width, c["mean"] + width, color="#999999", label=f"mean ± {rung.z:.1f} SE")
    for model, color, line in zip((*MODELS, "exact"), COLORS, (LINES[1], LINES[2], LINES[0], LINES[3]), strict=False):
        predicted = c[f"predicted_{model}"]
        if np.all(np.isnan(predicted)):
            continue
        ax.plot(c["step"], predicted, color=color, linestyle=line, linewidth=1.4, label=model)
        if not predicted.max() <= top:
            ax.set_ylim(0.8 * c["low"].min(), top)
            title += f" ({model}: up to {predicted.max():.0e})"
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_title(title, fontsize=8)


def _ratios(ax: Any, rung: Rung) -> None:
    """A colour for each task (or each optimizer, where there is one task), a marker for each optimizer, filled where
    each is at its own best learning rate."""
    from ...plotting import COLORS, MARKERS

    r = rung.ratios
    tasks, optimizers = r.distinct("cell"), r.distinct("optimizer")
    kinds = {"same": ("none", "same lr"), "tuned": ("full", "each at its best lr")}
    series = [(t, o, k) for t in tasks for o in optimizers for k in kinds]
    for number, (task, optimizer, kind) in enumerate(series):
        c = r.select(cell=task, optimizer=optimizer, learning_rate=kind)
        c = c.where(np.isfinite(c["ratio"]) & (c["ratio"] > 0.0))
        if not c.rows:
            continue
        error = np.where(np.isfinite(c["error"]), c["error"], 0.0) * c["ratio"] / c["measured"]
        place = tasks.index(task) if len(tasks) > 1 else optimizers.index(optimizer)
        shift = (1.0 + SHIFT) ** (2.0 * number / max(len(series) - 1, 1) - 1.0)
        ax.errorbar(
            c["batch_size"] * shift, c["ratio"], 2.0 * error, color=COLORS[place % len(COLORS)],
            linestyle="none", marker=MARKERS[optimizers.index(optimizer) % len(MARKERS)], fillstyle=kinds[kind][0],
            label=f"{task} {optimizer}, {kinds[kind][1]}".strip(),
        )  # fmt: skip
    ax.axhline(1.0, color="#555555", linewidth=1.0)
    ax.set_xscale("log", base=2)
    ax.set_xlabel("batch size (examples)")
    ax.set_ylabel("steps, predicted / measured")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5)).set_in_layout(False)  # it stands in the empty third column
