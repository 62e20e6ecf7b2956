"""The model of a run's final loss: what makes a power law a language model's, and its exact Jacobian.

On the recursion of :mod:`nqm.scaling.model`:

- a model of N parameters holds a share 1 / (1 + sqrt(n / N)) of mode n; the rest stays untrained;
- the learning rate follows the runs' own schedule, over the root of the growing squared norm of the weights, 1 + t / T0
  with t the sum of squared relative learning rates;
- Adam divides the gradient by its root mean square, noise included, so that small batches take smaller steps:
  lr / sqrt(1 + B_noise / B). B_noise = sum c / sum h^2 theta_0^2 is the simple noise scale of McCandlish et al. (2018)
  at the start, which the model knows of itself;
- noise R / n: the same in every octave of modes.

    loss = E + sum_n P/2 n^-p (1 - share_n) + sum_n share_n (b_n + v_n)

Six parameters p, q, P, Q, R, T0 and the floor E; theta = log(p - 1), log q, log P, log Q, log R, log T0, E.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

import numpy as np

from .. import _checks, schedules
from .._checks import FloatArray
from ..schedules import Schedule
from .model import LAST, Pieces, course, effective, modes

NAMES: Final = ("p", "q", "P", "Q", "R", "T0", "E")
SHAPES: Final = ("constant", "cosine", "linear", "wsd")
PIECES: Final = 24  # of the learning rate after the warmup

Shape = str | Callable[[int], Schedule]


class Rates:
    """Pieces of the relative learning rate, for any number of steps."""

    def __init__(self, shape: Shape, warmup: float) -> None:
        if isinstance(shape, str):
            if shape not in SHAPES:
                raise ValueError(
                    f"lr_schedule: expected one of {', '.join(SHAPES)}, or a function of the steps that returns an "
                    f"nqm.Schedule, got {shape!r}"
                )
        elif not callable(shape):
            raise TypeError(f"lr_schedule: expected a name or a function, got {_checks.describe(shape)}")
        self.shape, self.warmup = shape, warmup
        self._cached: dict[int, FloatArray] = {}

    def pieces(self, steps: FloatArray) -> Pieces:
        """For rows of so many steps, warmup included; the warmup's pieces are about as long as the rest, on average."""
        rising = max(1, round(PIECES * self.warmup)) if self.warmup else 0
        rise = (np.arange(rising) + 0.5) / max(rising, 1)
        lrs = np.array([np.append(rise, self._after(k)) for k in steps * (1.0 - self.warmup)])
        shares = np.append(np.full(rising, self.warmup / max(rising, 1)), (1.0 - self.warmup) * np.diff(_edges()))
        seen = np.zeros(lrs.shape, dtype=np.int64)
        seen[:, -1] = 1
        first = np.arange(steps.size + 1) * shares.size
        return Pieces(first, np.outer(steps, shares).ravel(), lrs.ravel(), seen.ravel())

    def _after(self, steps: float) -> FloatArray:
        """Learning rates after the warmup."""
        if isinstance(self.shape, str):
            return _shape(self.shape)
        whole = max(1, round(steps))
        if whole not in self._cached:
            made = self.shape(whole)
            _checks.instance(made, Schedule, f"lr_schedule({whole})", "an nqm.Schedule")
            if not made.values.any():
                raise ValueError(f"lr_schedule({whole}): expected learning rates > 0, got none")
            self._cached[whole] = _means(made.cut(whole))
        return self._cached[whole]


@lru_cache(maxsize=len(SHAPES))
def _shape(name: str) -> FloatArray:
    return _means(getattr(schedules, name)(1.0, 1000 * PIECES))


def _means(schedule: Schedule) -> FloatArray:
    """Mean value in each of the pieces, which need not hold whole steps."""
    sums = np.append(0.0, np.cumsum(schedule.values * schedule.lengths))
    edges = schedule.steps * _edges()
    return np.diff(np.interp(edges, np.append(0, schedule.ends), sums)) / np.diff(edges)


