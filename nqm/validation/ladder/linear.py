"""Rung a: linear regression on the pixels of digits, whose features are not Gaussian."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ... import EMA, FREE, SGD
from ..training.data import load_data
from .compare import Progress, check_runs, compare
from .moments import Floats, Plain, least_squares_risk
from .rung import Rung
from .task import LadderTask, models_of

__all__ = ["linear_regression", "pixels", "regression"]

OPTIMIZERS: dict[str, Any] = {
    "SGD": SGD(FREE),
    "momentum": SGD(FREE, momentum=0.9),
    "EMA": EMA(SGD(FREE), decay=0.9),
}
BATCH_SIZES = (1, 16, 256)


def linear_regression(
    quick: bool = False,
    seed: int = 0,
    runs: int = 200,
    progress: Progress = None,
    *,
    labels: Literal["digit", "parity"] = "digit",
) -> Rung:
    """Least squares 1/2 mean (x . theta - y)^2 from theta = 0 on the 8 x 8 pixels of digits.

    x: the training part's pixels less their means, in the basis of their principal components (which changes nothing
    but names), 61 of them without the pixels that never vary. y: the digit, 0 to 9, or with labels="parity" +-1 for
    even and odd, less its mean. Batches are drawn with replacement. Batch sizes 1, 16, 256 x SGD, momentum 0.9, EMA of
    decay 0.9, each at the learning rate for which the headline model ("matched") reaches a tenth of the initial excess
    first (a quarter with ``quick``). "exact" is :func:`least_squares_risk`, which tells Monte Carlo error from features
    that are not Gaussian.

    Args:
        quick: a larger target and fewer batch sizes over which learning rates are tuned.
        seed: of the draws; the same seed gives the same bits.
        runs: trainings per cell, at least 2.
        progress: called with a line of text before each cell.

    Raises TypeError, ValueError for wrong arguments.
    """
    count = check_runs(runs, quick)
    task = regression(*pixels(labels), share=0.25 if quick else 0.1)
    sizes = (1, 16, 256) if quick else (1, 4, 16, 64, 256)
    title = f"Linear regression of the {labels} on pixels"
    return compare(
        "a", title, [task], OPTIMIZERS, BATCH_SIZES, sizes, runs=count, tuned_runs=count, seed=seed, progress=progress
    )


def pixels(labels: str = "digit") -> tuple[Floats, Floats]:
    """Principal components (N, 61) of the pixels of the training digits and centred targets (N,)."""
    if labels not in ("digit", "parity"):
        raise ValueError(f"labels: expected 'digit' or 'parity', got {labels!r}")
    data = load_data("digits")
    x = data.x.double().numpy().reshape(len(data), -1)
    x = x - x.mean(axis=0)
    digit = data.y.double().numpy()
    y = digit if labels == "digit" else 1.0 - 2.0 * (digit % 2.0)
    h, basis = np.linalg.eigh(x.T @ x / len(x))
    return x @ basis[:, h > 1e-10 * h[-1]], y - y.mean()


def regression(x: Floats, y: Floats, share: float = 0.1) -> LadderTask:
    """Least squares from theta = 0 on uncorrelated features x (N, d), to ``share`` of the initial excess loss."""
    curvature = np.mean(x**2, axis=0)
    optimum = (x.T @ y / len(x)) / curvature
    start = np.zeros_like(optimum)
    residual = x @ optimum - y

    def gradient(theta: Floats, chosen: NDArray[np.int64]) -> Floats:
        drawn = x[chosen]
        errors = (drawn @ theta[:, :, None])[:, :, 0] - y[chosen]
        return (errors[:, None, :] @ drawn)[:, 0] / chosen.shape[1]

    def excess(theta: Floats) -> Floats:
        return 0.5 * (theta - optimum) ** 2 @ curvature

    def exact(optimizer: Plain, batch_size: int, steps: NDArray[np.int64]) -> Floats:
        return least_squares_risk(x, y, start, optimizer, batch_size, steps)

    models = models_of(curvature, x * residual[:, None], x * -y[:, None], start - optimum)
    target = share * float(excess(start[None])[0])
    return LadderTask("", models, "matched", start, gradient, excess, len(x), x.shape[1], target, exact)
