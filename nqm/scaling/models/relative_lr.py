"""Learning rates of whole runs, relative to their peak, in few pieces.

Schedules are taken in 24 pieces. Measured against every step, T0 = 100 and 3000, N 10^6 to 10^8, K 10 to 50,000: losses
right to 1e-3 of them (wsd: 2e-3); at T0 = 10^5, batches of 8 and 50,000 steps to 2e-3 (wsd: 6e-3); one or two steps
with a schedule that falls: 4e-2.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

import numpy as np

from ... import _checks, schedules
from ..._checks import FloatArray
from ...schedules import Schedule
from .modes import Pieces

__all__ = ["SHAPES", "RelativeLR", "ScheduleShape"]

SHAPES: Final = ("constant", "cosine", "linear", "wsd")
PIECES: Final = 24  # of the learning rate after the warmup

ScheduleShape = str | Callable[[int], Schedule]
"""One of :data:`SHAPES`, or a function of the number of steps that returns a schedule of so many."""


class RelativeLR:
    """Pieces of the relative learning rate, for any number of steps."""

    def __init__(self, shape: ScheduleShape, warmup: float) -> None:
        if isinstance(shape, str):
            if shape not in SHAPES:
                raise ValueError(
                    f"lr_schedule: expected one of {', '.join(SHAPES)}, or a function of the steps that returns an "
                    f"nqm.Schedule, got {shape!r}"
                )
        elif not callable(shape):
            raise TypeError(f"lr_schedule: expected a name or a function, got {_checks.describe(shape)}")
        self.shape, self.warmup = shape, warmup
        self._cached: dict[int, tuple[FloatArray, FloatArray]] = {}
        self._peaks: list[float] = []

    def pieces(self, steps: FloatArray) -> Pieces:
        """For rows of so many steps, warmup included; the warmup's pieces are about as long as the rest, on average."""
        rising = max(1, round(PIECES * self.warmup)) if self.warmup else 0
        rise = (np.arange(rising) + 0.5) / max(rising, 1)
        each = np.full(rising, self.warmup / max(rising, 1))
        falls = [self._after(k) for k in steps * (1.0 - self.warmup)]
        lrs = np.array([np.append(rise, lr) for _, lr in falls])
        shares = np.array([np.append(each, (1.0 - self.warmup) * share) for share, _ in falls])
        seen = np.zeros(lrs.shape, dtype=np.int64)
        seen[:, -1] = 1
        first = np.arange(steps.size + 1) * (rising + PIECES)
        return Pieces(first, (steps[:, None] * shares).ravel(), lrs.ravel(), seen.ravel())

    def require_peak(self, steps: FloatArray) -> None:
        """Refuse learning rates that are not relative to their peak."""
        self.pieces(steps)
        peak = max(self._peaks, default=1.0)
        if not 0.99 <= peak <= 1.0 + 1e-9:
            raise ValueError(
                "lr_schedule: expected learning rates relative to the largest of all runs, so that it is 1, got at "
                f"most {peak:.6g}: divide by that"
            )

    def _after(self, steps: float) -> tuple[FloatArray, FloatArray]:
        """Shares of the steps after the warmup, and mean learning rates, of the pieces."""
        if isinstance(self.shape, str):
            shares, means, fall = _shape(self.shape)
            # a schedule holds each step's first value, so that its sum over t steps exceeds the integral by half the
            # fall of its values (Euler and Maclaurin)
            return shares, np.minimum(means + 0.5 * fall / (shares * steps), 1.0)
        whole = max(1, round(steps))
        if whole not in self._cached:
            made = self.shape(whole)
            _checks.instance(made, Schedule, f"lr_schedule({whole})", "an nqm.Schedule")
            if made.steps != whole:
                raise ValueError(f"lr_schedule({whole}): expected a schedule of {whole} steps, got {made.steps}")
            self._cached[whole] = _means(made)[:2]
            self._peaks.append(float(made.values.max()))
        return self._cached[whole]


@lru_cache(maxsize=len(SHAPES))
def _shape(name: str) -> tuple[FloatArray, FloatArray, FloatArray]:
    return _means(getattr(schedules, name)(1.0, 10_000 * PIECES))


def _means(schedule: Schedule) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Shares of the pieces, which need not hold whole steps; their mean values, and falls from their begin to end."""
    edges = schedule.steps * _edges(schedule)
    ends = np.append(0, schedule.ends)
    sums = np.append(0.0, np.cumsum(schedule.values * schedule.lengths))
    values = schedule(np.minimum(edges, schedule.steps - 1).astype(np.int64))
    means = np.diff(np.interp(edges, ends, sums)) / np.diff(edges)
    return np.diff(edges) / schedule.steps, means, -np.diff(values)


def _edges(schedule: Schedule) -> FloatArray:
    """Where pieces end, as shares of the steps: close together at first, where the weights grow, and at last, where the
    learning rate falls; and both before and after the end of a plateau."""
    at_peak = schedule.values >= (1.0 - 1e-9) * schedule.values.max()
    kink = float(schedule.ends[np.flatnonzero(at_peak)[-1]] / schedule.steps)
    parts = [(0.0, kink), (kink, 1.0)] if 0.05 < kink < 0.95 else [(0.0, 1.0)]
    t = np.linspace(0.0, 1.0, PIECES // len(parts) + 1)
    smooth = t * t * (3.0 - 2.0 * t)
    return np.append(np.concatenate([begin + (end - begin) * smooth[:-1] for begin, end in parts]), 1.0)
