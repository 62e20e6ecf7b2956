"""When is the target reached?"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from .. import _backend, _checks
from .._checks import FloatArray
from ..optimizers import Optimizer
from ..problem import NoisyQuadratic
from ..risk import check_problem, in_chunks, risk

MANY_NODES = 4096
"""Explicit problems with more nodes are searched on a Gauss rule first."""


def steps_to_target(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    batch_size: ArrayLike,
    target: ArrayLike,
    crossing: Literal["first", "last"] = "first",
) -> float | FloatArray:
    """First step t with risk(t) <= target, exactly, also where the risk oscillates or rises before it falls.

    Time is crossed in leaps of 2^j steps. A leap is taken where bounds prove that the risk stays on one side of the
    target: its noise part never falls, and its mean part is an inner product with a vector that stays in
    a known box (:func:`nqm._kernels.march`). So about 2 log2(t) bounds answer, not t steps.

    Args:
        problem, optimizer, batch_size: as in :func:`nqm.risk`.
        target: risk to reach, > 0, in units of loss.
        crossing: "first", or "last" for the step from which on the risk never exceeds the target again.

    batch_size, target and hyperparameters broadcast. Returns a whole number of steps as an int, or ``math.inf`` where
    the target is not reached within 2^53 steps (about 10^16); float64 arrays for array arguments.

    Raises:
        TypeError, ValueError: for wrong arguments, before any work.

    >>> import nqm
    >>> problem = nqm.NoisyQuadratic.power_law(10_000)
    >>> nqm.steps_to_target(problem, nqm.SGD(0.5, momentum=0.9), batch_size=4096, target=0.01)
    2942
    >>> nqm.steps_to_target(problem, nqm.SGD(0.5, momentum=0.9), batch_size=16, target=0.01)
    inf
    """
    check_problem(problem, optimizer)
    batch = _checks.reals(batch_size, "batch_size", low=0.0)
    goal = _checks.reals(target, "target", low=0.0)
    if not isinstance(crossing, str) or crossing not in ("first", "last"):
        raise ValueError(f'crossing: expected "first" or "last", got {_checks.describe(crossing)}')
    shape = _checks.broadcast(optimizer=optimizer.shape, batch_size=batch.shape, target=goal.shape)
    out = np.empty(shape)
    flat = out.reshape(-1)
    for part, values, (b, goals) in in_chunks(optimizer.hyperparameters, shape, batch, goal):
        for row in range(part.start, part.stop):
            i = row - part.start
            single = optimizer.with_values(**{k: float(v[i]) for k, v in values.items()})
            flat[row] = _crossing(problem, single, float(b[i]), float(goals[i]), crossing == "last")
    if shape != ():
        return out
    return int(out) if math.isfinite(out) else math.inf


def searchable(problem: NoisyQuadratic) -> NoisyQuadratic:
    """The problem itself, or for very many nodes a rule that refines to it."""
    if not (problem._is_exact() and problem.curvature.size > MANY_NODES):
        return problem
    if "searchable" not in problem._prepared:
        problem._prepared["searchable"] = problem.compressed()
    return problem._prepared["searchable"]


def _crossing(problem: NoisyQuadratic, optimizer: Optimizer, batch: float, target: float, last: bool) -> float:
    """The crossing on finer and finer rules, until two agree; then held against the risk itself."""
    values = optimizer.hyperparameters
    nodes = searchable(problem)
    found = _backend.March(nodes, optimizer, values, batch).run(target, last)
    while not nodes._is_exact():
        finer = nodes._finer()
        if finer is None:
            break  # risk() below refuses what no rule settles
        nodes = finer
        before, found = found, _backend.March(nodes, optimizer, values, batch).run(target, last)
        if before == found:
            break
    if math.isinf(found):
        return found
    # A leap and a direct evaluation differ in the last digits, and so do two rules: `risk` has the last word.
    steps = int(found)
    for _ in range(64):
        around = np.asarray(risk(problem, optimizer, batch, [max(steps - 1, 0), steps]))
        if around[1] > target:
            steps += 1
        elif steps > 0 and around[0] <= target:
            steps -= 1
        else:
            return float(steps)
    raise ArithmeticError(f"the crossing of {target:g} near step {steps} lies within rounding errors of the risk")
