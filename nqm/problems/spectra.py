"""Spectra: power laws of any dimension, quantised bins, and Gauss quadrature of a spectrum.

The risk is a sum over eigenvalues of a function that is smooth in log h. Cut the spectrum into windows within which
h changes by about a factor of two, and give each window the Gauss nodes of its own discrete measure: K nodes
sum every polynomial of degree 2K - 1 over the window exactly. Measured on plain SGD over all learning rates, batch
sizes and steps up to 10^9 at d = 10^4, h = 1/i: K = 6 gives 2e-8, K = 8 gives 1e-11, K = 10 gives 1e-14.
Long underdamped momentum oscillates in h and needs finer windows, so a spectrum is a ladder of rules:
``nodes(0)`` is the cheapest, each further level is finer, and the last is the explicit sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .._checks import FloatArray
from .quadrature import index_rule, window_rule

__all__ = ["EXPLICIT_LIMIT", "Measured", "Nodes", "PowerLaw", "Spectrum", "binned", "points_for"]

EXPLICIT_LIMIT = 2**22
"""Most nodes a rule may have; larger spectra are never summed one by one."""


class Nodes(NamedTuple):
    """Arrays of equal length: a spectrum in which ``multiplicity`` coordinates share each node."""

    curvature: FloatArray
    noise: FloatArray
    init: FloatArray
    multiplicity: FloatArray


def points_for(rtol: float) -> int:
    """Gauss nodes per window for a relative error ``rtol`` of the risk of non-oscillating optimizers."""
    return max(3, math.ceil((2.0 - math.log10(rtol)) / 1.5))


class Spectrum:
    """A ladder of rules for one spectrum; subclasses say how large it is and how to cut it."""

    points: int

    def nodes(self, level: int) -> Nodes | None:
        """The rule of this level; None beyond the explicit sum, or where that would exceed EXPLICIT_LIMIT."""
        if level > 0 and self._is_summed(level - 1):
            return None
        if not self._is_summed(level):
            return self._rule(*self._resolution(level))
        return self.explicit() if self._size() <= EXPLICIT_LIMIT else None

    def _resolution(self, level: int) -> tuple[int, int]:
        """(Gauss points per piece, pieces per octave): more points first, they gain more; then finer pieces."""
        return self.points * 2 ** min(level, 2), 2 ** max(level - 2, 0)

    def _is_summed(self, level: int) -> bool:
        points, pieces = self._resolution(level)
        return 2.0 * points * pieces * self._octaves() >= min(self._size(), EXPLICIT_LIMIT)

    def _size(self) -> int:
        raise NotImplementedError

    def _octaves(self) -> float:
        raise NotImplementedError

    def _rule(self, points: int, pieces: int) -> Nodes:
        raise NotImplementedError

    def explicit(self) -> Nodes:
        """Every eigenvalue is a node."""
        raise NotImplementedError

    def extremes(self) -> tuple[float, float]:
        """Largest and smallest eigenvalue."""
        raise NotImplementedError

    def binned(self, bins: int) -> Nodes:
        return binned(self.explicit(), bins)


@dataclass(frozen=True)
class PowerLaw(Spectrum):
    """h_i = i^-exponent, i = 1 ... dim, with C = H and unit start.

    Windows hold the indices 2^j ... 2^(j+1) - 1. The counting measure on N integers has closed-form orthogonal
    polynomials (discrete Chebyshev, or Gram, polynomials), so a window costs the same at N = 20 and N = 10^12.
    """

    dim: int
    exponent: float
    points: int = 8

    def _size(self) -> int:
        return self.dim

    def _octaves(self) -> float:
        return math.log2(self.dim + 1)

    def _rule(self, points: int, pieces: int) -> Nodes:
        index, weight = index_rule(self.dim, points, pieces)
        return self._at(index, weight)

    def explicit(self) -> Nodes:
        index = np.arange(1.0, self.dim + 1.0)
        return self._at(index, np.ones_like(index))

    def _at(self, index: FloatArray, weight: FloatArray) -> Nodes:
        curvature = index**-self.exponent
        return Nodes(curvature, curvature, np.ones_like(curvature), weight)

    def extremes(self) -> tuple[float, float]:
        return 1.0, float(self.dim) ** -self.exponent

    def binned(self, bins: int) -> Nodes:
        """Counts by the closed form where the eigenvalues are too many: h_i >= e for i up to e^(-1/exponent)."""
        if self.dim <= EXPLICIT_LIMIT:
            return super().binned(bins)
        edges = np.geomspace(self.extremes()[1], self.extremes()[0], bins)
        reaching = np.floor(edges ** (-1.0 / self.exponent))
        reaching[0], reaching[-1] = self.dim, 1.0
        counts = -np.diff(reaching, append=0.0)
        kept = counts > 0
        return Nodes(edges[kept], edges[kept], np.ones(kept.sum()), counts[kept])


@dataclass(frozen=True, eq=False)
class Measured(Spectrum):
    """Any explicit nodes, such as a measured spectrum; windows are octaves of h."""

    source: Nodes
    points: int = 8

    def _size(self) -> int:
        return self.source.curvature.size

    def _octaves(self) -> float:
        largest, smallest = self.extremes()
        return math.log2(largest / smallest) + 1.0

    def explicit(self) -> Nodes:
        return self.source

    def extremes(self) -> tuple[float, float]:
        return float(self.source.curvature.max()), float(self.source.curvature.min())

    def _rule(self, points: int, pieces: int) -> Nodes:
        """One rule for the start and one for the noise, or a single one where both are proportional."""
        h, noise, init, multiplicity = self.source
        ratio = noise / h
        if np.ptp(ratio) <= 1e-12 * ratio.max() and np.ptp(init) <= 1e-12 * init.max():
            node, weight = window_rule(h, multiplicity, points, pieces)
            return Nodes(node, ratio[0] * node, np.full_like(node, init[0]), weight)
        starts, of_start = window_rule(h, multiplicity * init, points, pieces)
        noises, of_noise = window_rule(h, multiplicity * ratio, points, pieces)
        return Nodes(
            np.concatenate([starts, noises]),
            np.concatenate([np.zeros_like(starts), noises]),
            np.concatenate([np.ones_like(starts), np.zeros_like(noises)]),
            np.concatenate([of_start, of_noise]),
        )


def binned(nodes: Nodes, bins: int) -> Nodes:
    """Quantise as Zhang et al. do: every eigenvalue goes down to the next of ``bins`` geometric edges.

    The edges run from the smallest to the largest eigenvalue, both included. Multiplicities add up; init and
    noise / curvature of a bin are the averages of its members. Edges that receive nothing are left out.
    """
    h = nodes.curvature
    edges = np.geomspace(h.min(), h.max(), bins) if h.min() < h.max() else np.array([h.min()])
    edges[0], edges[-1] = h.min(), h.max()
    place = np.clip(np.searchsorted(edges, h, side="right") - 1, 0, edges.size - 1)

    def collect(weights: FloatArray) -> FloatArray:
        return np.asarray(np.bincount(place, weights, edges.size), dtype=np.float64)

    count = collect(nodes.multiplicity)
    kept = count > 0
    count = count[kept]
    init = collect(nodes.multiplicity * nodes.init)[kept] / count
    ratio = collect(nodes.multiplicity * (nodes.noise / h))[kept] / count
    return Nodes(edges[kept], ratio * edges[kept], init, count)
