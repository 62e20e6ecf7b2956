"""A number that is piecewise constant in the step."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _checks
from .._checks import FloatArray, IntArray

__all__ = [
    "MOST_PIECES",
    "Schedule",
    "changes",
    "counted",
    "distinct",
    "equal_lengths",
    "finite",
    "merge_neighbours",
    "step_count",
]

MOST_PIECES: Final = 10**8  # pieces of a shape that changes every step: 1.6 GB


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
        are compared), it is called once per step.

        >>> Schedule.from_function(lambda t: 0.1 if t < 30 else 0.01, 100)
        Schedule(2 pieces, 100 steps, 0.01 to 0.1)
        """
        if not callable(f):
            raise TypeError(f"f: expected a function of the step, got {_checks.describe(f)}")
        n = step_count(steps)
        values = _vectorised(f, n)
        found = _checks.reals(
            [f(t) for t in range(n)] if values is None else values, "f(step)", low=0.0, closed="low", ndim=1
        )
        return cls(*merge_neighbours(found, np.ones(n, dtype=np.int64)), beyond)

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
                f"step: expected steps of a schedule that has {counted(self.steps, 'step')}, got {at.max()}"
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
            raise ValueError(f"steps: expected at most the {counted(self.steps, 'step')} of the schedule, got {n}")
        last = min(int(np.searchsorted(self.ends, n)), self.pieces - 1)
        lengths = self.lengths[: last + 1].copy()
        lengths[last] += n - self.ends[last]
        return Schedule(self.values[: last + 1], lengths, self.beyond)

    def merged(self) -> Schedule:
        """The same with neighbouring pieces of equal value joined."""
        return Schedule(*merge_neighbours(self.values, self.lengths), self.beyond)

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

        >>> from nqm.schedules import linear
        >>> linear(1.0, 100).coarsened(4).values
        array([0.88, 0.63, 0.38, 0.13])
        """
        count = _checks.whole(pieces, "pieces", low=1)
        if count >= self.pieces:
            return self
        lengths = equal_lengths(self.steps, count)
        ends = np.cumsum(lengths)
        cuts = distinct(np.sort(np.concatenate([self.ends, ends]), kind="stable"))  # no piece ends between two of them
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
            return Schedule(finite(self.values * number), self.lengths, self.beyond)

    __rmul__ = __mul__

    def __repr__(self) -> str:
        low, high = f"{self.values.min():.6g}", f"{self.values.max():.6g}"
        parts = [counted(self.pieces, "piece"), counted(self.steps, "step"), low if low == high else f"{low} to {high}"]
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
    count = _checks.whole(count, "pieces", low=1, high=MOST_PIECES)
    each, rest = divmod(n, count)  # floor(j n / count) = j each + floor(j rest / count), and j rest <= 10^16
    return np.diff(np.arange(count + 1) * rest // count) + each


def merge_neighbours(values: FloatArray, lengths: IntArray) -> tuple[FloatArray, IntArray]:
    """Neighbouring pieces of equal value joined."""
    starts = np.flatnonzero(changes(values))
    return values[starts], np.add.reduceat(lengths, starts)


def changes(values: FloatArray | IntArray) -> NDArray[np.bool_]:
    """Where an entry differs from the one before; the first does."""
    return np.concatenate([[True], values[1:] != values[:-1]])


def finite(values: FloatArray) -> FloatArray:
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


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def distinct(ordered: IntArray) -> IntArray:
    """np.unique of an ordered array, many times as fast."""
    return ordered[changes(ordered)]


def step_count(steps: int) -> int:
    """Of a schedule that may change at every step."""
    return _checks.whole(steps, "steps", low=1, high=MOST_PIECES)
