"""With which hyperparameters is the target reached first, or the risk least after given steps?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from .. import _checks
from .._risk import ARRAYS, check_one_batch_size, check_problem, risk
from .._status import Status
from ..dynamics.select import dynamics_of
from ..optimizers import Optimizer, free_names
from ..problems.quadratic import NoisyQuadratic
from ..schedules import Schedule
from .fewest_steps import fewest_steps, least_risk
from .first_passage import after_end, first_passage, warn_of_the_end
from .results import SearchResult
from .space import HyperparameterSpace

__all__ = ["Tuned", "check_tunable", "require_held", "tune", "tuned"]

AnyOptimizer = TypeVar("AnyOptimizer", bound=Optimizer)


@dataclass(frozen=True)
class Tuned(SearchResult, Generic[AnyOptimizer]):
    """The fewest steps to a target, and the hyperparameters that take them.

    optimizer: of the kind given, with numbers in place of FREE. steps: an int, or ``math.inf`` where unreachable. risk:
    at that step, in units of loss.
    status: "tuned", "already there" (steps = 0), "unreachable" (then optimizer and risk are the best found), or
    "reached after the schedule's end" (at the rate that a given schedule has come down to by then). target: None where
    steps were given, and the risk is the least after them.
    """

    optimizer: AnyOptimizer
    steps: float
    risk: float
    batch_size: float | Schedule
    target: float | None
    status: Status


def tune(
    problem: NoisyQuadratic,
    optimizer: AnyOptimizer,
    batch_size: float | Schedule,
    target: float | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    *,
    steps: int | None = None,
) -> Tuned[AnyOptimizer]:
    """The fewest steps in which some choice of the free hyperparameters reaches the target; or the choice of the least
    risk after ``steps``.

    Minimises over the continuum, not a grid: the smallest T with min risk(T) <= target, and among the choices that
    reach it the one of lowest risk. Momentum has several local minima; all that a coarse scan finds are followed.

    Args:
        problem: the noisy quadratic.
        optimizer: with ``nqm.FREE`` for any of lr, momentum, decay, e.g. ``SGD(lr=FREE, momentum=FREE)``; an lr that is
            not may be a :class:`nqm.Schedule` that holds. (:func:`nqm.optimize_schedule` finds schedules.)
        batch_size: examples per step, > 0, or a :class:`nqm.Schedule` of them that holds.
        target, steps: one of them: the risk to reach, > 0, or the steps there are, >= 1.
        bounds: {"lr": (low, high), ...} for free hyperparameters. Default: 0 < lr < max_stable_lr (for the momentum at
            hand), 0 <= momentum, decay <= 1 - 1e-8.

    Returns a :class:`Tuned`. A target out of reach is a status with steps = inf, not an error. A target that a given
    schedule reaches only after its end is a status and a UserWarning, as in :func:`nqm.steps_to_target`.

    Raises:
        TypeError, ValueError: for wrong arguments, or nothing FREE.

    >>> import nqm
    >>> problem = nqm.NoisyQuadratic.power_law(10_000)
    >>> best = nqm.tune(problem, nqm.SGD(nqm.FREE, momentum=nqm.FREE), batch_size=4096, target=0.01)
    >>> best.steps, round(best.optimizer.momentum, 3)
    (1265, 0.993)
    >>> round(nqm.tune(problem, nqm.SGD(nqm.FREE), batch_size=256, steps=20_000).risk, 5)
    0.01265
    """
    if (target is None) == (steps is None):
        raise ValueError("expected exactly one of target and steps, got " + ("none" if target is None else "both"))
    best = tuned(problem, optimizer, batch_size, target, bounds, steps)
    if best.status == Status.AFTER_END:
        warn_of_the_end(best.optimizer, best.steps)
    return best


def tuned(
    problem: NoisyQuadratic,
    optimizer: AnyOptimizer,
    batch_size: float | Schedule,
    target: float | None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    given: int | None = None,
) -> Tuned[AnyOptimizer]:
    """:func:`tune` without a word on schedules that have ended."""
    check_tunable(problem, optimizer)
    if not optimizer.free:
        names = ", ".join(free_names(tuple(optimizer.described.values())))
        raise ValueError(f"optimizer: expected nqm.FREE for at least one of {names}, got {optimizer}")
    size, batch_schedule = check_one_batch_size(batch_size)
    batch = size if batch_schedule is None else batch_schedule
    dynamics = dynamics_of(problem, optimizer, math.isinf(size))
    if given is not None:
        count = _checks.whole(given, "steps", low=1)
        space = HyperparameterSpace(dynamics.coarse_rule(), bounds, batch)
        chosen = space.optimizer_at(least_risk(space, float(count)))
        return Tuned(chosen, count, float(risk(problem, chosen, batch, count)), batch, None, Status.TUNED)
    require_held(optimizer.schedule, batch_schedule)
    wanted = _checks.real(target, "target", low=0.0)
    space = HyperparameterSpace(dynamics.coarse_rule(), bounds, batch)
    if problem.initial_risk <= wanted:
        start = np.clip(np.zeros(space.low.size), space.low, space.high)
        return Tuned(space.optimizer_at(start), 0, problem.initial_risk, batch, wanted, Status.ALREADY_THERE)
    point, steps = fewest_steps(space, wanted)
    chosen = space.optimizer_at(point)
    if math.isfinite(steps):  # where the risk is not monotone, it may have been there before
        steps = float(first_passage(problem, chosen, batch, wanted))
    reached = float(risk(problem, chosen, batch, steps if math.isfinite(steps) else 2**53))
    if math.isinf(steps):
        return Tuned(chosen, math.inf, reached, batch, wanted, Status.UNREACHABLE)
    status = Status.AFTER_END if after_end(chosen, steps) else Status.TUNED
    return Tuned(chosen, int(steps), reached, batch, wanted, status)


def check_tunable(problem: Any, optimizer: Any) -> None:
    """Refuse what is not a problem and an optimizer of plain numbers, some of which may be FREE."""
    described = optimizer.described.values() if isinstance(optimizer, Optimizer) else ()
    check_problem(problem, optimizer, free={one.name for one in described if one.can_be_free})
    if optimizer.shape != ():
        shape = f"arrays of shape {optimizer.shape}"
        raise ValueError(f"optimizer: expected plain numbers beside nqm.FREE, got {shape}{ARRAYS}")


def require_held(*given: Any) -> None:
    """Refuse schedules that end: a search over steps may ask for any number of them."""
    for one in given:
        if isinstance(one, Schedule) and one.beyond == "error":
            raise ValueError(
                f"expected a schedule that holds its last value, to search over steps, got {one} that ends"
            )
