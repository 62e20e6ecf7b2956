"""What the noisy quadratic says of figure 3: a network's own quadratic, and that of softmax regression.

Each regime is a covariance of one step's gradient: C / M_S for small batches, C / M_L + s^2 N for large ones with noise
of covariance N, s^2 = 1 / M_S - 1 / M_L. Its risk is exact.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from .... import SGD, NoisyQuadratic, noise, risk
from ...._table import Table
from ...ladder.softmax import images, softmax_gradients, softmax_hessian, softmax_loss, softmax_optimum
from ...measurement.curvature import ggn_matrix
from ...measurement.objective import Objective
from ...training.data import load_data
from ...training.functional import parameters_of
from .training import begun

__all__ = ["SOFTMAX", "STRUCTURES", "model_curve"]

Floats = NDArray[np.float64]

SOFTMAX = "softmax"
STRUCTURES = {"SB": "", "LB": "none", "LB + full": "full", "LB + diagonal": "diagonal", "LB + trace": "trace"}
PENALTY = 0.01  # of softmax regression, as on the ladder's second rung
REFERENCE = 100  # updates of large batches after which a network is measured
CUTOFF = 1e-8  # of the largest curvature: no step ever moves below it


def model_curve(
    data: str, net: str, seed: int, lr: float, large: int, small: int, updates: int, every: int,
    data_root: str | None = None,
) -> Table:  # fmt: skip
    """Expected loss of the quadratic under each regime: columns regime, step, training loss, ratio.

    net "softmax": softmax regression on digits' pixels with a penalty, from 0, Hessian and Fisher matrix those at its
    optimum. Any other: a network after :data:`REFERENCE` updates of large batches, with its Gauss-Newton matrix, its
    single gradients and the start's displacement from the quadratic's minimum there. ratio: Tr(A F) / Tr(A diag F), of
    Theorem 4.1's Tr(C^T A C).
    """
    if net == SOFTMAX:
        problems, floor, ratio = _softmax(large, small)
    else:
        problems, floor, ratio = _network(data, net, seed, lr, large, small, data_root)
    steps = np.arange(0, updates + 1, every)
    rows = []
    for regime, problem in problems.items():
        losses = floor + np.asarray(risk(problem, SGD(lr), 1, steps))
        rows += [
            {"regime": regime, "step": int(step), "training loss": float(loss), "ratio": ratio}
            for step, loss in zip(steps, losses, strict=True)
        ]
    return Table.from_rows(rows, ("regime", "step", "training loss", "ratio"))


def _softmax(large: int, small: int) -> tuple[dict[str, NoisyQuadratic], float, float]:
    """A quadratic for each regime by full matrices, the least loss, and the ratio."""
    x, y = images()
    optimum = softmax_optimum(x, y, PENALTY)
    hessian, gradients = softmax_hessian(x, optimum, PENALTY), softmax_gradients(x, y, optimum, PENALTY)
    fisher = gradients.T @ gradients / len(gradients)  # the gradient's mean is 0 there: C is F
    found = {}
    for regime, structure in STRUCTURES.items():
        covariance = fisher / (large if structure else small)
        if structure:
            root = noise.injected(fisher, large, small, structure)  # type: ignore[arg-type]
            covariance = covariance + root @ root.T
        found[regime] = NoisyQuadratic.from_matrices(hessian, covariance, optimum.reshape(-1))
    floor = float(softmax_loss(x, y, optimum[None], PENALTY)[0])
    return found, floor, float(np.sum(hessian * fisher) / (np.diag(hessian) @ np.diag(fisher)))


def _network(
    data: str, net: str, seed: int, lr: float, large: int, small: int, root: str | None
) -> tuple[dict[str, NoisyQuadratic], float, float]:
    """The same of a network, in the eigenbasis of its curvature."""
    run = begun(load_data(data, root, seed=seed), net, "LB", seed, lr, large, small)
    start = run.theta[0].double()
    for _ in range(REFERENCE):
        run.step()
    theta = run.theta[0].double()
    model = run.net.model.double()
    objective = Objective(model, run.net.loss, run.data.x.double(), run.data.y, parameters_of(model))
    curvature = ggn_matrix(objective, theta)
    h, basis = torch.linalg.eigh(curvature)
    kept = h > CUTOFF * h.max()
    h, basis = h[kept], basis[:, kept]
    each = torch.cat(list(objective.gradients(theta)))
    mean, squares = each.mean(0), each.square().mean(0)
    g, in_basis = mean @ basis, (each @ basis).square().mean(0)
    moved = (start - theta) @ basis + g / h
    noises = {
        "none": torch.zeros_like(h), "full": in_basis, "diagonal": squares @ basis.square(),
        "trace": squares.mean().expand_as(h),
    }  # fmt: skip
    variance, extra = in_basis - g.square(), 1.0 / small - 1.0 / large
    found = {}
    for regime, structure in STRUCTURES.items():
        c = variance / large + extra * noises[structure] if structure else variance / small
        found[regime] = NoisyQuadratic(h.numpy(), c.numpy(), moved.square().numpy())
    floor = objective.value(theta) - 0.5 * float((g.square() / h).sum())
    return found, floor, float((h @ in_basis) / (curvature.diagonal() @ squares))
