"""When is the target reached?"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from .. import _checks
from .._checks import FloatArray
from .._risk import check_batch_sizes, check_problem, risk, risk_of_rows, row_chunks, take_out_schedule
from .._status import Status
from ..dynamics.base import Dynamics, Values, rows_of
from ..dynamics.select import dynamics_of, dynamics_of_rows
from ..dynamics.words import whole_word
from ..optimizers import Optimizer
from ..problems.quadratic import NoisyQuadratic
from ..schedules import Schedule

__all__ = ["after_end", "first_passage", "steps_to_target", "warn_of_the_end"]

FOREVER = 2**53
"""Where a schedule that holds ends: the last step count that a float64 holds exactly."""


@overload
def steps_to_target(
    problem: NoisyQuadratic,
    optimizer: Optimizer[float],
    batch_size: float | Schedule,
    target: float,
    crossing: Literal["first", "last"] = "first",
) -> float: ...
@overload
def steps_to_target(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    batch_size: ArrayLike | Schedule,
    target: ArrayLike,
    crossing: Literal["first", "last"] = "first",
) -> FloatArray: ...
def steps_to_target(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    batch_size: ArrayLike | Schedule,
    target: ArrayLike,
    crossing: Literal["first", "last"] = "first",
) -> float | FloatArray:
    """First step t with risk(t) <= target, exactly, also where the risk oscillates or rises before it falls.

    Time is crossed in leaps of 2^j steps. A leap is taken where bounds prove that the risk stays on one side of the
    target: its noise part never falls, and its mean part is an inner product with a vector that stays in
    a known box (:mod:`nqm.backends.kernels.first_passage`). So about 2 log2(t) bounds answer, not t steps.

    Args:
        problem, optimizer, batch_size: as in :func:`nqm.risk`, schedules too.
        target: risk to reach, > 0, in units of loss.
        crossing: "first", or "last" for the step from which on the risk never exceeds the target again.

    batch_size, target and hyperparameters broadcast. Returns a whole number of steps as an int, or ``math.inf`` where
    the target is not reached within 2^53 steps (about 10^16); float64 arrays for array arguments.

    A schedule holds its last value after its end. Where the learning rate has come down by then, a target that is
    reached only later, at that last rate, is a UserWarning. ``Schedule(..., beyond="error")`` ends instead: what is not
    reached before is ``math.inf``.

    Raises:
        TypeError, ValueError: for wrong arguments, before any work.
        ArithmeticError: where proving it takes too many leaps, some twenty seconds of them, as where a risk swings
            around the target for millions of steps; says how far they got. Of an array, one such element is enough.

    >>> import nqm
    >>> problem = nqm.NoisyQuadratic.power_law(10_000)
    >>> nqm.steps_to_target(problem, nqm.SGD(0.5, momentum=0.9), batch_size=4096, target=0.01)
    2942
    >>> nqm.steps_to_target(problem, nqm.SGD(0.5, momentum=0.9), batch_size=16, target=0.01)
    inf
    """
    found = first_passage(problem, optimizer, batch_size, target, crossing)
    late = after_end(optimizer, found)
    if np.any(late):
        warn_of_the_end(optimizer, float(np.max(np.asarray(found)[late])))
    return found


def after_end(optimizer: Optimizer, steps: Any) -> Any:
    """Whether a target was reached after so many steps at the last rate of a schedule that has come down by then."""
    schedule = optimizer.schedule
    if schedule is None or schedule.values[-1] >= schedule.values.max():
        return np.zeros(np.shape(steps), dtype=bool)
    return np.isfinite(steps) & (np.asarray(steps) > schedule.steps)


def warn_of_the_end(optimizer: Optimizer, steps: float) -> None:
    """Of what the caller of the function that calls this asked for."""
    schedule = optimizer.schedule
    assert schedule is not None
    warnings.warn(
        f"the target is {Status.AFTER_END}: after {steps:.6g} steps, of which the schedule has {schedule.steps}; since "
        f'then its last value {schedule.values[-1]:.3g} is held. Take a longer schedule, or beyond="error" for inf',
        UserWarning,
        stacklevel=3,
    )


def first_passage(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    batch_size: ArrayLike | Schedule,
    target: ArrayLike,
    crossing: str = "first",
) -> float | FloatArray:
    """:func:`steps_to_target` without a word on schedules that have ended."""
    check_problem(problem, optimizer)
    sizes, batch_schedule = check_batch_sizes(batch_size)
    targets = _checks.reals(target, "target", low=0.0)
    if not isinstance(crossing, str) or crossing not in ("first", "last"):
        raise ValueError(f'crossing: expected "first" or "last", got {_checks.describe(crossing)}')
    shape = _checks.broadcast(optimizer=optimizer.shape, batch_size=sizes.shape, target=targets.shape)
    out = np.empty(shape)
    flat = out.reshape(-1)
    lr_schedule, numbers = take_out_schedule(optimizer)
    last = crossing == "last"
    for part, values, (size, wanted) in row_chunks(numbers, shape, sizes, targets):
        if lr_schedule is None and batch_schedule is None:
            for dynamics, rows in dynamics_of_rows(problem, optimizer, np.isinf(size)):
                flat[part][rows] = _of_rows(dynamics, rows_of(values, rows), size[rows], wanted[rows], last)
            continue
        for row in range(part.start, part.stop):
            i = row - part.start
            single: dict[str, Any] = {name: float(value[i]) for name, value in values.items()}
            if lr_schedule is not None:
                single["lr"] = lr_schedule
            batch = float(size[i]) if batch_schedule is None else batch_schedule
            flat[row] = _along_schedules(problem, optimizer.with_values(**single), batch, float(wanted[i]), last)
    if shape != ():
        return out
    return int(out) if math.isfinite(out) else math.inf


def _of_rows(dynamics: Dynamics, values: Values, batch_size: FloatArray, target: FloatArray, last: bool) -> FloatArray:
    """First passages of many rows on finer and finer rules, each until two agree; then held against the risk itself,
    which decides: rules and leaps differ in the last digits."""

    def on(nodes: Dynamics, rows: Any) -> FloatArray:
        return nodes.first_passage(rows_of(values, rows), batch_size[rows], target[rows], last)

    nodes, rows = dynamics.rule_for_search(), np.arange(target.size)
    found = on(nodes, slice(None))
    while rows.size and (finer := nodes.finer()) is not None:  # where none settles it, the risk below says so
        nodes = finer
        better = on(nodes, rows)
        agreed = _agree(found[rows], better, nodes.steps_agree)
        found[rows] = better
        rows = rows[~agreed]

    def below(rows: Any, steps: FloatArray) -> Any:
        return risk_of_rows(dynamics, rows_of(values, rows), batch_size[rows], steps.astype(np.int64)) <= target[rows]

    rows = np.flatnonzero(np.isfinite(found))
    later = rows[found[rows] > 0.0]
    settled = np.zeros(found.size, dtype=bool)
    if rows.size:
        settled[rows] = below(rows, found[rows])
    if later.size:
        settled[later] &= ~below(later, found[later] - 1.0)
    for i in rows[~settled[rows]].tolist():

        def alone(steps: int, one: slice = slice(i, i + 1)) -> bool:
            return bool(below(one, np.array([float(steps)]))[0])

        found[i] = _settled(alone, int(found[i]), FOREVER)
    return found


def _along_schedules(
    problem: NoisyQuadratic, optimizer: Optimizer, batch_size: float | Schedule, target: float, last: bool
) -> float:
    """The same for one row along schedules."""
    lr_schedule, values = take_out_schedule(optimizer)
    size, batch_schedule = (1.0, batch_size) if isinstance(batch_size, Schedule) else (batch_size, None)
    word, end = whole_word(lr_schedule, batch_schedule)
    nodes = dynamics_of(problem, optimizer, math.isinf(size)).rule_for_search()
    found = nodes.first_passage_along(values, size, word, end, target, last)
    while (finer := nodes.finer()) is not None:  # where none settles it, the risk below says so
        nodes, before = finer, found
        found = nodes.first_passage_along(values, size, word, end, target, last)
        if _agree(before, found, nodes.steps_agree):
            break

    def below(steps: int) -> Any:
        return np.asarray(risk(problem, optimizer, batch_size, steps)) <= target

    if end < FOREVER and (last or math.isinf(found)):  # so far only the steps before the end were looked at
        found = (found if last else float(end)) if below(end) else math.inf
    return found if math.isinf(found) else _settled(below, int(found), end)


def _agree(before: Any, found: Any, tolerance: float) -> Any:
    with np.errstate(invalid="ignore"):  # inf - inf
        return (before == found) | (np.abs(before - found) <= tolerance * np.abs(found))


def _settled(below: Callable[[Any], Any], steps: int, end: int) -> float:
    """A step near ``steps`` at or below the target whose predecessor is above: one by one, and after 64 steps in
    growing strides and by bisection, as where the risk is flat rounding errors can take many steps."""
    stride, tried = 1, 0
    if below(steps):
        high, low = steps, steps - 1
        while low >= 0 and below(low):
            tried += 1
            stride = stride if tried < 64 else 2 * stride
            high, low = low, low - stride
        low = max(low, -1)
    else:
        low, high = steps, steps + 1
        while high <= end and not below(high):
            tried += 1
            stride = stride if tried < 64 else 2 * stride
            low, high = high, high + stride
        if high > end:
            return math.inf
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if below(middle) else (middle, high)
    return float(high)
