"""What backends are given: rows of hyperparameters on the nodes of a spectrum, and words of step maps."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .._checks import FloatArray, IntArray

__all__ = ["LANES", "MOST_STATES", "FilterBatch", "MomentRecursion", "RiskGradient", "Word", "unit_of"]

LANES = 8
"""Nodes come in multiples of it."""

MOST_STATES = 8
"""State variables of an optimizer."""


class FilterBatch(NamedTuple):
    """R rows of hyperparameters on N nodes, with P powers, L step maps per row and filters of k states.

    One step of a node of curvature h is z' = (A - lr h gain query^T) z + lr h gain eps. High and low parts of
    transition, gain and averaging_weight lie along the axis of length 2: their sum is the number. Runs in which nothing
    changes use the first step map.
    """

    curvature: FloatArray  # (P, N), h^(1-p)
    power_index: IntArray  # (R,), of the row's power
    start_weight: FloatArray  # (N,), multiplicity h init / 2; 0 in padding
    noise_weight: FloatArray  # (N,), multiplicity c / (2 h); 0 in padding
    lr: FloatArray  # (R,)
    transition: FloatArray  # (R, L, 2, k, k), A
    gain: FloatArray  # (R, L, 2, k)
    averaging_weight: FloatArray  # (R, L, 2), 1 - decay where the last state averages what the others read out, else 0
    query: FloatArray  # (k,)
    readout: FloatArray  # (k,); of all states but the last where there is an average
    start: tuple[float, ...]  # k
    inverse_batch_size: FloatArray  # (R,)
    lr_scaled: IntArray  # (k,), 1 for states in units of lr: they go on as they are, in these units, when lr changes

    @property
    def averages(self) -> bool:
        """Whether the risk is that of an average, the last of three states or more."""
        return len(self.start) > 2 and bool(np.any(self.averaging_weight[:, :, 0] > 0.0))

    def part(self, rows: slice | IntArray) -> FilterBatch:
        """Some of the rows."""
        return self._replace(
            power_index=self.power_index[rows], lr=self.lr[rows], transition=self.transition[rows],
            gain=self.gain[rows], averaging_weight=self.averaging_weight[rows],
            inverse_batch_size=self.inverse_batch_size[rows],
        )  # fmt: skip

    def on_nodes(self, nodes: slice) -> FilterBatch:
        """All rows, on some of the nodes."""
        curvature = np.ascontiguousarray(self.curvature[:, nodes])
        return self._replace(
            curvature=curvature, start_weight=self.start_weight[nodes], noise_weight=self.noise_weight[nodes]
        )

    def in_units(self, largest: float) -> FilterBatch:
        """Learning rates and curvatures scaled by a power of two, so that the largest learning rate, times ``largest``,
        is about 1."""
        exponent = unit_of(float(self.lr.max()) * largest)
        if exponent == 0:
            return self
        with np.errstate(over="ignore"):  # diverges
            return self._replace(lr=np.ldexp(self.lr, -exponent), curvature=np.ldexp(self.curvature, exponent))

    def letter(self, word: Word, at: int) -> FilterBatch:
        """The batch whose first step map, learning rate and batch size are those of a letter."""
        batch = self if self.transition.shape[1] == 1 else self._with_map(int(word.map[at]))
        inverse_batch_size = self.inverse_batch_size * word.inverse_batch_size[at]
        return batch._replace(lr=self.lr * word.lr[at], inverse_batch_size=inverse_batch_size)

    def _with_map(self, m: int) -> FilterBatch:
        """The batch with one of its step maps as the only one."""
        only = slice(m, m + 1)
        weight = np.ascontiguousarray(self.averaging_weight[:, only])
        readout = self.readout
        if self.averages and not np.any(weight[:, :, 0] > 0.0):  # an average that stays as it is, or is written out
            readout = np.eye(len(self.start))[-1]
        transition, gain = (np.ascontiguousarray(part[:, only]) for part in (self.transition, self.gain))
        return self._replace(transition=transition, gain=gain, averaging_weight=weight, readout=readout)


def unit_of(largest: float) -> int:
    """The power of two next to the largest learning rate, as far as floats can be scaled by it."""
    return max(-1000, math.frexp(largest)[1]) if 0.0 < largest < math.inf else 0


class Word(NamedTuple):
    """J letters, taken one after the other: each is one step map, repeated at one learning rate and batch size."""

    map: IntArray  # (J,), which of a row's step maps
    lr: FloatArray  # (J,), factor of a row's learning rate
    inverse_batch_size: FloatArray  # (J,), factor of a row's inverse batch size
    repeat: IntArray  # (J,), steps
    output_column: IntArray  # (J,), where the risk after the letter goes, -1 for nowhere

    def part(self, letters: slice) -> Word:
        """Some of the letters."""
        columns = (self.lr[letters], self.inverse_batch_size[letters], self.repeat[letters])
        return Word(self.map[letters], *columns, self.output_column[letters])


class RiskGradient(NamedTuple):
    """A risk and its derivatives."""

    risk: float
    by_log_lr: FloatArray  # (J,)
    by_log_inverse_batch_size: FloatArray  # (J,), >= 0: what the noise of each letter adds to the risk
    by_value: FloatArray  # (V,)


class MomentRecursion(NamedTuple):
    """Steps y' = y - decay y + kick (label_noise + sum level y) of second moments, with noise that grows with the loss.

    s moments on N nodes; the risk is the sum of readout . y over the nodes.
    """

    decay: FloatArray  # (s, s, N)
    kick: FloatArray  # (s, N)
    level: FloatArray  # (s,)
    label_noise: float
    readout: FloatArray  # (s,)
