"""Figures 3b, 3c and 15: learning rates that change from piece to piece, optimised.

Settings (section 3.7.2, footnote 3): 50 pieces of equal length, learning rates at most 2 / h_1, plain SGD.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ...optimizers import FREE, SGD, Preconditioned
from ...search.schedule_search import OptimizedSchedule, optimize_schedule
from .. import Data, Figure, rows
from .constant import BATCH_SIZES, BOUNDS, EXACT, POWERS, TARGET, plot_steps, problem, tuned, with_bounds

__all__ = ["FIGURES", "compute_3b", "compute_3c", "compute_15", "optimized", "plot_3b", "plot_3c", "plot_15"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

PIECES = 50
LINEAR = 0.1  # figure 15 is fitted where the final learning rate is below this share of the largest


@lru_cache(maxsize=512)  # the three figures share their cells
def optimized(power: float, batch_size: float, bins: int | None) -> OptimizedSchedule:
    """The schedule of the fewest steps to the target."""
    optimizer = Preconditioned(SGD(FREE), power) if power else SGD(FREE)
    return optimize_schedule(problem(bins), batch_size, target=TARGET, pieces=PIECES, optimizer=optimizer)


def compute_3b(bins: int | None = None) -> Data:
    """Optimised schedules and constant learning rates at each power, and both bounds."""
    cells = [(power, batch) for power in POWERS for batch in BATCH_SIZES.tolist()]
    constant = tuned("SGD", bins, (TARGET,), tuple(BATCH_SIZES))
    table = {
        "kind": np.repeat(["schedule", "SGD"], [len(cells), len(constant["steps"])]),
        "power": np.concatenate([[power for power, _ in cells], constant["power"]]),
        "batch_size": np.concatenate([[batch for _, batch in cells], constant["batch_size"]]),
        "steps": np.concatenate([[optimized(*cell, bins).steps for cell in cells], constant["steps"]]),
    }
    return with_bounds(table, bins)


def plot_3b(data: Data) -> Picture:
    return plot_steps(data, "schedule", "schedule", dashed="constant")


def compute_3c(bins: int | None = None) -> Data:
    """Optimised schedules of power 0: each piece's learning rate, and where it begins as a share of the steps."""
    records = []
    for batch in BATCH_SIZES.tolist():
        best = optimized(0.0, batch, bins)
        begins = (best.schedule.ends - best.schedule.lengths) / best.steps
        records += [
            {"batch_size": batch, "steps": best.steps, "begin": begin, "lr": lr}
            for begin, lr in zip(begins.tolist(), best.schedule.values.tolist(), strict=True)
        ]
    return rows(records)


def plot_3c(data: Data) -> Picture:
    from matplotlib.ticker import NullFormatter, PercentFormatter

    from ...plotting import new_figure, sequential

    picture, ax = new_figure()
    batches = np.unique(data["batch_size"])
    for color, batch in zip(sequential(batches.size), batches, strict=True):
        here = data["batch_size"] == batch
        named = f"$2^{{{np.log2(batch):.0f}}}$" if np.log2(batch) % 3 == 2 else None
        left = 1.0 - data["begin"][here]
        ax.stairs(data["lr"][here], np.append(left, 0.5 * left[-1]), baseline=None, color=color, linewidth=1.6,
                  label=named)  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="share of the steps that are left", ylabel=r"learning rate $\alpha$")
    ax.set_xticks([1.0, 0.5, 0.2, 0.1, 0.05, 0.02])
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.invert_xaxis()
    ax.legend(title="batch size", loc="lower left")
    return picture


def compute_15(bins: int | None = None) -> Data:
    """Last learning rate of the schedules of power 0, and the line fitted in log2-log2 where it is small."""
    last = np.array([optimized(0.0, batch, bins).schedule.values[-1] for batch in BATCH_SIZES.tolist()])
    x, y = np.log2(BATCH_SIZES), np.log2(last)
    low = last < LINEAR * last.max()
    slope, offset = np.polyfit(x[low], y[low], 1)
    return {
        "batch_size": BATCH_SIZES,
        "final_lr": last,
        "fit": np.where(low, 2.0 ** (offset + slope * x), np.nan),
        "slope": np.full(x.size, slope),
    }


def plot_15(data: Data) -> Picture:
    from ...plotting import COLORS, new_figure, powers_of_two

    picture, ax = new_figure()
    ax.plot(data["batch_size"], data["final_lr"], "o-", color=COLORS[0], label="last of the 50 pieces")
    ax.plot(data["batch_size"], data["fit"], "--", color=COLORS[4], linewidth=3.0, zorder=1,
            label=f"fit: slope {data['slope'][0]:.3f}")  # fmt: skip
    powers_of_two(ax)
    ax.set(xlabel="batch size (examples)", ylabel=r"final learning rate $\alpha$")
    ax.legend()
    return picture


FIGURES = (
    Figure(
        "zhang2019-3b",
        "Steps to target: optimised learning-rate schedules",
        compute_3b,
        plot_3b,
        "With the best schedule, small batches come close to the bounds at every power: examples are used nearly as "
        "well as they can be. At large batches little is gained over the best constant learning rate: at most 18%, at "
        "power 0.75.",
        EXACT + BOUNDS,
    ),
    Figure(
        "zhang2019-3c",
        "The optimised schedules of power 0 at all batch sizes",
        compute_3c,
        plot_3c,
        "A large learning rate for most of the run, then a decay that is a bit faster than exponential; the smaller "
        "the batch, the earlier and the deeper.",
        EXACT
        + " The abscissa is the share of the steps that are left, on a logarithmic axis: the numbers of steps differ "
        "fiftyfold, and most schedules decay at the very end. Of the last piece half is drawn.",
    ),
    Figure(
        "zhang2019-15",
        "Final learning rate of the optimised schedules",
        compute_15,
        plot_15,
        "Proportional to the batch size (slope of the fit in the legend) until it comes near the largest stable one.",
        EXACT + f" The line is fitted where the final learning rate is below {LINEAR:g} of its largest.",
    ),
)
