"""What to train, from a fitted scaling law: the best allocation, time against compute, the critical batch size.

Works with any fit that has ``losses(N, B, K, draws=None)`` and ``runs``. Nothing is assumed of its loss but that it is
smooth: more steps, examples or parameters may be worse.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _checks
from .._checks import FloatArray

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

REACH: Final = 100.0  # how many times beyond the data is searched
FAR: Final = 10.0  # how many times beyond the data an answer warns
DRAWS: Final = 100  # bootstrap draws that decisions are made again for
ROWS: Final = 20  # of a frontier
SCAN: Final = 13  # points at which a first crossing is looked for
GRID: Final = 13  # points a side of the first grid
OFFSETS: Final = np.array([-3.0, -1.2, -0.4, 0.0, 0.4, 1.2, 3.0])  # in log, where draws are evaluated,
FINE: Final = np.linspace(-3.0, 3.0, 61)  # and where the prediction is
BETWEEN: Final = np.array([np.interp(FINE, OFFSETS, one) for one in np.eye(OFFSETS.size)])
EXACT: Final = 2.0**53  # up to here products of whole numbers are exact

Interval = tuple[float, float]
StepTime = float | Callable[[float, float], float]


class Fit(Protocol):
    """What decisions need of a fit: expected losses, (draws + 1, ...), and the runs N, B, K it has seen."""

    @property
    def runs(self) -> Mapping[str, FloatArray]: ...

    def losses(self, N: ArrayLike, B: ArrayLike, K: ArrayLike, draws: int | None = None) -> FloatArray: ...


@dataclass(frozen=True)
class Allocation:
    """The best found by :func:`best`.

    params, batch_size, steps: whole numbers. loss: predicted there, loss_interval over bootstrap draws (expected loss:
    a run's own scatter comes on top). compute: FLOP, 6 N B K times the sequence length. time: seconds, None without
    step_time. examples: batch_size * steps. limits: the names of those that the next step, parameter or example would
    break. params_interval, batch_size_interval, steps_interval: of the best allocations by each bootstrap draw; NaN
    for a fit without draws. on_edge: the best lies at the edge of the box searched, 100 times beyond the data, so that
    there may be a better one outside.
    """

    params: int
    batch_size: int
    steps: int
    loss: float
    loss_interval: Interval
    compute: float
    time: float | None
    examples: int
    limits: tuple[str, ...]
    params_interval: Interval
    batch_size_interval: Interval
    steps_interval: Interval
    on_edge: bool

    def __str__(self) -> str:
        rows: list[tuple[str, float, Interval | None]] = [
            ("params", self.params, self.params_interval),
            ("batch_size", self.batch_size, self.batch_size_interval),
            ("steps", self.steps, self.steps_interval),
            ("loss", self.loss, self.loss_interval),
            ("examples", self.examples, None),
            ("compute", self.compute, None),
        ]
        if self.time is not None:
            rows.append(("time", self.time, None))
        lines = [
            f"{name:<10}  {value:<10.4g}" + ("" if ends is None else f"  {ends[0]:.4g} to {ends[1]:.4g}")
            for name, value, ends in rows
        ]
        lines.append(f"{'limits':<10}  {', '.join(self.limits) or 'none binds'}")
        if self.on_edge:
            lines.append(f"at the edge of what was searched, {REACH:g} times beyond the data")
        return "\n".join(line.rstrip() for line in lines)


def best(
    fit: Fit,
    *,
    compute: float | None = None,
    steps_max: float | None = None,
    batch_max: float | None = None,
    params_max: float | None = None,
    time: float | None = None,
    step_time: StepTime | None = None,
    sequence_length: float = 1,
    level: float = 0.9,
) -> Allocation:
    """Parameters N, batch size B and steps K of the lowest predicted loss under the limits, all whole numbers.

    Limits that are given hold exactly; either ``compute``, or all of ``params_max``, ``batch_max`` and one of
    ``steps_max`` and ``time`` (then nothing else bounds the problem) are needed.

    Args:
        fit: anything with ``.losses`` and ``.runs``, such as a ``RunsFit``.
        compute: FLOP, 6 N B K sequence_length (Kaplan et al. 2020: 2 forward and 4 backward a parameter and token).
        steps_max, batch_max: most steps, most examples a step.
        params_max: most parameters; what the memory has room for.
        time: most seconds, together with ``step_time``.
        step_time: seconds a step: a number, or a function (N, B) -> seconds; inf says that it cannot be done, for
            lack of memory say.
        sequence_length: tokens an example. 1, if B counts tokens.
        level: of the intervals: over 100 bootstrap draws, each with its own optimum on a coarser search.

    Compute alone leaves time free: the answer may take very many small steps; then give time or steps_max as well.

    The search runs over a grid in log N, log B and log K, K up to the limits and below, in a box from 1 to 100 times
    the most of the runs (N: from a hundredth of the least), and refines around its lowest points until it comes to
    whole numbers. Where the answer, in N, B, K or compute, is more than 10 times beyond the runs, a UserWarning says
    how far.

    Raises:
        TypeError, ValueError: for wrong arguments, a limit that is missing (its name is told), or limits that allow
            not even one parameter, one example and one step.

    >>> import numpy as np, nqm
    >>> from nqm.scaling import decisions
    >>> N, B, K = 10.0 ** np.arange(6, 10)[:, None], 256.0, 10.0 ** np.arange(3, 6)
    >>> fit = nqm.scaling.chinchilla(N, B, K, 1.7 + 400 * N**-0.34 + 60 * (B * K) ** -0.28)
    >>> found = decisions.best(fit, compute=1e21, batch_max=512, sequence_length=1024)
    >>> found.limits, round(found.loss, 3), found.compute <= 1e21
    (('compute',), 2.34, True)
    """
    limits = _Limits(fit, compute, steps_max, batch_max, params_max, time, step_time, sequence_length)
    level = _checks.real(level, "level", low=0.0, high=1.0)
    search = _Search(fit, limits)
    point = search.lowest()
    N, B, K = search.whole(point)
    losses = _losses(fit, [float(v) for v in (N, B, K)], None)
    low, high = _quantiles(search.optima(point), level).tolist()
    loss_low, loss_high = _quantiles(losses[1:], level).tolist()
    _warn_far(fit, limits, N, B, K)
    seconds = None if limits.step_time is None else K * float(limits.seconds(float(N), float(B)))
    return Allocation(
        N, B, K, float(losses[0]), (loss_low, loss_high), float(limits.flop(float(N), B, K)), seconds, B * K,
        limits.binding(N, B, K), (low[0], high[0]), (low[1], high[1]), (low[2], high[2]), search.at_edge(N, B, K),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Frontier:
    """Least compute for each number of steps, or each time, that reaches a loss; from :func:`frontier`.

    table: read-only columns by name: steps, params, batch_size, compute (FLOP), time (seconds; NaN without step_time),
    low, high (of compute, over bootstrap draws; inf where a draw does not reach the loss); steps and batch size as
    real numbers. loss: the target. axis: "steps" or "time", along which the rows lie. fewest: least of those, over all
    sizes and batch sizes; least_compute: least FLOP, over all steps: the two asymptotes.
    """

    table: dict[str, NDArray[Any]]
    loss: float
    axis: str
    fewest: float
    least_compute: float
    level: float

    def to_pandas(self) -> pd.DataFrame:
        """The table as a pandas DataFrame; imports pandas."""
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("Frontier.to_pandas needs pandas: pip install pandas") from error
        return pd.DataFrame(self.table)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Compute against steps, or time, on logarithmic axes; the interval as a band, the two asymptotes dashed."""
        import matplotlib.pyplot as plt
        from matplotlib.ticker import NullFormatter

        from .. import plotting

        with plotting.style():
            ax = plt.subplots()[1] if ax is None else ax
            x, y = self.table[self.axis], self.table["compute"]
            known = ~np.isnan(self.table["high"])
            bottom = min(self.least_compute, np.nanmin(self.table["low"], initial=np.inf)) / 1.5
            top = max(3.0 * y.max(), 20.0 * bottom)
            high = np.minimum(self.table["high"], 10.0 * top)  # a band that ends nowhere leaves the picture
            ax.fill_between(
                x[known], self.table["low"][known], high[known], color=plotting.COLORS[4], alpha=0.35, linewidth=0,
                label=f"{100 * self.level:g}% interval",
            )  # fmt: skip
            ax.plot(x, y, color=plotting.COLORS[0], marker=plotting.MARKERS[0], label=f"loss {self.loss:g}")
            ax.axvline(
                self.fewest, color=plotting.COLORS[1], linestyle="--", linewidth=1.0,
                label="fewest steps" if self.axis == "steps" else "least time",
            )  # fmt: skip
            ax.axhline(
                self.least_compute, color=plotting.COLORS[2], linestyle="-.", linewidth=1.0, label="least compute"
            )
            ax.set_xscale("log")
            ax.set_yscale("log")
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.yaxis.set_minor_formatter(NullFormatter())
            ax.set_ylim(bottom, top)
            ax.set_xlabel("steps" if self.axis == "steps" else "time (seconds)")
            ax.set_ylabel("compute (FLOP)")
            ax.legend()
        return ax

    def __repr__(self) -> str:
        names = [name for name in self.table if name != "time" or self.axis == "time"]
        rows = [names, *zip(*([f"{v:.4g}" for v in self.table[name]] for name in names), strict=True)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(names))]
        text = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
        head = (
            f"Frontier(loss {self.loss:g}: at least {self.fewest:.4g} {'s' if self.axis == 'time' else 'steps'}, "
            f"{self.least_compute:.4g} FLOP)"
        )
        return "\n".join([head, *text])


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
    fewest, if those are less). At each N, B is the smallest that does: with ``step_time``, examples a second must not
    fall as B grows. Steps and batch sizes are continuous here, in the box of :func:`best`.

    Args:
        fit, step_time, sequence_length: as for :func:`best`.
        loss: the target, > 0.
        params: if given, N is fixed.
        level: of the intervals of compute, over 100 bootstrap draws, each with its own B at the N of the row: a draw's
            own N would change compute in second order only.

    Raises:
        TypeError, ValueError: for wrong arguments, and a loss that is not reached, with the lowest that is.

    >>> import numpy as np, nqm
    >>> from nqm.scaling import decisions
    >>> N, B, K = 10.0 ** np.arange(6, 10)[:, None], 256.0, 10.0 ** np.arange(3, 6)
    >>> fit = nqm.scaling.chinchilla(N, B, K, 1.7 + 400 * N**-0.34 + 60 * (B * K) ** -0.28)
    >>> found = decisions.frontier(fit, 2.6, sequence_length=1024)
    >>> bool(found.table["compute"][0] > 10 * found.table["compute"][-1])  # in few steps it takes large models
    True
    """
    limits = _Limits(fit, None, None, None, None, None, step_time, sequence_length, bounded=False)
    target = _checks.real(loss, "loss", low=0.0)
    level = _checks.real(level, "level", low=0.0, high=1.0)
    low, high = _box(fit)
    if params is not None:
        low[0] = high[0] = math.log(_checks.real(params, "params", low=1.0, closed="low"))
    course = _Course(fit, limits, target, low, high)
    n, b = (np.linspace(low[i], high[i], GRID if high[i] > low[i] else 1) for i in (0, 1))
    grid = np.stack(np.meshgrid(n, b, indexing="ij"), axis=-1).reshape(-1, 2)
    k = course.steps(grid[:, 0], grid[:, 1])
    if np.isnan(k).all():
        ends = np.stack(np.meshgrid(n, b, np.linspace(low[2], high[2], SCAN), indexing="ij"), axis=-1).reshape(-1, 3)
        lowest = float(np.nanmin(_losses(fit, np.exp(ends.T), 0)[0]))
        where = "" if params is None else f" with {params:g} parameters"
        raise ValueError(
            f"loss: expected one that is reached within {REACH:g} times the runs' batch sizes and steps{where}, at "
            f"best {lowest:.6g}, got {target:.6g}"
        )
    spacing = np.array([v[1] - v[0] if v.size > 1 else 0.0 for v in (n, b)])

    def least(objective: Callable[[FloatArray, FloatArray, FloatArray], FloatArray]) -> FloatArray:
        """(n, b, k) of the least objective among those that reach the target."""

        def value(points: FloatArray) -> FloatArray:
            return np.asarray(objective(points[:, 0], points[:, 1], course.steps(points[:, 0], points[:, 1])))

        start = grid[np.nanargmin(objective(grid[:, 0], grid[:, 1], k))]
        point = _descend(value, start, spacing, low[:2], high[:2], 0.03, 2e-6)
        return np.append(point, course.steps(point[:1], point[1:]))

    def span(n: FloatArray, b: FloatArray, k: FloatArray) -> FloatArray:
        return k + course.log_seconds(n, b)

    fast = least(span)
    # of equal compute, the one of fewer steps
    cheap = least(lambda n, b, k: n + b + k + 1e-5 * span(n, b, k))
    fewest, most = (float(np.exp(span(*p[:, None])[0])) for p in (fast, cheap))
    x = np.log(fewest * (1.0 + np.geomspace(0.02, max(most / fewest - 1.0, 1.0), ROWS)))
    sizes, batches = course.cheapest(x, n, np.array([fast[0], cheap[0]]))
    reached = np.isfinite(batches)
    x, sizes, batches = x[reached], sizes[reached], batches[reached]
    steps = x - course.log_seconds(sizes, batches)
    flop = limits.flop(*np.exp([sizes, batches, steps]))
    ratio = _quantiles(course.ratios(x, sizes, batches), level)
    columns = {
        "steps": np.exp(steps), "params": np.exp(sizes), "batch_size": np.exp(batches), "compute": flop,
        "time": np.full(x.size, np.nan) if step_time is None else np.exp(x), "low": flop * ratio[0],
        "high": flop * ratio[1],
    }  # fmt: skip
    for column in columns.values():
        column.flags.writeable = False
    smallest = min(float(limits.flop(*np.exp(cheap))), float(flop.min()))
    return Frontier(columns, target, "steps" if step_time is None else "time", fewest, smallest, level)


@dataclass(frozen=True, eq=False)
class CriticalBatchSize:
    """Critical batch sizes, from :func:`critical_batch_size`: floats, or arrays of the common shape of N and loss.

    value: fewest examples over fewest steps; low, high: over those bootstrap draws that reach the loss. steps,
    examples: the two minima. on_edge: they still fall at the last batch size searched, so that there is no critical
    batch size but that range's. All NaN where the loss is not reached.
    """

    params: Any
    loss: Any
    value: Any
    low: Any
    high: Any
    steps: Any
    examples: Any
    on_edge: Any

    def plot(self, ax: Axes | None = None) -> Axes:
        """Critical batch size, on a logarithmic axis, against loss, with intervals; a line for each size."""
        import matplotlib.pyplot as plt

        from .. import plotting

        params, loss, value, low, high = (
            np.ravel(v) for v in (self.params, self.loss, self.value, self.low, self.high)
        )
        with plotting.style():
            ax = plt.subplots()[1] if ax is None else ax
            top = 10.0 * np.nanmax(value, initial=1.0)
            for i, size in enumerate(np.unique(params)):
                here = np.flatnonzero((params == size) & np.isfinite(value))
                here = here[np.argsort(loss[here])]
                color = plotting.COLORS[i % len(plotting.COLORS)]
                ax.plot(
                    loss[here], value[here], color=color, marker=plotting.MARKERS[i % len(plotting.MARKERS)],
                    linestyle=plotting.LINES[i % len(plotting.LINES)], label=f"{size:.3g} parameters",
                )  # fmt: skip
                ax.fill_between(
                    loss[here], low[here], np.minimum(high[here], 10.0 * top), color=color, alpha=0.15, linewidth=0
                )
            ax.set_yscale("log")
            if np.isfinite(value).any():
                ax.set_ylim(np.nanmin(value) / 4.0, top)
            ax.invert_xaxis()  # as training goes on
            ax.set_xlabel("loss")
            ax.set_ylabel("critical batch size (examples)")
            ax.legend()
        return ax


def critical_batch_size(fit: Fit, N: ArrayLike, loss: ArrayLike, level: float = 0.9) -> CriticalBatchSize:
    """E_min / S_min at size N: fewest examples to ``loss`` at any batch size over fewest steps at any batch size.

    The definition of McCandlish et al. (2018), and of :meth:`nqm.sweep.Sweep.critical_batch_size`: where steps S and
    examples E trade off as (S / S_min - 1) (E / E_min - 1) = 1, this batch size takes twice both minima. S(B) is where
    the predicted loss of K steps, each K a training run of its own, first comes down to ``loss``; B from 1 to 100 times
    the largest of the runs, B K up to 100 times the most of the runs. Where E(B) = B S(B) grows with B throughout, as
    in McCandlish et al., E_min is that at B = 1. Where small batches do worse than larger ones, as at a learning rate
    that stays the same whatever B is, it is the minimum inside.

    Args:
        fit: anything with ``.losses`` and ``.runs``.
        N: parameters, at least 1; loss: targets, > 0. They broadcast together; each pair takes a tenth of a second.
        level: of the intervals, over 100 bootstrap draws at the batch sizes of the two minima.

    Raises:
        TypeError, ValueError: for wrong arguments.

    >>> import numpy as np, nqm
    >>> from nqm.scaling import decisions
    >>> N, B, K = 10.0 ** np.arange(6, 10)[:, None], 256.0, 10.0 ** np.arange(3, 6)
    >>> fit = nqm.scaling.chinchilla(N, B, K, 1.7 + 400 * N**-0.34 + 60 * (B * K) ** -0.28)
    >>> found = decisions.critical_batch_size(fit, 1e9, 2.6)  # the law has none: steps fall as 1 / B for ever
    >>> found.on_edge
    True
    """
    _require_fit(fit)
    sizes = _checks.reals(N, "N", low=1.0, closed="low")
    targets = _checks.reals(loss, "loss", low=0.0)
    level = _checks.real(level, "level", low=0.0, high=1.0)
    shape = _checks.broadcast(N=sizes.shape, loss=targets.shape)
    n, goal = (np.broadcast_to(v, shape).ravel() for v in (np.log(sizes), np.log(targets)))
    runs = fit.runs
    top = math.log(REACH * float((runs["B"] * runs["K"]).max()))

    def steps(b: FloatArray) -> FloatArray:
        """log S for each target, at (..., targets) log batch sizes."""

        def value(k: FloatArray, at: Any) -> FloatArray:
            examples = np.broadcast_to(b, b.shape)[at]
            size = np.broadcast_to(n, b.shape)[at]
            aim = np.broadcast_to(goal, b.shape)[at]
            return _log_losses(fit, size, examples, k, k <= top - examples + 1e-9) - aim

        return _crossing(value, np.zeros(b.shape), np.maximum(top - b, 0.0))

    grid = np.linspace(0.0, math.log(REACH * float(runs["B"].max())), 2 * GRID - 1)
    b = np.repeat(grid[:, None], n.size, axis=1)
    k = steps(b)
    least = [_vertex(b, k + share * b, lambda at, share=share: steps(at) + share * at) for share in (0.0, 1.0)]  # type: ignore[misc]
    (b_steps, log_steps), (b_examples, log_examples) = least
    # What still falls at the last batch size: more than a tenth of what it would without end.
    gap = grid[1] - grid[0]
    falling = (b_steps >= grid[-1] - 1e-9) & (k[-2] - k[-1] > 0.1 * gap)
    first = np.argmax(np.isfinite(k), axis=0)
    first_two = [np.take_along_axis(k + b, np.minimum(first + i, grid.size - 1)[None], axis=0)[0] for i in (0, 1)]
    falling |= (first > 0) & (b_examples <= grid[first] + gap) & (first_two[1] - first_two[0] > 0.1 * gap)
    ends = np.stack([b_steps, b_examples])
    wanted = np.stack([log_steps, log_examples - b_examples])
    ratios = np.full((2, n.size), np.nan)
    for i in np.flatnonzero(np.isfinite(log_steps)):

        def around(offsets: FloatArray, i: int = int(i)) -> FloatArray:
            k = wanted[:, i, None] + offsets
            return np.stack(np.broadcast_arrays(n[i], ends[:, i, None], k))

        moved = _first_below(_log_draws(fit, around) - goal[i], FINE)
        moved = moved[np.isfinite(moved[:, 0])]
        ratios[:, i] = _quantiles(np.exp(moved[:, 1] - moved[:, 0]), level)
    value = np.exp(log_examples - log_steps)
    columns = (
        np.broadcast_to(sizes, shape), np.broadcast_to(targets, shape), value, value * ratios[0], value * ratios[1],
        np.exp(log_steps), np.exp(log_examples), falling,
    )  # fmt: skip
    return CriticalBatchSize(*(v.reshape(shape) if shape else v.reshape(()).item() for v in map(np.array, columns)))


class _Limits:
    """The limits, checked; what does not bind is infinite."""

    def __init__(
        self,
        fit: Any,
        compute: Any,
        steps_max: Any,
        batch_max: Any,
        params_max: Any,
        time: Any,
        step_time: Any,
        sequence_length: Any,
        bounded: bool = True,
    ) -> None:
        _require_fit(fit)
        self.compute, self.time = (
            math.inf if value is None else _checks.real(value, name, low=0.0)
            for name, value in (("compute", compute), ("time", time))
        )
        self.params, self.batch, self.steps = (
            math.inf if value is None else float(math.floor(_checks.real(value, name, low=1.0, closed="low")))
            for name, value in (("params_max", params_max), ("batch_max", batch_max), ("steps_max", steps_max))
        )
        self.length = _checks.real(sequence_length, "sequence_length", low=0.0)
        self.step_time = step_time
        if step_time is not None and not callable(step_time):
            self.step_time = _checks.real(step_time, "step_time", low=0.0)
        if time is not None and step_time is None:
            raise ValueError("step_time: expected seconds a step, or a function (N, B) -> seconds, together with time")
        if bounded:
            self._require_bounded()
            flop = 6.0 * self.length
            if flop > self.compute:
                raise ValueError(
                    f"compute: expected at least {flop:g} FLOP, for one parameter, example and step, got {compute}"
                )
            if self.time < math.inf and not self.allow(*np.ones((3, 1)))[0]:
                raise ValueError(f"time: expected at least one step's, {self.seconds(1.0, 1.0):g} s, got {time}")

    def _require_bounded(self) -> None:
        if self.compute < math.inf:
            return
        missing = [
            name for name, value in (("params_max", self.params), ("batch_max", self.batch)) if value == math.inf
        ]
        if self.steps == math.inf and self.time == math.inf:
            missing.append("steps_max (or time)")
        if missing:
            raise ValueError(f"expected limits that bound the problem: give compute, or else {' and '.join(missing)}")

    def seconds(self, N: Any, B: Any) -> FloatArray:
        """Seconds a step; 1 where there is no step_time, so that time is steps."""
        if not callable(self.step_time):
            return np.full(np.broadcast_shapes(np.shape(N), np.shape(B)), self.step_time or 1.0)
        N, B = np.broadcast_arrays(np.asarray(N, dtype=float), B)
        known = np.isfinite(N) & np.isfinite(B)
        found = np.full(N.shape, np.nan)
        found[known] = [float(self.step_time(n, b)) for n, b in zip(N[known].tolist(), B[known].tolist(), strict=True)]
        bad = known & ~(found > 0.0)  # or NaN
        if bad.any():
            raise ValueError(
                f"step_time: expected seconds > 0, got {found[bad][0]:g} for N = {N[bad][0]:.6g}, B = {B[bad][0]:.6g}"
            )
        return found

    def flop(self, N: Any, B: Any, K: Any) -> Any:
        return 6.0 * N * B * K * self.length

    def most_steps(self, N: FloatArray, B: FloatArray) -> FloatArray:
        """Steps allowed, not rounded."""
        with np.errstate(over="ignore"):
            most = np.minimum(self.steps, self.compute / self.flop(N, B, 1.0))
        return np.minimum(most, self.time / self.seconds(N, B)) if self.time < math.inf else most

    def allow(self, N: FloatArray, B: FloatArray, K: FloatArray) -> NDArray[np.bool_]:
        """Whether whole numbers keep to all limits, exactly: a large product leaves room for its rounding error."""
        flop = self.flop(N, B, K)
        exact = (flop <= EXACT) & (self.length == math.floor(self.length))
        sizes, most = np.stack([N, B, K]), np.stack([self.params, self.batch, self.steps])
        kept = ((sizes >= 1.0) & (sizes <= most[:, None])).all(axis=0)
        kept &= np.where(exact, flop <= self.compute, flop <= self.compute * (1.0 - 2e-15))
        if self.time < math.inf:
            kept &= np.maximum(K, 1.0) * self.seconds(N, B) <= self.time
        return np.asarray(kept)

    def binding(self, N: int, B: int, K: int) -> tuple[str, ...]:
        more = float(K + 1)
        binds = {
            "compute": self.flop(float(N), float(B), more) > self.compute,
            "steps_max": self.steps < more,
            "batch_max": self.batch < B + 1,
            "params_max": self.params < N + 1,
            "time": self.time < math.inf and more * float(self.seconds(float(N), float(B))) > self.time,
        }
        return tuple(name for name, bound in binds.items() if bound)


class _Search:
    """The lowest loss under limits. A point is log N, log B and u, with K = exp(-u) times the most steps allowed."""

    def __init__(self, fit: Fit, limits: _Limits) -> None:
        self.fit, self.limits = fit, limits
        low, high = _box(fit)
        most = np.array([limits.params, limits.batch, limits.steps])
        self.edge = np.floor(np.exp(high) * (1.0 + 1e-12))  # of the box
        self.most = np.minimum(self.edge, most)
        self.least = math.floor(min(math.exp(low[0]), max(1.0, self.most[0] / REACH)))
        if not limits.allow(*np.array([[self.least], [1.0], [1.0]]))[0]:
            self.least = 1
        self.low = np.array([math.log(self.least), 0.0, 0.0])
        self.high = np.log(self.most)
        self.seen = np.log([[fit.runs[name].min(), fit.runs[name].max()] for name in ("N", "B", "K")])

    def steps(self, points: FloatArray) -> FloatArray:
        n, b, u = points.T
        N, B = np.exp(n), np.exp(b)
        return np.asarray(np.minimum(self.most[2], self.limits.most_steps(N, B)) * np.exp(-u))

    def values(self, points: FloatArray, draws: int = 0) -> FloatArray:
        """(draws + 1, points) losses, inf where not one step is allowed; of equal ones, those among the runs less."""
        K = self.steps(points)
        kept = K >= 1.0 - 1e-9
        if not kept.any():
            return np.full((1, len(points)), np.inf)
        found = _losses(self.fit, (*np.exp(points[kept, :2].T), np.maximum(K[kept], 1.0)), draws)
        values = np.full((len(found), len(points)), np.inf)
        beyond = np.column_stack([points[kept, :2], np.log(K[kept])])
        beyond = np.maximum(self.seen[:, 0] - beyond, beyond - self.seen[:, 1]).clip(0.0).sum(axis=1)
        values[:, kept] = np.where(np.isnan(found), np.inf, found) * (1.0 + 1e-11 * beyond)
        return values

    def lowest(self) -> FloatArray:
        """The lowest point of a grid, or of those around other minima on it, refined."""
        axes = [np.linspace(self.low[i], self.high[i], GRID if self.high[i] > self.low[i] else 1) for i in (0, 1)]
        depths = np.array([0.0, 0.3, 1.0, 2.0, 4.0, 8.0])
        depths = depths[depths <= max(self.high[2], 0.0)]
        points = np.stack(np.meshgrid(*axes, depths, indexing="ij"), axis=-1)
        values = self.values(points.reshape(-1, 3))[0].reshape(points.shape[:-1])
        spacing = np.array([*(a[1] - a[0] if a.size > 1 else 0.0 for a in axes), 0.5])
        at = [points[i] for i in _minima(values)]
        ends = [_descend(lambda p: self.values(p)[0], p, spacing, self.low, self.high, 1e-2) for p in at]
        end = min(ends, key=lambda p: self.values(p[None])[0, 0])
        return _descend(lambda p: self.values(p)[0], end, np.full(3, 0.02) * (spacing > 0.0), self.low, self.high, 1e-6)

    def whole(self, point: FloatArray) -> tuple[int, int, int]:
        """The best whole numbers around: two of three near the point, the third too or as large as is allowed."""
        near = np.append(np.exp(point[:2]), self.steps(point[None]))
        found = np.floor(near + 1e-9)
        around, value = np.arange(-5.0, 7.0), math.inf  # wide at first, then near by until nothing is lower
        for _ in range(50):
            tried = [self._filled(free, found, near, around) for free in range(3)]
            best, lowest = self._best_of(np.concatenate(tried))
            if not lowest < value:
                break
            found, value, near, around = best, lowest, best, np.arange(-2.0, 3.0)
        if math.isinf(value):
            raise ValueError("expected limits that whole numbers of parameters, examples and steps keep to; raise them")
        return int(found[0]), int(found[1]), int(found[2])

    def _filled(self, free: int, found: FloatArray, near: FloatArray, around: FloatArray) -> FloatArray:
        """Whole points that keep to the limits: two numbers around those found, the free one near or at its most."""
        others = [i for i in range(3) if i != free]
        pairs = np.stack(np.meshgrid(*(found[i] + around for i in others)), axis=-1).reshape(-1, 2)
        pairs = pairs[(pairs >= 1.0).all(axis=1) & (pairs <= self.most[others]).all(axis=1)]
        if free == 2:
            most = self.limits.most_steps(pairs[:, 0], pairs[:, 1])
        else:
            most = self.limits.compute / (6.0 * self.limits.length * pairs.prod(axis=1))
        most = np.minimum(np.floor(most * (1.0 + 1e-15)), self.most[free])
        few = np.minimum(math.floor(near[free] + 1e-9), most)
        points = np.empty((4, len(pairs), 3))
        points[:, :, others] = pairs
        points[:, :, free] = most, most - 1.0, few, np.minimum(few + 1.0, most)  # the most may be one too many
        flat = points.reshape(-1, 3)
        return flat[self.limits.allow(*flat.T)]

    def _best_of(self, points: FloatArray) -> tuple[FloatArray, float]:
        if len(points) == 0:
            return np.zeros(3), math.inf
        points = np.unique(points, axis=0)
        losses = _losses(self.fit, points.T, 0)[0]
        losses = np.where(np.isnan(losses), np.inf, losses)
        at = int(np.argmin(losses))
        return points[at], float(losses[at])

    def optima(self, point: FloatArray) -> FloatArray:
        """(draws, 3): N, B, K of the lowest loss by each of some bootstrap draws.

        Ever finer grids with a few draws show where they lie, the last one with all of them is interpolated. K keeps
        to its limit if the prediction's does.
        """
        depths = np.zeros(1) if point[2] < 1e-3 else np.clip(point[2] + np.linspace(-1.5, 1.5, 4), 0.0, self.high[2])
        low, high = self.low[:2], self.high[:2]
        for count, draws in ((GRID, 16), (9, 16), (9, 16), (9, DRAWS)):
            if draws == DRAWS:  # room for those draws that have not been seen yet
                low, high = low - 0.25 * (high - low), high + 0.25 * (high - low)
            low, high = np.maximum(low, self.low[:2]), np.minimum(high, self.high[:2])
            axes = [np.linspace(low[i], high[i], count if high[i] > low[i] else 1) for i in (0, 1)]
            points = np.stack(np.meshgrid(*axes, depths, indexing="ij"), axis=-1)
            values = self.values(points.reshape(-1, 3), draws)
            if len(values) == 1:
                return np.full((0, 3), np.nan)
            spacing = np.array([a[1] - a[0] if a.size > 1 else 0.0 for a in axes])
            lowest = points.reshape(-1, 3)[values.argmin(axis=1), :2]
            low, high = lowest.min(axis=0) - spacing, lowest.max(axis=0) + spacing
        found = np.array([_interpolated(v.reshape(points.shape[:-1]), points, spacing) for v in values[1:]])
        lowest_value = values[1:].min(axis=1)
        # on a coarse grid a kink hides: where limits meet, and where the prediction's best is
        for ridge in [*(self.ridges(axes[0]) if depths.size == 1 else []), point[None]]:
            along = self.values(ridge, DRAWS)[1:]
            for i in np.flatnonzero(along.min(axis=1) < lowest_value):
                found[i], lowest_value[i] = _along(along[i], ridge), along[i].min()
        return np.column_stack([np.exp(found[:, :2]), self.steps(found)])

    def ridges(self, n: FloatArray) -> list[FloatArray]:
        """Points at each n where two limits of the steps meet: the loss has a kink there, and often its minimum."""
        limits = self.limits

        def logs(b: FloatArray) -> FloatArray:
            """Of the steps that compute, steps_max (or the box) and time allow."""
            N, B = np.exp(n), np.exp(b)
            by_time = limits.time / limits.seconds(N, B) if limits.time < math.inf else np.full(n.size, 1e300)
            by_compute = np.minimum(limits.compute / limits.flop(N, B, 1.0), 1e300)
            return np.log(np.stack([by_compute, np.full(n.size, self.most[2]), np.maximum(by_time, 1e-300)]))

        found = []
        for one, other in ((0, 1), (0, 2), (1, 2)):
            low, high = np.full(n.size, self.low[1]), np.full(n.size, self.high[1])
            first, last = (np.sign(logs(b)[one] - logs(b)[other]) for b in (low, high))
            for _ in range(40):
                middle = 0.5 * (low + high)
                left = np.sign(logs(middle)[one] - logs(middle)[other]) == first
                low, high = np.where(left, middle, low), np.where(left, high, middle)
            points = np.column_stack([n, low, np.zeros(n.size)])[first * last < 0.0]
            if len(points):
                found.append(points)
        return found

    def at_edge(self, N: int, B: int, K: int) -> bool:
        limits = (self.limits.params, self.limits.batch, self.limits.steps)
        upper = any(v >= (1.0 - 1e-3) * e and e < m for v, e, m in zip((N, B, K), self.edge, limits, strict=True))
        return bool(upper or 1 < self.least >= N * (1.0 - 1e-3))


class _Course:
    """Where a target loss is reached, all in logs; x is log time, or log steps without step_time."""

    def __init__(self, fit: Fit, limits: _Limits, target: float, low: FloatArray, high: FloatArray) -> None:
        self.fit, self.limits, self.goal = fit, limits, math.log(target)
        self.low, self.high = low, high

    def log_seconds(self, n: FloatArray, b: FloatArray) -> FloatArray:
        return np.log(self.limits.seconds(np.exp(n), np.exp(b)))

    def steps(self, n: FloatArray, b: FloatArray) -> FloatArray:
        """The fewest at each size and batch size; NaN where the target is not reached or a step cannot be done."""

        def value(k: FloatArray, at: Any) -> FloatArray:
            return _log_losses(self.fit, n[at], b[at], k, True) - self.goal

        k = _crossing(value, np.full(n.shape, self.low[2]), np.full(n.shape, self.high[2]))
        return np.where(np.isfinite(self.log_seconds(n, b)), k, np.nan)

    def batches(self, x: FloatArray, n: FloatArray) -> FloatArray:
        """The smallest that reach the target in x; NaN where none does."""

        def value(b: FloatArray, at: Any) -> FloatArray:
            k = x[at] - self.log_seconds(n[at], b)
            inside = (k >= self.low[2] - 1e-9) & (k <= self.high[2] + 1e-9)
            return _log_losses(self.fit, n[at], b, k, inside) - self.goal

        return _crossing(value, np.full(x.shape, self.low[1]), np.full(x.shape, self.high[1]))

    def cheapest(self, x: FloatArray, n: FloatArray, known: FloatArray) -> tuple[FloatArray, FloatArray]:
        """log N and log B of the least compute for each x, NaN where the target is not reached in it."""

        def compute(n: FloatArray) -> FloatArray:
            across = np.broadcast_to(x, n.shape)
            b = self.batches(across, n)
            return n + b - self.log_seconds(n, np.where(np.isnan(b), self.high[1], b)) + across

        sizes = np.unique(np.clip(np.concatenate([n[::2], known]), self.low[0], self.high[0]))
        grid = np.repeat(sizes[:, None], x.size, axis=1)
        size, _ = _vertex(grid, compute(grid), compute, 12)
        return size, self.batches(x, size)

    def ratios(self, x: FloatArray, n: FloatArray, b: FloatArray) -> FloatArray:
        """(draws, x): each bootstrap draw's compute over the prediction's, at its own B and the same N."""

        def sizes(offsets: FloatArray) -> FloatArray:
            batches = b[:, None] + offsets
            across = np.broadcast_to(n[:, None], batches.shape)
            return np.stack([across, batches, np.maximum(x[:, None] - self.log_seconds(across, batches), 0.0)])

        fine = sizes(FINE)
        inside = (fine[1] >= self.low[1]) & (fine[1] <= self.high[1]) & (fine[2] > 0.0)
        logs = np.where(inside, _log_draws(self.fit, sizes) - self.goal, np.inf)
        cost = fine.sum(axis=0) - (n + b + x - self.log_seconds(n, b))[:, None]
        return np.exp(_first_below(logs, cost))


def _require_fit(fit: Any) -> None:
    if not callable(getattr(fit, "losses", None)) or not isinstance(getattr(fit, "runs", None), Mapping):
        raise TypeError(f"fit: expected a fit such as that of nqm.scaling.fit_runs, got {_checks.describe(fit)}")


def _box(fit: Fit) -> tuple[FloatArray, FloatArray]:
    """Lower and upper ends of log N, log B, log K that are searched."""
    low, high = np.zeros(3), np.array([math.log(REACH * float(fit.runs[name].max())) for name in ("N", "B", "K")])
    low[0] = max(0.0, math.log(float(fit.runs["N"].min()) / REACH))
    return low, high


def _losses(fit: Fit, sizes: Any, draws: int | None) -> FloatArray:
    """Of sizes N, B, K, (draws + 1, ...)."""
    N, B, K = np.broadcast_arrays(*sizes)
    return np.asarray(fit.losses(N, B, K, draws=draws))


def _log_losses(fit: Fit, n: Any, b: Any, k: Any, kept: Any) -> FloatArray:
    """Log of predicted losses at logs of N, B, K; inf where they are not ``kept``, or not a number."""
    n, b, k, kept = np.broadcast_arrays(n, b, k, kept)
    logs = np.full(n.shape, np.inf)
    if kept.any():
        found = np.log(_losses(fit, np.exp([n[kept], b[kept], k[kept]]), 0)[0])
        logs[kept] = np.where(np.isnan(found), np.inf, found)
    return logs


def _quantiles(draws: FloatArray, level: float) -> FloatArray:
    """Both ends, (2, ...), of the central interval along the first axis; NaN where there is no draw.

    They are values that occur, so that infinite ones are no trouble.
    """
    if len(draws) == 0:
        return np.full((2, *draws.shape[1:]), np.nan)
    return np.quantile(draws, [0.5 - 0.5 * level, 0.5 + 0.5 * level], axis=0, method="inverted_cdf")


def _crossing(value: Callable[[FloatArray, Any], FloatArray], low: FloatArray, high: FloatArray) -> FloatArray:
    """The first t in [low, high] with value(t, where) <= 0, for each of an array of functions; NaN without one.

    ``where`` selects the functions that are asked. First at 13 points from low to high, then by the Illinois variant
    of regula falsi, with bisection where the function is infinite; the answer is on the side where value <= 0.
    """
    shares = np.linspace(0.0, 1.0, SCAN).reshape(-1, *[1] * low.ndim)
    points = low + shares * (high - low)
    values = value(points, ...)
    below = values <= 0.0
    found = below.any(axis=0)
    first = np.where(found, np.argmax(below, axis=0), 0)
    right = np.take_along_axis(points, first[None], axis=0)[0]
    active = np.nonzero(found & (first > 0))
    if active[0].size:
        i = first[active]
        a, b = points[(i - 1, *active)], points[(i, *active)]
        fa, fb = values[(i - 1, *active)], values[(i, *active)]
        for _ in range(40):
            open_ = np.flatnonzero((b - a > 1e-9) & (fb < -1e-10))
            if not open_.size:
                break
            with np.errstate(invalid="ignore"):
                t = (a * fb - b * fa) / (fb - fa)
            middle = 0.5 * (a + b)
            t = np.where(np.isfinite(fa) & (t > a) & (t < b), t, middle)
            ft = np.full(t.shape, np.nan)
            ft[open_] = value(t[open_], tuple(index[open_] for index in active))
            over = ft > 0.0
            under = ft <= 0.0
            # Illinois: the end that stays counts half, so that it moves next
            fb = np.where(over, 0.5 * fb, fb)
            fa = np.where(under, 0.5 * fa, fa)
            a, fa = np.where(over, t, a), np.where(over, ft, fa)
            b, fb = np.where(under, t, b), np.where(under, ft, fb)
        right[active] = b
    return np.where(found, right, np.nan)


def _log_draws(fit: Fit, sizes: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """Log losses of bootstrap draws, (draws, ..., 61), at the logs of N, B, K that FINE leads to.

    The prediction's there, plus each draw's distance from it, interpolated between OFFSETS.
    """
    coarse = np.log(_losses(fit, np.exp(sizes(OFFSETS)), DRAWS))
    fine = np.log(_losses(fit, np.exp(sizes(FINE)), 0)[0])
    return np.asarray(fine + (coarse[1:] - coarse[0]) @ BETWEEN)


def _first_below(values: FloatArray, positions: FloatArray) -> FloatArray:
    """Where values (..., points), at ``positions``, first come to 0, by linear interpolation; the first if they are
    below at once, inf if they never are."""
    positions = np.broadcast_to(positions, values.shape)
    below = values <= 0.0
    first = np.argmax(below, axis=-1)[..., None]
    before = np.maximum(first - 1, 0)
    x0, x1 = (np.take_along_axis(positions, i, -1)[..., 0] for i in (before, first))
    y0, y1 = (np.take_along_axis(values, i, -1)[..., 0] for i in (before, first))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where((first[..., 0] > 0) & np.isfinite(y0), y0 / (y0 - y1), 1.0)
    return np.where(below.any(axis=-1), x0 + share * (x1 - x0), np.inf)


def _descend(
    value: Callable[[FloatArray], FloatArray],
    start: FloatArray,
    spacing: FloatArray,
    low: FloatArray,
    high: FloatArray,
    tolerance: float,
    flat: float = 1e-12,
) -> FloatArray:
    """The lowest point near ``start`` in a box, to a ``tolerance`` in its coordinates.

    A 5 x 5 grid around the best so far, turned at every round so that no kink of the limits is missed, moves while it
    finds points that are lower by a relative ``flat``, and shrinks else. A third coordinate, if there is one, takes
    three values.
    """
    square = np.stack(np.meshgrid(*[np.linspace(-1.0, 1.0, 5)] * 2), axis=-1).reshape(-1, 2)
    point, lowest, size = start, math.inf, 1.0
    for turn in range(200):
        angle = 2.399963 * turn  # the golden angle
        offsets = square @ np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        if start.size == 3:
            offsets = np.column_stack([np.tile(offsets, (3, 1)), np.repeat([0.0, -1.0, 1.0], len(square))])
        points = np.unique(np.clip(point + size * spacing * offsets, low, high), axis=0)
        values = value(points)
        at = int(np.nanargmin(values)) if not np.isnan(values).all() else 0
        gain = lowest - float(values[at])
        if gain > 0.0:
            point, lowest = points[at], float(values[at])
            if gain > flat * abs(lowest):
                continue
        size *= 0.6
        if size * float(spacing.max()) < tolerance:
            break
    return point


def _minima(values: FloatArray) -> list[tuple[int, ...]]:
    """Up to four grid points, the lowest first, that are no higher than their neighbours in the first two axes."""
    depth = np.argmin(values, axis=2)
    flat = np.take_along_axis(values, depth[..., None], axis=2)[..., 0]
    padded = np.pad(flat, 1, constant_values=np.inf)
    rows, columns = flat.shape
    around = np.stack([padded[i : i + rows, j : j + columns] for i in range(3) for j in range(3)])
    low = np.argwhere((flat <= around.min(axis=0)) & np.isfinite(flat))
    order = sorted((tuple(at) for at in low.tolist()), key=lambda at: float(flat[at]))
    return [(*at, int(depth[at])) for at in order[:4]] or [(0, 0, 0)]


def _interpolated(values: FloatArray, points: FloatArray, spacing: FloatArray) -> FloatArray:
    """The lowest point of the quadratic through the grid's around its lowest, in the first two axes."""
    lowest = np.unravel_index(int(np.argmin(values)), values.shape)
    best: FloatArray = points[lowest].copy()
    axes = [i for i in (0, 1) if values.shape[i] > 2]
    center = [int(np.clip(lowest[i], 1, values.shape[i] - 2)) if i in axes else int(lowest[i]) for i in (0, 1)]
    patch = values[..., lowest[2]][
        tuple(slice(c - 1, c + 2) if i in axes else slice(c, c + 1) for i, c in enumerate(center))
    ]
    if not axes or not np.isfinite(patch).all():
        return best
    x = np.stack(np.meshgrid(*[np.arange(-1.0, 2.0)] * len(axes), indexing="ij"), axis=-1).reshape(-1, len(axes))
    pairs = [(i, j) for i in range(len(axes)) for j in range(i, len(axes))]
    design = np.column_stack([np.ones(len(x)), x, *[x[:, i] * x[:, j] for i, j in pairs]])
    fitted = np.linalg.lstsq(design, patch.ravel(), rcond=None)[0]
    slope, curved = fitted[1 : 1 + len(axes)], np.zeros((len(axes), len(axes)))
    for (i, j), c in zip(pairs, fitted[1 + len(axes) :], strict=True):
        curved[i, j] += c
        curved[j, i] += c
    bends, ways = np.linalg.eigh(curved)
    bends = np.where(bends > 1e-6 * np.abs(bends).max(), bends, np.inf)  # along a flat or falling way it stays
    moved = np.clip(-ways @ (ways.T @ slope / bends), -1.0, 1.0)
    for i, shift in zip(axes, moved, strict=True):
        best[i] += np.clip(center[i] + shift - lowest[i], -1.0, 1.0) * spacing[i]
    return best


