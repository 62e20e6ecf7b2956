"""Time against compute: what it takes to reach a loss, from a fitted scaling law."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._checks import FloatArray
from . import searching
from .searching import OFFSETS, REACH, Fit, StepTime, first_below, log_losses, lowest, quantiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS: Final = 16
SIZES: Final = ("params", "batch_size", "steps", "compute")


@dataclass(frozen=True, eq=False)
class Frontier:
    """Least compute for each number of steps, or each time, that reaches a loss; from :func:`frontier`.

    table: read-only columns by name: steps, params, batch_size, compute (FLOP), time (seconds; NaN without step_time),
    low, high (of compute, over bootstrap draws; inf where a draw does not reach the loss), beyond (how many times the
    farthest of params, batch_size, steps and compute lies beyond the runs); steps and batch size as real numbers. loss:
    the target. axis: "steps" or "time", along which the rows lie. fewest: least of those, over all sizes and batch
    sizes; least_compute: least FLOP, over all steps: the two asymptotes. pandas.DataFrame(found.table) makes a frame.
    """

    table: dict[str, NDArray[Any]]
    loss: float
    axis: str
    fewest: float
    least_compute: float
    level: float

    def plot(self, ax: Axes | None = None) -> Axes:
        """Compute against steps, or time, on logarithmic axes; the interval as a band, the two asymptotes dashed."""
        from ..plotting import plot_frontier

        return plot_frontier(
            self.table, ax, along=self.axis, fewest=self.fewest, least_compute=self.least_compute,
            label=f"loss {self.loss:g}", band=f"{self.level:.0%} interval",
        )  # fmt: skip

    def __repr__(self) -> str:
        names = [name for name in self.table if name != "time" or self.axis == "time"]
        rows = [names, *zip(*([f"{v:.4g}" for v in self.table[name]] for name in names), strict=True)]
        unit = "s" if self.axis == "time" else "steps"
        head = f"Frontier(loss {self.loss:g}: at least {self.fewest:.4g} {unit}, {self.least_compute:.4g} FLOP)"
        return "\n".join([head, *("  ".join(cell.rjust(10) for cell in row) for row in rows)])


def frontier(
    fit: Fit,
    loss: float,
    *,
    step_time: StepTime | None = None,
    sequence_length: float = 1,
    params: float | None = None,
    level: float = 0.9,
) -> Frontier:
    """Least compute for each number of steps (or time, with ``step_time``) that reaches ``loss``.

    For each number of steps, the size N and batch size B with the least 6 N B K sequence_length at which the predicted
    loss is reached; from just above the fewest steps, at any N and B, to those of the least compute (or twice the
    fewest). At each N, B is the smallest that does: with ``step_time``, examples a second must not fall as B grows.
    Steps and batch sizes are real numbers, in the box of :func:`best`; compute is exact to 1e-4, both ends to 1%.

    Args:
        fit, step_time, sequence_length: as for :func:`best`.
        loss: the target, > 0.
        params: if given, N is fixed.
        level: of the intervals of compute, over 50 bootstrap draws, each with its own B at the N of the row.

    Raises:
        TypeError, ValueError: for wrong arguments, and a loss that is not reached, with the lowest that is.

    >>> import numpy as np, nqm
    >>> N, B, K = 10.0 ** np.arange(6, 10)[:, None], 256.0, 10.0 ** np.arange(3, 6)
    >>> fit = nqm.scaling.chinchilla(N, B, K, 1.7 + 400 * N**-0.34 + 60 * (B * K) ** -0.28)
    >>> found = fit.frontier(2.6, sequence_length=1024)
    >>> bool(found.table["compute"][0] > 10 * found.table["compute"][-1])  # in few steps it takes large models
    True
    """
    ends, seconds = searching.box(fit), searching.seconds_of(step_time)
    target = _checks.real(loss, "loss", low=0.0)
    length = _checks.real(sequence_length, "sequence_length", low=0.0)
    level = _checks.real(level, "level", low=0.0, high=1.0)
    if params is not None:
        ends[0] = np.log(_checks.real(params, "params", low=1.0, closed="low"))

    def above(n: FloatArray, b: FloatArray, k: FloatArray) -> FloatArray:
        return np.asarray(log_losses(fit, n, b, k)[0] - np.log(target))

    def log_seconds(n: FloatArray, b: FloatArray) -> FloatArray:
        return np.log(seconds(np.exp(n), np.exp(b)))

    def times(n: FloatArray, b: FloatArray) -> FloatArray:
        """log of the least time; inf where the target is not reached or a step cannot be done."""
        return first_below(lambda k: above(n, b, k), 0.0 * n, 0.0 * n + ends[2, 1]) + log_seconds(n, b)

    def batches(n: FloatArray, x: FloatArray) -> FloatArray:
        """log of the smallest that reaches the target in a log time x; inf where none does."""

        def late(b: FloatArray) -> FloatArray:
            k = x - log_seconds(n, b)
            return above(n, b, np.where(k <= ends[2, 1] + 1e-9, k, -np.inf))

        return first_below(late, 0.0 * n, 0.0 * n + ends[1, 1])

    def log_flop(n: FloatArray, b: FloatArray, x: FloatArray) -> FloatArray:
        known = np.isfinite(b + x)
        b, x = np.where(known, b, 0.0), np.where(known, x, 0.0)
        return np.where(known, np.log(6.0 * length) + n + b + x - log_seconds(n, b), np.inf)

    def least(objective: Callable[[FloatArray, FloatArray, FloatArray], FloatArray]) -> FloatArray:
        """log N, log B and log time x of the least objective(n, b, x), on ever finer grids."""
        low, high = ends[:2].T
        for _ in range(5):
            n, b = np.meshgrid(*np.linspace(low, high, 7).T)
            points = np.stack([n, b, times(n, b)]).reshape(3, -1)
            best = points[:, objective(*points).argmin()]
            width = (high - low) / 5.0
            low, high = np.maximum(best[:2] - width, ends[:2, 0]), np.minimum(best[:2] + width, ends[:2, 1])
        return best

    fast = least(lambda n, b, x: x)
    if not np.isfinite(fast[2]):
        n, b, k = np.meshgrid(*np.linspace(ends[:, 0], ends[:, 1], 9).T)
        lowest_loss = np.exp(log_losses(fit, n, b, k).min())
        where = "" if params is None else f" with {params:g} parameters"
        raise ValueError(
            f"loss: expected one that is reached within {REACH:g} times the runs' batch sizes and steps{where}, at "
            f"best {lowest_loss:.6g}, got {target:.6g}"
        )
    cheap = least(lambda n, b, x: log_flop(n, b, x) + 1e-5 * x)  # of equal compute, the one in less time
    fewest, most = np.exp([fast[2], cheap[2]]).tolist()
    x = np.log(fewest) + np.log1p(np.geomspace(0.02, max(most / fewest - 1.0, 1.0), ROWS))
    sizes = np.unique([*np.linspace(ends[0, 0], ends[0, 1], 11), fast[0], cheap[0]])
    n, cost = lowest(lambda n: log_flop(n, batches(n, x + 0.0 * n), x), np.repeat(sizes[:, None], ROWS, axis=1), 9)
    n, x, cost = (v[np.isfinite(cost)] for v in (n, x, cost))
    b = batches(n, x)
    across, around = np.broadcast_arrays(n[:, None], np.clip(b[:, None] + OFFSETS, *ends[1]))
    k = x[:, None] - log_seconds(across, around)
    crossed = searching.draw_crossings(fit, across, around, k, around, np.log(target))
    low, high = quantiles(np.exp(log_flop(n, crossed, x)), level)
    time = np.full(x.size, np.nan) if step_time is None else np.exp(x)
    columns = {"steps": np.exp(x - log_seconds(n, b)), "params": np.exp(n), "batch_size": np.exp(b),
               "compute": np.exp(cost), "time": time, "low": low, "high": high}  # fmt: skip
    far = searching.beyond(fit, {name: columns[name] for name in SIZES}, 6.0 * length)
    columns["beyond"] = np.max(list(far.values()), axis=0)
    for column in columns.values():
        column.flags.writeable = False
    least_compute = float(np.exp(min(log_flop(*cheap), cost.min())))
    return Frontier(columns, target, "steps" if step_time is None else "time", fewest, least_compute, level)
