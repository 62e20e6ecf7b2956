"""The search behind :func:`nqm.tune`: least risk after T steps by Newton's method from several starts; T by bracketing.

A scan finds the starts, and near the end the valley's floor is searched for ripples: with momentum, coordinates
oscillate, and the log risk at fixed T is a smooth valley with ripples along it, the phase of the largest curvatures at
step T.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from .._checks import FloatArray
from .bracket import Candidate, Lowest, bracket
from .objective import WIDE, LogRisk
from .space import HyperparameterSpace
from .starting_points import (
    FEW_STEPS,
    box,
    finer_line,
    grid,
    line,
    local_minima,
    lowest_of_floor,
    scan,
    valley_directions,
    valley_floor,
)

__all__ = ["fewest_steps", "least_risk"]

FIRST_ROUNDS, LAST_ROUNDS = 6, 50
"""Of Newton's method: at the scan's guess of T, which is off anyway; and where what it finds is the answer."""

RIPPLE = 0.01
"""First trust radius beside ripples, which are some 0.02 apart: a longer step would leave the one that it starts in."""

EARLIER_RIPPLE = 0.03
"""The same where starts are points of a coarse grid."""

STARTS_ON_A_LINE, STARTS_ON_A_GRID, STARTS_AT_FEW_STEPS = 24, 3, 20
"""Minima that are followed down: on a line all that matter, elsewhere more where evaluations are cheap."""

FLOOR_STARTS, FLOOR_STARTS_AT_FEW_STEPS = 4, 8
"""Minima of a valley's floor that are followed down."""

NARROW = 6.0
"""Density of a grid for two coordinates at few steps: some basins are 0.02 wide."""

NEAR_MISSES = 3
"""Minima at T - 1 that are tried at T: they may be lower there than the first to get there."""

DIPS_DOWN_TO, DIPS_BY, DIPS = 0.8, 0.98, 18
"""An earlier dip is looked for at every step down to 0.8 T where these are few, else at 0.98 T, 0.98^2 T ... 0.7 T."""

DIP_STARTS, DIP_HEIGHT = 4, 0.1
"""So many minima of a coarse grid are followed into a dip, if within 10% of the target."""

LEAST_STARTS, LEAST_KEPT = 12, 4
"""Of least risk after given steps: minima of the grid that are followed, and those that are followed on finer rules."""

LEAST_LOOKS, LEAST_GAIN = 20, 1e-9
"""Looks around the best point, until one gains less than this of log risk."""

LEAST_FLOOR_STARTS, LEAST_BOX_STARTS = 8, 16
"""Minima of the valley's floor and of a box around the best that are followed down."""

LEAST_DENSITY = 2.5
"""Density of the grid for two coordinates."""


def fewest_steps(space: HyperparameterSpace, target: float) -> Candidate:
    """The best point and its steps (inf if none reaches the target; then the point of least risk seen)."""
    log_target = math.log(target)
    known = [_embedded(space, one.name, target) for one in space.described[1:] if one.default is not None]
    points, starts, guess = scan(space, target, known)
    log_risk = LogRisk(space)
    found, values = log_risk.minimise(starts, guess, log_target, rounds=FIRST_ROUNDS)
    if np.isinf(values).all() and not any(math.isfinite(steps) for _, steps in known):
        return found[0], math.inf  # nothing that converges
    oscillates = len(space.names) > 1 or space.optimizer.oscillates
    point, steps = bracket(_near(log_risk, log_target), found[np.argmin(values)], guess, log_target, loose=oscillates)
    alone = len(space.names) == 1
    if math.isfinite(steps) and not space.dynamics.looks_for_ripples(steps, len(space.names)):
        oscillates = False
        point, steps = bracket(_near(log_risk, log_target), point, steps, log_target)
    if alone:
        points = line(space, point)
    explored = not oscillates
    while math.isfinite(steps):
        if log_risk.refine(point, steps):
            point, steps = bracket(_near(log_risk, log_target), point, steps, log_target, loose=oscillates)
            explored = not oscillates
        elif not explored:
            point, steps = _explore(log_risk, point, steps, log_target, points, known)
            explored = True
        else:
            break
    for candidate in known:
        if candidate[1] < steps:
            point, steps = candidate
    if math.isfinite(steps):
        point = log_risk.minimise(point[None, :], steps, rounds=LAST_ROUNDS)[0][0]
    return point, steps


def _embedded(space: HyperparameterSpace, name: str, target: float) -> Candidate:
    """What is possible where ``name`` does nothing, as a candidate of ``space``."""
    point, steps = fewest_steps(space.without(name), target)
    return space.within(name, point), steps


