"""Mixed examples (mixup; Zhang et al., 2018), a baseline of jastrzebski2021 section 4.1."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..batches import Batch
from ..functional import Net
from .rule import GradientRule

__all__ = ["Mixup"]


@dataclass(frozen=True)
class Mixup(GradientRule):
    """The gradient of w loss(x~, y) + (1 - w) loss(x~, y'), x~ = w x + (1 - w) x': each example with another of its
    batch, in random order, one w ~ Beta(concentration, concentration) a step.

    For cross entropy that is the loss of mixed labels.
    """

    concentration: float

    def __post_init__(self) -> None:
        value = self.concentration
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < math.inf:
            raise ValueError(f"concentration: expected a finite number above 0, got {value!r}")

    def __call__(self, net: Net, thetas: Tensor, batch: Batch, carried: dict[str, Tensor]) -> Tensor:
        order = batch.uniform("noise", batch.size).argsort(dim=1)
        weight = self._weights(batch).to(thetas)
        rows = torch.arange(len(thetas), device=order.device)[:, None]

        def loss(theta: Tensor, x: Tensor, y: Tensor, x2: Tensor, y2: Tensor, w: Tensor) -> Tensor:
            given = net.outputs(theta, w * x + (1.0 - w) * x2)
            return w * net.loss(given, y) + (1.0 - w) * net.loss(given, y2)

        others = batch.x[rows, order], batch.y[rows, order]
        return net.slopes(loss, thetas, batch.x, batch.y, *others, weight)

    def _weights(self, batch: Batch) -> Tensor:
        """One Beta variate for each run (R,), by a generator of NumPy's that the run's own stream seeds."""
        seeds = (batch.uniform("noise", 1)[:, 0].double() * 2.0**24).long().tolist()
        return torch.tensor(
            [np.random.default_rng(seed).beta(self.concentration, self.concentration) for seed in seeds]
        )
