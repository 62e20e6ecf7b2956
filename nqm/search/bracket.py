"""From minima at given numbers of steps to the fewest steps that reach a target."""

from __future__ import annotations

import math
from collections.abc import Callable

from .._checks import FloatArray

__all__ = ["Candidate", "Lowest", "bracket"]

Lowest = Callable[[FloatArray, float], tuple[FloatArray, float]]
"""(point, steps) to the minimum of log risk near the point after so many steps, and its value."""

Candidate = tuple[FloatArray, float]
"""A point, and the steps in which it reaches the target."""

LOOSE = 0.005
"""Half a percent of T: bracketed no closer before ripples have been looked for, which change T by more."""

FASTEST, LONGEST_LEAP = 1.1, 1.4
"""A bracket moves T by exp(1.1 excess), as the risk falls about as 1 / T, and by a factor of 4 at most."""

NEVER = 2.0**52
"""Steps beyond which a target is unreachable."""

MOST_BRACKETS = 200
"""Evaluations of a bracket; a few dozen are usual."""


def bracket(lowest: Lowest, start: FloatArray, guess: float, log_target: float, loose: bool = False) -> Candidate:
    """Follow one minimum to the fewest steps T at which it reaches the target: regula falsi on its log risk in log T.

    ``loose``: half a percent more steps will do.
    Between ends of equal sign twice in a row the other end's value is halved (the Illinois rule).
    """
    point, steps = start, guess
    below: Candidate | None = None  # the last T at or below the target, and its point
    ends: dict[bool, tuple[float, float]] = {}  # reached? -> (T, log risk - log target)
    before = None
    for _ in range(MOST_BRACKETS):
        point, value = lowest(point, steps)
        excess = value - log_target
        reached = excess <= 0.0
        if reached:
            below = (point, steps)
        elif below is not None:
            point = below[0]  # what came instead may be another minimum, which gets there later
        if reached == before and len(ends) == 2:
            other = ends[not reached]
            ends[not reached] = (other[0], 0.5 * other[1])
        ends[reached], before = (steps, excess), reached
        low, high = ends.get(False, (0.0, 0.0))[0], ends.get(True, (math.inf, 0.0))[0]
        if high - low <= (max(1.0, LOOSE * high) if loose and math.isfinite(high) else 1.0):
            break
        if len(ends) == 2:
            (t0, f0), (t1, f1) = ends[False], ends[True]
            steps = t0 * math.exp(math.log(t1 / t0) * f0 / (f0 - f1)) if 0.0 < f0 < math.inf else 0.5 * (t0 + t1)
            steps = min(max(math.ceil(steps), low + 1.0), high - 1.0)
        elif reached:
            steps = min(max(math.floor(steps * math.exp(max(FASTEST * excess, -LONGEST_LEAP))), 1.0), high - 1.0)
        else:
            steps = max(math.ceil(steps * math.exp(min(FASTEST * excess, LONGEST_LEAP))), low + 1.0)
            if steps > NEVER:
                return point, math.inf
    return below or (point, math.inf)
