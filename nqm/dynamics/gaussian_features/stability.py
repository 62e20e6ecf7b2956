"""The largest stable learning rate where noise feeds on the loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..._checks import FloatArray
from ...optimizers import Optimizer
from ...problems.quadratic import NoisyQuadratic
from ..base import Values

__all__ = ["stable_lr"]


def stable_lr(problem: NoisyQuadratic, optimizer: Optimizer, values: Values, batch_size: Any, alone: Any) -> Any:
    """Where  f(lr) = lr (1 / sum mult phi / (B - phi) - 1) = 0; f is linear for plain SGD on equal curvatures.

    ``alone``: the limit without noise, >= the answer. Rows of values, batch_size and alone broadcast. Regula falsi,
    with the Illinois rule, from a stable learning rate and a higher one that is not; where phi may fall with lr, from
    the first such pair on a grid.
    """
    names = list(values)
    arrays = np.broadcast_arrays(*(np.asarray(a, float) for a in (alone, batch_size, *values.values())))
    shape = arrays[0].shape
    high, b, *others = (a.ravel() for a in arrays)
    b, rest = b[:, None], {name: a[:, None] for name, a in zip(names, others, strict=True)}
    power = rest.pop("power", np.zeros((1, 1)))
    h = problem.curvature ** (1.0 - power)
    weight = problem.multiplicity * (problem._nodes.noise / problem.curvature)

    def excess(lr: FloatArray) -> FloatArray:
        gain = optimizer.noise_gain(lr[:, None] * h, rest)
        fed = np.where(gain < b, weight * gain / (b - gain), np.inf)
        return lr * (1.0 / np.sum(np.where(weight > 0.0, fed, 0.0), axis=1) - 1.0)

    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ends = np.minimum(high, 1e100)  # a filter that is always stable
        high = ends * (1.0 - 1e-15)
        low = high
        if not optimizer.noise_gain_grows:
            for share in np.geomspace(1.0, 1e-12, 600)[1:]:
                unstable = ~(excess(share * ends) > 0.0)
                low = np.where(unstable | (low == high), share * ends, low)
                high = np.where(unstable, share * ends, high)
        f_low, f_high = excess(low), excess(high)
        top = f_high
        for _ in range(260):
            high, f_high = np.where(f_low > 0.0, high, low), np.where(f_low > 0.0, f_high, f_low)
            low = np.where(f_low > 0.0, low, low / 16.0)
            f_low = excess(low)
            if np.all(f_low > 0.0):
                break
        for _ in range(200):
            middle = np.clip((low * f_high - high * f_low) / (f_high - f_low), low, high)
            middle = np.where(np.isfinite(middle), middle, 0.5 * (low + high))
            f = excess(middle)
            stable = f > 0.0
            f_high, f_low = np.where(stable, 0.5 * f_high, f), np.where(stable, f, 0.5 * f_low)
            low, high = np.where(stable, middle, low), np.where(stable, high, middle)
            if np.all((high - low <= 1e-15 * high) | (np.abs(f) <= 4e-16 * middle)):
                break
    return np.where(np.isinf(b.ravel()) | (top > 0.0), arrays[0].ravel(), low).reshape(shape)
