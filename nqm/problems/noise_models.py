"""How a gradient's noise depends on where it is taken: the same everywhere, or growing with the loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from .._checks import FloatArray
from .quadratic import NoisyQuadratic

__all__ = ["AdditiveNoise", "GaussianFeaturesNoise", "noise_of"]

NUMBERS_AT_ONCE = 2**21
"""Random numbers of features that are drawn at once."""


def noise_of(problem: NoisyQuadratic) -> AdditiveNoise:
    """The noise of a problem's gradients."""
    return AdditiveNoise() if problem.label_noise is None else GaussianFeaturesNoise(problem.label_noise)


class AdditiveNoise:
    """Variance c / batch size on each coordinate, wherever theta is."""

    grows_with_loss: ClassVar[bool] = False

    def weighted_variance(self, weight: FloatArray, nodes: NoisyQuadratic, squared_gradient: float) -> float:
        """sum weight E[c] of one example at the start; ``squared_gradient``: sum weight h^2 init."""
        return float(np.sum(weight * nodes.noise))

    def examples_drawn(self, inverse_batch_size: FloatArray, given: Any) -> float:
        """How many examples are drawn together, at most; refuses batch sizes ``given`` that cannot be drawn."""
        return 1.0

    def draw(
        self, xp: Any, h: Any, c: Any, inverse_batch_size: float, distance: Callable[[], Any], generator: Any, runs: int
    ) -> Any:
        """The average gradient of a batch less the true one, (runs, dim), with arrays of ``xp``; ``distance()``: d at
        the point where it is taken."""
        error = generator.standard_normal((runs, h.size))
        error *= xp.sqrt(c * inverse_batch_size)
        return error


class GaussianFeaturesNoise(AdditiveNoise):
    """Least squares on Gaussian features: covariance H (label_noise + 2 L) + H d d^T H of one example's gradient."""

    grows_with_loss = True

    def __init__(self, label_noise: float) -> None:
        self.label_noise = label_noise

    def weighted_variance(self, weight: FloatArray, nodes: NoisyQuadratic, squared_gradient: float) -> float:
        of_loss = 2.0 * nodes.initial_risk * np.sum(weight * nodes._nodes.noise)
        return float(np.sum(weight * nodes.noise) + (of_loss + squared_gradient))

    def examples_drawn(self, inverse_batch_size: FloatArray, given: Any) -> float:
        drawn = 1.0 / inverse_batch_size[inverse_batch_size > 0.0]
        if np.any(np.abs(drawn - np.round(drawn)) > 1e-9 * drawn) or np.any(drawn < 0.5):
            raise ValueError(f"batch_size: expected whole numbers of examples to draw, got {given}")
        return float(drawn.max(initial=1.0))

    def draw(
        self, xp: Any, h: Any, c: Any, inverse_batch_size: float, distance: Callable[[], Any], generator: Any, runs: int
    ) -> Any:
        if inverse_batch_size == 0.0:
            return super().draw(xp, h, c, inverse_batch_size, distance, generator, runs)
        d, batch = distance(), round(1.0 / inverse_batch_size)
        total = xp.zeros_like(d)
        at_once = max(1, NUMBERS_AT_ONCE // d.size)
        for first in range(0, batch, at_once):
            drawn = min(at_once, batch - first)
            features = xp.sqrt(h) * generator.standard_normal((runs, drawn, h.size))
            residual = xp.einsum("rbn,rn->rb", features, d)
            residual -= math.sqrt(self.label_noise) * generator.standard_normal((runs, drawn))
            total += xp.einsum("rbn,rb->rn", features, residual)
        return total / batch - h * d
