"""Which schedule reaches the target first, or gets lowest in the steps there are?

The exact risk over the log learning rates of all pieces, with its exact gradient, goes to BFGS with bounds (SciPy's
L-BFGS-B), from few pieces to many: the best schedule of fewer pieces, cut finer, is one of the starts, so that more
pieces are never worse. The fewest steps are bracketed around that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from .. import _checks
from .._checks import FloatArray
from .._risk import one_batch, risk
from ..optimizers import FREE, SGD, Optimizer
from ..problems.quadratic import NoisyQuadratic
from ..schedules import Schedule
from .fewest_steps import bracket
from .schedule_objective import LEAST, Course
from .tune import check_tunable, examples_seen, require_held

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..plotting import Drawn

CONVERGED = 1e-4
"""Largest slope of log risk by any log learning rate that counts as flat."""

MOST_PIECES = 10_000


@dataclass(frozen=True)
class OptimizedSchedule:
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
    status: str
    optimizer: Optimizer = field(repr=False)
    batch_size: float | Schedule = field(repr=False)
    target: float | None = None

    @property
    def examples(self) -> float:
        """Training examples seen."""
        return examples_seen(self.batch_size, self.steps)

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
        batch_size: examples a step, a schedule of them, or ``nqm.FREE``: then it is a schedule too, of at least one
            example a step and ``examples`` in all. For given learning rates the best one has a closed form: batch
            sizes proportional to the root of what a step's noise still weighs at the end.
        target, steps: one of them.
        pieces: number of pieces of equal length (to one step), at most ``steps``; or their relative lengths. With a
            target that takes fewer steps, each step is a piece.
        optimizer: the SGD family, with lr ``nqm.FREE``; default ``SGD(nqm.FREE)``. A given lr is kept: then batch_size
            must be FREE.
        shape: a function (value, steps) -> Schedule, such as ``nqm.schedules.cosine``: then only its peak is free, and
            the schedule is the shape in so many ``pieces``, each with the shape's mean over it.
        max_lr: bound of all learning rates. "stable": the largest stable one, 2 / h_1 for plain SGD, as in the paper.
            None: no bound; with few steps a piece, steps beyond 2 / h_1 then help (Chebyshev's), at the price of a
            landscape with cliffs and many minima, of which another processor may find another: a few percent. With many
            steps a piece the best ones let the risk grow on the way, up to the largest number there is. A number above
            the stable rate changes nothing where the best schedule found without a bound keeps it.
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
    course = _checked(problem, batch_size, optimizer, max_lr, examples, pieces, shape)
    rounds = _checks.whole(restarts, "restarts", high=10_000)
    chance = _checks.whole(seed, "seed")
    if (target is None) == (steps is None):
        raise ValueError("expected exactly one of target and steps, got " + ("none" if target is None else "both"))
    if steps is not None:
        time = _checks.whole(steps, "steps", low=1)
        course.check_steps(time)
    else:
        goal = _checks.real(target, "target", low=0.0)
        require_held(course.given, course.ramp)
        if problem.initial_risk <= goal:
            return _result(course, course.middle(), 0, goal)

    def best(of: Course) -> OptimizedSchedule:
        return _lowest(of, time, rounds, chance) if steps is not None else _soonest(of, goal, rounds, chance)

    if course.bounded or not isinstance(course.max_lr, float) or course.rates_free == 0:
        return best(course)
    # A bound beyond the stable rate that the best schedule without one keeps changes nothing.
    unbounded = best(_checked(problem, batch_size, optimizer, None, examples, pieces, shape))
    return unbounded if np.all(unbounded.schedule.values <= course.max_lr) else best(course)


_Candidate = tuple[FloatArray, float]  # a point of a Course, and the steps it takes


def _lowest(course: Course, steps: int, restarts: int, seed: int) -> OptimizedSchedule:
    """The lowest minimum after so many steps."""
    coarser: dict[Course, _Candidate] = {}
    for level in course.levels():
        starts = [*(point for point, _ in level.cut(coarser)), *level.starts(steps)]
        point, _ = level.best_of(starts, steps, None, restarts, np.random.default_rng(seed))
        if level.refine(point, steps):
            point = level.minimise(point[None, :], steps)[0][0]
        coarser[level] = point, steps
    return _result(course, point, steps, None)


def _soonest(course: Course, target: float, restarts: int, seed: int) -> OptimizedSchedule:
    """The lowest minimum after the fewest steps that reach the target."""
    coarser: dict[Course, _Candidate] = {}
    for level in course.levels():
        cut = level.cut(coarser)
        point, found = coarser[level] = _fewest_steps(level, math.log(target), cut, restarts, seed)
    time = min(found, course.farthest)
    starts = [point, *(other for other, _ in cut), *course.starts(time)]
    point = course.best_of(starts, time, None, restarts, np.random.default_rng(seed))[0]
    best = _result(course, point, found, target)
    for _ in range(64):  # the exact risk has the last word
        if not math.isfinite(found) or best.risk <= target or found >= course.most:
            break
        course.refine(point, found)
        excess = math.log(best.risk / target) if math.isfinite(best.risk) else 1.0
        found = min(found + max(1.0, math.floor(0.5 * excess * found)), course.most)
        point = course.minimise(point[None, :], found)[0][0]
        best = _result(course, point, found, target)
    return best


def _fewest_steps(course: Course, goal: float, coarser: list[_Candidate], restarts: int, seed: int) -> _Candidate:
    """A point and the fewest steps in which it reaches log risk ``goal``, inf if none does; ``coarser``: what fewer
    pieces take."""
    point, guess = min(coarser, key=lambda candidate: candidate[1], default=(course.middle(), math.inf))
    if math.isinf(guess):
        guess = course.guess(goal)
        point, value = course.best_of(course.starts(guess), guess, goal, 0, np.random.default_rng(seed))
        if course.examples is not None and value > goal:
            course.farthest = guess
            return point, math.inf
    while True:
        point, steps = bracket(course, point, guess, goal)
        if math.isinf(steps) or steps == 1.0:
            return point, steps
        if course.refine(point, steps):
            guess = steps
            continue
        sooner = steps - 1.0
        starts = [point, *(other for other, _ in coarser), *course.starts(sooner)]
        other, value = course.best_of(starts, sooner, goal, restarts, np.random.default_rng(seed))
        if value > goal:
            points, values = course.minimise(np.stack([point, other]), steps)
            return points[np.argmin(values)], steps
        point, guess = other, sooner


def _result(course: Course, point: FloatArray, steps: float, target: float | None) -> OptimizedSchedule:
    time = steps if math.isfinite(steps) else course.farthest
    if time == 0.0:
        time = min(float(course.pieces), course.most)
    values, rates, layout = course.values(point), course.rates(point, time), course.layout(time)
    inverse = course.inverse_batches(values, rates, layout)
    first = np.unique(layout.owner, return_index=True)[1]  # of each piece that has steps
    lengths = layout.lengths[layout.lengths > 0]
    lr: Any = Schedule(rates[first], lengths) if course.given is None else course.given
    chosen: Any = course.optimizer.with_values(lr=lr, **{name: values[name] for name in course.names})
    batch: Any = course.batch if course.ramp is None else course.ramp
    if course.examples is not None:
        batch = Schedule(1.0 / inverse[first], lengths)
    height, slope = course.value(point, time)
    slope[(point >= course.high) & (slope < 0.0)] = 0.0
    least = slope[course.rates_free :]  # a learning rate at its floor is no minimum, a momentum of 0 may be
    least[(point[course.rates_free :] <= LEAST) & (least > 0.0)] = 0.0
    norm = float(np.abs(slope).max(initial=0.0)) if height < 1e9 else math.inf
    norm = 0.0 if steps == 0 else norm
    status = "converged" if norm <= CONVERGED else "stalled"
    if steps == 0:
        status = "already there"
    elif math.isinf(steps):
        status = "unreachable"
    reached = float(risk(course.problem, chosen, batch, 0 if steps == 0 else int(time)))
    return OptimizedSchedule(
        lr if course.given is None else batch, int(steps) if math.isfinite(steps) else steps, reached, norm, status,
        chosen, batch, target,
    )  # fmt: skip


def _checked(
    problem: Any, batch_size: Any, optimizer: Any, max_lr: Any, examples: Any, pieces: Any, shape: Any
) -> Course:
    check_tunable(problem, optimizer)
    if problem.label_noise is not None:
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
    batch, ramp = (1.0, None) if free_batch else one_batch(batch_size)
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
    return Course(problem, optimizer, batch, ramp, total, limit, weights, shape)
