"""What ``.plot()`` of a result draws: columns of equal length by name, and axes that may be given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from .style import COLORS, LINES, MARKERS, drawing_on, logarithmic, powers_of_two, sequential, series

__all__ = [
    "HasTable",
    "PiecewiseConstant",
    "plot_critical_batch_size",
    "plot_curves",
    "plot_frontier",
    "plot_predictions",
    "plot_schedule",
    "plot_schedules",
    "plot_sweep",
]

if TYPE_CHECKING:
    from .style import Drawn

Columns = Mapping[str, NDArray[Any]]


class HasTable(Protocol):
    """A result that holds its table."""

    @property
    def table(self) -> Columns: ...


class PiecewiseConstant(Protocol):
    """Values, and the steps at which they end, as of a schedule."""

    @property
    def values(self) -> NDArray[Any]: ...

    @property
    def ends(self) -> NDArray[Any]: ...


def plot_sweep(sweep: Columns | HasTable, ax: Axes | None = None) -> Drawn:
    """Steps to target against batch size, one line for each optimizer and target.

    sweep: columns optimizer, target, batch_size and steps, or what has them as ``table``.
    """
    table = sweep if isinstance(sweep, Mapping) else sweep.table
    with drawing_on(ax) as ax:
        drawn = len(ax.get_lines())
        targets = np.unique(table["target"])[::-1]
        for i, name in enumerate(dict.fromkeys(table["optimizer"].tolist())):
            for j, target in enumerate(targets):
                here = (table["optimizer"] == name) & (table["target"] == target)
                look = series(drawn + i)
                if targets.size > 1:  # color shows the optimizer, line and marker the target
                    look = {**series(drawn + j), "color": look["color"]}
                label = f"{name}, target {target:g}"
                ax.plot(table["batch_size"][here], table["steps"][here], label=label, **look)
        powers_of_two(ax)
        ax.set_xlabel("batch size (examples)")
        ax.set_ylabel("steps to target")
        ax.legend()
    return cast("Drawn", ax)


def plot_schedule(schedule: PiecewiseConstant, ax: Axes | None = None) -> Drawn:
    """Values against the step, on a logarithmic axis."""
    with drawing_on(ax) as ax:
        look = series(len(ax.patches))
        del look["marker"]
        _stairs(ax, schedule, linewidth=1.6, **look)
        logarithmic(ax, "y")
        ax.set_xlabel("step")
    return cast("Drawn", ax)


def plot_schedules(schedules: Mapping[str, PiecewiseConstant], ax: Axes | None = None) -> Drawn:
    """Learning rates against the step, by label; the first, which the others may lie on, as a broad line."""
    with drawing_on(ax) as ax:
        for i, (label, schedule) in enumerate(schedules.items()):
            _stairs(ax, schedule, color=COLORS[i], linestyle=LINES[i], label=label, linewidth=1.8 if i else 4.0,
                    alpha=1.0 if i else 0.5)  # fmt: skip
        ax.set_xlabel("step")
        ax.set_ylabel("learning rate")
        ax.legend()
    return cast("Drawn", ax)


def _stairs(ax: Axes, schedule: PiecewiseConstant, **look: Any) -> None:
    ax.stairs(schedule.values, np.concatenate([[0], schedule.ends]), baseline=None, **look)


def plot_predictions(runs: Columns, ax: Axes | None = None) -> Drawn:
    """Predicted against actual loss; columns N, loss, predicted, and low and high: 90% intervals of a new run."""
    loss, predicted = runs["loss"], runs["predicted"]
    with drawing_on(ax) as ax:
        ends = [0.97 * min(predicted.min(), loss.min()), 1.03 * max(predicted.max(), loss.max())]
        ax.plot(ends, ends, color="#888888", linewidth=1.0, zorder=1)
        reach = [predicted - runs["low"], runs["high"] - predicted]
        ax.errorbar(loss, predicted, yerr=reach, fmt="none", ecolor="#bbbbbb", linewidth=1.0)
        points = ax.scatter(loss, predicted, c=np.log10(runs["N"]), cmap="viridis", s=22, zorder=3)
        ax.figure.colorbar(points, ax=ax, label="log10 of parameters")
        logarithmic(ax)
        ax.set_xlabel("actual loss")
        ax.set_ylabel("predicted loss (bars: 90% of new runs)")
    return cast("Drawn", ax)


def plot_curves(curves: Columns, ax: Axes | None = None) -> Drawn:
    """Loss against step: observations as points, fits as lines; columns curve (its name), step, loss and fitted."""
    with drawing_on(ax) as ax:
        for i, name in enumerate(dict.fromkeys(curves["curve"].tolist())):
            here, look = curves["curve"] == name, series(i)
            step, marker = curves["step"][here], look.pop("marker")
            ax.plot(step, curves["loss"][here], marker, color=look["color"], markersize=2.5, alpha=0.5)
            ax.plot(step, curves["fitted"][here], label=name, **look)
        ax.set_xlabel("step")
        ax.set_ylabel("loss")
        ax.legend()
    return cast("Drawn", ax)


def plot_critical_batch_size(table: Columns, ax: Axes | None = None) -> Drawn:
    """Critical batch size, on a logarithmic axis, against loss, with intervals; a line for each size.

    table: columns params, loss, value, low and high.
    """
    params, loss, value = table["params"], table["loss"], table["value"]
    with drawing_on(ax) as ax:
        sizes = np.unique(params)
        for i, (size, color) in enumerate(zip(sizes, sequential(sizes.size), strict=True)):
            here = np.flatnonzero((params == size) & np.isfinite(value))
            here = here[np.argsort(loss[here])]
            look = {**series(i), "color": color}
            ax.plot(loss[here], value[here], label=f"{size:.3g} parameters", **look)
            ax.fill_between(loss[here], table["low"][here], table["high"][here], color=color, alpha=0.15, linewidth=0)
        logarithmic(ax, "y")
        ax.set(xlabel="loss", ylabel="critical batch size (examples)")
        ax.invert_xaxis()  # as training goes on
        ax.legend()
    return cast("Drawn", ax)


def plot_frontier(
    table: Columns, ax: Axes | None = None, *, along: str, fewest: float, least_compute: float, label: str, band: str
) -> Drawn:
    """Compute against steps, or time, on logarithmic axes; the interval as a band, the two asymptotes dashed.

    table: columns compute, low, high (of compute) and ``along``, which is "steps" or "time"; ``fewest`` of that and
    ``least_compute``: the asymptotes. label, band: legends of the line and of the band.
    """
    x, y, low, high = (table[name] for name in (along, "compute", "low", "high"))
    bottom = min(least_compute, np.nanmin(low, initial=np.inf)) / 1.5
    top = max(3.0 * y.max(), 20.0 * bottom)
    if not np.all(np.isfinite(high)):
        band += ", in part without an upper end"
    high = np.minimum(high, 10.0 * top)  # a band that ends nowhere leaves the picture
    asymptote, axis = ("least time", "time (seconds)") if along == "time" else ("fewest steps", "steps")
    with drawing_on(ax) as ax:
        ax.fill_between(x, low, high, color=COLORS[0], alpha=0.2, linewidth=0, label=band)
        ax.plot(x, y, color=COLORS[0], marker=MARKERS[0], label=label)
        ax.axvline(fewest, color=COLORS[1], linestyle="--", linewidth=1.0, label=asymptote)
        ax.axhline(least_compute, color=COLORS[2], linestyle="-.", linewidth=1.0, label="least compute")
        ax.set(xscale="log", yscale="log", ylim=(bottom, top), xlabel=axis, ylabel="compute (FLOP)")
        ax.legend()
    return cast("Drawn", ax)
