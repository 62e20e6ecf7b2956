"""The noisy quadratic: curvatures, gradient noise, start."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import _checks, spectra
from ._checks import FloatArray
from .spectra import Nodes, Spectrum


class NoisyQuadratic:
    """A quadratic loss 1/2 sum_i h_i theta_i^2 whose gradient comes with noise of variance c_i / batch size.

    E[loss] = 1/2 sum_i multiplicity_i h_i E[theta_i^2] (zhang2019 eq. 1); every coordinate evolves on its own.

    Args:
        curvature: h > 0, one entry a node (a number or a 1-D array).
        noise: c >= 0, variance of a single example's gradient; None means C = H.
        init: E[theta_0^2] >= 0 of each coordinate.
        multiplicity: how many coordinates share the node, > 0; need not be whole.

    Attributes ``curvature``, ``noise``, ``init``, ``multiplicity`` are read-only float64 arrays of shape (nodes,).

    Raises:
        TypeError, ValueError: for what is not a finite number in range, or lengths that differ.

    >>> problem = NoisyQuadratic([1.0, 0.1], noise=0.5)
    >>> problem
    NoisyQuadratic(dim=2, nodes=2, curvature 0.1 to 1)
    >>> problem.initial_risk
    0.55
    """

    curvature: FloatArray
    noise: FloatArray
    init: FloatArray
    multiplicity: FloatArray

    def __init__(
        self,
        curvature: ArrayLike,
        noise: ArrayLike | None = None,
        init: ArrayLike = 1.0,
        multiplicity: ArrayLike = 1.0,
    ) -> None:
        h = _checks.reals(curvature, "curvature", low=0.0, ndim=1)
        c = h if noise is None else _checks.reals(noise, "noise", low=0.0, closed="low", ndim=1)
        s = _checks.reals(init, "init", low=0.0, closed="low", ndim=1)
        m = _checks.reals(multiplicity, "multiplicity", low=0.0, ndim=1)
        shape = _checks.broadcast(curvature=h.shape, noise=c.shape, init=s.shape, multiplicity=m.shape)
        nodes = Nodes(*(np.array(np.broadcast_to(a, shape or (1,))) for a in (h, c, s, m)))
        with np.errstate(over="ignore"):
            if not np.all(
                np.isfinite(nodes.multiplicity * (nodes.noise / nodes.curvature + nodes.curvature * nodes.init))
            ):
                raise ValueError(
                    "expected numbers whose multiplicity * noise / curvature and multiplicity * curvature * init are "
                    "finite in float64, got an overflow"
                )
        self._set(nodes, None, 0, float(nodes.multiplicity.sum()))

    def _set(self, nodes: Nodes, spectrum: Spectrum | None, level: int, dim: float) -> None:
        for name, array in zip(Nodes._fields, nodes, strict=True):
            array.flags.writeable = False
            setattr(self, name, array)
        self._spectrum, self._level, self._dim = spectrum, level, dim
        self._next: NoisyQuadratic | None = None
        self._prepared: dict[Any, Any] = {}  # what _backend makes of the nodes

    @classmethod
    def _from_spectrum(cls, spectrum: Spectrum, level: int, dim: float) -> NoisyQuadratic | None:
        nodes = spectrum.nodes(level)
        if nodes is None:
            return None
        problem = cls.__new__(cls)
        problem._set(nodes, spectrum, level, dim)
        return problem

    @classmethod
    def power_law(cls, dim: int = 10_000, exponent: float = 1.0) -> NoisyQuadratic:
        """h_i = i^-exponent for i = 1 ... dim (at most 10^12), C = H, unit start: the problem of zhang2019,
        section 3.5.

        The nodes are a Gauss rule (:mod:`nqm.spectra`), about 8 for each doubling of the index. Every function that
        takes a problem refines the rule until the answer is the explicit sum's to 1e-8 or better.

        >>> NoisyQuadratic.power_law(10**12).dim
        1000000000000
        """
        d = _checks.whole(dim, "dim", low=1, high=10**12)
        a = _checks.real(exponent, "exponent", low=0.0)
        if d > 1 and a * np.log10(d) > 300.0:
            raise ValueError(f"expected dim^-exponent of at least 1e-300, got dim {d} and exponent {a:g}")
        problem = cls._from_spectrum(spectra.PowerLaw(d, a), 0, d)
        assert problem is not None
        return problem

    @property
    def dim(self) -> float:
        """Number of coordinates: the sum of the multiplicities, an int where it is whole."""
        return int(self._dim) if self._dim == int(self._dim) else self._dim

    @property
    def condition_number(self) -> float:
        """Largest over smallest curvature."""
        largest, smallest = self._extremes()
        return largest / smallest

    @property
    def initial_risk(self) -> float:
        """Risk before the first step, 1/2 sum multiplicity h init, in units of loss."""
        return float(0.5 * np.sum(self.multiplicity * self.curvature * self.init))

    def binned(self, bins: int = 100) -> NoisyQuadratic:
        """The spectrum quantised as Zhang et al. do it: each eigenvalue goes down to the next of ``bins``
        geometric edges.

        For comparison with their figures; it changes the risk by up to 17% (:func:`nqm.spectra.binned`).

        >>> NoisyQuadratic.power_law(10_000).binned(100).curvature.size
        84
        """
        count = _checks.whole(bins, "bins", low=2, high=10**7)
        return self._replaced(self._ladder().binned(count))

    def compressed(self, rtol: float = 1e-9) -> NoisyQuadratic:
        """Few Gauss nodes that integrate the same spectrum, for a relative error of the risk of about ``rtol``.

        The problem remembers the spectrum it came from, and results are refined until they agree with it to 1e-8.
        """
        points = spectra.points_for(_checks.real(rtol, "rtol", low=1e-14, high=1.0, closed="low"))
        ladder = self._ladder()
        finer: Spectrum = (
            spectra.PowerLaw(ladder.dim, ladder.exponent, points)
            if isinstance(ladder, spectra.PowerLaw)
            else spectra.Measured(ladder.explicit(), points)
        )
        return self._from_spectrum(finer, 0, self._dim) or self

    def _finer(self) -> NoisyQuadratic | None:
        """The same problem on the next finer rule; None where this one is exact or can't be refined."""
        if self._spectrum is not None and self._next is None:
            self._next = self._from_spectrum(self._spectrum, self._level + 1, self._dim)
        return self._next

    def _is_exact(self) -> bool:
        """Whether the nodes are all eigenvalues, so that no finer rule is needed."""
        return self._spectrum is None or self._spectrum._size() == self.curvature.size

    def _ladder(self) -> Spectrum:
        return self._spectrum or spectra.Measured(Nodes(self.curvature, self.noise, self.init, self.multiplicity))

    def _explicit(self) -> NoisyQuadratic:
        """All coordinates as nodes; a ValueError where they are too many to list."""
        if self._is_exact():
            return self
        ladder = self._ladder()
        if ladder._size() > spectra.EXPLICIT_LIMIT:
            raise ValueError(
                f"problem: expected one of at most {spectra.EXPLICIT_LIMIT} eigenvalues, got dim {self.dim:.4g}"
            )
        return self._replaced(ladder.explicit())

    def _extremes(self) -> tuple[float, float]:
        if "extremes" not in self._prepared:
            self._prepared["extremes"] = self._ladder().extremes()
        largest, smallest = self._prepared["extremes"]
        return largest, smallest

    def _replaced(self, nodes: Nodes) -> NoisyQuadratic:
        problem = type(self).__new__(type(self))
        problem._set(nodes, None, 0, float(nodes.multiplicity.sum()))
        return problem

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_next": None, "_prepared": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for name in Nodes._fields:
            getattr(self, name).flags.writeable = False

    def __repr__(self) -> str:
        largest, smallest = self._extremes()
        return (
            f"NoisyQuadratic(dim={self.dim:g}, nodes={self.curvature.size}, curvature {smallest:.4g} to {largest:.4g})"
        )
