"""One step of an optimizer on a coordinate."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .._checks import FloatArray
from .base import Optimizer


def transition_matrix(optimizer: Optimizer, x: ArrayLike) -> FloatArray:
    """M(x) = A - x gain query^T, one step of ``optimizer`` on a coordinate with x = lr h^(1-p).

    ``x`` of shape X gives (*X, k, k), for an optimizer whose hyperparameters other than lr are plain numbers or
    broadcast with X. Its spectral radius is the factor by which the distance to the optimum shrinks a step.

    >>> from nqm import SGD
    >>> transition_matrix(SGD(0.1, momentum=0.5), 0.25)
    array([[ 0.75,  0.5 ],
           [-0.25,  0.5 ]])
    """
    return step(optimizer, x)[0]


def step(optimizer: Optimizer, curvature: ArrayLike, lr: float = 1.0) -> tuple[FloatArray, FloatArray]:
    """(M, b) of one step z' = M z - b eps for preconditioned curvatures h^(1-p): shapes (*X, k, k) and (*X, k).

    States that scale with lr are in units of lr, so that z goes on as it is when lr changes; at lr = 1 they are what
    they are anywhere, and M is that of x = h^(1-p).
    """
    parts = optimizer.filter({**optimizer.hyperparameters, "lr": 1.0})
    h = np.asarray(curvature, dtype=float)[..., None, None]
    scaled = np.array(parts.scaled)
    exponent = scaled - scaled[:, None]
    gain = parts.gain[..., 0, :]
    matrix = np.where(exponent < 0, 0.0, parts.transition[..., 0, :, :] * lr ** np.maximum(exponent, 0))
    matrix = matrix - h * (lr ** (1 + exponent) * gain[..., :, None] * parts.query)
    kick = lr ** (1 - scaled) * gain
    if len(parts.start) == 3 and np.any(parts.fresh):  # the average takes in what the others read out after the step
        weights = parts.fresh[..., 0, None] * parts.readout[:2]
        matrix[..., 2, :2] = np.einsum("...i,...ij->...j", weights, matrix[..., :2, :2])
        kick[..., 2] = np.sum(weights * kick[..., :2], axis=-1)
    return matrix, np.broadcast_to(kick, matrix.shape[:-1])
