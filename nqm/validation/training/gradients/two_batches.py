"""Noise enhancement: two independent batches, weighted a and 1 - a (mori2021 eq. 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ..batches import Batch
from ..functional import Net
from .rule import GradientRule

__all__ = ["TwoBatches"]


@dataclass(frozen=True)
class TwoBatches(GradientRule):
    """weight g_B + (1 - weight) g_B', with two independent batches of B examples each.

    The same mean, and weight^2 + (1 - weight)^2 times the covariance, of one batch of B (mori2021 eq. 9 and 10;
    :func:`nqm.noise.enhanced`); two batches' work. weight 1: one batch.
    """

    weight: float

    def __post_init__(self) -> None:
        if isinstance(self.weight, bool) or not isinstance(self.weight, int | float) or not math.isfinite(self.weight):
            raise ValueError(f"weight: expected a finite number, got {self.weight!r}")

    def __call__(self, net: Net, thetas: Tensor, batch: Batch, carried: dict[str, Tensor]) -> Tensor:
        second_x, second_y = batch.second()

        def loss(theta: Tensor, x: Tensor, y: Tensor, x2: Tensor, y2: Tensor) -> Tensor:
            return self.weight * net.mean_loss(theta, x, y) + (1.0 - self.weight) * net.mean_loss(theta, x2, y2)

        return net.slopes(loss, thetas, batch.x, batch.y, second_x, second_y)
