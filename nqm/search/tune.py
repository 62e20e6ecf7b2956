"""With which hyperparameters is the target reached first?

The least risk after T steps, over all free hyperparameters, is found by Newton's method from several starts; T itself
by bracketing. A scan finds the starts, and near the end the valley floor is searched for ripples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from .. import _checks
from .._checks import FloatArray
from .._risk import ARRAYS, check_one_batch_size, check_problem, risk
from .._status import Status
from ..optimizers import Optimizer
from ..problems.quadratic import NoisyQuadratic
from ..schedules import Schedule
from .bracket import Candidate, Lowest, bracket
from .first_passage import after_end, first_passage, warn_of_the_end
from .objective import Landscape, Space

AnyOptimizer = TypeVar("AnyOptimizer", bound=Optimizer)


@dataclass(frozen=True)
class Tuned(Generic[AnyOptimizer]):
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

    @property
    def success(self) -> bool:
        """Whether some choice reaches the target."""
        return self.status.success

    @property
    def message(self) -> str:
        """The status in a sentence."""
        return self.status.message

    @property
    def examples(self) -> float:
        """Training examples seen: steps * batch_size, summed along a schedule."""
        return examples_seen(self.batch_size, self.steps)


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
        batch_size: examples a step, > 0, or a :class:`nqm.Schedule` of them that holds.
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
        raise ValueError(f"optimizer: expected nqm.FREE for at least one of lr, momentum, decay, got {optimizer}")
    size, ramp = check_one_batch_size(batch_size)
    batch = size if ramp is None else ramp
    if given is not None:
        count = _checks.whole(given, "steps", low=1)
        space = Space(problem, optimizer, bounds, batch)
        chosen = space.optimizer_at(_least_risk(space, batch, float(count)))
        return Tuned(chosen, count, float(risk(problem, chosen, batch, count)), batch, None, Status.TUNED)
    require_held(optimizer.schedule, ramp)
    goal = _checks.real(target, "target", low=0.0)
    space = Space(problem, optimizer, bounds, batch)
    if problem.initial_risk <= goal:
        start = np.clip(np.zeros((1, space.low.size)), space.low, space.high)
        return Tuned(space.optimizer_at(start[0]), 0, problem.initial_risk, batch, goal, Status.ALREADY_THERE)
    point, steps = _fewest_steps(space, batch, goal)
    chosen = space.optimizer_at(point)
    if math.isfinite(steps):  # where the risk is not monotone, it may have been there before
        steps = float(first_passage(problem, chosen, batch, goal))
    reached = float(risk(problem, chosen, batch, steps if math.isfinite(steps) else 2**53))
    if math.isinf(steps):
        return Tuned(chosen, math.inf, reached, batch, goal, Status.UNREACHABLE)
    return Tuned(
        chosen, int(steps), reached, batch, goal, Status.AFTER_END if after_end(chosen, steps) else Status.TUNED
    )


def check_tunable(problem: Any, optimizer: Any) -> None:
    """Refuse what is not a problem and an optimizer of plain numbers, some of lr, momentum, decay perhaps FREE."""
    check_problem(problem, optimizer, free={"lr", "momentum", "decay"})
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


def examples_seen(batch_size: float | Schedule, steps: float) -> float:
    """steps * batch_size, summed along a schedule."""
    if not isinstance(batch_size, Schedule) or math.isinf(steps) or steps == 0:
        return steps * (1.0 if isinstance(batch_size, Schedule) else batch_size)
    course = batch_size.cut(int(steps))
    return float(course.values @ course.lengths)


FEW = 1024.0
"""Up to so many steps, ripples of the landscape decide the optimum and evaluations are cheap: look closer."""

RIPPLES_UNTIL = 2.0**15
"""Beyond so many steps, ripples are not searched where noise grows with the loss: it would take minutes."""


def _fewest_steps(space: Space, batch: float | Schedule, target: float) -> Candidate:
    """The best point and its steps (inf if none reaches the target; then the point of least risk seen)."""
    goal = math.log(target)
    known = [_embedded(space, name, batch, target) for name in space.names[1:] if name in ("momentum", "decay")]
    grid, starts, guess = _scan(space, batch, target, known)
    landscape = Landscape(space, batch)
    points, values = landscape.minimise(starts, guess, goal, rounds=6)
    if np.isinf(values).all() and not any(math.isfinite(steps) for _, steps in known):
        return points[0], math.inf  # nothing that converges
    own = "momentum" not in space.optimizer.hyperparameters and space.optimizer.states > 1  # anything may oscillate
    oscillates = len(space.names) > 1 or own or bool(np.any(space.fixed.get("momentum", 0.0)))
    point, steps = bracket(_followed(landscape, goal), points[np.argmin(values)], guess, goal, loose=oscillates)
    alone = len(space.names) == 1
    if math.isfinite(steps) and not space.dynamics.looks_for_ripples(steps, len(space.names)):
        oscillates = False
        point, steps = bracket(_followed(landscape, goal), point, steps, goal)
    if alone:
        ends = np.minimum(point, 0.0) - 6.0, point + 10.0  # whichever basin was found first, the others are in it
        grid = np.linspace(*ends, space.dynamics.line_points).clip(space.low, np.minimum(space.high, 9.0))
    explored = not oscillates
    while math.isfinite(steps):
        if landscape.refine(point, steps):
            point, steps = bracket(_followed(landscape, goal), point, steps, goal, loose=oscillates)
            explored = not oscillates
        elif not explored:
            point, steps = _explore(landscape, point, steps, goal, grid, known)
            explored = True
        else:
            break
    for candidate in known:
        if candidate[1] < steps:
            point, steps = candidate
    if math.isfinite(steps):
        point = landscape.minimise(point[None, :], steps, rounds=50)[0][0]
    return point, steps


def _least_risk(space: Space, batch: float | Schedule, steps: float) -> FloatArray:
    """The point of least risk after ``steps`` steps: from the lowest of a grid, and from what is possible with momentum
    or decay at its least value; then from all around the best and along the valley's floor, as ripples of the
    oscillation may lie there."""
    known = [
        (np.insert(_least_risk(space.without(name), batch, steps), column, space.low[column]), steps)
        for column, name in enumerate(space.names)
        if column > 0
    ]
    landscape, n = Landscape(space, batch), space.low.size
    grid = _grid(space, known, steps, density=2.5 if n == 2 else 1.0)
    if n == 1:
        grid = np.linspace(space.low, np.minimum(space.high, 9.0), space.dynamics.line_points)
    order = _local_minima(landscape.screen(grid, steps))
    starts = np.vstack([*(point for point, _ in known), grid.reshape(-1, n)[order[:12]]])
    while True:
        points, values = landscape.minimise(starts, steps, rounds=50)
        point, value = points[np.argmin(values)], float(values.min())
        starts = points[np.argsort(values)[:4]]
        if not landscape.refine(point, steps):
            break
    for _ in range(20 if n > 1 else 0):
        floor = _valley_floor(point, _valley_directions(landscape, point, steps), space, steps)
        beside = landscape.screen(floor, steps)
        lowest = floor[np.arange(len(floor)), beside.argmin(axis=1)]
        unit = np.stack(np.meshgrid(*[np.linspace(-1.0, 1.0, 61 if n == 2 else 15)] * n, indexing="ij"), axis=-1)
        around = np.clip(point + (0.6 if steps <= FEW else 0.2) * unit, space.low, space.high)
        near = _local_minima(landscape.screen(around, steps))
        starts = np.vstack([lowest[_local_minima(beside.min(axis=1))[:8]], around.reshape(-1, n)[near[:16]]])
        points, values = landscape.minimise(starts, steps, rounds=50, radius=0.01)
        if not values.min() < value - 1e-9:
            break
        point, value = points[np.argmin(values)], float(values.min())
    return point


def _embedded(space: Space, name: str, batch: float | Schedule, target: float) -> Candidate:
    """What is possible with ``name`` at its least value, as a candidate of ``space``."""
    point, steps = _fewest_steps(space.without(name), batch, target)
    column = space.names.index(name)
    return np.insert(point, column, space.low[column]), steps


def _scan(
    space: Space, batch: float | Schedule, target: float, known: list[Candidate]
) -> tuple[FloatArray, FloatArray, float]:
    """A grid over the space, starting points, and a guess of the steps.

    Risk at 2^0, 2^1, ... steps on the grid; log-log interpolation in between.
    """
    ceiling = min((steps for _, steps in known), default=math.inf)
    grid = _grid(space, known, ceiling)
    flat = grid.reshape(-1, grid.shape[-1])
    values = space.values(flat)
    for levels in (24, 54) if math.isinf(ceiling) else (math.ceil(math.log2(ceiling)) + 2,):
        risks = space.dyadic_risks(values, batch, levels, len(flat))
        times = _interpolated(risks, target)
        if np.isfinite(times).any():
            break
    far = np.minimum(risks.min(axis=1), 1e8) * 1e300
    order = _local_minima(np.where(np.isfinite(times), times, far).reshape(grid.shape[:-1]))
    starts = [point for point, _ in known] + list(flat[order[:4]])
    guess = min(ceiling, times.min())
    if math.isinf(guess):
        guess = 2.0 ** np.unravel_index(np.argmin(risks), risks.shape)[1]
    return grid, np.array(starts), max(1.0, round(guess))


def _grid(space: Space, known: list[Candidate], ceiling: float, density: float = 1.0) -> FloatArray:
    """Points of shape (*counts, free). The learning rate of a momentum starts where its effective rate is the
    best one without."""
    widest = math.log(min(ceiling, 2.0**53)) + 0.5
    alone = len(space.names) == 1
    axes = []
    for column, name in enumerate(space.names):
        low, high = space.low[column], space.high[column]
        if name == "lr":
            axes.append(np.linspace(0.0, 1.0, 46 if alone else int(14 * density)) ** (1.0 if alone else 1.6))
        else:
            axes.append(np.linspace(low, max(low, min(high, widest)), 40 if alone else int(18 * density)))
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    if "lr" in space.names:
        column = space.names.index("lr")
        low, high = np.full(grid.shape[:-1], space.low[column]), min(space.high[column], 7.0)
        if "lr" in space.bounds:
            high = space.high[column]
        elif known:
            low = np.minimum(known[-1][0][column], 4.0) - 1.0
            if "momentum" in space.names:
                low = low - grid[..., space.names.index("momentum")]
            low = np.maximum(low, space.low[column])
        grid[..., column] = low + (high - low) * grid[..., column]
    return grid


def _interpolated(risks: FloatArray, target: float) -> FloatArray:
    """About when each row of risks at 2^0, 2^1, ... first falls to the target."""
    reached = risks <= target
    first = np.argmax(reached, axis=1)
    rows = np.arange(len(risks))
    after, before = risks[rows, first], risks[rows, np.maximum(first - 1, 0)]
    with np.errstate(all="ignore"):
        share = np.log(before / target) / np.log(before / after)
        times = 2.0 ** (first - 1 + np.where(np.isfinite(share), share, 1.0))
    return np.where(reached.any(axis=1), np.where(first == 0, 1.0, times), math.inf)


def _local_minima(values: FloatArray) -> list[int]:
    """Flat indices of entries not above any neighbour along an axis, lowest first."""
    low = np.ones(values.shape, dtype=bool)
    for axis in range(values.ndim):
        moved = np.moveaxis(values, axis, 0)
        flag = np.moveaxis(low, axis, 0)
        flag[1:] &= moved[1:] <= moved[:-1]
        flag[:-1] &= moved[:-1] <= moved[1:]
    found = np.flatnonzero(low)
    return list(found[np.argsort(values.ravel()[found], kind="stable")])


def _followed(landscape: Landscape, goal: float, radius: float = 0.3) -> Lowest:
    """The minimum near a point, as :func:`bracket` follows it."""

    def lowest(point: FloatArray, steps: float) -> tuple[FloatArray, float]:
        points, values = landscape.minimise(point[None, :], steps, goal, radius=radius)
        return points[0], float(values[0])

    return lowest


def _explore(
    landscape: Landscape, point: FloatArray, steps: float, goal: float, grid: FloatArray, known: list[Candidate]
) -> Candidate:
    """Look for other basins that reach the goal sooner, and go down to the best; at its T, take the lowest.

    With momentum, coordinates oscillate, and the landscape at fixed T is a smooth valley with ripples along it (the
    phase of the largest curvatures at step T). So: the local minima of a coarse grid over all; then the valley's
    floor, from a quadratic fitted on a scale at which ripples average out, searched at a spacing that resolves them.
    """
    n = point.size
    fine = _grid(landscape.space, known, steps, density=6.0) if n == 2 else grid  # some basins are 0.02 wide
    directions = _valley_directions(landscape, point, steps)
    everywhere = n == 1
    while True:
        sooner = steps - 1.0
        if sooner < 1.0:
            return landscape.minimise(point[None, :], steps)[0][0], steps
        found, heights = landscape.minimise(point[None, :], sooner, goal)
        if everywhere:
            cells = grid if sooner > FEW or n != 2 else fine
            if n == 1 and sooner > FEW:
                cells = _finer_line(landscape, grid, sooner)
            order = _local_minima(landscape.screen(cells, sooner))
            starts = cells.reshape(-1, n)[order[: 24 if n == 1 else 3 if sooner > FEW else 20]]
            points, values = landscape.minimise(starts, sooner, goal, any_will_do=True)
            found, heights = np.vstack([found, points]), np.append(heights, values)
        if n > 1:
            floor = _valley_floor(point, directions, landscape.space, sooner)
            beside = landscape.screen(floor, sooner)
            lowest = floor[np.arange(len(floor)), beside.argmin(axis=1)]
            order = _local_minima(beside.min(axis=1))
            points, values = landscape.minimise(
                lowest[order[: 4 if sooner > FEW else 8]], sooner, goal, radius=0.01, any_will_do=True
            )
            found, heights = np.vstack([found, points]), np.append(heights, values)
        if heights.min() <= goal:
            point, steps = bracket(_followed(landscape, goal, 0.01), found[np.argmin(heights)], sooner, goal)
            everywhere = n == 1
        elif not everywhere:
            everywhere = True
        else:
            dip = _earlier(landscape, grid, steps, goal)
            if dip is None:
                break
            point, steps = bracket(_followed(landscape, goal, 0.01), *dip, goal)
    chosen = found[np.argsort(heights)[:3]]  # near misses at T - 1 may be lower at T than the first to get there
    points, values = landscape.minimise(np.vstack([point, chosen]), steps, radius=0.01)
    return points[np.argmin(values)], steps


def _earlier(landscape: Landscape, grid: FloatArray, steps: float, goal: float) -> Candidate | None:
    """A point that reaches the goal well before T - 1, where a few steps end in the dip of an oscillation.

    The least risk at T need not fall with T then, so T - 1 out of reach proves little: look at every step down to
    0.8 T where there are few, at 0.98 T, 0.96 T, ... 0.7 T elsewhere.
    """
    if steps > FEW:
        return None
    n = grid.shape[-1]
    cells = grid[::3] if n == 1 else grid
    if steps <= FEW / 4:
        times = np.arange(steps - 2.0, max(0.8 * steps, 1.0), -1.0)
    else:
        times = np.floor(steps * 0.98 ** np.arange(1, 18))
    for time in times.tolist():
        values = landscape.screen(cells, time)
        order = [i for i in _local_minima(values)[:4] if values.ravel()[i] <= goal + 0.1]
        if order:
            points, found = landscape.minimise(cells.reshape(-1, n)[order], time, goal, radius=0.03, any_will_do=True)
            if found.min() <= goal:
                return points[np.argmin(found)], time
    return None


def _finer_line(landscape: Landscape, line: FloatArray, steps: float) -> FloatArray:
    """Points (rows, 1): ``line`` with four times as many where it is low, to resolve long oscillations."""
    values = landscape.screen(line, steps)
    low = np.flatnonzero(values[:-1] < values.min() + 0.15)[:1000]
    between = line[low] + (line[low + 1] - line[low]) * (np.arange(4) / 4.0)
    return np.unique(np.concatenate([line.ravel(), between.ravel()]))[:, None]


def _valley_directions(landscape: Landscape, point: FloatArray, steps: float) -> FloatArray:
    """Directions (free, free) from least to most curvature, of a quadratic fitted around ``point``."""
    n, reach = point.size, 0.3
    unit = np.stack(np.meshgrid(*[np.linspace(-1.0, 1.0, 9 if n == 2 else 5)] * n, indexing="ij"), axis=-1)
    cloud = np.clip(point + reach * unit.reshape(-1, n), landscape.space.low, landscape.space.high)
    values = landscape.log_risk(cloud, steps)
    pairs = [(i, j) for i in range(n) for j in range(i, n)]
    moved = cloud - point
    terms = np.stack([np.ones(len(cloud)), *moved.T, *(moved[:, i] * moved[:, j] for i, j in pairs)], axis=1)
    weight = np.exp(-np.minimum(values - values.min(), 30.0) / 0.2)  # only the valley itself counts
    fit = np.linalg.lstsq(terms * weight[:, None], values * weight, rcond=None)[0]
    hessian = np.zeros((n, n))
    for (i, j), value in zip(pairs, fit[1 + n :], strict=True):
        hessian[i, j] += value
        hessian[j, i] += value
    directions: FloatArray = np.linalg.eigh(hessian)[1].T
    return directions / np.abs(directions).max(axis=1, keepdims=True)


def _valley_floor(center: FloatArray, directions: FloatArray, space: Space, steps: float) -> FloatArray:
    """Points of shape (along, beside, free): along the first direction through ``center``, and beside it.

    Ripples are some 0.02 apart; at few steps they are as deep as the valley is far from flat, and matter further out.
    """
    n = center.size
    reach, spread = (0.15, 3) if steps > FEW else (0.6, 5)
    along = np.linspace(-reach, reach, 49 if steps > FEW else 161)[:, None] * directions[0]
    sides = [np.linspace(-0.0075, 0.0075, spread) * (spread - 1)] * (n - 1)
    aside = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, n - 1)
    return np.clip(center + along[:, None, :] + aside @ directions[1:], space.low, space.high)
