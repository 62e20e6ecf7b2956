"""What decisions need of a fit, and how far outside its data they lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import ArrayLike

from ..._checks import FloatArray

__all__ = ["FAR", "Fit", "far_beyond", "times_beyond"]

FAR: Final = 10.0  # how many times beyond the data answers warn


class Fit(Protocol):
    """A loss L(N, B, K) that was fitted to ``runs``: N parameters, K steps of B examples.

    runs: N, B, K (and loss), arrays of equal length.
    """

    runs: Mapping[str, FloatArray]

    def losses(self, N: ArrayLike, B: ArrayLike, K: ArrayLike, draws: int | None = None) -> FloatArray:
        """(draws + 1, ...): the prediction, then that of each of the first ``draws`` bootstrap draws (None: all).

        Expected losses: without a run's own residual, and without checks or warnings.
        """
        raise NotImplementedError


def times_beyond(seen: FloatArray, asked: Any) -> FloatArray:
    """How many times numbers (or arrays) lie beyond those that were seen, either way; at most 1: among them."""
    return np.maximum(asked / seen.max(), seen.min() / asked)


def far_beyond(seen: Mapping[str, FloatArray], asked: Mapping[str, Any]) -> dict[str, float]:
    """Of the quantities asked for, those that lie more than :data:`FAR` times beyond what was seen, and how far."""
    times = {name: float(np.max(times_beyond(seen[name], values))) for name, values in asked.items()}
    return {name: far for name, far in times.items() if far > FAR}
