"""The curvature of a network's loss, exact or Kronecker-factored, with the basis in which it is diagonal.

Everything is in double precision: the gradient's share in a direction is read off where curvature is 1e-8 of the
largest, and single precision has no digits left there.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.func import grad, jacrev, vjp, vmap

from ..training.functional import outputs, unflatten
from .ekfac import ekfac
from .objective import Curvature, Objective

__all__ = ["DENSE_LIMIT", "METHODS", "find_curvature", "ggn_matrix", "hessian_matrix"]

METHODS = ("auto", "ggn", "hessian", "ekfac")
DENSE_LIMIT = 6000
"""Most parameters whose curvature "auto" holds as a dense matrix."""

ROWS = 32  # of the Hessian at once


def find_curvature(method: str, objective: Objective, theta: Tensor) -> Curvature:
    """The curvature by "ggn", "hessian" or "ekfac"."""
    if method == "ekfac":
        return ekfac(objective, theta)
    matrix = ggn_matrix(objective, theta) if method == "ggn" else hessian_matrix(objective, theta)
    values, vectors = torch.linalg.eigh(matrix)
    return Curvature(values, lambda rows: rows @ vectors)


def ggn_matrix(objective: Objective, theta: Tensor) -> Tensor:
    """Generalised Gauss-Newton matrix (P, P): 1/n sum_n J_n^T S_n J_n, where J_n (K, P) is the Jacobian of example n's
    outputs and S_n (K, K) the Hessian of its loss with respect to them. For cross entropy and squared loss it is the
    Fisher matrix (times a constant), and positive semidefinite (Martens, 2014)."""
    model, like = objective.model, objective.like

    def output(point: Tensor, x: Tensor) -> Tensor:
        return outputs(model, unflatten(point, like), x.unsqueeze(0)).squeeze(0)

    def of_output(z: Tensor, y: Tensor) -> Tensor:
        return objective.loss(z.unsqueeze(0), y.unsqueeze(0))

    with torch.no_grad():
        size = output(theta, objective.x[0]).numel()
    total = theta.new_zeros(theta.numel(), theta.numel())
    for x, y in objective.chunks(size * theta.numel()):
        slopes = vmap(jacrev(output), (None, 0))(theta, x).reshape(len(x), size, -1)
        z = vmap(output, (None, 0))(theta, x)
        bends = vmap(jacrev(grad(of_output)))(z, y).reshape(len(x), size, size)
        total.addmm_(slopes.flatten(0, 1).T, (bends @ slopes).flatten(0, 1))
    return (total + total.T) / (2 * len(objective.x))


def hessian_matrix(objective: Objective, theta: Tensor) -> Tensor:
    """Hessian (P, P) of the mean loss, a few rows at a time by reverse over reverse differentiation."""
    count = theta.numel()
    total = theta.new_zeros(count, count)
    for x, y in objective.chunks(ROWS * count):
        pull = vjp(partial(grad(objective.mean), x=x, y=y), theta)[1]
        for first in range(0, count, ROWS):
            last = min(first + ROWS, count)
            unit = theta.new_zeros(last - first, count)
            unit[torch.arange(last - first), torch.arange(first, last)] = 1.0
            total[first:last] += vmap(pull)(unit)[0] * (len(x) / len(objective.x))
    return (total + total.T) / 2
