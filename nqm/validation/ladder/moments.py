"""Least squares on a finite data set: the exact second moments of SGD, with the data's own fourth moments."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ... import EMA, SGD

__all__ = ["Floats", "Plain", "least_squares_risk", "numbers_of"]

Floats = NDArray[np.float64]
Plain = SGD | EMA
"""SGD with or without heavy-ball momentum, with or without an average of its iterates, lr a number."""


def numbers_of(optimizer: Plain) -> tuple[float, float, float]:
    """(lr, momentum, decay) of the optimizer, 0 where it has none; a ValueError for any other optimizer."""
    inner = optimizer.optimizer if isinstance(optimizer, EMA) else optimizer
    if not isinstance(inner, SGD) or inner.nesterov:
        raise ValueError(f"optimizer: expected SGD with heavy-ball momentum, or EMA of it, got {optimizer}")
    values = optimizer.hyperparameters
    if optimizer.free or optimizer.schedule is not None or optimizer.shape != ():
        raise ValueError(f"optimizer: expected plain numbers as hyperparameters, got {optimizer}")
    return float(values["lr"]), float(values["momentum"]), float(values.get("decay", 0.0))


def least_squares_risk(
    features: ArrayLike, targets: ArrayLike, start: ArrayLike, optimizer: Plain, batch_size: int, steps: ArrayLike
) -> Floats:
    """Expected excess loss of SGD on 1/2 mean_n (x_n . theta - y_n)^2 whose batches are drawn with replacement.

    With d = theta - theta_*, residuals r_n = y_n - x_n . theta_* at the optimum and z = (d, velocity, average of d),
    z' = A z - lr b (H d + noise) has second moments

        E[z z^T]' = (A - lr b e_1^T H) E[z z^T] (A - lr b e_1^T H)^T + lr^2 / B b b^T C,
        C = 1/N sum_n E[(x_n . d - r_n)^2] x_n x_n^T - H E[d d^T] H,

    and the square of example n is x_n^T E[d d^T] x_n - 2 r_n x_n . E[d] + r_n^2: exact whatever the features, at
    O(N d^2) per step. The Gaussian features of :class:`nqm.NoisyQuadratic` are the case in which
    1/N sum_n x x^T S x x^T = tr(H S) H + 2 H S H.

    Args:
        features, targets: x (N, d), of full rank, and y (N,).
        start: theta_0, (d,).
        optimizer: SGD, with or without momentum, or EMA of it; all hyperparameters numbers.
        batch_size: examples per step, >= 1.
        steps: whole numbers >= 0, (times,).

    Returns the excess loss at each of the steps, (times,). Divergence gives inf.

    Raises:
        ValueError: for other optimizers, and shapes that differ.
    """
    x, y, origin = (np.asarray(a, dtype=np.float64) for a in (features, targets, start))
    if x.ndim != 2 or y.shape != x.shape[:1] or origin.shape != x.shape[1:]:
        raise ValueError(
            f"expected features (N, d), targets (N,) and start (d,), got {x.shape}, {y.shape} and {origin.shape}"
        )
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    lr, momentum, decay = numbers_of(optimizer)
    times = np.atleast_1d(np.asarray(steps, dtype=np.int64))
    hessian = x.T @ x / len(x)
    optimum = np.linalg.solve(hessian, x.T @ y / len(x))
    residual = y - x @ optimum
    transition, gain = _filter(momentum, decay)
    mean = np.array([1.0, 0.0, 1.0])[:, None] * (origin - optimum)
    second = mean[:, None, :, None] * mean[None, :, None, :]
    found = np.empty(times.max() + 1)
    with np.errstate(over="ignore", invalid="ignore"):  # divergence
        for step in range(found.size):
            found[step] = 0.5 * np.sum(hessian * second[2, 2])
            if step + 1 < found.size:
                noise = _noise(x, residual, hessian, second[0, 0], mean[0])
                second = _stepped(second, transition, lr * gain, hessian)
                second += (lr * lr / batch_size) * np.multiply.outer(np.outer(gain, gain), noise)
                mean = transition @ mean - lr * np.outer(gain, hessian @ mean[0])
    found[~np.isfinite(found)] = np.inf
    return found[times]


def _filter(momentum: float, decay: float) -> tuple[Floats, Floats]:
    """A (3, 3) and b (3,) of v' = momentum v - lr g, theta' = theta + v', average' = decay average + weight theta'."""
    weight = 1.0 - decay
    transition = np.array([[1.0, momentum, 0.0], [0.0, momentum, 0.0], [weight, weight * momentum, decay]])
    return transition, np.array([1.0, 1.0, weight])


def _noise(x: Floats, residual: Floats, hessian: Floats, second: Floats, mean: Floats) -> Floats:
    """Covariance C (d, d) of one example's gradient, averaged over where theta may be."""
    squares = np.einsum("nd,nd->n", x @ second, x) - 2.0 * residual * (x @ mean) + residual**2
    return (x * squares[:, None]).T @ x / len(x) - hessian @ second @ hessian


def _stepped(second: Floats, transition: Floats, kick: Floats, hessian: Floats) -> Floats:
    """Both sides of E[z z^T] (3, 3, d, d), taken one step without noise."""
    left = np.einsum("ac,cdij->adij", transition, second)
    left -= kick[:, None, None, None] * (hessian @ second[0])[None]
    both = np.einsum("bd,adij->abij", transition, left)
    both -= kick[None, :, None, None] * (left[:, 0] @ hessian)[:, None]
    return both
