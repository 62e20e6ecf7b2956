"""What decisions share: the box that they search, and the search for a minimum and for a crossing in it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from ... import _checks
from ..._checks import FloatArray
from .fit import Fit, far_beyond

__all__ = [
    "DRAWS",
    "OFFSETS",
    "REACH",
    "StepTime",
    "box",
    "draw_crossings",
    "first_below",
    "log_losses",
    "lowest",
    "seconds_of",
    "seen_by",
    "warn_far",
]

REACH: Final = 100.0  # how many times beyond the data is searched
DRAWS: Final = 50  # bootstrap draws that decisions are made again for
OFFSETS: Final = np.linspace(-3.0, 3.0, 13)  # in log, where draws are evaluated

Function = Callable[[FloatArray], FloatArray]  # an array of functions, each at points of its own
StepTime = float | Callable[[float, float], float]


def box(fit: Any) -> FloatArray:
    """(3, 2): ends of log N, log B, log K that are searched; TypeError for what is no fit."""
    if not callable(getattr(fit, "losses", None)) or not isinstance(getattr(fit, "runs", None), Mapping):
        raise TypeError(f"fit: expected a fit such as that of nqm.scaling.fit_runs, got {_checks.describe(fit)}")
    least = max(1.0, float(fit.runs["N"].min()) / REACH)
    return np.log([[low, REACH * fit.runs[name].max()] for name, low in (("N", least), ("B", 1.0), ("K", 1.0))])


def log_losses(fit: Fit, n: Any, b: Any, k: Any, draws: int = 0) -> FloatArray:
    """(draws + 1, ...) log losses at logs of N, B, K; inf where K is less than 1, for what cannot be done."""
    n, b, k = np.broadcast_arrays(n, b, k)
    kept = k >= -1e-9
    if not kept.any():
        return np.full((1, *n.shape), np.inf)
    N, B, K = np.exp([n[kept], b[kept], k[kept]])
    found = np.log(fit.losses(N, B, K, draws=draws))
    logs = np.full((len(found), *n.shape), np.inf)
    logs[:, kept] = np.where(np.isnan(found), np.inf, found)
    return logs


def seconds_of(step_time: StepTime | None) -> Callable[[Any, Any], FloatArray]:
    """Seconds per step at arrays N, B; 1 without step_time, so that time is steps."""
    if not callable(step_time):
        constant = 1.0 if step_time is None else _checks.real(step_time, "step_time", low=0.0)
        return lambda N, B: np.full(np.broadcast_shapes(np.shape(N), np.shape(B)), constant)

    def seconds(N: Any, B: Any) -> FloatArray:
        found = np.vectorize(step_time, otypes=[float])(N, B)
        bad = np.argwhere(~(found > 0.0))  # or NaN
        if len(bad):
            N, B, first = (v[tuple(bad[0])] for v in np.broadcast_arrays(N, B, found))
            raise ValueError(f"step_time: expected seconds > 0, got {first:g} for N = {N:.6g}, B = {B:.6g}")
        return np.asarray(found)

    return seconds


def lowest(function: Function, points: FloatArray, rounds: int) -> tuple[FloatArray, FloatArray]:
    """Where functions are least, and their least values: of points (count, ...), then in steps that halve.

    Finds a minimum, also at a kink or next to infinite values, of what falls and rises once between points.
    """

    def best(x: FloatArray) -> tuple[FloatArray, FloatArray]:
        values = function(x)
        at = values.argmin(axis=0)[None]
        return np.take_along_axis(x, at, 0)[0], np.take_along_axis(values, at, 0)[0]

    x, value = best(points)
    step = np.diff(points, axis=0).max(axis=0, initial=0.0)
    for _ in range(rounds):
        step = 0.5 * step
        tried, found = best(np.clip([x - step, x + step], points[0], points[-1]))
        x, value = np.where(found < value, tried, x), np.minimum(found, value)
    return x, value


def first_below(function: Function, low: Any, high: Any) -> FloatArray:
    """The first t from low to high at which functions come to 0, for arrays of them; inf where they do not.

    Looked for at 9 points, then by four rounds of Ridders' method (1979).
    """
    points = np.linspace(low, high, 9)
    values = function(points)
    first = (values <= 0.0).argmax(axis=0)[None]
    ends = [[np.take_along_axis(v, at, 0)[0] for v in (points, values)] for at in (np.maximum(first - 1, 0), first)]
    (left, f_left), (right, f_right) = ends
    reached = f_right <= 0.0
    for _ in range(4):
        middle = 0.5 * (left + right)
        f = function(middle)
        with np.errstate(invalid="ignore", divide="ignore"):
            t = middle + (middle - left) * f / np.sqrt(f * f - f_left * f_right)
        t = np.where(np.isfinite(t), t, middle)
        for at, value in ((middle, f), (t, function(t))):
            left, f_left = np.where((value > 0.0) & (at > left), (at, value), (left, f_left))
            right, f_right = np.where((value <= 0.0) & (at < right), (at, value), (right, f_right))
    return np.where(reached, np.where(np.isfinite(value), t, right), np.inf)


def draw_crossings(fit: Fit, n: Any, b: Any, k: Any, along: FloatArray, goal: Any) -> FloatArray:
    """(draws, ...): where ``along`` (..., points) each bootstrap draw first comes to the log loss ``goal``, linear
    between points; inf where it does not. n, b, k: logs of N, B, K at the points."""
    values = log_losses(fit, n, b, k, DRAWS)[1:] - np.asarray(goal)[..., None]
    along = np.broadcast_to(along, values.shape)
    first = np.maximum((values <= 0.0).argmax(axis=-1), 1)[..., None]
    ends = [[np.take_along_axis(v, at, -1)[..., 0] for v in (along, values)] for at in (first - 1, first)]
    (left, f_left), (right, f_right) = ends
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(np.isfinite(f_left), f_right / (f_right - f_left), 0.0).clip(0.0, 1.0)
    return np.where((values <= 0.0).any(axis=-1), right - share * (right - left), np.inf)


def seen_by(fit: Fit, flop: float = 6.0) -> dict[str, FloatArray]:
    """Params, batch_size, steps and compute of the runs, at ``flop`` per parameter and example."""
    N, B, K = (fit.runs[name] for name in ("N", "B", "K"))
    return {"params": N, "batch_size": B, "steps": K, "compute": flop * N * B * K}


def warn_far(fit: Fit, what: str, answer: Mapping[str, Any], flop: float = 6.0) -> None:
    """Warn where numbers (or arrays) of an answer lie far outside the runs."""
    far = [f"{name} {times:.3g} times" for name, times in far_beyond(seen_by(fit, flop), answer).items()]
    if far:
        message = f"{what} far outside the data, where the law has not been seen to hold"
        warnings.warn(f"{message}: {', '.join(far)} beyond the runs", UserWarning, stacklevel=3)
