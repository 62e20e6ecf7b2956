"""Which dynamics a problem has under an optimizer."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..optimizers import Optimizer
from ..problems.quadratic import NoisyQuadratic
from .additive import Additive
from .base import Dynamics
from .gaussian_features import GaussianFeatures

__all__ = ["dynamics_of", "dynamics_of_rows"]


def dynamics_of(problem: NoisyQuadratic, optimizer: Optimizer, noiseless: bool = False) -> Dynamics:
    """How second moments evolve on a problem under an optimizer.

    ``noiseless``: batches without end have no noise that could grow, so that all noise models are one.
    """
    if problem.label_noise is None:
        return Additive(problem, optimizer)
    return Additive(problem._additive(), optimizer) if noiseless else GaussianFeatures(problem, optimizer)


def dynamics_of_rows(
    problem: NoisyQuadratic, optimizer: Optimizer, noiseless: NDArray[np.bool_]
) -> Iterator[tuple[Dynamics, slice | NDArray[np.int64]]]:
    """(dynamics, rows) for rows of which some may be ``noiseless`` (R,)."""
    if problem.label_noise is None or not noiseless.any():
        yield dynamics_of(problem, optimizer), slice(None)
        return
    for kind in np.unique(noiseless):
        yield dynamics_of(problem, optimizer, bool(kind)), np.flatnonzero(noiseless == kind)
