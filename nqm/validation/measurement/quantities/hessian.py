"""The Hessian of the mean loss by its products with vectors: trace and largest eigenvalue."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from torch import Tensor
from torch.func import grad, vjp, vmap

from ...training.data import Data
from ...training.functional import TOGETHER, Net
from .base import CHUNK, OfFirst, check_whole, in_chunks
from .temperature import check_last_layer, fit_temperature, rescaled

if TYPE_CHECKING:
    from ...training.task import Task

__all__ = ["TopEigenvalue", "TraceH", "mean_form", "products", "quadratic_forms"]

VECTORS = 32  # multiplied at once


@dataclass(frozen=True)
class TraceH(OfFirst):
    """Tr(H) of the Hessian H of the mean training loss, by Hutchinson: the mean of z^T H z over vectors z ~ N(0, I).

    Args:
        vectors: how many (jastrzebski2021: 30).
        examples: the first so many to train on; None: all.
    """

    vectors: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self.vectors, "vectors", 2)

    def __call__(self, net: Net, theta: Tensor, data: Data, generator: torch.Generator) -> float:
        return self.with_error(net, theta, data, generator)[0]

    def with_error(self, net: Net, theta: Tensor, data: Data, generator: torch.Generator) -> tuple[float, float]:
        """The estimate and its standard error."""
        return mean_form(net, theta, *self.of(data), torch.ones_like(theta), self.vectors, generator)


@dataclass(frozen=True)
class TopEigenvalue(OfFirst):
    """The largest eigenvalue of the Hessian of the mean training loss, by restarted Lanczos (ARPACK) in double
    precision; NaN where it does not converge.

    Args:
        iterations: restarts at most.
        tolerance: it is found when the residual is below so much of the eigenvalue.
        temperature: take it where the last layer is divided by the temperature that fits the held-out part best, so
            that networks of unlike confidence can be compared (wen2020 figure 5b).
        examples: the first so many to train on; None: all.
    """

    iterations: int = 300
    tolerance: float = 1e-3
    temperature: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self.iterations, "iterations")
        if not 0.0 < self.tolerance < 1.0:
            raise ValueError(f"tolerance: expected a number between 0 and 1, got {self.tolerance!r}")

    def __call__(self, net: Net, theta: Tensor, data: Data, generator: torch.Generator) -> float:
        start = torch.randn(net.size, generator=generator, dtype=torch.float64).numpy()
        x, y = self.of(data)
        double, at = _in_double(net), theta.double()
        if self.temperature:
            at = rescaled(net, at, fit_temperature(net, theta, data.x_held, data.y_held))

        def product(v: NDArray[np.float64]) -> NDArray[np.float64]:
            vector = torch.from_numpy(v).to(at).reshape(1, -1)
            return products(double, at, x, y, vector)[0].cpu().numpy()

        first = product(start)
        if not np.isfinite(first).all():
            return math.nan
        if not first.any():
            return 0.0
        hessian = LinearOperator((net.size, net.size), matvec=product, dtype=np.float64)
        try:
            values = eigsh(
                hessian, k=1, which="LA", v0=start, maxiter=self.iterations, tol=self.tolerance,
                return_eigenvectors=False,
            )  # fmt: skip
        except ArpackError:
            return math.nan
        return float(values[0])

    def check(self, task: Task) -> None:
        super().check(task)
        if self.temperature:
            check_last_layer(task)


def products(net: Net, theta: Tensor, x: Tensor, y: Tensor, vectors: Tensor) -> Tensor:
    """H v for each row v of vectors (m, P), H the Hessian of the examples' mean loss at theta."""
    total = torch.zeros_like(vectors)
    for some, labels in in_chunks(x, y, min(CHUNK, max(1, TOGETHER // len(vectors)))):
        inputs = some.to(theta.dtype) if some.is_floating_point() else some
        targets = labels.to(theta.dtype) if labels.is_floating_point() else labels
        pull = vjp(partial(grad(net.mean_loss), x=inputs, y=targets), theta)[1]
        total += vmap(pull)(vectors)[0] * (len(some) / len(x))
    return total


def quadratic_forms(net: Net, theta: Tensor, x: Tensor, y: Tensor, vectors: Tensor) -> Tensor:
    """v^T H v for each row v of vectors (m, P): (m,), in double precision."""
    parts = [(some.double() * products(net, theta, x, y, some)).sum(1) for some in torch.split(vectors, VECTORS)]
    return torch.cat(parts)


def mean_form(
    net: Net, theta: Tensor, x: Tensor, y: Tensor, scale: Tensor, vectors: int, generator: torch.Generator
) -> tuple[float, float]:
    """Mean, with its standard error, of v^T H v over so many v = scale z, z ~ N(0, I): Tr(H diag(scale^2))."""
    found = []
    for first in range(0, vectors, VECTORS):
        z = torch.randn(min(VECTORS, vectors - first), len(theta), generator=generator, dtype=theta.dtype)
        found.append(quadratic_forms(net, theta, x, y, scale * z.to(theta.device)))
    forms = torch.cat(found)
    return float(forms.mean()), float(forms.std()) / math.sqrt(vectors)


def _in_double(net: Net) -> Net:
    return Net(copy.deepcopy(net.model).double(), {name: p.double() for name, p in net.like.items()}, net.loss)
