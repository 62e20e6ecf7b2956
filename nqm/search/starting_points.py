"""Where the searches of :func:`nqm.tune` look: grids, lines and valley floors over a space, and what is low on them.

Coordinates are those of :class:`HyperparameterSpace`: a unit of one is a factor e of lr, or of a memory.
"""

from __future__ import annotations

import math

import numpy as np

from .._checks import FloatArray
from .bracket import Candidate
from .objective import LogRisk
from .space import HyperparameterSpace

__all__ = [
    "FEW_STEPS",
    "box",
    "finer_line",
    "grid",
    "line",
    "local_minima",
    "lowest_of_floor",
    "scan",
    "valley_directions",
    "valley_floor",
]

FEW_STEPS = 1024.0
"""Up to so many steps, ripples of the log risk decide the optimum and evaluations are cheap: look closer."""

NEAR_LIMIT = 7.0
"""Highest coordinate of lr on a grid: beyond it lr is within 0.1% of the stability limit."""

LINE_END = 9.0
"""Highest coordinate on a line: lr within 0.012% of the limit, or a memory of 8,100 steps."""

LINE_BELOW, LINE_ABOVE = 6.0, 10.0
"""How far a line reaches below the minimum found (or 0) and above it, so that all basins are on it."""

MARGIN = 0.5
"""Memories up to exp(0.5) times the run are scanned: of longer ones a run knows no more."""

BELOW_KNOWN, HIGHEST_KNOWN = 1.0, 4.0
"""A grid's lr begins so far below the best one without momentum (4 at most), at equal effective rate."""

LEVELS, MOST_LEVELS = 24, 54
"""Doublings of a scan: to 8 million steps, and where none of its points gets there to 2^53."""

DIVERGED = 1e8
"""Risks above it rank alike, behind all that have not reached the target."""

GRID_STARTS = 4
"""Minima of a scan that Newton's method starts from: momentum has several, and the lowest point of a grid need not lie
in the best."""

LOW, MOST_LOW, FINER = 0.15, 1000, 4
"""A line gets 4 times as many points where its log risk is within 0.15 of the least, at 1000 places at most."""

VALLEY_REACH = 0.3
"""Half the width of the cloud that a valley's quadratic is fitted to: ripples, some 0.02 apart, average out."""

VALLEY_DEPTH, VALLEY_CUT = 0.2, 30.0
"""Points count by exp(-height / 0.2), down to exp(-150), in a valley's fit: only the valley itself matters."""

SIDESTEP = 0.0075
"""Between lines along a valley's floor, in units of its curved directions."""


def grid(space: HyperparameterSpace, known: list[Candidate], ceiling: float, density: float = 1.0) -> FloatArray:
    """Points of shape (*counts, free). The learning rate of a momentum starts where its effective rate is the
    best one without."""
    longest_memory = math.log(min(ceiling, 2.0**53)) + MARGIN
    alone = len(space.names) == 1
    axes = []
    for one, low, high in zip(space.described, space.low, space.high, strict=True):
        count, crowding = (one.scan.alone, 1.0) if alone else (int(one.scan.together * density), one.scan.crowding)
        if one.name == "lr":
            axes.append(_axis(0.0, 1.0, count, crowding))  # see _spread_lr
            continue
        top = max(low, min(high, longest_memory)) if one.is_memory else high
        axes.append(_axis(low, top, count, crowding))
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    if "lr" in space.names:
        _spread_lr(space, known, points)
    return points


def _axis(low: float, high: float, count: int, crowding: float) -> FloatArray:
    even = np.linspace(low, high, count)
    if crowding == 1.0 or low == high:
        return even
    return np.asarray(low + (high - low) * ((even - low) / (high - low)) ** crowding)


def _spread_lr(space: HyperparameterSpace, known: list[Candidate], points: FloatArray) -> None:
    """Stretch the learning rate's axis of a grid, in place, from [0, 1] to what is worth a look beside the others."""
    column = space.names.index("lr")
    low, high = np.full(points.shape[:-1], space.low[column]), min(space.high[column], NEAR_LIMIT)
    if "lr" in space.bounds:
        high = space.high[column]
    elif known:
        low = np.minimum(known[-1][0][column], HIGHEST_KNOWN) - BELOW_KNOWN
        for other, one in enumerate(space.described):
            if one.amplifies_lr:
                low = low - points[..., other]
        low = np.maximum(low, space.low[column])
    points[..., column] = low + (high - low) * points[..., column]


def line(space: HyperparameterSpace, around: FloatArray | None = None) -> FloatArray:
    """Points (rows, 1) of a space of one coordinate, close together: all over it, or ``around`` a minimum."""
    count = space.dynamics.line_points
    high = np.minimum(space.high, LINE_END)
    if around is None:
        return np.linspace(space.low, high, count)
    return np.linspace(np.minimum(around, 0.0) - LINE_BELOW, around + LINE_ABOVE, count).clip(space.low, high)


def finer_line(log_risk: LogRisk, points: FloatArray, steps: float) -> FloatArray:
    """Points (rows, 1): those of a line with more where it is low, to resolve long oscillations."""
    values = log_risk.screen(points, steps)
    low = np.flatnonzero(values[:-1] < values.min() + LOW)[:MOST_LOW]
    between = points[low] + (points[low + 1] - points[low]) * (np.arange(FINER) / float(FINER))
    return np.unique(np.concatenate([points.ravel(), between.ravel()]))[:, None]


