"""Learning rates and batch sizes that change from step to step.

A :class:`Schedule` is piecewise constant in the step t = 0, 1, 2, ...; the functions below it make the usual shapes,
with the names and conventions of torch and optax. In all of them

- ``value`` > 0 is the value at step 0 (in :func:`wsd` the peak): a learning rate in units of 1 / curvature, or a batch
  size in examples;
- ``steps`` >= 1 is the length, at most 10^8 where the value changes at every step;
- ``end`` is a share: the schedule heads for end * value, which it would take at t = steps, one step after its last.
  Above 1 it grows, as batch sizes may;
- what is not a finite (whole) number in range is a TypeError or ValueError, and so are values beyond float64.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _checks
from ._checks import FloatArray, IntArray

_MOST: Final = 10**8  # pieces of a shape that changes every step: 1.6 GB


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Schedule:
    """A number that is piecewise constant in the step: ``values[i]`` for ``lengths[i]`` steps, one after the other.

    Args:
        values: learning rates (in units of 1 / curvature) or batch sizes (examples), finite and >= 0; a number or (P,).
        lengths: steps of each piece, whole numbers >= 1, (P,), at most 2^53 in all; a single number is for all pieces.
        beyond: what holds at step ``steps`` and later: "hold" the last value, or "error", which refuses such steps (a
            target that is not reached before is then out of reach: :func:`nqm.steps_to_target` gives inf).

    Attributes ``values`` (float64) and ``lengths`` (int64) are read-only arrays of shape (P,). Two schedules are equal
    if their pieces are: :meth:`merged` joins neighbours of equal value. ``2.0 * schedule`` scales the values.

    Raises:
        TypeError, ValueError: for what is not a finite number in range, or lengths that do not match the values.

    >>> schedule = Schedule([0.1, 0.01], [300, 100])
    >>> schedule
    Schedule(2 pieces, 400 steps, 0.01 to 0.1)
    >>> schedule(299), schedule(300), schedule(1000)
    (0.1, 0.01, 0.01)
    """

    values: FloatArray
    lengths: IntArray
    beyond: Literal["hold", "error"]
    __array_ufunc__ = None  # np.float64(2.0) * schedule asks __rmul__

    def __init__(self, values: ArrayLike, lengths: ArrayLike, beyond: Literal["hold", "error"] = "hold") -> None:
        v = np.atleast_1d(_checks.reals(values, "values", low=0.0, closed="low", ndim=1)) + 0.0  # -0.0 becomes 0.0
        n = _checks.wholes(lengths, "lengths", low=1)
        if n.ndim == 0:
            n = np.full(v.shape, n)
        if n.shape != v.shape:
            raise ValueError(f"lengths: expected one for each of the {v.size} values, got shape {n.shape}")
        rough = float(n.sum(dtype=np.float64))  # cannot overflow, as int64 can
        total = int(n.sum()) if rough < 2.0**60 else rough
        if total > 2**53:
            raise ValueError(f"lengths: expected at most 2^53 steps in all, got {total}")
        if not isinstance(beyond, str) or beyond not in ("hold", "error"):
            raise ValueError(f'beyond: expected "hold" or "error", got {_checks.describe(beyond)}')
        for name, array in (("values", v), ("lengths", n)):
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        object.__setattr__(self, "beyond", beyond)

    @classmethod
    def from_function(cls, f: Callable[[Any], Any], steps: int, beyond: Literal["hold", "error"] = "hold") -> Schedule:
        """The values f(0), f(1), ..., f(steps - 1), neighbours of equal value joined.

        ``f`` may be any function of the step alone: an optax schedule, or a function made for torch's LambdaLR. It is
        tried on the array of all steps; if that fails, or disagrees with f of single steps (Python ints; some twenty
        are compared), it is called once a step.

        >>> Schedule.from_function(lambda t: 0.1 if t < 30 else 0.01, 100)
        Schedule(2 pieces, 100 steps, 0.01 to 0.1)
        """
        if not callable(f):
            raise TypeError(f"f: expected a function of the step, got {_checks.describe(f)}")
        n = _steps(steps)
        values = _vectorised(f, n)
        found = _checks.reals(
            [f(t) for t in range(n)] if values is None else values, "f(step)", low=0.0, closed="low", ndim=1
        )
        return cls(*_merge(found, np.ones(n, dtype=np.int64)), beyond)

    @property
    def pieces(self) -> int:
        """Number of pieces P."""
        return self.values.size

    @property
    def steps(self) -> int:
        """Number of steps of all pieces."""
        return int(self.ends[-1])

    @cached_property
    def ends(self) -> IntArray:
        """The first step after each piece, (P,) int64, read-only."""
        ends = np.cumsum(self.lengths)
        ends.flags.writeable = False
        return ends

    def __call__(self, step: ArrayLike) -> float | FloatArray:
        """The value at ``step`` = 0, 1, ...: a float for a number, an array of the same shape for an array.

        Raises:
            TypeError, ValueError: for what is not a whole number >= 0, or is not a step of a schedule with
                beyond="error".
        """
        at = _checks.wholes(step, "step")
        if self.beyond == "error" and at.max() >= self.steps:
            raise ValueError(
                f"step: expected steps of a schedule that has {_count(self.steps, 'step')}, got {at.max()}"
            )
        found = self.values[np.minimum(np.searchsorted(self.ends, at, side="right"), self.pieces - 1)]
        return float(found) if at.ndim == 0 else found

    def cut(self, steps: int) -> Schedule:
        """The same with exactly ``steps`` >= 1 steps: cut short, or its last value held longer.

        >>> Schedule([3.0, 2.0, 1.0], 10).cut(15)
        Schedule(2 pieces, 15 steps, 2 to 3)

        Raises:
            TypeError, ValueError: for what is not a whole number >= 1, or is more than a schedule with beyond="error"
                has.
        """
        n = _checks.whole(steps, "steps", low=1)
        if self.beyond == "error" and n > self.steps:
            raise ValueError(f"steps: expected at most the {_count(self.steps, 'step')} of the schedule, got {n}")
        last = min(int(np.searchsorted(self.ends, n)), self.pieces - 1)
        lengths = self.lengths[: last + 1].copy()
        lengths[last] += n - self.ends[last]
        return Schedule(self.values[: last + 1], lengths, self.beyond)

    def merged(self) -> Schedule:
        """The same with neighbouring pieces of equal value joined."""
        return Schedule(*_merge(self.values, self.lengths), self.beyond)

    def then(self, other: Schedule) -> Schedule:
        """This one for its ``steps``, then ``other`` from its own step 0; beyond the end, what ``other`` says.

        >>> Schedule(0.1, 30).then(Schedule(0.01, 10))
        Schedule(2 pieces, 40 steps, 0.01 to 0.1)
        """
        _checks.instance(other, Schedule, "other", "an nqm.Schedule")
        values = np.concatenate([self.values, other.values])
        return Schedule(values, np.concatenate([self.lengths, other.lengths]), other.beyond)

    def coarsened(self, pieces: int) -> Schedule:
        """At most ``pieces`` pieces of (nearly) equal length, each with the mean value over its steps.

        The pieces end at steps floor(j steps / pieces). A schedule that has no more pieces than that is not changed.

        >>> linear(1.0, 100).coarsened(4).values
        array([0.88, 0.63, 0.38, 0.13])
        """
        count = _checks.whole(pieces, "pieces", low=1)
        if count >= self.pieces:
            return self
        lengths = equal_lengths(self.steps, count)
        ends = np.cumsum(lengths)
        cuts = _distinct(np.sort(np.concatenate([self.ends, ends]), kind="stable"))  # no piece ends between two of them
        sections = np.diff(cuts, prepend=0)
        values = self.values[np.searchsorted(self.ends, cuts)]
        new = np.searchsorted(ends, cuts)
        first = np.searchsorted(new, np.arange(count))
        means = np.add.reduceat(values * (sections / lengths[new]), first)
        # rounding takes no mean out of its values' range: equal values keep theirs exactly
        means = np.clip(means, np.minimum.reduceat(values, first), np.maximum.reduceat(values, first))
        return Schedule(means, lengths, self.beyond)

    def to_torch(self, lr: float = 1.0) -> Callable[[int], float]:
        """value(step) / ``lr``, for ``torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.to_torch(lr))``.

        ``lr`` > 0 is the optimizer's own learning rate, which LambdaLR multiplies. After the last training step
        LambdaLR asks for step == ``steps`` too: a schedule with beyond="error" has its last value there, and raises
        ValueError for later steps only. The function can be pickled.

        >>> schedule = Schedule([0.5, 0.25], 10)
        >>> [schedule.to_torch(lr=0.5)(step) for step in (0, 10, 20)]
        [1.0, 0.5, 0.5]
        """
        # partial has nothing in its __dict__, all of which LambdaLR puts into its checkpoints
        return partial(_factor, self, _checks.real(lr, "lr", low=0.0))

    def __mul__(self, factor: float) -> Schedule:
        number = _checks.real(factor, "factor", low=0.0)
        with np.errstate(over="ignore"):
            return Schedule(_finite(self.values * number), self.lengths, self.beyond)

    __rmul__ = __mul__

    def __repr__(self) -> str:
        low, high = f"{self.values.min():.6g}", f"{self.values.max():.6g}"
        parts = [_count(self.pieces, "piece"), _count(self.steps, "step"), low if low == high else f"{low} to {high}"]
        return f"Schedule({', '.join(parts + (['error beyond'] if self.beyond == 'error' else []))})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Schedule):
            return NotImplemented
        same = np.array_equal(self.values, other.values) and np.array_equal(self.lengths, other.lengths)
        return same and self.beyond == other.beyond

    def __hash__(self) -> int:
        return hash((self.values.tobytes(), self.lengths.tobytes(), self.beyond))

    def __reduce__(self) -> tuple[Any, ...]:  # by way of __init__: pickled arrays are read-only again
        return Schedule, (self.values, self.lengths, self.beyond)


def equal_lengths(steps: int, pieces: int) -> IntArray:
    """Lengths of (nearly) equal pieces, (pieces,) int64: piece j = 1, 2, ... ends at floor(j steps / pieces).

    Exact for steps up to 2^53.

    Raises:
        TypeError, ValueError: for what is not a whole number >= 1 (pieces: to 10^8), or more pieces than steps.

    >>> equal_lengths(10, 4)
    array([2, 3, 2, 3])
    """
    n = _checks.whole(steps, "steps", low=1)
    count = _checks.whole(pieces, "pieces", low=1)
    if count > n:
        raise ValueError(f"pieces: expected at most as many pieces as steps, got {count} pieces and {n} steps")
    count = _checks.whole(count, "pieces", low=1, high=_MOST)
    each, rest = divmod(n, count)  # floor(j n / count) = j each + floor(j rest / count), and j rest <= 10^16
    return np.diff(np.arange(count + 1) * rest // count) + each


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
    pieces = _checks.whole(-(-n // size), "steps / step_size", low=1, high=_MOST)
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
    starts = _distinct(np.concatenate([[0], marks[marks < n]]))
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
    v, n = _value(value), _steps(steps)
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
    v, n = _value(value), _steps(steps)
    last = _checks.real(end, "end", low=0.0, closed="low")
    return _shape(v, _line(np.arange(n), n, last))


def cosine(value: float, steps: int, end: float = 0.0) -> Schedule:
    """value * (end + (1 - end) (1 + cos(pi t / steps)) / 2), Loshchilov & Hutter (2017), without restarts.

    It is torch's CosineAnnealingLR with T_max = steps and eta_min = end * value, and optax's cosine_decay_schedule with
    alpha = end.

    >>> cosine(1.0, 3).values
    array([1.  , 0.75, 0.25])
    """
    v, n = _value(value), _steps(steps)
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
    v, n = _value(value), _steps(steps)
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
        raise ValueError(f"expected warmup + decay of at most {_count(n, 'step')}, got {up} + {down}")
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
    n = _checks.whole(steps, "steps", high=_MOST)
    first = _checks.real(start, "start", low=0.0, high=1.0, closed="both")
    return Schedule(schedule.values[0] * _rise(n, first), 1).then(schedule) if n else schedule


def decaying(min_curvature: float, steps: int, gamma: float) -> Schedule:
    """2 / ((t + gamma) min_curvature), the learning rates of wen2020, theorem 4.1, with t their k.

    min_curvature and gamma (in steps) are > 0. The theorem asks for learning rates of at most 1 / (largest curvature):
    gamma >= 2 condition numbers.

    >>> decaying(0.5, 3, gamma=2.0).values
    array([2.        , 1.33333333, 1.        ])
    """
    h, n = _checks.real(min_curvature, "min_curvature", low=0.0), _steps(steps)
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
        values = _finite(value * factors)
    return Schedule(*_merge(values, np.ones(values.size, dtype=np.int64) if lengths is None else lengths))


def _powers(value: float, gamma: float, exponents: IntArray, starts: IntArray, steps: int) -> Schedule:
    """value * gamma^exponents in pieces that begin at ``starts``."""
    with np.errstate(over="ignore"):
        factors: FloatArray = gamma ** exponents.astype(np.float64)
    return _shape(value, factors, np.diff(starts, append=steps))


def _merge(values: FloatArray, lengths: IntArray) -> tuple[FloatArray, IntArray]:
    """Neighbouring pieces of equal value joined."""
    starts = np.flatnonzero(_changes(values))
    return values[starts], np.add.reduceat(lengths, starts)


def _distinct(ordered: IntArray) -> IntArray:
    """np.unique of an ordered array, many times as fast."""
    return ordered[_changes(ordered)]


def _changes(values: FloatArray | IntArray) -> NDArray[np.bool_]:
    """Where an entry differs from the one before; the first does."""
    return np.concatenate([[True], values[1:] != values[:-1]])


def _finite(values: FloatArray) -> FloatArray:
    if not np.isfinite(values).all():
        raise ValueError("expected a schedule whose values are finite in float64, got an overflow")
    return values


def _factor(schedule: Schedule, lr: float, step: int) -> float:
    """See :meth:`Schedule.to_torch`."""
    at = schedule.steps - 1 if step == schedule.steps else step
    return float(schedule(at)) / lr


def _vectorised(f: Callable[[Any], Any], steps: int) -> Any:
    """f of all steps in one call, or None if f cannot do that or does not mean f of each step."""
    probes = np.unique(np.r_[np.linspace(0, steps - 1, 17).astype(int), np.arange(min(steps, 4))])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = np.asarray(f(np.arange(steps)))
            if values.shape == (steps,) and all(values[t] == f(int(t)) for t in probes):
                return values
    except Exception:  # whatever f raises where it was not written for arrays; f of a step may raise it again
        pass
    return None


def _value(value: float) -> float:
    return _checks.real(value, "value", low=0.0)


def _steps(steps: int) -> int:
    """Of a schedule that may change at every step."""
    return _checks.whole(steps, "steps", low=1, high=_MOST)


def _part(part: float, steps: int, name: str) -> int:
    """A number of steps, or a share of all steps."""
    number = _checks.real(part, name, low=0.0, closed="low")
    share = number < 1.0
    return _checks.whole(round(number * steps) if share else number, name, high=_MOST)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
