"""When is the target reached?"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from .. import _checks
from .._checks import FloatArray
from .._risk import batches, check_problem, compressed_beyond, few_nodes, in_chunks, one_batch, risk, risks, split
from ..dynamics import additive, gaussian_features
from ..optimizers import Optimizer
from ..problems.quadratic import NoisyQuadratic
from ..schedules import Schedule

AFTER_END = "reached after the schedule's end"
"""A status: the schedule's last value, held, got there."""

FEW_NODES = 48
"""Rules for problems of more nodes than these have fewer."""

MANY_NODES = 4096
"""Explicit problems with more nodes are searched on a Gauss rule first."""


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
    found = crossings(problem, optimizer, batch_size, target, crossing)
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
        f"the target is {AFTER_END}: after {steps:.6g} steps, of which the schedule has {schedule.steps}; since then "
        f'its last value {schedule.values[-1]:.3g} is held. Take a longer schedule, or beyond="error" for inf',
        UserWarning,
        stacklevel=3,
    )


def crossings(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    batch_size: ArrayLike | Schedule,
    target: ArrayLike,
    crossing: str = "first",
) -> float | FloatArray:
    """:func:`steps_to_target` without a word on schedules that have ended."""
    check_problem(problem, optimizer)
    batch, ramp = batches(batch_size)
    goal = _checks.reals(target, "target", low=0.0)
    if not isinstance(crossing, str) or crossing not in ("first", "last"):
        raise ValueError(f'crossing: expected "first" or "last", got {_checks.describe(crossing)}')
    shape = _checks.broadcast(optimizer=optimizer.shape, batch_size=batch.shape, target=goal.shape)
    out = np.empty(shape)
    flat = out.reshape(-1)
    schedule, numbers = split(optimizer)
    last = crossing == "last"
    for part, values, (b, goals) in in_chunks(numbers, shape, batch, goal):
        if schedule is None and ramp is None and problem.label_noise is None:
            flat[part] = _together(problem, optimizer, values, b, goals, last)
            continue
        for row in range(part.start, part.stop):
            i = row - part.start
            single: dict[str, Any] = {k: float(v[i]) for k, v in values.items()}
            if schedule is not None:
                single["lr"] = schedule
            size = float(b[i]) if ramp is None else ramp
            flat[row] = _alone(problem, optimizer.with_values(**single), size, float(goals[i]), last)
    if shape != ():
        return out
    return int(out) if math.isfinite(out) else math.inf


def searchable(problem: NoisyQuadratic) -> NoisyQuadratic:
    """The problem itself, or for very many nodes a rule that refines to it."""
    return compressed_beyond(few_nodes(problem), MANY_NODES)


def roughly(problem: NoisyQuadratic) -> NoisyQuadratic:
    """:func:`searchable` to look around in: where coordinates feel each other, the coarsest rule that refines to it."""
    if problem.label_noise is None or (problem._is_exact() and problem.curvature.size <= FEW_NODES):
        return searchable(problem)
    return problem.compressed(1e-3)


def _together(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    values: Mapping[str, FloatArray],
    batch: FloatArray,
    targets: FloatArray,
    last: bool,
) -> FloatArray:
    """Crossings of many rows on finer and finer rules, each until two agree; then held against the risk itself."""

    def chosen(rows: Any) -> dict[str, FloatArray]:
        return {k: v[rows] for k, v in values.items()}

    nodes = searchable(problem)
    rows = np.arange(targets.size)
    found = additive.crossings(nodes, optimizer, values, batch, targets, last)
    while rows.size and not nodes._is_exact():
        finer = nodes._finer()
        if finer is None:
            break  # risk() below refuses what no rule settles
        nodes = finer
        better = additive.crossings(nodes, optimizer, chosen(rows), batch[rows], targets[rows], last)
        agreed = better == found[rows]
        found[rows] = better
        rows = rows[~agreed]
    # Rules and leaps differ in the last digits: `risk` has the last word.

    def below(rows: Any, steps: FloatArray) -> Any:
        return risks(problem, optimizer, chosen(rows), batch[rows], steps.astype(np.int64)) <= targets[rows]

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

        found[i] = _settled(alone, int(found[i]), 2**53)
    return found


def _alone(problem: NoisyQuadratic, optimizer: Optimizer, batch: float | Schedule, target: float, last: bool) -> float:
    """The same for one row along schedules, or with noise that grows with the loss."""
    schedule, values = split(optimizer)
    size, ramp = one_batch(batch)
    end = 2**53
    if schedule is None and ramp is None and math.isinf(size):  # no noise that could grow
        alone = {name: np.array([value]) for name, value in values.items()}
        return float(_together(problem._additive(), optimizer, alone, np.array([size]), np.array([target]), last)[0])
    if ramp is None and math.isinf(size):
        problem = problem._additive()

    def walk(nodes: NoisyQuadratic) -> float:
        nonlocal end
        if nodes.label_noise is None:
            found, end = additive.crossing_along(nodes, optimizer, values, size, schedule, ramp, target, last)
            return found
        along = gaussian_features.March(nodes, optimizer, values, size, schedule, ramp)
        end = along.end
        return along.run(target, last)

    nodes = searchable(problem)
    found = walk(nodes)
    while not nodes._is_exact():
        finer = nodes._finer()
        coupled = nodes.label_noise is not None
        if finer is None or (coupled and finer.curvature.size > gaussian_features.MOST_NODES):
            break  # risk() below refuses what no rule settles
        nodes = finer
        before, found = found, walk(nodes)
        if before == found or (coupled and abs(before - found) <= 1e-10 * found):  # `risk` has the last word
            break
    if end < 2**53 and (last or math.isinf(found)):  # a walk looks only at the steps before the end
        below = np.asarray(risk(problem, optimizer, batch, end)) <= target
        found = (found if last else float(end)) if below else math.inf
    if math.isinf(found):
        return found
    # A leap and a direct evaluation differ in the last digits, and so do two rules: `risk` has the last word.
    return _settled(lambda steps: np.asarray(risk(problem, optimizer, batch, steps)) <= target, int(found), end)


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