def _edges() -> FloatArray:
    """Where pieces end, as shares of the steps after the warmup: close together at first, where the weights grow, and
    at last, where the learning rate falls. Measured on constant, cosine and wsd: losses right to 4e-4 of them; with
    pieces of equal length, to 3e-3."""
    t = np.linspace(0.0, 1.0, PIECES + 1)
    return t * t * (3.0 - 2.0 * t)


class Rows:
    """The model at given N, B and pieces of the learning rate: losses and their exact Jacobian in theta."""

    def __init__(self, N: FloatArray, B: FloatArray, pieces: Pieces) -> None:
        self.B, self.pieces = B, pieces
        self.n, self.weight = modes()
        self.log_n = np.log(self.n)
        self.share = held(self.n, N)
        self.rest = 1.0 - self.share

    def untrained(self, theta: FloatArray) -> FloatArray:
        """E, what the model does not hold, and all modes beyond the last, (rows,)."""
        p, _, P, _, _, _, E = named(theta)
        return E + self.rest @ (0.5 * P * self.weight * self.n**-p) + _tail(p, P)[0]

    def rates(self, theta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Learning rates of all pieces; their derivatives by log T0, and by the log of the whole; then, for each row,
        noise over signal power at the start, and the mean of log n in the signal."""
        p, q, P, Q, R, T0, _ = named(theta)
        signal = P * Q * self.share * (self.weight * self.n ** -(p + q))
        signals = signal.sum(axis=1)
        ratio = R * (self.share @ (self.weight / self.n)) / signals / self.B
        found, slopes = effective(self.pieces, 1.0 / T0, 0.0)
        factor = np.repeat(1.0 / np.sqrt(1.0 + ratio), np.diff(self.pieces.first))
        rates = factor * found
        tangents = np.stack([factor * slopes[:, 0] / -T0, rates], axis=1)
        return rates, tangents, ratio, signal @ self.log_n / signals

    def losses(self, theta: FloatArray) -> FloatArray:
        return self._course(theta, False)[0]

    def jacobian(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Losses, (rows,), and their derivatives by theta, (rows, 7)."""
        losses, sums, ratio, mean_log = self._course(theta, True)
        p, q, P = named(theta)[:3]
        b, b_log, v, _, w, w_log, by_T0, by_rate = sums.T
        untrained = 0.5 * P * self.weight * self.n**-p
        tail, tail_p = _tail(p, P)
        per_ratio = -0.5 * by_rate * ratio / (1.0 + ratio)  # by the log of noise over signal power
        columns = [
            (p - 1.0) * (-b_log - self.rest @ (untrained * self.log_n) + tail_p + per_ratio * mean_log),
            q * (-w_log + per_ratio * mean_log),
            b + self.rest @ untrained + tail - per_ratio,
            w - per_ratio,
            v + per_ratio,
            by_T0,
            np.ones_like(b),
        ]
        return losses, np.stack(columns, axis=1)

    def _course(self, theta: FloatArray, tangents: bool) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        p, q, P, Q, R, _, _ = named(theta)
        rates, slopes, ratio, mean_log = self.rates(theta)
        start = self.share * (0.5 * P * self.weight * self.n**-p)
        noise = self.share * (R * self.weight / self.n) / (2.0 * self.B[:, None])
        kept = slopes if tangents else slopes[:, :0]
        sums = course(self.n, Q * self.n**-q, start, noise, self.pieces._replace(lrs=rates), kept)
        return self.untrained(theta) + sums[:, 0] + sums[:, 2], sums, ratio, mean_log


def named(theta: FloatArray) -> FloatArray:
    """p, q, P, Q, R, T0, E in the last axis."""
    values = np.exp(theta)
    values[..., 0] += 1.0
    values[..., -1] = theta[..., -1]
    return values


def held(n: FloatArray, N: FloatArray) -> FloatArray:
    return np.asarray(1.0 / (1.0 + np.sqrt(n / N[..., None])))


def _tail(p: float, P: float) -> tuple[float, float]:
    """sum P/2 n^-p beyond the last mode, and its derivative by p."""
    tail = 0.5 * P * float(np.exp((1.0 - p) * LAST)) / (p - 1.0)
    return tail, -tail * (LAST + 1.0 / (p - 1.0))
