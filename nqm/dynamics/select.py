"""Which dynamics a problem has under an optimizer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..optimizers import Optimizer
from ..problems.quadratic import NoisyQuadratic
from .additive import Additive
from .base import Dynamics
from .gaussian_features import GaussianFeatures


def dynamics_of(problem: NoisyQuadratic, optimizer: Optimizer, batch_size: Any = 1.0) -> Dynamics:
    """How second moments evolve on a problem under an optimizer, where all rows have finite batches, or none.

    Batches without end have no noise that could grow: then all noise models are one.
    """
    if problem.label_noise is None:
        return Additive(problem, optimizer)
    if np.all(np.isinf(batch_size)):
        return Additive(problem._additive(), optimizer)
    return GaussianFeatures(problem, optimizer)


def dynamics_of_rows(
    problem: NoisyQuadratic, optimizer: Optimizer, batch_size: Any
) -> Iterator[tuple[Dynamics, slice | np.ndarray[Any, Any]]]:
    """(dynamics, rows) for batch sizes (R,), of which some may be infinite."""
    infinite = np.isinf(batch_size)
    if problem.label_noise is None or infinite.all() or not infinite.any():
        yield dynamics_of(problem, optimizer, batch_size), slice(None)
        return
    for rows in (np.flatnonzero(~infinite), np.flatnonzero(infinite)):
        yield dynamics_of(problem, optimizer, batch_size[rows]), rows
