"""When is the target reached while the learning rate is 0?"""

from __future__ import annotations

import math

import numpy as np

from .._checks import FloatArray

__all__ = ["first_passage_at_zero_lr"]


def first_passage_at_zero_lr(moments: FloatArray, decay: float, target_risk: float, last: bool, length: int) -> float:
    """First step at or below the target, or the one after the last above it, while lr = 0: of ``length`` steps.

    theta, the first state, stays, and an average, the last, is theta + decay^t (average - theta). moments: (k, k),
    summed over nodes to make risks. inf: never, or (``last``) still above the target at the end.

    The risk is A + 2 B g + C g^2 with g = decay^t, so it lies at or below the target between two roots.
    """
    target_risk *= 1.0 + 1e-13  # in a tie the risk stays at the target; `risk` decides
    k = len(moments)
    theta = np.eye(k)[0]
    gap = np.eye(k)[-1] - theta if decay > 0.0 else np.zeros(k)
    if not np.all(np.isfinite(moments)):  # diverged
        return np.inf
    a, b, c = theta @ moments @ theta, theta @ moments @ gap, gap @ moments @ gap
    inside = b * b - c * (a - target_risk)
    enter, leave = np.inf, np.inf  # the steps at or below the target are enter <= t < leave
    if a + 2.0 * b + c <= target_risk:
        enter = 0.0
    elif inside >= 0.0 and c > 0.0 and 0.0 < -b + math.sqrt(inside) < c:
        enter = float(np.ceil(np.log((-b + math.sqrt(inside)) / c) / np.log(decay)))
    if a > target_risk and c > 0.0 and inside >= 0.0 and -b - math.sqrt(inside) > 0.0:
        leave = float(np.floor(np.log((-b - math.sqrt(inside)) / c) / np.log(decay))) + 1.0
    if not last:
        return enter if enter < min(leave, length) else np.inf
    if enter >= min(leave, length) or leave < length:
        return np.inf  # above at the end
    return enter
