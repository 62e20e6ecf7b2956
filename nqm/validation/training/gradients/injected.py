"""Large batches with noise put in, of the covariance that smaller batches would have (wen2020, Algorithm 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import kfac
from ..batches import Batch
from ..functional import Net, unflatten
from ..per_example import mean_squares, moments
from .labels import labels_of
from .rule import GradientRule

if TYPE_CHECKING:
    from ..task import Task

__all__ = ["STRUCTURES", "Injected"]

STRUCTURES = ("none", "full", "diagonal", "trace", "K-FAC", "multiplicative")


@dataclass(frozen=True)
class Injected(GradientRule):
    """The gradient of a batch of M_L + s n, s^2 = 1 / M_S - 1 / M_L: noise n, of mean 0, that is drawn at each step.

        full            covariance F: 1 / sqrt(M_L) sum_i r_i g_i with r_i ~ N(0, 1), one more backward pass (eq. 5)
        diagonal        sqrt(diag F) times N(0, 1), of the gradient's own backward pass (eq. 6, Algorithm 1)
        trace           sqrt(Tr(F) / P) times N(0, 1), of the same total variance (section 5.4)
        K-FAC           covariance A (x) G of each layer, Kronecker factors of F
        multiplicative  1 / M_L sum_i z_i g_i with z_i ~ N(1, (M_L - M_S) / M_S): full noise, in one backward pass

    F = 1/M_L sum_i g_i g_i^T is the Fisher matrix of the large batch, not centred: the empirical one (labels "data")
    or the true one (labels "model": drawn from the model). With the empirical one the variance of each parameter's
    gradient is C / M_S + s^2 (mean gradient)^2 in all structures but trace and K-FAC.

    Args:
        structure: one of :data:`STRUCTURES`; "none": the large batch alone.
        small_batch: M_S, at most the batch size M_L of the run.
        labels: "data" or "model"; with "multiplicative" the examples' own.
    """

    structure: str
    small_batch: int
    labels: str = "data"

    def __post_init__(self) -> None:
        if self.structure not in STRUCTURES:
            raise ValueError(f"structure: expected one of {', '.join(STRUCTURES)}, got {self.structure!r}")
        if isinstance(self.small_batch, bool) or not isinstance(self.small_batch, int) or self.small_batch < 1:
            raise ValueError(f"small_batch: expected a whole number of at least 1, got {self.small_batch!r}")
        if self.labels not in ("data", "model"):
            raise ValueError(f'labels: expected "data" or "model", got {self.labels!r}')
        if self.structure == "multiplicative" and self.labels != "data":
            raise ValueError(
                'labels: expected "data" with multiplicative noise, which weights the examples\' own losses'
            )

    def check(self, task: Task, batch_size: int) -> None:
        if self.small_batch > batch_size:
            raise ValueError(f"small_batch: expected at most the batch size {batch_size}, got {self.small_batch}")
        if self.labels == "model" or self.structure == "K-FAC":
            task.check_classes(task.build(0))
        if self.structure == "K-FAC":
            kfac.layers_of(task.build(0))

    def scale(self, large: int) -> float:
        """s of a large batch."""
        return math.sqrt(1.0 / self.small_batch - 1.0 / large)

    def __call__(self, net: Net, thetas: Tensor, batch: Batch, carried: dict[str, Tensor]) -> Tensor:
        if self.structure == "multiplicative":
            z = 1.0 + self.scale(batch.size) * math.sqrt(batch.size) * batch.normal("noise", batch.size)
            return _weighted(net, thetas, batch.x, batch.y, z / batch.size)
        if self.structure == "none" or self.small_batch == batch.size:
            return net.gradients(thetas, batch.x, batch.y)
        if self.structure in ("diagonal", "trace") and self.labels == "data":
            gradient, squares = net.each(partial(moments, net), thetas, batch.x, batch.y).unbind(1)
            return gradient + self.scale(batch.size) * self._drawn(squares, batch)
        return net.gradients(thetas, batch.x, batch.y) + self.scale(batch.size) * self.noise(net, thetas, batch)

    def noise(self, net: Net, thetas: Tensor, batch: Batch) -> Tensor:
        """n (R, P) of the large batch."""
        if self.structure == "K-FAC":
            return _kronecker(net, thetas, batch, self.labels)
        y = labels_of(self.labels, net, thetas, batch)
        if self.structure == "full":
            r = batch.normal("noise", batch.size) / math.sqrt(batch.size)
            return _weighted(net, thetas, batch.x, y, r)
        return self._drawn(net.each(partial(mean_squares, net), thetas, batch.x, y), batch)

    def _drawn(self, squares: Tensor, batch: Batch) -> Tensor:
        """Noise with the variances diag F (R, P), or with their mean."""
        count = squares.shape[1]
        if self.structure == "trace":
            squares = squares.mean(dim=1, keepdim=True)
        return squares.sqrt() * batch.normal("noise", count)


def _weighted(net: Net, thetas: Tensor, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """sum_i w_i g_i (R, P): the gradient of the weighted loss."""

    def loss(theta: Tensor, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return (w * net.losses(theta, x, y)).sum()

    return net.slopes(loss, thetas, x, y, weights)


def _kronecker(net: Net, thetas: Tensor, batch: Batch, labels: str) -> Tensor:
    """G^1/2 Xi A^1/2 for each layer (R, P)."""
    factors_of = kfac.factors_of(net.model, batch.x[0], drawn=labels == "model")
    targets = batch.uniform("labels", batch.size) if labels == "model" else batch.y

    def factors(theta: Tensor, x: Tensor, target: Tensor) -> dict[str, Tensor]:
        found = factors_of(unflatten(theta, net.like), x, target)
        return {f"{side} {name}": pair[i] for name, pair in found.items() for i, side in enumerate("AG")}

    found = net.each(factors, thetas, batch.x, targets)
    roots = {name: _root(matrix) for name, matrix in found.items()}
    xi = unflatten(batch.normal("noise", thetas.shape[1]), net.like)
    noise = kfac.precondition(xi, {name[2:]: (roots["A" + name[1:]], roots["G" + name[1:]]) for name in roots})
    return torch.cat([part.flatten(1) for part in noise.values()], dim=1)


def _root(matrix: Tensor) -> Tensor:
    """The symmetric root of a positive semidefinite matrix, NaN for those of runs that have diverged.

    Eigenvalues that are 0 but for rounding are taken as 0: a root makes 1e-8 of 1e-16, and another one for each
    number of runs side by side.
    """
    sound = matrix.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    values, vectors = torch.linalg.eigh(torch.where(sound, matrix, 0.0))
    least = values[..., -1:] * values.shape[-1] * torch.finfo(values.dtype).eps
    roots = torch.where(values > least, values, 0.0).sqrt()
    return torch.where(sound, (vectors * roots.unsqueeze(-2)) @ vectors.transpose(-1, -2), torch.nan)
