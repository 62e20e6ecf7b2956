"""Rung c: a network linearised at its start, with squared loss: linear regression on a network's features."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import jacrev, vjp, vmap

from ... import FREE, SGD
from ..training.data import Data, load_data
from ..training.functional import Parameters, flatten, outputs, parameters_of, unflatten
from ..training.networks import mlp
from .compare import Progress, check_runs, compare
from .moments import Floats
from .rung import Rung
from .task import LadderTask, models_of

__all__ = ["jacobian", "linearised_gradient", "linearised_network", "linearised_task"]

OPTIMIZERS: dict[str, Any] = {"SGD": SGD(FREE), "momentum": SGD(FREE, momentum=0.9)}
RANK = 1e-12
"""Eigenvalues below this share of the largest are the rounding errors of zeros: no gradient has a part there."""


def linearised_network(quick: bool = False, seed: int = 0, runs: int = 200, progress: Progress = None) -> Rung:
    """The MLP of :func:`nqm.validation.mlp` on digits with one-hot targets, linearised at its initial weights:

        f(x) = f_0(x) + J(x) delta,   loss = mean over examples of 1/2 |f(x) - y|^2,   delta = 0 at the start.

    A linear regression in 2,410 parameters (610 with ``quick``, which takes 8 hidden units) with 10 outputs: its
    Hessian is the Gauss-Newton matrix mean J^T J, in float64. Batch sizes 1, 16, 256. SGD at the learning rate for
    which the headline model ("matched") reaches a quarter of the initial excess first, momentum 0.9 at a tenth of that.
    Runs use forward and reverse derivatives of the network itself, not the matrix.

    Arguments and errors as for :func:`linear_regression`.
    """
    count = check_runs(runs, quick)
    data = load_data("digits")
    net = mlp((1, 8, 8), 10, width=8 if quick else 32, seed=0)
    task = linearised_task(net, data)
    sizes = (1, 16, 64) if quick else (1, 4, 16, 64)
    return compare(
        "c", "A linearised network with squared loss", [task], OPTIMIZERS, (1, 16) if quick else (1, 16, 256), sizes,
        runs=count, tuned_runs=min(count, 20 if quick else 40), seed=seed, progress=progress, scaled=True,
    )  # fmt: skip


def jacobian(net: nn.Module, parameters: Parameters, x: Tensor) -> Tensor:
    """Derivatives (N, outputs, P) of the outputs on x (N, ...) by all parameters, in the order of ``flatten``."""

    def one(p: Parameters, example: Tensor) -> Tensor:
        return outputs(net, p, example[None])[0]

    parts = vmap(jacrev(one), in_dims=(None, 0))(parameters, x)
    return torch.cat([part.flatten(start_dim=2) for part in parts.values()], dim=2)


def linearised_gradient(net: nn.Module, parameters: Parameters, delta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Gradients (runs, P) of 1/2 mean |f_0(x) + J(x) delta - y|^2 at delta (runs, P), each run on its own batch
    x (runs, B, ...), y (runs, B, outputs)."""

    def one(direction: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        def at(p: Parameters) -> Tensor:
            return outputs(net, p, inputs)

        plain, pull = vjp(at, parameters)[:2]
        push = vjp(lambda v: pull(v)[0], torch.zeros_like(plain))[1]  # J from J^T v, which is linear in v
        change = push(unflatten(direction, parameters))[0]
        return flatten(pull((plain + change - targets) / len(targets))[0])

    found: Tensor = vmap(one)(delta, x, y)
    return found


def linearised_task(net: nn.Module, data: Data, share: float = 0.25) -> LadderTask:
    """Training of the linearised network from its initial weights, to ``share`` of the initial excess loss."""
    net = net.double()
    parameters, x = parameters_of(net), data.x.double()
    y = torch.nn.functional.one_hot(data.y, data.classes).double()
    with torch.no_grad():
        first = outputs(net, parameters, x) - y
        slope = jacobian(net, parameters, x)
        flat = slope.reshape(-1, slope.shape[2])
        values, vectors = np.linalg.eigh((flat.T @ flat / len(x)).numpy())
        kept = values > RANK * values[-1]
        h, basis = values[kept], np.ascontiguousarray(vectors[:, kept])
        at_start = torch.einsum("nkp,nk->np", slope, first).numpy() @ basis
        distance = at_start.mean(axis=0) / h  # of the start from the optimum, in the eigenbasis
        last = first - slope @ torch.from_numpy(basis @ distance)
        at_optimum = torch.einsum("nkp,nk->np", slope, last).numpy() @ basis
    models = models_of(h, at_optimum, at_start, distance)

    def gradient(theta: Floats, chosen: NDArray[np.int64]) -> Floats:
        index = torch.from_numpy(chosen)
        with torch.no_grad():
            found = linearised_gradient(net, parameters, torch.from_numpy(theta), x[index], y[index])
        return np.asarray(found.numpy())

    def excess(theta: Floats) -> Floats:
        return 0.5 * (theta @ basis + distance) ** 2 @ h

    start = np.zeros(slope.shape[2])
    target = share * float(excess(start[None])[0])
    width = x[0].numel() + start.size
    return LadderTask("", models, "matched", start, gradient, excess, len(x), width, target)
