"""One step of a linear optimizer: what a subclass of Optimizer says of itself, as numbers, and as the backends' arrays.

On a coordinate with curvature h, preconditioner h^-p and noise eps a step takes the state z of k numbers to

    z' = A z - lr h^-p gain (h query . z + eps),   theta = readout . z,   z = start theta_0 at step 0.

So M(x) = A - x gain query^T with x = lr h^(1-p).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .._checks import FloatArray
from .._double_double import Pair, one_step
from ..backends.types import MOST_STATES

__all__ = ["MOST_STATES", "PackedStepMap", "StepMap", "as_pair", "one_step", "step", "transition_matrix"]

if TYPE_CHECKING:
    from .base import Optimizer

Entry = Any
"""A number, an array, or a :class:`Pair` of numbers or arrays; they broadcast with each other."""


@dataclass(frozen=True, eq=False)
class StepMap:
    """One step on a coordinate, for hyperparameters that are numbers or broadcast to a common shape.

    An entry that a float64 would round, such as 1 - decay, is best a :class:`Pair`: in t steps the rounding error of
    an entry grows to t times 1e-16 of the risk.

    Args:
        transition: A, the constant part: k rows of k entries.
        gain: how the gradient and its noise enter each state, k entries.
        query: where the gradient is taken, k floats.
        readout: the iterate whose risk is reported, k floats.
        start: the state before the first step in units of theta_0, k floats.
        lr_scaled: k of 0 or 1, 1 for states in units of lr, as a velocity is: where lr changes on the way, what goes on
            is the state divided by lr. Nothing else feeds into such a state but the gradient and others like it.
        averaging_weight, averaged: where the last state is an average, the weight 1 - decay with which it takes in what
            ``averaged`` (k floats) reads out of the others after their step; its row of ``transition`` is then
            (0, ..., 0, decay), and its gain 0.
        iterate_rests_at_zero_lr: whether theta, the first state, stays where it is while lr = 0.
        average_decay: that of an average on top, the last state, where theta rests; 0 without.
    """

    transition: Sequence[Sequence[Entry]]
    gain: Sequence[Entry]
    query: Sequence[float]
    readout: Sequence[float]
    start: tuple[float, ...]
    lr_scaled: tuple[int, ...] = ()
    averaging_weight: Entry = 0.0
    averaged: Sequence[float] | None = None
    iterate_rests_at_zero_lr: bool = False
    average_decay: Entry = 0.0

    @property
    def states(self) -> int:
        """Numbers of the state, k."""
        return len(self.start)

    @property
    def scaled(self) -> tuple[int, ...]:
        """``lr_scaled``, written out."""
        return self.lr_scaled or (0,) * self.states

    @property
    def decay_at_zero_lr(self) -> float | None:
        """For numbers: the decay of the average, while lr = 0 and the iterate rests; None where it does not."""
        return float(self.average_decay) if self.iterate_rests_at_zero_lr else None

    @cached_property
    def packed(self) -> PackedStepMap:
        """The arrays that backends take."""
        k = self.states
        entries = [entry for row in self.transition for entry in row] + [*self.gain, self.averaging_weight]
        parts = [part for e in entries for part in ((e.high, e.low) if isinstance(e, Pair) else (e,))]
        shapes = {part.shape for part in parts if isinstance(part, np.ndarray)}
        shape = shapes.pop() if len(shapes) == 1 else np.broadcast_shapes(*shapes)
        table = np.zeros((*shape, 2, k * k + k + 1))
        for column, entry in enumerate(entries):
            if isinstance(entry, Pair):
                table[..., 0, column], table[..., 1, column] = entry.high, entry.low
            else:
                table[..., 0, column] = entry
        return PackedStepMap(
            table[..., : k * k].reshape(*shape, 2, k, k),
            table[..., k * k : -1],
            table[..., -1],
            np.array(self.query, dtype=float),
            np.array(self.readout if self.averaged is None else self.averaged, dtype=float),
            self.start,
            np.array(self.scaled, dtype=np.int64),
        )


class PackedStepMap(NamedTuple):
    """A :class:`StepMap` for hyperparameters of shape S; high and low parts along the axis of length 2.

    The readout is that of the others where the last state is an average (averaging_weight > 0).
    """

    transition: FloatArray  # (*S, 2, k, k)
    gain: FloatArray  # (*S, 2, k)
    averaging_weight: FloatArray  # (*S, 2)
    query: FloatArray  # (k,)
    readout: FloatArray  # (k,)
    start: tuple[float, ...]
    lr_scaled: Any  # (k,)


def transition_matrix(optimizer: Optimizer, x: ArrayLike) -> FloatArray:
    """M(x) = A - x gain query^T, one step of ``optimizer`` on a coordinate with x = lr h^(1-p).

    ``x`` of shape X gives (*X, k, k), for an optimizer whose hyperparameters other than lr are plain numbers or
    broadcast with X. Its spectral radius is the factor by which the distance to the optimum shrinks per step.

    >>> from nqm import SGD
    >>> transition_matrix(SGD(0.1, momentum=0.5), 0.25)
    array([[ 0.75,  0.5 ],
           [-0.25,  0.5 ]])
    """
    return step(optimizer, x)[0]


def step(optimizer: Optimizer, curvature: ArrayLike, lr: float = 1.0) -> tuple[FloatArray, FloatArray]:
    """(M, b) of one step z' = M z - b eps for preconditioned curvatures h^(1-p): shapes (*X, k, k) and (*X, k).

    States that scale with lr are in units of lr, so that z goes on as it is when lr changes; at lr = 1 they are what
    they are anywhere, and M is that of x = h^(1-p).
    """
    parts = optimizer.map_at(optimizer.hyperparameters)
    weight, averaged = _high(parts.averaging_weight), parts.averaged
    matrix, kick = one_step(
        [[_high(entry) for entry in row] for row in parts.transition],
        [_high(entry) for entry in parts.gain],
        parts.query,
        parts.scaled,
        lr,
        np.asarray(curvature, dtype=float),
        None if averaged is None else (weight, averaged),
    )
    k = parts.states
    stacked = np.broadcast_arrays(np.asarray(curvature), *(entry for row in matrix for entry in row), *kick)[1:]
    found = np.stack(stacked, axis=-1).astype(float)
    return found[..., : k * k].reshape(*found.shape[:-1], k, k), found[..., k * k :]


def as_pair(entry: Entry) -> Pair:
    return entry if isinstance(entry, Pair) else Pair(entry)


def _high(entry: Entry) -> Any:
    return entry.high if isinstance(entry, Pair) else entry
