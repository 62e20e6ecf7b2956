"""Bring your own step map, as matrices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, overload

import numpy as np
from numpy.typing import ArrayLike

from .. import _checks
from .._checks import FloatArray
from ..schedules import Schedule
from .base import Number, Numbers, Optimizer, Value, shown
from .hyperparameter import LR
from .stability import long_run_noise
from .step_map import MOST_STATES, StepMap

__all__ = ["LinearOptimizer"]


@dataclass(frozen=True, eq=False, repr=False)
class LinearOptimizer(Optimizer[Value]):
    """Bring your own step map: any optimizer that is linear in its state and takes one gradient per step.

        z' = transition z - lr gain g,   g = h (query . z) + noise,   theta = readout . z,   z = start theta_0

    Args:
        lr: learning rate > 0, number, array, :class:`nqm.Schedule` or ``nqm.FREE``. Changes of a schedule leave z as it
            is; a state that should follow the learning rate has to be written in units of it.
        transition: (k, k) matrix A, k = 1, 2 ... 8.
        gain: (k,), how the gradient enters each state.
        query: (k,), where the gradient is taken; default: the first state.
        readout: (k,), the iterate whose risk is reported; default: the first state.
        start: (k,), the state before the first step in units of theta_0; default: 1 in the first state.

    Gradient descent with heavy-ball momentum 0.9, state (theta, velocity):

    >>> LinearOptimizer(0.1, transition=[[1, 0.9], [0, 0.9]], gain=[1, 1])
    LinearOptimizer(lr=0.1, k=2)
    """

    lr: Any
    transition: Any
    gain: Any
    query: Any = None
    readout: Any = None
    start: Any = None
    declared: ClassVar = (LR,)

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: LinearOptimizer[float], lr: Number | Schedule, transition: ArrayLike, gain: ArrayLike,
            query: ArrayLike | None = None, readout: ArrayLike | None = None, start: ArrayLike | None = None,
        ) -> None: ...  # fmt: skip
        @overload
        def __init__(
            self: LinearOptimizer[FloatArray], lr: Numbers | Schedule, transition: ArrayLike, gain: ArrayLike,
            query: ArrayLike | None = None, readout: ArrayLike | None = None, start: ArrayLike | None = None,
        ) -> None: ...  # fmt: skip
        def __init__(
            self, lr: Any, transition: Any, gain: Any, query: Any = None, readout: Any = None, start: Any = None
        ) -> None: ...

    def __post_init__(self) -> None:
        super().__post_init__()
        matrix = _checks.reals(self.transition, "transition")
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not 1 <= len(matrix) <= MOST_STATES:
            raise ValueError(
                f"transition: expected a (k, k) matrix with k = 1, 2 ... {MOST_STATES}, got shape {matrix.shape}"
            )
        first = np.eye(len(matrix))[0]
        for name in ("gain", "query", "readout", "start"):
            given = getattr(self, name)
            vector = first.copy() if given is None and name != "gain" else _checks.reals(given, name)
            if vector.shape != first.shape:
                raise ValueError(f"{name}: expected a vector of length {len(first)}, got shape {vector.shape}")
            vector.flags.writeable = False
            object.__setattr__(self, name, vector)
        matrix.flags.writeable = False
        object.__setattr__(self, "transition", matrix)

    def __repr__(self) -> str:
        return f"LinearOptimizer(lr={shown(self.lr)}, k={len(self.transition)})"

    @property
    def states(self) -> int:
        return len(self.transition)

    def step_map(self, values: Mapping[str, Any]) -> StepMap:
        """As given; but where the readout of two states goes its own way (r^T M is a multiple of r^T), by itself.

        The kernels' coordinates for two states are r . z and how it changes, which would then be only one.
        """
        a, b, q, r, s = self.transition, self.gain, self.query, self.readout, self.start
        if len(a) == 2:
            image, taken = r @ a, float(r @ b)
            alone = image[0] * r[1] == image[1] * r[0] and taken * q[0] * r[1] == taken * q[1] * r[0]
            if alone and np.any(r):
                i = int(np.argmax(np.abs(r)))
                return StepMap([[image[i] / r[i]]], [taken], [q[i] / r[i]], [1.0], (float(r @ s),))
        return StepMap(a, b, q, r, tuple(float(x) for x in s))

    def stability_limit(self, values: Mapping[str, Any] | None = None) -> float:
        """Where the spectral radius of M(x) first reaches 1, found on a grid over 16 decades and by bisection."""
        if "_limit" not in self.__dict__:  # thousands of matrices
            object.__setattr__(self, "_limit", self._first_unstable())
        limit: float = self.__dict__["_limit"]
        return limit

    def _first_unstable(self) -> float:
        def stable(x: float) -> bool:
            return _spectral_radius(self.transition - x * np.outer(self.gain, self.query)) < 1.0

        grid = np.geomspace(1e-8, 1e8, 1601)
        unstable = next((i for i, x in enumerate(grid) if not stable(x)), None)
        if unstable is None:
            return float("inf")
        low, high = (grid[unstable - 1] if unstable else 0.0), grid[unstable]
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if stable(middle) else (low, middle)
        return float(low)

    def noise_gain(self, x: FloatArray, values: Mapping[str, Any] | None = None) -> FloatArray:
        """From a linear system for each x."""
        return long_run_noise(self.transition, self.gain, self.query, x, self.stability_limit(values))


def _spectral_radius(matrix: FloatArray) -> float:
    return float(np.abs(np.linalg.eigvals(matrix)).max())