def least_risk(space: HyperparameterSpace, steps: float) -> FloatArray:
    """The point of least risk after ``steps`` steps: from the lowest of a grid, and from what is possible where
    momentum or decay do nothing; then from all around the best and along the valley's floor, as ripples of the
    oscillation may lie there."""
    known = [
        (space.within(one.name, least_risk(space.without(one.name), steps)), steps)
        for one in space.described[1:]
        if one.default is not None
    ]
    log_risk, n = LogRisk(space), space.low.size
    points = line(space) if n == 1 else grid(space, known, steps, density=LEAST_DENSITY if n == 2 else 1.0)
    order = local_minima(log_risk.screen(points, steps))
    starts = np.vstack([*(point for point, _ in known), points.reshape(-1, n)[order[:LEAST_STARTS]]])
    while True:
        found, values = log_risk.minimise(starts, steps, rounds=LAST_ROUNDS)
        point, value = found[np.argmin(values)], float(values.min())
        starts = found[np.argsort(values)[:LEAST_KEPT]]
        if not log_risk.refine(point, steps):
            break
    for _ in range(LEAST_LOOKS if n > 1 else 0):
        floor = valley_floor(point, valley_directions(log_risk, point, steps), space, steps)
        lowest = lowest_of_floor(log_risk, floor, steps, LEAST_FLOOR_STARTS)
        around = box(space, point, 0.6 if steps <= FEW_STEPS else 0.2, (61, 15))
        near = around.reshape(-1, n)[local_minima(log_risk.screen(around, steps))[:LEAST_BOX_STARTS]]
        found, values = log_risk.minimise(np.vstack([lowest, near]), steps, rounds=LAST_ROUNDS, radius=RIPPLE)
        if not values.min() < value - LEAST_GAIN:
            break
        point, value = found[np.argmin(values)], float(values.min())
    return point


def _near(log_risk: LogRisk, log_target: float, radius: float = WIDE) -> Lowest:
    """The minimum near a point, for :func:`bracket` to follow."""

    def lowest(point: FloatArray, steps: float) -> tuple[FloatArray, float]:
        points, values = log_risk.minimise(point[None, :], steps, log_target, radius=radius)
        return points[0], float(values[0])

    return lowest


def _explore(
    log_risk: LogRisk, point: FloatArray, steps: float, log_target: float, points: FloatArray, known: list[Candidate]
) -> Candidate:
    """Look for other basins that reach the target sooner, and go down to the best; at its T, take the lowest.

    First the local minima of a coarse grid over all; then the valley's floor, from a quadratic fitted on a scale at
    which ripples average out, searched at a spacing that resolves them.
    """
    n = point.size
    fine = grid(log_risk.space, known, steps, density=NARROW) if n == 2 else points
    directions = valley_directions(log_risk, point, steps)
    everywhere = n == 1
    while True:
        sooner = steps - 1.0
        if sooner < 1.0:
            return log_risk.minimise(point[None, :], steps)[0][0], steps
        found, heights = log_risk.minimise(point[None, :], sooner, log_target)
        for starts, radius in _elsewhere(log_risk, point, sooner, directions, points, fine, everywhere):
            more, values = log_risk.minimise(starts, sooner, log_target, radius=radius, any_will_do=True)
            found, heights = np.vstack([found, more]), np.append(heights, values)
        if heights.min() <= log_target:
            point, steps = bracket(_near(log_risk, log_target, RIPPLE), found[np.argmin(heights)], sooner, log_target)
            everywhere = n == 1
        elif not everywhere:
            everywhere = True
        else:
            dip = _earlier(log_risk, points, steps, log_target)
            if dip is None:
                break
            point, steps = bracket(_near(log_risk, log_target, RIPPLE), *dip, log_target)
    chosen = found[np.argsort(heights)[:NEAR_MISSES]]
    found, values = log_risk.minimise(np.vstack([point, chosen]), steps, radius=RIPPLE)
    return found[np.argmin(values)], steps


def _elsewhere(
    log_risk: LogRisk, point: FloatArray, steps: float, directions: FloatArray, points: FloatArray, fine: FloatArray,
    everywhere: bool,
) -> Iterator[tuple[FloatArray, float]]:  # fmt: skip
    """Starts (rows, free) and their trust radius: minima of a grid, if ``everywhere``, and of the valley's floor."""
    n, few = point.size, steps <= FEW_STEPS
    if everywhere:
        cells = fine if few and n == 2 else points
        if n == 1 and not few:
            cells = finer_line(log_risk, points, steps)
        most = STARTS_ON_A_LINE if n == 1 else STARTS_AT_FEW_STEPS if few else STARTS_ON_A_GRID
        yield cells.reshape(-1, n)[local_minima(log_risk.screen(cells, steps))[:most]], WIDE
    if n > 1:
        floor = valley_floor(point, directions, log_risk.space, steps)
        yield lowest_of_floor(log_risk, floor, steps, FLOOR_STARTS_AT_FEW_STEPS if few else FLOOR_STARTS), RIPPLE


def _earlier(log_risk: LogRisk, points: FloatArray, steps: float, log_target: float) -> Candidate | None:
    """A point that reaches the target well before T - 1, where a few steps end in the dip of an oscillation.

    The least risk at T need not fall with T then, so T - 1 out of reach proves little.
    """
    if steps > FEW_STEPS:
        return None
    n = points.shape[-1]
    cells = points[::3] if n == 1 else points
    if steps <= FEW_STEPS / 4:
        times = np.arange(steps - 2.0, max(DIPS_DOWN_TO * steps, 1.0), -1.0)
    else:
        times = np.floor(steps * DIPS_BY ** np.arange(1, DIPS))
    for time in times.tolist():
        values = log_risk.screen(cells, time)
        order = [i for i in local_minima(values)[:DIP_STARTS] if values.ravel()[i] <= log_target + DIP_HEIGHT]
        if order:
            starts = cells.reshape(-1, n)[order]
            found, heights = log_risk.minimise(starts, time, log_target, radius=EARLIER_RIPPLE, any_will_do=True)
            if heights.min() <= log_target:
                return found[np.argmin(heights)], time
    return None
