"""What every engine is given: rows of hyperparameters on the nodes of a spectrum, and pieces of schedules."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .._checks import FloatArray, IntArray

LANES = 8
"""Nodes come in multiples of it."""


class Rows(NamedTuple):
    """R rows of hyperparameters on N nodes (a multiple of 8), with P powers and filters of k states.

    One step of a node of curvature h is z' = (A - lr h gain query^T) z + lr h gain eps. High and low parts of
    transition, gain and fresh lie along the axis of length 2: their sum is the number.
    """

    curvature: FloatArray  # (P, N), h^(1-p)
    which: IntArray  # (R,), index of the row's power
    bias: FloatArray  # (N,), multiplicity h init / 2; 0 in padding
    noise: FloatArray  # (N,), multiplicity c / (2 h); 0 in padding
    lr: FloatArray  # (R,)
    transition: FloatArray  # (R, 2, k, k), A
    gain: FloatArray  # (R, 2, k)
    fresh: FloatArray  # (R, 2), 1 - decay where the third state is an average of what the first two read out, else 0
    query: FloatArray  # (k,)
    readout: FloatArray  # (k,); of the first two states where fresh > 0
    start: tuple[float, ...]  # k
    inverse_batch: FloatArray  # (R,)
    scaled: IntArray  # (k,), 1 for states in units of lr; for what follows schedules

    def part(self, rows: slice | IntArray) -> Rows:
        """Some of the rows."""
        return self._replace(
            which=self.which[rows], lr=self.lr[rows], transition=self.transition[rows], gain=self.gain[rows],
            fresh=self.fresh[rows], inverse_batch=self.inverse_batch[rows],
        )  # fmt: skip

    def on_nodes(self, nodes: slice) -> Rows:
        """All rows, on some of the nodes."""
        curvature = np.ascontiguousarray(self.curvature[:, nodes])
        return self._replace(curvature=curvature, bias=self.bias[nodes], noise=self.noise[nodes])

    def in_units(self, largest: float) -> Rows:
        """Learning rates and curvatures scaled by a power of two, so that the largest learning rate, times ``largest``,
        is about 1."""
        exponent = unit_of(float(self.lr.max()) * largest)
        if exponent == 0:
            return self
        with np.errstate(over="ignore"):  # diverges
            return self._replace(lr=np.ldexp(self.lr, -exponent), curvature=np.ldexp(self.curvature, exponent))


def unit_of(largest: float) -> int:
    """The power of two next to the largest learning rate, as far as floats can be scaled by it."""
    return max(-1000, math.frexp(largest)[1]) if 0.0 < largest < math.inf else 0


class Pieces(NamedTuple):
    """J pieces on which neither learning rate nor batch size changes."""

    lr: FloatArray  # (J,), factor of a row's learning rate
    inverse_batch: FloatArray  # (J,), factor of a row's inverse batch size
    lengths: IntArray  # (J,), steps
    column: IntArray  # (J,), where the risk after the piece goes, -1 for nowhere


class Slopes(NamedTuple):
    """A risk and its derivatives."""

    risk: float
    by_log_lr: FloatArray  # (J,)
    by_log_inverse_batch: FloatArray  # (J,), >= 0: the share of the risk that is the noise of each piece
    by_value: FloatArray  # (V,)