def _along(values: FloatArray, points: FloatArray) -> FloatArray:
    """The lowest point of the parabola through three points, evenly along a line, around the lowest."""
    i = int(np.argmin(values))
    if not 0 < i < len(values) - 1 or not np.isfinite(values[i - 1 : i + 2]).all():
        return points[i]
    left, right = values[i - 1] - values[i], values[i + 1] - values[i]
    return points[i] + 0.25 * (left - right) / max(left + right, 1e-300) * (points[i + 1] - points[i - 1])


def _vertex(
    grid: FloatArray, values: FloatArray, function: Callable[[FloatArray], FloatArray], rounds: int = 4
) -> tuple[FloatArray, FloatArray]:
    """Least values, and where, of functions known on a grid, (points, ...) in ascending order; NaN without any.

    Parabolas through the lowest point and its neighbours, again and again; halves the wider gap where they are no use.
    """
    order = np.where(np.isnan(values), np.inf, values)
    i = np.argmin(order, axis=0)
    inner = np.clip(i, 1, max(len(grid) - 2, 0))
    at = [np.clip(inner + k, 0, len(grid) - 1)[None] for k in (-1, 0, 1)]
    x = np.stack([np.take_along_axis(grid, j, axis=0)[0] for j in at])
    y = np.stack([np.take_along_axis(order, j, axis=0)[0] for j in at])
    best = np.take_along_axis(grid, i[None], axis=0)[0]
    lowest = order.min(axis=0)
    if len(grid) > 2:
        for _ in range(rounds):
            with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
                left, right = (x[1] - x[0]) * (y[1] - y[2]), (x[1] - x[2]) * (y[1] - y[0])
                t = x[1] - 0.5 * ((x[1] - x[0]) * left - (x[1] - x[2]) * right) / (left - right)
            usable = np.isfinite(t) & (t > x[0]) & (t < x[2]) & (y[1] <= y[0]) & (y[1] <= y[2])
            wide = np.where(x[1] - x[0] > x[2] - x[1], 0.5 * (x[0] + x[1]), 0.5 * (x[1] + x[2]))
            t = np.where(usable & (np.abs(t - x[1]) > 1e-7), t, wide)
            f = function(t)
            f = np.where(np.isnan(f), np.inf, f)
            lower = f < lowest
            best, lowest = np.where(lower, t, best), np.where(lower, f, lowest)
            # the lowest of the four, with its neighbours
            x, y = np.concatenate([x, t[None]]), np.concatenate([y, f[None]])
            by = np.argsort(x, axis=0)
            x, y = np.take_along_axis(x, by, axis=0), np.take_along_axis(y, by, axis=0)
            start = np.clip(np.argmin(y, axis=0), 1, 2) - 1
            pick = start[None] + np.arange(3).reshape(-1, *[1] * start.ndim)
            x, y = np.take_along_axis(x, pick, axis=0), np.take_along_axis(y, pick, axis=0)
    reached = np.isfinite(lowest)
    return np.where(reached, best, np.nan), np.where(reached, lowest, np.nan)


def _warn_far(fit: Fit, limits: _Limits, N: int, B: int, K: int) -> None:
    runs, told = fit.runs, []
    spans = {"params": (N, runs["N"]), "batch_size": (B, runs["B"]), "steps": (K, runs["K"])}
    spans["compute"] = (limits.flop(N, B, K), limits.flop(runs["N"], runs["B"], runs["K"]))
    for name, (answer, seen) in spans.items():
        factor = max(answer / float(seen.max()), float(seen.min()) / answer)
        if factor > FAR:
            span = f"{seen.min():.4g} to {seen.max():.4g}"
            told.append(f"{name} {answer:.4g} is {factor:.3g} times beyond the runs' {span}")
    if told:
        warnings.warn(
            f"the best allocation lies far outside the data, where the law has not been seen to hold: "
            f"{'; '.join(told)}",
            UserWarning,
            stacklevel=3,
        )
