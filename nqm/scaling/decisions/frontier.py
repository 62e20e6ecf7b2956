"""Time against compute: what it takes to reach a loss, from a fitted scaling law."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ... import _checks
from ..._checks import FloatArray
from ..._statistics import interval
from ..._table import Table
from .box_search import (
    OFFSETS,
    REACH,
    StepTime,
    box,
    draw_crossings,
    first_below,
    log_losses,
    lowest,
    seconds_of,
    seen_by,
)
from .fit import Fit, times_beyond
from .tabulated import Tabulated

__all__ = ["Frontier", "frontier"]

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS: Final = 16
SIZES: Final = ("params", "batch_size", "steps", "compute")


@dataclass(frozen=True, eq=False)
class Frontier(Tabulated):
    """Least compute for each number of steps, or each time, that reaches a loss; from :func:`frontier`.

    table: columns steps, params, batch_size, compute (FLOP), time (seconds; NaN without step_time),
    low, high (of compute, over bootstrap draws; inf where a draw does not reach the loss), beyond (how many times the
    farthest of params, batch_size, steps and compute lies beyond the runs); steps and batch size as real numbers. loss:
    the target. axis: "steps" or "time", along which the rows lie. fewest: least of those, over all sizes and batch
    sizes; least_compute: least FLOP, over all steps: the two asymptotes.
    """

    table: Table
    loss: float
    axis: str
    fewest: float
    least_compute: float
    level: float

    def plot(self, ax: Axes | None = None) -> Axes:
        """Compute against steps, or time, on logarithmic axes; the interval as a band, the two asymptotes dashed."""
        from ...plotting import plot_frontier

        return plot_frontier(
            self.table, ax, along=self.axis, fewest=self.fewest, least_compute=self.least_compute,
            label=f"loss {self.loss:g}", band=f"{self.level:.0%} interval",
        )  # fmt: skip

    def __repr__(self) -> str:
        unit = "s" if self.axis == "time" else "steps"
        head = f"Frontier(loss {self.loss:g}: at least {self.fewest:.4g} {unit}, {self.least_compute:.4g} FLOP)"
        return f"{head}\n{self.table.to_string(self._names, number='{:.4g}'.format, width=10)}"

    @property
    def _names(self) -> list[str]:
        return [name for name in self.table if name != "time" or self.axis == "time"]


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
    fewest). At each N, B is the smallest that does: with ``step_time``, examples per second must not fall as B grows.
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
    length = _checks.real(sequence_length, "sequence_length", low=0.0)
    search = _Search(fit, _checks.real(loss, "loss", low=0.0), seconds_of(step_time), length, params)
    level = _checks.real(level, "level", low=0.0, high=1.0)
    fast, cheap = search.asymptotes()
    fewest, most = np.exp([fast[2], cheap[2]]).tolist()
    n, b, x, cost = search.rows(fewest, most, (fast[0], cheap[0]))
    low, high = search.compute_interval(n, b, x, level)
    time = np.full(x.size, np.nan) if step_time is None else np.exp(x)
    columns = {"steps": np.exp(x - search.log_seconds(n, b)), "params": np.exp(n), "batch_size": np.exp(b),
               "compute": np.exp(cost), "time": time, "low": low, "high": high}  # fmt: skip
    seen = seen_by(fit, 6.0 * length)
    columns["beyond"] = np.max([np.maximum(1.0, times_beyond(seen[name], columns[name])) for name in SIZES], axis=0)
    least_compute = float(np.exp(min(search.log_flop(*cheap), cost.min())))
    axis = "steps" if step_time is None else "time"
    return Frontier(Table(columns), search.loss, axis, fewest, least_compute, level)


class _Search:
    """Least compute to reach a loss in a given time; n, b, k, x are logs of N, B, K and of K times seconds per step."""

    def __init__(self, fit: Fit, loss: float, seconds: Any, length: float, params: float | None) -> None:
        self.fit, self.loss, self.seconds, self.length, self.params = fit, loss, seconds, length, params
        self.ends = box(fit)
        if params is not None:
            self.ends[0] = np.log(_checks.real(params, "params", low=1.0, closed="low"))

    def above(self, n: FloatArray, b: FloatArray, k: FloatArray) -> FloatArray:
        """How far the log loss is above the target."""
        return np.asarray(log_losses(self.fit, n, b, k)[0] - np.log(self.loss))

    def log_seconds(self, n: FloatArray, b: FloatArray) -> FloatArray:
        return np.asarray(np.log(self.seconds(np.exp(n), np.exp(b))))

    def times(self, n: FloatArray, b: FloatArray) -> FloatArray:
        """x of the least time; inf where the target is not reached or a step cannot be done."""
        return first_below(lambda k: self.above(n, b, k), 0.0 * n, 0.0 * n + self.ends[2, 1]) + self.log_seconds(n, b)

    def batches(self, n: FloatArray, x: FloatArray) -> FloatArray:
        """b of the smallest batch that reaches the target in time; inf where none does."""

        def late(b: FloatArray) -> FloatArray:
            k = x - self.log_seconds(n, b)
            return self.above(n, b, np.where(k <= self.ends[2, 1] + 1e-9, k, -np.inf))

        return first_below(late, 0.0 * n, 0.0 * n + self.ends[1, 1])

    def log_flop(self, n: FloatArray, b: FloatArray, x: FloatArray) -> FloatArray:
        """log of 6 N B K sequence_length; inf where b or x is."""
        known = np.isfinite(b + x)
        b, x = np.where(known, b, 0.0), np.where(known, x, 0.0)
        return np.where(known, np.log(6.0 * self.length) + n + b + x - self.log_seconds(n, b), np.inf)

    def least(self, objective: Callable[[FloatArray, FloatArray, FloatArray], FloatArray]) -> FloatArray:
        """n, b and x of the least objective(n, b, x) at the least time, on ever finer grids."""
        low, high = self.ends[:2].T
        for _ in range(5):
            n, b = np.meshgrid(*np.linspace(low, high, 7).T)
            points = np.stack([n, b, self.times(n, b)]).reshape(3, -1)
            best = points[:, objective(*points).argmin()]
            width = (high - low) / 5.0
            low, high = np.maximum(best[:2] - width, self.ends[:2, 0]), np.minimum(best[:2] + width, self.ends[:2, 1])
        return best

    def asymptotes(self) -> tuple[FloatArray, FloatArray]:
        """n, b, x of the least time and of the least compute; a ValueError where the loss is not reached."""
        fast = self.least(lambda n, b, x: x)
        if np.isfinite(fast[2]):
            return fast, self.least(lambda n, b, x: self.log_flop(n, b, x) + 1e-5 * x)  # of equal compute, in less time
        n, b, k = np.meshgrid(*np.linspace(self.ends[:, 0], self.ends[:, 1], 9).T)
        lowest_loss = np.exp(log_losses(self.fit, n, b, k).min())
        where = "" if self.params is None else f" with {self.params:g} parameters"
        raise ValueError(
            f"loss: expected one that is reached within {REACH:g} times the runs' batch sizes and steps{where}, at "
            f"best {lowest_loss:.6g}, got {self.loss:.6g}"
        )

    def rows(
        self, fewest: float, most: float, sizes: tuple[float, float]
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """n, b, x and log compute of the least compute, from just above the ``fewest`` steps (least time) to ``most``.

        sizes: n that are tried too.
        """
        x = np.log(fewest) + np.log1p(np.geomspace(0.02, max(most / fewest - 1.0, 1.0), ROWS))
        tried = np.unique([*np.linspace(self.ends[0, 0], self.ends[0, 1], 11), *sizes])
        start = np.repeat(tried[:, None], ROWS, axis=1)
        n, cost = lowest(lambda n: self.log_flop(n, self.batches(n, x + 0.0 * n), x), start, 9)
        n, x, cost = (v[np.isfinite(cost)] for v in (n, x, cost))
        return n, self.batches(n, x), x, cost

    def compute_interval(self, n: FloatArray, b: FloatArray, x: FloatArray, level: float) -> FloatArray:
        """Ends, (2, rows), of compute over draws, each with its own batch size; inf where one does not get there."""
        across, around = np.broadcast_arrays(n[:, None], np.clip(b[:, None] + OFFSETS, *self.ends[1]))
        k = x[:, None] - self.log_seconds(across, around)
        crossed = draw_crossings(self.fit, across, around, k, around, np.log(self.loss))
        return interval(np.exp(self.log_flop(n, crossed, x)), level)
