"""Pictures of real training: zhang2019 figures 5 to 8 for our networks, and predictions beside measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...._table import Table
from ...search.summary import Measured

__all__ = ["look", "plot_curves", "plot_predictions", "plot_rates", "plot_steps"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Columns = Mapping[str, NDArray[Any]]
LOOKS = {
    "SGD": (0, "-", "o"), "momentum": (1, "-", "s"), "SGD with EMA": (2, "-", "^"),
    "Adam without momentum": (3, "--", "D"), "Adam": (3, "-", "D"),
    "K-FAC": (4, "--", "v"), "K-FAC with momentum": (4, "-", "v"),
}  # fmt: skip
"""Colour, line and marker of each optimizer; without momentum dashed, with hollow markers."""


def plot_steps(measured: Mapping[str, Measured], names: Sequence[str], metric: str) -> Figure:
    """Steps to the metric's target against batch size, a panel per network: medians and ranges of confirmation runs."""

    def draw(ax: Any, table: Measured) -> None:
        for name in (name for name in names if name in table.names):
            rows = table.rows(name, metric)
            color, line, marker = look(name)
            ax.plot(
                rows["batch_size"], rows["median"], line, color=color, marker=marker,
                markerfacecolor=_filling(line, color), label=name,
            )  # fmt: skip
            ax.fill_between(rows["batch_size"], rows["low"], rows["high"], color=color, alpha=0.15, linewidth=0)
        ax.set_ylabel(f"steps to {metric} {float(table.rows(table.names[0], metric)['target'][0]):g}")

    return _panels(measured, draw)


def plot_rates(measured: Mapping[str, Measured]) -> Figure:
    """Best learning rate of SGD and best effective one of momentum against batch size (zhang2019 figure 7)."""

    def draw(ax: Any, table: Measured) -> None:
        for name, label in (("SGD", "SGD"), ("momentum", "momentum, lr / (1 - momentum)")):
            if name in table.names:
                rows, (color, line, marker) = table.rows(name), look(name)
                ax.plot(rows["batch_size"], rows["effective_lr"], line, color=color, marker=marker, label=label)
        ax.set_ylabel("best (effective) learning rate")

    return _panels(measured, draw)


def plot_predictions(ratios: Columns, targets: Mapping[str, float], names: Sequence[str]) -> Figure:
    """Measured steps to the training loss (points and ranges of confirmation runs) over predicted ones (lines; dotted:
    noise that grows with the loss), a panel for each network in ``targets``.

    ratios: the columns of :meth:`nqm.validation.NetworkResult.ratios`.
    """

    grows = bool(np.any((ratios["noise"] == "growing") & np.isin(ratios["optimizer"], names)))

    def draw(ax: Any, net: str) -> None:
        for name in names:
            rows = Table(ratios).select(net=net, optimizer=name, noise="measured")
            color, line, marker = look(name)
            middle = np.where(np.isfinite(rows["measured"]), rows["measured"], np.nan)
            width = np.stack([middle - rows["low"], rows["high"] - middle])
            ax.errorbar(
                rows["batch_size"], rows["measured"], np.where(np.isfinite(width), width, 0.0), color=color,
                marker=marker, markerfacecolor=_filling(line, color), linestyle="none", capsize=2.0,
                label=f"{name}, measured",
            )  # fmt: skip
            ax.plot(rows["batch_size"], rows["predicted"], line, color=color, label=f"{name}, predicted")
            rows = Table(ratios).select(net=net, optimizer=name, noise="growing")
            if rows.rows:
                ax.plot(rows["batch_size"], rows["predicted"], ":", color=color)
        if grows:
            ax.plot([], [], ":", color="black", label="the same where noise\ngrows with the loss")
        ax.set_ylabel(f"steps to training loss {targets[net]:.3g}")

    return _panels({net: net for net in targets}, draw)


def plot_curves(title: str, curves: Columns) -> Figure:
    """Training loss against the step at the hyperparameters that the model finds best: mean and range of the seeds'
    runs, the two predictions, whole, and the target; a panel for each optimizer and batch size of ``curves``
    (:class:`nqm.validation.NetworkResult`)."""
    from ....plotting import COLORS, new_figure, style

    with style():
        cells = list(dict.fromkeys(zip(curves["optimizer"].tolist(), curves["batch_size"].tolist(), strict=True)))
        columns = len({size for _, size in cells})
        rows = -(-len(cells) // columns)
        figure = new_figure(width=4.0 * columns, height=3.0 * rows)[0]
        figure.clear()
        for ax, (name, size) in zip(figure.subplots(rows, columns, squeeze=False).flat, cells, strict=False):
            c = Table(curves).select(optimizer=name, batch_size=size)
            high = np.minimum(c["high"], 10.0 * c["mean"][0])
            ax.fill_between(c["step"], c["low"], high, color="#bbbbbb", linewidth=0, label="range of real runs")
            ax.plot(c["step"], np.minimum(c["mean"], high), color="#555555", label="mean of real runs")
            for key, line, label in (("predicted", "-", "predicted"), ("predicted_growing", ":", "with growing noise")):
                if np.isfinite(c[key]).any():
                    ax.plot(c["step"], c[key], line, color=COLORS[1], label=label)
            ax.axhline(c["target"][0], color="#888888", linewidth=0.8, linestyle="--", label="target")
            ax.set(yscale="log", title=f"{name}, batch size {size}, lr {c['lr'][0]:.3g}", xlabel="step")
            whole = np.concatenate([high, c["low"], c["predicted"]])  # with growing noise it may diverge, and leave
            ax.set_ylim(whole.min() / 1.3, whole.max() * 1.3)
            ax.set_ylabel("training loss")
            ax.title.set_fontsize(9)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(handles))
        figure.suptitle(title)
    return figure


def look(name: str) -> tuple[str, str, str]:
    """Colour, line and marker of an optimizer."""
    from ....plotting import COLORS

    color, line, marker = LOOKS.get(name, (0, "-.", "o"))
    return COLORS[color], line, marker


def _filling(line: str, color: str) -> str:
    return "white" if line == "--" else color


def _panels(tables: Mapping[str, Any], draw: Callable[[Any, Any], None]) -> Figure:
    """A panel with logarithmic axes for each network, drawn by ``draw``; one legend."""
    from ....plotting import new_figure, powers_of_two, style

    with style():
        figure = new_figure(width=4.6 * len(tables) + 1.8, height=4.2)[0]
        figure.clear()
        axes = figure.subplots(1, len(tables), squeeze=False)[0]
        for ax, (net, table) in zip(axes, tables.items(), strict=True):
            draw(ax, table)
            powers_of_two(ax)
            ax.set_title(net)
            ax.set_xlabel("batch size (examples)")
        handles, labels = axes[0].get_legend_handles_labels()
        axes[-1].legend(handles, labels, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
