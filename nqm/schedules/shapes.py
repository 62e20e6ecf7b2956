"""The usual shapes of schedules, with the names and conventions of torch and optax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike

from .. import _checks
from .._checks import FloatArray, IntArray
from .schedule import MOST_PIECES, Schedule, counted, distinct, finite, merge_neighbours, step_count

__all__ = [
    "constant",
    "cosine",
    "decaying",
    "exponential",
    "inverse_sqrt",
    "linear",
    "multistep",
    "step",
    "warmup",
    "wsd",
]


def constant(value: float, steps: int) -> Schedule:
    """``value`` > 0 at every step.

    >>> constant(0.1, 100)
    Schedule(1 piece, 100 steps, 0.1)
    """
    return Schedule(_value(value), _checks.whole(steps, "steps", low=1))


def step(value: float, steps: int, step_size: int, gamma: float = 0.1) -> Schedule:
    """value * gamma^floor(t / step_size), torch's StepLR.

    Args:
        step_size: steps of each piece, >= 1.
        gamma: factor from piece to piece, > 0; above 1 the schedule grows.

    >>> step(1.0, 10, step_size=4, gamma=0.5).values
    array([1.  , 0.5 , 0.25])
    """
    v, n = _value(value), _checks.whole(steps, "steps", low=1)
    size = _checks.whole(step_size, "step_size", low=1)
    factor = _checks.real(gamma, "gamma", low=0.0)
    pieces = _checks.whole(-(-n // size), "steps / step_size", low=1, high=MOST_PIECES)
    starts = np.arange(pieces) * size
    return _powers(v, factor, np.arange(pieces), starts, n)


def multistep(value: float, steps: int, milestones: ArrayLike, gamma: float = 0.1) -> Schedule:
    """value * gamma^(number of milestones <= t), torch's MultiStepLR.

    Args:
        milestones: steps >= 0 in any order, a number or 1-D. One given twice counts twice.
        gamma: factor at each milestone, > 0; above 1 the schedule grows.

    >>> multistep(1.0, 100, [30, 80], gamma=0.5).lengths
    array([30, 50, 20])
    """
    v, n = _value(value), _checks.whole(steps, "steps", low=1)
    _checks.reals(milestones, "milestones", ndim=1)
    marks = np.sort(np.atleast_1d(_checks.wholes(milestones, "milestones")))
    factor = _checks.real(gamma, "gamma", low=0.0)
    starts = distinct(np.concatenate([[0], marks[marks < n]]))
    return _powers(v, factor, np.searchsorted(marks, starts, side="right"), starts, n)


def exponential(value: float, steps: int, gamma: float | None = None, *, end: float | None = None) -> Schedule:
    """value * gamma^t, torch's ExponentialLR stepped every step; or value * end^(t / steps).

    Args:
        gamma: factor from step to step, > 0; above 1 the schedule grows.
        end: instead of gamma: the share of ``value`` that it heads for, > 0.

    Raises:
        TypeError: unless exactly one of gamma and end is given.
        TypeError, ValueError: for what is not a (whole) number in range.

    >>> exponential(1.0, 3, gamma=0.5).values
    array([1.  , 0.5 , 0.25])
    """
    v, n = _value(value), step_count(steps)
    if (gamma is None) == (end is None):
        given = "neither" if gamma is None else "both"
        raise TypeError(f"exponential: expected gamma or end, got {given}")
    if end is not None:
        last = _checks.real(end, "end", low=0.0)
        return _shape(v, _decayed(np.arange(n), n, last))
    factor = _checks.real(gamma, "gamma", low=0.0)
    return _powers(v, factor, np.arange(n), np.arange(n), n)


def linear(value: float, steps: int, end: float = 0.0) -> Schedule:
    """value * (1 - (1 - end) t / steps), zhang2019, appendix F.3, with end their gamma and steps their T.

    The paper prints lr0 - (1 - gamma) t / T; that heads for gamma lr0 only where lr0 = 1, and this is what is meant.
    To train on at end * value after T steps: ``linear(value, T, end).then(constant(end * value, more))``.

    >>> linear(1.0, 4).values
    array([1.  , 0.75, 0.5 , 0.25])
    """
    v, n = _value(value), step_count(steps)
    last = _checks.real(end, "end", low=0.0, closed="low")
    return _shape(v, _line(np.arange(n), n, last))


def cosine(value: float, steps: int, end: float = 0.0) -> Schedule:
    """value * (end + (1 - end) (1 + cos(pi t / steps)) / 2), Loshchilov & Hutter (2017), without restarts.

    It is torch's CosineAnnealingLR with T_max = steps and eta_min = end * value, and optax's cosine_decay_schedule with
    alpha = end.

    >>> cosine(1.0, 3).values
    array([1.  , 0.75, 0.25])
    """
    v, n = _value(value), step_count(steps)
    last = _checks.real(end, "end", low=0.0, closed="low")
    t, angle = np.arange(n), 0.5 * np.pi / n
    if last > 1.0:
        return _shape(v, 1.0 + (last - 1.0) * np.sin(angle * t) ** 2)
    # (1 + cos x) / 2 = sin((pi - x) / 2)^2, which loses no digits near x = pi
    return _shape(v, last + (1.0 - last) * np.sin(angle * (n - t)) ** 2)


def inverse_sqrt(value: float, steps: int, timescale: float) -> Schedule:
    """value * sqrt(timescale / (timescale + t)), the reciprocal square root of Zhai et al. (2022).

    timescale > 0 is the number of steps until value / sqrt(2).

    >>> inverse_sqrt(1.0, 100, timescale=10)(30)
    0.5
    """
    v, n = _value(value), step_count(steps)
    scale = _checks.real(timescale, "timescale", low=0.0)
    return _shape(v, np.sqrt(scale / (scale + np.arange(n))))


def wsd(
    value: float,
    steps: int,
    warmup: float = 0,
    decay: float = 0.2,
    cooldown: Literal["linear", "exponential", "1-sqrt"] = "linear",
    end: float = 0.0,
) -> Schedule:
    """Warm-up, stable, decay: W steps up to ``value``, there until step S = steps - D, then down to end * value.

        value * t / W                             at t = 0 ... W - 1
        value                                     at t = W ... S - 1
        value * (end + (1 - end) (1 - s))         at t = S ... steps - 1, cooldown "linear"
        value * end^s                             the same, cooldown "exponential"
        value * (end + (1 - end) (1 - sqrt(s)))   the same, cooldown "1-sqrt" (Hägele et al., 2024)

    with s = (t - S) / D, as in :func:`linear`, which is ``wsd`` with decay = steps: the first step of the cooldown
    still has ``value``, and s = 1 is one step after the last. The first step of a warm-up has 0 (:func:`warmup`).

    Args:
        warmup: W. A number below 1 is a share of ``steps`` (rounded to a whole step), a number from 1 is a number of
            steps and must be whole: 0.1 is a tenth of the steps, 1 (or 1.0) one step, 0 none.
        decay: D, likewise.
        cooldown: its shape.
        end: the share of ``value`` that it heads for, in [0, 1]; in (0, 1] if the cooldown is exponential.

    Raises:
        TypeError, ValueError: for what is not a (whole) number in range, W + D > steps, W or D > 10^8, or another
            cooldown.

    >>> schedule = wsd(1.0, 10, warmup=2, decay=0.4)
    >>> schedule(range(10))
    array([0.  , 0.5 , 1.  , 1.  , 1.  , 1.  , 1.  , 0.75, 0.5 , 0.25])
    """
    v, n = _value(value), _checks.whole(steps, "steps", low=1)
    up, down = _part(warmup, n, "warmup"), _part(decay, n, "decay")
    if warmup + decay <= 1.0 + 1e-12:
        down = min(down, n - up)  # two shares may both have been rounded up
    if up + down > n:
        raise ValueError(f"expected warmup + decay of at most {counted(n, 'step')}, got {up} + {down}")
    if not isinstance(cooldown, str) or cooldown not in _COOLDOWNS:
        known = ", ".join(f'"{name}"' for name in _COOLDOWNS)
        raise ValueError(f"cooldown: expected one of {known}, got {_checks.describe(cooldown)}")
    closed = "high" if cooldown == "exponential" else "both"
    last = _checks.real(end, "end", low=0.0, high=1.0, closed=closed)
    stable = n - up - down
    factors = [_rise(up, 0.0), np.ones(min(stable, 1)), _COOLDOWNS[cooldown](np.arange(down), down, last)]
    lengths = np.ones(sum(part.size for part in factors), dtype=np.int64)
    lengths[up : up + 1] = max(stable, 1)
    return _shape(v, np.concatenate(factors), lengths)


def warmup(schedule: Schedule, steps: int, start: float = 0.0) -> Schedule:
    """A linear warm-up of ``steps`` steps in front of a schedule, which follows from its own step 0.

        v0 * (start + (1 - start) t / steps)   at t = 0 ... steps - 1,   v0 the first value of ``schedule``

    as torch's LinearLR with start_factor = start and total_iters = steps. With start = 0 the first step has the value
    0, as in optax's linear_schedule with init_value = 0; torch asks for a start above 0 (its own default is 1/3).

    Args:
        schedule: what follows.
        steps: of the warm-up, 0 (none) to 10^8.
        start: share of v0 at the first step, in [0, 1].

    Raises:
        TypeError, ValueError: for what is not a Schedule or a (whole) number in range.

    >>> warmup(constant(1.0, 3), 4, start=0.2)(range(7))
    array([0.2, 0.4, 0.6, 0.8, 1. , 1. , 1. ])
    """
    _checks.instance(schedule, Schedule, "schedule", "an nqm.Schedule")
    n = _checks.whole(steps, "steps", high=MOST_PIECES)
    first = _checks.real(start, "start", low=0.0, high=1.0, closed="both")
    return Schedule(schedule.values[0] * _rise(n, first), 1).then(schedule) if n else schedule


def decaying(min_curvature: float, steps: int, gamma: float) -> Schedule:
    """2 / ((t + gamma) min_curvature), the learning rates of wen2020, theorem 4.1, with t their k.

    min_curvature and gamma (in steps) are > 0. The theorem asks for learning rates of at most 1 / (largest curvature):
    gamma >= 2 condition numbers.

    >>> decaying(0.5, 3, gamma=2.0).values
    array([2.        , 1.33333333, 1.        ])
    """
    h, n = _checks.real(min_curvature, "min_curvature", low=0.0), step_count(steps)
    first = _checks.real(gamma, "gamma", low=0.0)
    with np.errstate(over="ignore"):
        return _shape(1.0, 2.0 / (np.arange(n, dtype=np.float64) + first) / h)


def _line(t: IntArray, steps: int, end: float) -> FloatArray:
    """1 - (1 - end) t / steps, without loss of digits near the end."""
    return ((steps - t) + end * t) / max(steps, 1)


def _decayed(t: IntArray, steps: int, end: float) -> FloatArray:
    return end ** (t / max(steps, 1))


def _one_minus_sqrt(t: IntArray, steps: int, end: float) -> FloatArray:
    """end + (1 - end) (1 - sqrt(s)) at s = t / steps; 1 - sqrt(s) = (1 - s) / (1 + sqrt(s)) loses no digits."""
    return end + (1.0 - end) * _line(t, steps, 0.0) / (1.0 + np.sqrt(t / max(steps, 1)))


_COOLDOWNS: Final[dict[str, Callable[[IntArray, int, float], FloatArray]]] = {
    "linear": _line,
    "exponential": _decayed,
    "1-sqrt": _one_minus_sqrt,
}


def _rise(steps: int, start: float) -> FloatArray:
    """start + (1 - start) t / steps."""
    t = np.arange(steps)
    return (start * (steps - t) + t) / max(steps, 1)


def _shape(value: float, factors: FloatArray, lengths: IntArray | None = None) -> Schedule:
    with np.errstate(over="ignore"):
        values = finite(value * factors)
    return Schedule(*merge_neighbours(values, np.ones(values.size, dtype=np.int64) if lengths is None else lengths))


def _powers(value: float, gamma: float, exponents: IntArray, starts: IntArray, steps: int) -> Schedule:
    """value * gamma^exponents in pieces that begin at ``starts``."""
    with np.errstate(over="ignore"):
        factors: FloatArray = gamma ** exponents.astype(np.float64)
    return _shape(value, factors, np.diff(starts, append=steps))


def _value(value: float) -> float:
    return _checks.real(value, "value", low=0.0)


def _part(part: float, steps: int, name: str) -> int:
    """A number of steps, or a share of all steps."""
    number = _checks.real(part, name, low=0.0, closed="low")
    share = number < 1.0
    return _checks.whole(round(number * steps) if share else number, name, high=MOST_PIECES)
