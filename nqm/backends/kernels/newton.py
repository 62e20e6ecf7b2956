"""A trust-region Newton step: minima over a box of quadratics through stencils. It knows nothing of the model."""

from __future__ import annotations

import numpy as np

from ..compilation import compiled, internal
from .blocks import copy

__all__ = ["newton_steps_to", "reduced_step"]


@internal
def reduced_step(gradient, hessian, low, high, side, step):
    """Stationary point of g.p + p.H.p/2, each p_i free (side 1), at low (0) or high (2); False if not in the box."""
    n = gradient.size
    matrix, right = np.empty((n, n)), np.empty(n)
    for i in range(n):
        inside = side[i] == 1
        right[i] = -gradient[i] if inside else (low[i] if side[i] == 0 else high[i])
        for j in range(n):
            matrix[i, j] = hessian[i, j] if inside else 0.0
        if not inside:
            matrix[i, i] = 1.0
    for i in range(n):  # Gauss-Jordan with row pivoting; n <= 3
        pivot = i
        for j in range(i + 1, n):
            if abs(matrix[j, i]) > abs(matrix[pivot, i]):
                pivot = j
        if matrix[pivot, i] == 0.0:
            return False
        for j in range(n):
            matrix[i, j], matrix[pivot, j] = matrix[pivot, j], matrix[i, j]
        right[i], right[pivot] = right[pivot], right[i]
        for j in range(n):
            if j != i:
                factor = matrix[j, i] / matrix[i, i]
                for q in range(n):
                    matrix[j, q] -= factor * matrix[i, q]
                right[j] -= factor * right[i]
    for i in range(n):
        step[i] = right[i] / matrix[i, i]
        if side[i] == 1 and not low[i] <= step[i] <= high[i]:
            return False
    return True


@compiled
def newton_steps_to(values, center, size, radius, low, high, out, gain):
    """Minimise the quadratic through each stencil over a box: out[s] = the point, gain[s] = what the model promises.

    values: (S, 1 + 2n + n(n-1)/2): at the centre, at +- size along each axis, at + size along each pair of axes.
    center, out: (S, n); size, radius, gain: (S,); low, high: (n,). The box is center +- radius within [low, high].
    The minimum over a box lies in its inside, or inside one of its faces: all 3^n are looked at.
    """
    starts, n = center.shape
    gradient, hessian, step = np.empty(n), np.empty((n, n)), np.empty(n)
    below, above, side = np.empty(n), np.empty(n), np.empty(n, dtype=np.int64)
    for s in range(starts):
        f, h = values[s], size[s]
        for i in range(n):
            gradient[i] = (f[1 + 2 * i] - f[2 + 2 * i]) / (2.0 * h)
            hessian[i, i] = (f[1 + 2 * i] - 2.0 * f[0] + f[2 + 2 * i]) / (h * h)
            below[i] = max(low[i] - center[s, i], -radius[s])
            above[i] = min(high[i] - center[s, i], radius[s])
        pair = 1 + 2 * n
        for i in range(n):
            for j in range(i + 1, n):
                mixed = (f[pair] - f[1 + 2 * i] - f[1 + 2 * j] + f[0]) / (h * h)
                hessian[i, j] = mixed
                hessian[j, i] = mixed
                pair += 1
        copy(center[s], out[s])
        gain[s] = 0.0
        for code in range(3**n):
            rest = code
            for i in range(n):
                side[i] = rest % 3
                rest //= 3
            if reduced_step(gradient, hessian, below, above, side, step):
                change = 0.0
                for i in range(n):
                    change += gradient[i] * step[i]
                    for j in range(n):
                        change += 0.5 * step[i] * hessian[i, j] * step[j]
                if change < -gain[s]:
                    gain[s] = -change
                    for i in range(n):
                        out[s, i] = min(max(center[s, i] + step[i], low[i]), high[i])
