"""Rung b: softmax regression with an l2 penalty, whose curvature and noise change on the way to its optimum."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from ... import FREE, SGD
from ..training.data import load_data
from .compare import Progress, check_runs, compare
from .moments import Floats
from .rung import Rung
from .task import LadderTask, models_of

__all__ = [
    "images",
    "softmax_gradients",
    "softmax_hessian",
    "softmax_loss",
    "softmax_optimum",
    "softmax_regression",
    "softmax_task",
]

PENALTY = 0.01
OPTIMIZERS: dict[str, Any] = {"SGD": SGD(FREE), "momentum": SGD(FREE, momentum=0.9)}
NEWTON_STEPS = 100


def softmax_regression(quick: bool = False, seed: int = 0, runs: int = 200, progress: Progress = None) -> Rung:
    """Cross-entropy of softmax regression on digits' pixels and a constant, with a penalty of 0.01 / 2 |W|^2.

    Trained from points W = (1 - s) W_* between the optimum (s = 0) and zero (s = 1) whose excess loss is 0.01, 0.1, and
    from W = 0, to an excess of 0.0025, 0.025, 0.1; batch sizes 8, 32, 256. SGD at the learning rate for which the
    headline model ("matched") reaches the target first, momentum 0.9 at a tenth of that. Curvature and noise are those
    at the optimum, exact over the training examples; the matched model also knows the noise and the loss at the start.
    With ``quick`` the images are averaged to 4 x 4.

    Arguments and errors as for :func:`linear_regression`.
    """
    count = check_runs(runs, quick)
    x, y = images(averaged=quick)
    weights = softmax_optimum(x, y, PENALTY)
    starts: tuple[float | None, ...] = (0.1, None) if quick else (0.01, 0.1, None)
    tasks = [softmax_task(x, y, weights, excess) for excess in starts]
    sizes = (8, 32, 256) if quick else (8, 32, 128, 512)
    return compare(
        "b", "Softmax regression around its optimum", tasks, OPTIMIZERS, (8, 256) if quick else (8, 32, 256), sizes,
        runs=count, tuned_runs=min(count, 30 if quick else 50), seed=seed, progress=progress, scaled=True,
    )  # fmt: skip


def images(averaged: bool = False) -> tuple[Floats, NDArray[np.int64]]:
    """Pixels of the training digits and a constant 1, (N, 65), and labels (N,); or of 2 x 2 averages, (N, 17)."""
    data = load_data("digits")
    x = data.x.double().numpy()[:, 0]
    if averaged:
        x = x.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4))
    flat = x.reshape(len(x), -1)
    return np.concatenate([flat, np.ones((len(x), 1))], axis=1), data.y.numpy()


def softmax_gradients(x: Floats, y: NDArray[np.int64], weights: Floats, penalty: float) -> Floats:
    """Gradients (N, f k) of single examples, (x p^T - x e_y^T) + penalty W, at weights (f, k)."""
    errors = _probabilities(x @ weights)
    errors[np.arange(len(y)), y] -= 1.0
    return (x[:, :, None] * errors[:, None, :]).reshape(len(x), -1) + penalty * weights.reshape(-1)


def softmax_hessian(x: Floats, weights: Floats, penalty: float) -> Floats:
    """1/N sum_n x x^T (x) (diag p - p p^T) + penalty I, (f k, f k), at weights (f, k)."""
    features, classes = weights.shape
    p = _probabilities(x @ weights)
    hessian = np.empty((features, classes, features, classes))
    for i in range(classes):
        for j in range(i + 1):
            share = p[:, i] * ((i == j) - p[:, j])
            hessian[:, i, :, j] = hessian[:, j, :, i] = (x * share[:, None]).T @ x / len(x)
    return hessian.reshape(features * classes, -1) + penalty * np.eye(features * classes)


def softmax_loss(x: Floats, y: NDArray[np.int64], weights: Floats, penalty: float) -> Floats:
    """Mean cross-entropy + penalty / 2 |W|^2, in nats, at weights (runs, f, k): (runs,)."""
    runs, features, classes = weights.shape
    logits = (x @ weights.transpose(1, 0, 2).reshape(features, -1)).reshape(len(x), runs, classes)
    logits -= logits.max(axis=2, keepdims=True)
    right = logits[np.arange(len(y)), :, y].mean(axis=0)
    return np.log(np.exp(logits).sum(axis=2)).mean(axis=0) - right + 0.5 * penalty * np.sum(weights**2, axis=(1, 2))


def softmax_optimum(x: Floats, y: NDArray[np.int64], penalty: float) -> Floats:
    """The weights (f, k) of least loss, by Newton's method with halved steps, to a gradient of 1e-12 at most.

    Raises ValueError for a penalty <= 0, without which there is no single optimum.
    """
    if not penalty > 0.0:
        raise ValueError(f"penalty: expected > 0, without which there is no single optimum, got {penalty}")
    weights = np.zeros((x.shape[1], int(y.max()) + 1))
    for _ in range(NEWTON_STEPS):
        gradient = softmax_gradients(x, y, weights, penalty).mean(axis=0)
        if np.linalg.norm(gradient) <= 1e-12:
            return weights
        step = np.linalg.solve(softmax_hessian(x, weights, penalty), gradient).reshape(weights.shape)
        before, share = softmax_loss(x, y, weights[None], penalty)[0], 1.0
        while softmax_loss(x, y, (weights - share * step)[None], penalty)[0] > before + 1e-12:
            share *= 0.5
        weights = weights - share * step
    raise RuntimeError("softmax regression: Newton's method did not arrive")


def softmax_task(x: Floats, y: NDArray[np.int64], optimum: Floats, initial: float | None) -> LadderTask:
    """Training from the point between the optimum and 0 whose excess loss is ``initial``, or from 0 (None)."""
    least = float(softmax_loss(x, y, optimum[None], PENALTY)[0])

    def excess(theta: Floats) -> Floats:
        return softmax_loss(x, y, theta.reshape(-1, *optimum.shape), PENALTY) - least

    def along(share: float) -> float:
        return float(excess((1.0 - share) * optimum[None])[0])

    def gradient(theta: Floats, chosen: NDArray[np.int64]) -> Floats:
        weights, drawn = theta.reshape(-1, *optimum.shape), x[chosen]
        errors = _probabilities(drawn @ weights)
        np.put_along_axis(errors, y[chosen][:, :, None], np.take_along_axis(errors, y[chosen][:, :, None], 2) - 1.0, 2)
        return (drawn.transpose(0, 2, 1) @ errors).reshape(theta.shape) / chosen.shape[1] + PENALTY * theta

    share = 1.0 if initial is None else brentq(lambda s: along(s) - initial, 0.0, 1.0, xtol=1e-12)
    start = (1.0 - share) * optimum
    h, basis = np.linalg.eigh(softmax_hessian(x, optimum, PENALTY))
    at = [softmax_gradients(x, y, weights, PENALTY) @ basis for weights in (optimum, start)]
    models = models_of(h, at[0], at[1], basis.T @ (start - optimum).reshape(-1), along(share))
    name = "from zero" if initial is None else f"excess {initial:g}"
    width, target = x.shape[1] + 2 * optimum.shape[1], 0.1 if initial is None else 0.25 * initial
    return LadderTask(name, models, "matched", start.reshape(-1), gradient, excess, len(x), width, target)


def _probabilities(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
