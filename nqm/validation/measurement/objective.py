"""The loss that is measured, as a function of one vector of parameters; and what its curvature is given as."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from ..training.functional import Loss, Parameters, outputs, unflatten

__all__ = ["Curvature", "Objective"]

BUFFER = 2**22  # numbers of a chunk of Jacobians: 32 MiB
MOST_EXAMPLES = 256  # at once, whatever the parameters: activations take memory as well


@dataclass(frozen=True, eq=False)
class Objective:
    """The mean loss over examples x (n, ...), y (n, ...), as a function of one vector (P,) of parameters.

    model: in evaluation mode, float64, on the device of x and y. like: its trained parameters, for names and shapes.
    """

    model: nn.Module
    loss: Loss
    x: Tensor
    y: Tensor
    like: Parameters

    def chunks(self, floats: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The examples in parts, where each example needs this many numbers."""
        size = max(1, min(MOST_EXAMPLES, BUFFER // max(floats, 1)))
        for first in range(0, len(self.x), size):
            yield self.x[first : first + size], self.y[first : first + size]

    def mean(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Mean loss over these examples."""
        return self.loss(outputs(self.model, unflatten(theta, self.like), x), y)

    def value(self, theta: Tensor) -> float:
        """Mean loss over all examples."""
        with torch.no_grad():
            parts = [self.mean(theta, x, y) * len(x) for x, y in self.chunks(1)]
        return float(sum(parts)) / len(self.x)

    def gradient(self, theta: Tensor) -> Tensor:
        """Gradient (P,) of the mean loss."""
        total = torch.zeros_like(theta)
        for x, y in self.chunks(1):
            total += grad(self.mean)(theta, x, y) * len(x)
        return total / len(self.x)

    def gradients(self, theta: Tensor) -> Iterator[Tensor]:
        """Gradients of single examples, in parts (b, P)."""

        def one(x: Tensor, y: Tensor) -> Tensor:
            return grad(self.mean)(theta, x.unsqueeze(0), y.unsqueeze(0))

        for x, y in self.chunks(theta.numel()):
            yield vmap(one)(x, y)

    def check(self, theta: Tensor) -> None:
        """Raise ValueError where the loss is not a mean over examples, or not finite."""
        x, y = self.x[:8], self.y[:8]
        with torch.no_grad():
            together = self.mean(theta, x, y)
            if together.ndim != 0:
                raise ValueError(f"loss: expected the mean over examples, a scalar, got shape {tuple(together.shape)}")
            alone = torch.stack([self.mean(theta, x[i : i + 1], y[i : i + 1]) for i in range(len(x))]).mean()
        if bool(torch.isfinite(alone)) and abs(float(together - alone)) > 1e-6 * abs(float(alone)) + 1e-12:
            raise ValueError(
                f"loss: expected the mean over examples, got {float(together):.6g} for {len(x)} examples whose single "
                f'losses have the mean {float(alone):.6g}; reduction="sum" or class weights?'
            )


@dataclass(frozen=True, eq=False)
class Curvature:
    """Curvatures h (P,) and their orthonormal basis: ``rotate`` takes vectors (n, P) to their coordinates V^T v."""

    values: Tensor
    rotate: Callable[[Tensor], Tensor]
