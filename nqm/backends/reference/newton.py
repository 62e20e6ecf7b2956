"""Minima over a box of quadratics through stencils."""

from __future__ import annotations

import numpy as np

from ..._checks import FloatArray

__all__ = ["newton_steps"]


@np.errstate(all="ignore")
def newton_steps(
    values: FloatArray, center: FloatArray, size: FloatArray, radius: FloatArray, low: FloatArray, high: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Minimise the quadratic through each stencil over a box: the points (S, n), and what the models promise (S,).

    values: (S, 1 + 2n + n(n-1)/2): at the centre, at +- size along each axis, at + size along each pair of axes.
    center: (S, n); size, radius: (S,); low, high: (n,). The box is center +- radius within [low, high]. The
    minimum over a box lies in its inside, or inside one of its faces: all 3^n are looked at.
    """
    n = center.shape[1]
    gradient, hessian = _quadratic(values, size[:, None], n)
    below, above = np.maximum(low - center, -radius[:, None]), np.minimum(high - center, radius[:, None])
    points, gain = center.copy(), np.zeros(len(center))
    for code in range(3**n):
        side = code // 3 ** np.arange(n) % 3  # of each coordinate: at its lower end, inside, at its upper end
        inside = side == 1
        matrix = np.where(inside[:, None], hessian, np.eye(n))
        right = np.where(inside, -gradient, np.where(side == 0, below, above))
        regular = np.abs(np.linalg.det(matrix)) > 0.0
        step = np.linalg.solve(np.where(regular[:, None, None], matrix, np.eye(n)), right[..., None])[..., 0]
        change = np.sum(gradient * step, axis=1) + 0.5 * np.einsum("si,sij,sj->s", step, hessian, step)
        within = np.all(~inside | ((below <= step) & (step <= above)), axis=1)
        better = regular & within & (change < -gain)
        gain = np.where(better, -change, gain)
        points = np.where(better[:, None], np.clip(center + step, low, high), points)
    return points, gain


def _quadratic(values: FloatArray, size: FloatArray, n: int) -> tuple[FloatArray, FloatArray]:
    """Gradients (S, n) and Hessians (S, n, n) from differences."""
    middle, plus, minus = values[:, :1], values[:, 1 : 1 + 2 * n : 2], values[:, 2 : 2 + 2 * n : 2]
    hessian = np.empty((len(values), n, n))
    hessian[:, range(n), range(n)] = (plus - 2.0 * middle + minus) / size**2
    for pair, (i, j) in enumerate(zip(*np.triu_indices(n, 1), strict=True), 1 + 2 * n):
        mixed = values[:, pair] - plus[:, i] - plus[:, j] + middle[:, 0]
        hessian[:, i, j] = hessian[:, j, i] = mixed / size[:, 0] ** 2
    return (plus - minus) / (2.0 * size), hessian