def scan(space: HyperparameterSpace, target: float, known: list[Candidate]) -> tuple[FloatArray, FloatArray, float]:
    """A grid over the space, starting points, and a guess of the steps.

    Risk at 2^0, 2^1, ... steps on the grid; log-log interpolation in between.
    """
    ceiling = min((steps for _, steps in known), default=math.inf)
    points = grid(space, known, ceiling)
    flat = points.reshape(-1, points.shape[-1])
    values = space.values(flat)
    for levels in (LEVELS, MOST_LEVELS) if math.isinf(ceiling) else (math.ceil(math.log2(ceiling)) + 2,):
        risks = space.dyadic_risks(values, levels, len(flat))
        times = _interpolated(risks, target)
        if np.isfinite(times).any():
            break
    far = np.minimum(risks.min(axis=1), DIVERGED) * 1e300
    order = local_minima(np.where(np.isfinite(times), times, far).reshape(points.shape[:-1]))
    starts = [point for point, _ in known] + list(flat[order[:GRID_STARTS]])
    guess = min(ceiling, times.min())
    if math.isinf(guess):
        guess = 2.0 ** np.unravel_index(np.argmin(risks), risks.shape)[1]
    return points, np.array(starts), max(1.0, round(guess))


def _interpolated(risks: FloatArray, target: float) -> FloatArray:
    """About when each row of risks at 2^0, 2^1, ... first falls to the target."""
    reached = risks <= target
    first = np.argmax(reached, axis=1)
    rows = np.arange(len(risks))
    after, before = risks[rows, first], risks[rows, np.maximum(first - 1, 0)]
    with np.errstate(all="ignore"):
        part = np.log(before / target) / np.log(before / after)
        times = 2.0 ** (first - 1 + np.where(np.isfinite(part), part, 1.0))
    return np.where(reached.any(axis=1), np.where(first == 0, 1.0, times), math.inf)


def local_minima(values: FloatArray) -> list[int]:
    """Flat indices of entries not above any neighbour along an axis, lowest first."""
    low = np.ones(values.shape, dtype=bool)
    for axis in range(values.ndim):
        moved = np.moveaxis(values, axis, 0)
        flag = np.moveaxis(low, axis, 0)
        flag[1:] &= moved[1:] <= moved[:-1]
        flag[:-1] &= moved[:-1] <= moved[1:]
    found = np.flatnonzero(low)
    return list(found[np.argsort(values.ravel()[found], kind="stable")])


def box(space: HyperparameterSpace, center: FloatArray, reach: float, counts: tuple[int, int]) -> FloatArray:
    """A grid of shape (*counts, free) within ``reach`` of ``center``: so many points a side of two dimensions, and of
    more."""
    n = center.size
    unit = np.stack(np.meshgrid(*[np.linspace(-1.0, 1.0, counts[0] if n == 2 else counts[1])] * n, indexing="ij"), -1)
    return np.clip(center + reach * unit, space.low, space.high)


def valley_directions(log_risk: LogRisk, point: FloatArray, steps: float) -> FloatArray:
    """Directions (free, free) from least to most curvature, of a quadratic fitted around ``point``."""
    n = point.size
    cloud = box(log_risk.space, point, VALLEY_REACH, (9, 5)).reshape(-1, n)
    values = log_risk.log_risk(cloud, steps)
    pairs = [(i, j) for i in range(n) for j in range(i, n)]
    moved = cloud - point
    terms = np.stack([np.ones(len(cloud)), *moved.T, *(moved[:, i] * moved[:, j] for i, j in pairs)], axis=1)
    weight = np.exp(-np.minimum(values - values.min(), VALLEY_CUT) / VALLEY_DEPTH)
    fit = np.linalg.lstsq(terms * weight[:, None], values * weight, rcond=None)[0]
    hessian = np.zeros((n, n))
    for (i, j), value in zip(pairs, fit[1 + n :], strict=True):
        hessian[i, j] += value
        hessian[j, i] += value
    directions: FloatArray = np.linalg.eigh(hessian)[1].T
    return directions / np.abs(directions).max(axis=1, keepdims=True)


def valley_floor(center: FloatArray, directions: FloatArray, space: HyperparameterSpace, steps: float) -> FloatArray:
    """Points of shape (along, beside, free): along the first direction through ``center``, and beside it.

    Ripples are some 0.02 apart; at few steps they are as deep as the valley is far from flat, and matter further out.
    """
    n = center.size
    reach, count, beside = (0.15, 49, 3) if steps > FEW_STEPS else (0.6, 161, 5)
    along = np.linspace(-reach, reach, count)[:, None] * directions[0]
    sides = [np.linspace(-SIDESTEP, SIDESTEP, beside) * (beside - 1)] * (n - 1)
    aside = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, n - 1)
    return np.clip(center + along[:, None, :] + aside @ directions[1:], space.low, space.high)


def lowest_of_floor(log_risk: LogRisk, floor: FloatArray, steps: float, most: int) -> FloatArray:
    """Up to ``most`` (rows, free) minima along a floor, each the lowest point beside it."""
    values = log_risk.screen(floor, steps)
    lowest = floor[np.arange(len(floor)), values.argmin(axis=1)]
    return np.asarray(lowest[local_minima(values.min(axis=1))[:most]])
