"""Which schedule reaches the target first, or gets lowest in the steps there are?

The exact risk over the log learning rates of all pieces, with its exact gradient, goes to BFGS with bounds (SciPy's
L-BFGS-B), from few pieces to many: the best schedule of fewer pieces, cut finer, is one of the starts, so that more
pieces are never worse. The fewest steps are bracketed around that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from .. import _checks
from .._checks import FloatArray
from .._risk import check_one_batch_size, risk
from .._status import Status
from ..dynamics.additive import Additive
from ..dynamics.select import dynamics_of
from ..optimizers import FREE, SGD, Optimizer
from ..problems.quadratic import NoisyQuadratic
from ..schedules import Schedule
from .bracket import Candidate, bracket
from .results import SearchResult
from .schedule_descent import best_of, descend, guess_steps, starts
from .schedule_objective import LEAST, ScheduleObjective
from .tuning import check_tunable, require_held

__all__ = ["OptimizedSchedule", "optimize_schedule"]

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..plotting import Drawn

CONVERGED = 1e-4
"""Largest slope of log risk by any log learning rate that counts as flat."""

MOST_PIECES = 10_000


@dataclass(frozen=True)
class OptimizedSchedule(SearchResult):
    """The best schedule found.

    schedule: what was optimised: the learning rate, or the batch size where lr was given. steps: int, or inf.
    risk: after those, exact, in units of loss. gradient_norm: largest slope of log risk along a variable that is not at
    a bound. status: "converged" (that norm is at most 1e-4: a local minimum, the lowest that any start led to; that
    there is no lower one is not proved), "stalled" (it is more: the best found, not even a local minimum), "already
    there" (steps = 0), "unreachable" (then schedule and risk are the best found).
    optimizer, batch_size: with the schedules in place, ready for :func:`nqm.risk`. target: None where steps were given.
    """

    schedule: Schedule
    steps: float
    risk: float
    gradient_norm: float
    status: Status
    optimizer: Optimizer = field(repr=False)
    batch_size: float | Schedule = field(repr=False)
    target: float | None = None

    def plot(self, ax: Axes | None = None) -> Drawn:
        """The schedule against the step; returns the axes."""
        from ..plotting import plot_schedule

        drawn = plot_schedule(self.schedule, ax)
        drawn.set_ylabel("learning rate" if self.schedule is self.optimizer.schedule else "batch size (examples)")
        return drawn


def optimize_schedule(
    problem: NoisyQuadratic,
    batch_size: float | Schedule | Any,
    *,
    target: float | None = None,
    steps: int | None = None,
    pieces: int | ArrayLike = 50,
    optimizer: Optimizer | None = None,
    shape: Callable[[float, int], Schedule] | None = None,
    max_lr: float | Literal["stable"] | None = "stable",
    examples: float | None = None,
    restarts: int = 4,
    seed: int = 0,
) -> OptimizedSchedule:
    """The piecewise-constant schedule of least risk after ``steps``, or that of the fewest steps to ``target``.

    Minimises log of the exact risk of :func:`nqm.risk` over the log learning rates of all pieces (zhang2019, section
    3.7.2, footnote 3), and momentum and decay where they are FREE, as one number each. The minimum returned is the
    lowest of those that all starts lead to; the best schedule of every number of pieces that divides ``pieces`` is one
    of them, so that more pieces are never worse than those.

    Args:
        problem: the noisy quadratic.
        batch_size: examples per step, a schedule of them, or ``nqm.FREE``: then it is a schedule too, of at least one
            example per step and ``examples`` in all. For given learning rates the best one has a closed form: batch
            sizes proportional to the root of what a step's noise still weighs at the end.
        target, steps: one of them.
        pieces: number of pieces of equal length (to one step), at most ``steps``; or their relative lengths. With a
            target that takes fewer steps, each step is a piece.
        optimizer: the SGD family, with lr ``nqm.FREE``; default ``SGD(nqm.FREE)``. A given lr is kept: then batch_size
            must be FREE.
        shape: a function (value, steps) -> Schedule, such as ``nqm.schedules.cosine``: then only its peak is free, and
            the schedule is the shape in so many ``pieces``, each with the shape's mean over it.
        max_lr: bound of all learning rates. "stable": the largest stable one, 2 / h_1 for plain SGD, as in the paper.
            None: no bound; with few steps per piece, steps beyond 2 / h_1 then help (Chebyshev's), at the price of a
            landscape with cliffs and many minima, of which another processor may find another: a few percent. With many
            steps per piece the best ones let the risk grow on the way, up to the largest number there is. A number
            above the stable rate changes nothing where the best schedule found without a bound keeps it.
        restarts: random restarts from around the best, on top of the fixed starting points.
        seed: of those.

    Plain SGD with 50 pieces takes a third of a second, some seconds with hundreds of pieces of many divisors. Momentum,
    more so if FREE, takes seconds: there are several minima, and a gradient costs ten times as much; sixty rates
    without a bound take ten or fifteen.

    Raises:
        TypeError, ValueError: for wrong arguments, before any work.

    >>> import nqm
    >>> problem = nqm.NoisyQuadratic.power_law(10_000)
    >>> best = nqm.optimize_schedule(problem, batch_size=256, target=0.01)
    >>> best.steps, best.status, nqm.tune(problem, nqm.SGD(nqm.FREE), 256, 0.01).steps
    (8933, 'converged', 25778)
    """
    optimizer = SGD(FREE) if optimizer is None else optimizer
    objective = _checked(problem, batch_size, optimizer, max_lr, examples, pieces, shape)
    rounds = _checks.whole(restarts, "restarts", high=10_000)
    chance = _checks.whole(seed, "seed")
    if (target is None) == (steps is None):
        raise ValueError("expected exactly one of target and steps, got " + ("none" if target is None else "both"))
    if steps is not None:
        time = _checks.whole(steps, "steps", low=1)
        objective.check_steps(time)
    else:
        wanted = _checks.real(target, "target", low=0.0)
        require_held(*objective.given)
        if problem.initial_risk <= wanted:
            return _result(objective, objective.middle(), 0, wanted)

    def best(of: ScheduleObjective) -> OptimizedSchedule:
        return _lowest(of, time, rounds, chance) if steps is not None else _soonest(of, wanted, rounds, chance)

    if objective.bounded or not isinstance(objective.max_lr, float) or objective.rates_free == 0:
        return best(objective)
    # A bound beyond the stable rate that the best schedule without one keeps changes nothing.
    unbounded = best(_checked(problem, batch_size, optimizer, None, examples, pieces, shape))
    return unbounded if np.all(unbounded.schedule.values <= objective.max_lr) else best(objective)


def _lowest(objective: ScheduleObjective, steps: int, restarts: int, seed: int) -> OptimizedSchedule:
    """The lowest minimum after so many steps."""
    coarser: dict[ScheduleObjective, Candidate] = {}
    for level in objective.levels():
        points = [*(point for point, _ in level.cut(coarser)), *starts(level, steps)]
        point, _ = best_of(level, points, steps, None, restarts, np.random.default_rng(seed))
        if level.refine(point, steps):
            point, _ = descend(level, point, steps)
        coarser[level] = point, steps
    return _result(objective, point, steps, None)


def _soonest(objective: ScheduleObjective, target: float, restarts: int, seed: int) -> OptimizedSchedule:
    """The lowest minimum after the fewest steps that reach the target."""
    coarser: dict[ScheduleObjective, Candidate] = {}
    for level in objective.levels():
        cut = level.cut(coarser)
        point, steps = coarser[level] = _fewest_steps(level, math.log(target), cut, restarts, seed)
    found = min(steps, objective.farthest)
    points = [point, *(other for other, _ in cut), *starts(objective, found)]
    point = best_of(objective, points, found, None, restarts, np.random.default_rng(seed))[0]
    best = _result(objective, point, steps, target)
    for _ in range(64):  # the exact risk decides
        if not math.isfinite(steps) or best.risk <= target or steps >= objective.most_steps:
            break
        objective.refine(point, steps)
        excess = math.log(best.risk / target) if math.isfinite(best.risk) else 1.0
        steps = min(steps + max(1.0, math.floor(0.5 * excess * steps)), objective.most_steps)
        point, _ = descend(objective, point, steps)
        best = _result(objective, point, steps, target)
    return best


def _fewest_steps(
    objective: ScheduleObjective, log_target: float, coarser: list[Candidate], restarts: int, seed: int
) -> Candidate:
    """A point and the fewest steps in which it reaches the target, inf if none does; ``coarser``: what fewer pieces
    take."""
    point, guess = min(coarser, key=lambda candidate: candidate[1], default=(objective.middle(), math.inf))
    if math.isinf(guess):
        guess = guess_steps(objective, log_target)
        generator = np.random.default_rng(seed)
        point, value = best_of(objective, starts(objective, guess), guess, log_target, 0, generator)
        if objective.examples is not None and value > log_target:
            objective.farthest = guess
            return point, math.inf
    while True:
        point, steps = bracket(partial(descend, objective), point, guess, log_target)
        if math.isinf(steps) or steps == 1.0:
            return point, steps
        if objective.refine(point, steps):
            guess = steps
            continue
        sooner = steps - 1.0
        points = [point, *(other for other, _ in coarser), *starts(objective, sooner)]
        other, value = best_of(objective, points, sooner, log_target, restarts, np.random.default_rng(seed))
        if value > log_target:
            return min((descend(objective, start, steps) for start in (point, other)), key=lambda found: found[1])[
                0
            ], steps
        point, guess = other, sooner


def _result(objective: ScheduleObjective, point: FloatArray, steps: float, target: float | None) -> OptimizedSchedule:
    time = steps if math.isfinite(steps) else objective.farthest
    if time == 0.0:
        time = min(float(objective.pieces.count), objective.most_steps)
    values, rates, layout = objective.values(point), objective.rates(point, time), objective.pieces.layout(time)
    inverse = objective.inverse_batch_sizes(values, rates, layout)
    first = np.unique(layout.piece_of_part, return_index=True)[1]  # of each piece that has steps
    lengths = layout.lengths[layout.lengths > 0]
    lr: Any = Schedule(rates[first], lengths) if objective.given_lr is None else objective.given_lr
    chosen: Any = objective.optimizer.with_values(lr=lr, **{name: values[name] for name in objective.names})
    batch: Any = objective.batch_size if objective.batch_schedule is None else objective.batch_schedule
    if objective.examples is not None:
        batch = Schedule(1.0 / inverse[first], lengths)
    height, slope = objective.value(point, time)
    slope[(point >= objective.high) & (slope < 0.0)] = 0.0
    least = slope[objective.rates_free :]  # a learning rate at its floor is no minimum, a momentum of 0 may be
    least[(point[objective.rates_free :] <= LEAST) & (least > 0.0)] = 0.0
    norm = float(np.abs(slope).max(initial=0.0)) if height < 1e9 else math.inf
    norm = 0.0 if steps == 0 else norm
    status = Status.CONVERGED if norm <= CONVERGED else Status.STALLED
    if steps == 0:
        status = Status.ALREADY_THERE
    elif math.isinf(steps):
        status = Status.UNREACHABLE
    return OptimizedSchedule(
        schedule=lr if objective.given_lr is None else batch,
        steps=int(steps) if math.isfinite(steps) else steps,
        risk=float(risk(objective.problem, chosen, batch, 0 if steps == 0 else int(time))),
        gradient_norm=norm,
        status=status,
        optimizer=chosen,
        batch_size=batch,
        target=target,
    )


def _checked(
    problem: Any, batch_size: Any, optimizer: Any, max_lr: Any, examples: Any, pieces: Any, shape: Any
) -> ScheduleObjective:
    check_tunable(problem, optimizer)
    dynamics = dynamics_of(problem, optimizer)
    if not isinstance(dynamics, Additive):
        raise ValueError(
            f'problem: expected noise_model="additive", for which gradients by a schedule are known, got {problem}; '
            "nqm.risk and nqm.steps_to_target take Gaussian features along a given schedule"
        )
    free_batch = batch_size is FREE
    if (examples is not None) != free_batch:
        raise ValueError(
            f"expected examples together with batch_size=nqm.FREE, got examples {examples} and batch_size {batch_size}"
        )
    if "lr" not in optimizer.free and not free_batch:
        raise ValueError(f"optimizer: expected lr nqm.FREE (or batch_size nqm.FREE), got {optimizer}")
    batch, batch_schedule = (1.0, None) if free_batch else check_one_batch_size(batch_size)
    limit = max_lr
    if max_lr is not None and not (isinstance(max_lr, str) and max_lr == "stable"):
        if isinstance(max_lr, str):
            raise ValueError(f'max_lr: expected a number > 0, "stable" or None, got {max_lr!r}')
        limit = _checks.real(max_lr, "max_lr", low=0.0)
    if np.ndim(pieces) == 0:
        weights: Any = _checks.whole(pieces, "pieces", low=1, high=MOST_PIECES)
    else:
        weights = _checks.reals(pieces, "pieces", low=0.0, ndim=1)
        if weights.size > MOST_PIECES:
            raise ValueError(f"pieces: expected at most {MOST_PIECES}, got {weights.size}")
    if shape is not None and (not callable(shape) or "lr" not in optimizer.free):
        raise TypeError(
            f"shape: expected a function (value, steps) -> Schedule, for an optimizer with lr nqm.FREE, got {shape!r}"
        )
    total = None if examples is None else _checks.real(examples, "examples", low=1.0, closed="low")
    return ScheduleObjective(dynamics, batch, batch_schedule, total, limit, weights, shape)
