"""What decisions share: the fit they ask, the box they search, and two searches, for a minimum and for a crossing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import ArrayLike

from .. import _checks
from .._checks import FloatArray

REACH: Final = 100.0  # how many times beyond the data is searched
DRAWS: Final = 50  # bootstrap draws that decisions are made again for
SCAN: Final = 9  # points at which a first crossing is looked for
FINE: Final = np.linspace(-3.0, 3.0, 61)  # in log, around a crossing: where the prediction is evaluated,
OFFSETS: Final = np.array([-3.0, -1.2, -0.4, 0.0, 0.4, 1.2, 3.0])  # and where the draws are

Interval = tuple[float, float]
StepTime = float | Callable[[float, float], float]


class Fit(Protocol):
    """What decisions need of a fit: expected losses, (draws + 1, ...), and the runs N, B, K it has seen."""

    @property
    def runs(self) -> Mapping[str, FloatArray]: ...

    def losses(self, N: ArrayLike, B: ArrayLike, K: ArrayLike, draws: int | None = None) -> FloatArray: ...


def box(fit: Any) -> FloatArray:
    """(3, 2): ends of log N, log B, log K that are searched, 1 to 100 times the most of the runs; N from a hundredth
    of the least. Raises TypeError for what is no fit."""
    if not callable(getattr(fit, "losses", None)) or not isinstance(getattr(fit, "runs", None), Mapping):
        raise TypeError(f"fit: expected a fit such as that of nqm.scaling.fit_runs, got {_checks.describe(fit)}")
    least = max(1.0, float(fit.runs["N"].min()) / REACH)
    most = [REACH * float(fit.runs[name].max()) for name in ("N", "B", "K")]
    return np.log([[least, most[0]], [1.0, most[1]], [1.0, most[2]]])


def seconds_of(step_time: StepTime | None) -> Callable[[Any, Any], FloatArray]:
    """Seconds a step at arrays N, B (NaN where one is NaN); 1 without step_time, so that time is steps."""
    if callable(step_time):
        step = step_time
    else:
        constant = 1.0 if step_time is None else _checks.real(step_time, "step_time", low=0.0)

        def step(N: float, B: float) -> float:
            return constant

    def seconds(N: Any, B: Any) -> FloatArray:
        N, B = np.broadcast_arrays(np.asarray(N, dtype=float), B)
        found = np.full(N.shape, np.nan)
        for at in zip(*np.nonzero(~np.isnan(N + B)), strict=True) if N.ndim else [()]:
            found[at] = step(float(N[at]), float(B[at]))
            if not found[at] > 0.0:
                raise ValueError(
                    f"step_time: expected seconds > 0, got {found[at]:g} for N = {N[at]:.6g}, B = {B[at]:.6g}"
                )
        return found

    return seconds


def log_losses(fit: Fit, n: Any, b: Any, k: Any) -> FloatArray:
    """Log of predicted losses at logs of N, B, K; inf where K is less than 1 or NaN, for what cannot be done."""
    n, b, k = np.broadcast_arrays(n, b, k)
    kept = np.isfinite(k) & (k >= -1e-9)
    logs = np.full(n.shape, np.inf)
    if kept.any():
        found = np.log(fit.losses(*np.exp([n[kept], b[kept], k[kept]]), draws=0)[0])
        logs[kept] = np.where(np.isnan(found), np.inf, found)
    return logs


def quantiles(draws: FloatArray, level: float) -> FloatArray:
    """Ends, (2, ...), of the central interval along the first axis, values that occur; NaN where there is no draw."""
    if len(draws) == 0:
        return np.full((2, *draws.shape[1:]), np.nan)
    return np.quantile(draws, [0.5 - 0.5 * level, 0.5 + 0.5 * level], axis=0, method="inverted_cdf")


def grid(ends: Any, count: int, shape: tuple[int, ...] = ()) -> FloatArray:
    """(count, *shape) points between two ends, the same for each; one point where the ends are one."""
    points = np.linspace(*ends, count if ends[1] > ends[0] else 1)
    return np.broadcast_to(points.reshape(-1, *[1] * len(shape)), (points.size, *shape))


def lowest(
    function: Callable[[FloatArray], FloatArray], points: FloatArray, rounds: int = 16
) -> tuple[FloatArray, FloatArray]:
    """Where functions are least, and their least values: of points (count, ...), then in steps that halve.

    Finds a minimum, with a kink or next to infinite values too, of what falls and rises once between points.
    """

    def best(x: FloatArray) -> tuple[FloatArray, FloatArray]:
        values = function(x)
        at = values.argmin(axis=0)[None]
        return np.take_along_axis(x, at, 0)[0], np.take_along_axis(values, at, 0)[0]

    x, value = best(points)
    if len(points) > 1:
        step = np.diff(points, axis=0).max(axis=0)
        for _ in range(rounds):
            step = 0.5 * step
            tried, found = best(np.clip([x - step, x + step], points[0], points[-1]))
            x, value = np.where(found < value, tried, x), np.minimum(found, value)
    return x, value


def lowest_pair(
    function: Callable[[FloatArray, FloatArray], FloatArray], x: FloatArray, y: Any, count: int, rounds: int
) -> tuple[float, float, float]:
    """x, y and the value of the least function(x, y): the least over y, between two ends, at each x, and of those.

    One after the other, because limits meet in edges that lie across both; a search along one always finds them.
    """

    def along(x: FloatArray) -> tuple[FloatArray, FloatArray]:
        return lowest(lambda y: function(np.broadcast_to(x, y.shape), y), grid(y, count, x.shape), rounds)

    found, _ = lowest(lambda x: along(x)[1], x, rounds)
    other, value = along(found)
    return float(found), float(other), float(value)


def first_below(function: Callable[[FloatArray], FloatArray], low: Any, high: Any) -> FloatArray:
    """The first t from low to high with function(t) <= 0, for each of an array of functions; NaN without one.

    First at 9 points, then by regula falsi (Illinois: the end that stays counts half), on the side that is below.
    """
    points = np.linspace(low, high, SCAN)
    values = function(points)
    first = (values <= 0.0).argmax(axis=0)
    at = [np.maximum(first - 1, 0)[None], first[None]]
    (left, right), (f_left, f_right) = ([np.take_along_axis(v, i, 0)[0] for i in at] for v in (points, values))
    right = np.where(f_right <= 0.0, right, np.nan)
    for _ in range(40):
        going = (right - left > 1e-9) & (f_right < -1e-10)
        if not going.any():
            break
        with np.errstate(invalid="ignore"):
            t = (left * f_right - right * f_left) / (f_right - f_left)
        t = np.where(going, np.where((t > left) & (t < right), t, 0.5 * (left + right)), np.nan)
        f = function(t)
        under, over = going & (f <= 0.0), going & (f > 0.0)
        right, f_right = np.where(under, t, right), np.where(under, f, np.where(over, 0.5 * f_right, f_right))
        left, f_left = np.where(over, t, left), np.where(over, f, np.where(under, 0.5 * f_left, f_left))
    return right


def draw_shifts(fit: Fit, sizes: Callable[[FloatArray], tuple[Any, Any, Any]], goal: Any) -> FloatArray:
    """(draws, ...): how far from the prediction's crossing each bootstrap draw first comes to the log loss ``goal``.

    sizes: logs of N, B, K, (..., offsets), at offsets from the crossing, searched from -3 to 3; inf: not within. The
    draws' distances from the prediction are evaluated at 7 offsets and interpolated.
    """
    n, b, k = np.broadcast_arrays(*sizes(OFFSETS))
    coarse = np.log(fit.losses(*np.exp([n, b, np.nan_to_num(k).clip(0.0)]), draws=DRAWS))
    between = np.array([np.interp(FINE, OFFSETS, one) for one in np.eye(OFFSETS.size)])
    values = log_losses(fit, *sizes(FINE)) + (coarse[1:] - coarse[0]) @ between - np.asarray(goal)[..., None]
    below = values <= 0.0
    first = np.maximum(below.argmax(axis=-1), 1)
    before, after = (np.take_along_axis(values, i[..., None], -1)[..., 0] for i in (first - 1, first))
    with np.errstate(invalid="ignore"):
        share = np.clip(np.where(np.isfinite(before), after / (after - before), 0.0), 0.0, 1.0)
    return np.where(below.any(axis=-1), FINE[first] - share * (FINE[1] - FINE[0]), np.inf)


def log_size(value: Any, name: str) -> float:
    return math.log(_checks.real(value, name, low=1.0, closed="low"))
