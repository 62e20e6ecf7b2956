"""The noisy quadratic: curvatures, gradient noise, start."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import _checks
from .._checks import FloatArray
from . import spectra
from .spectra import Nodes, Spectrum

__all__ = ["NoisyQuadratic"]

ADDITIVE, GAUSSIAN_FEATURES = "additive", "gaussian-features"


class NoisyQuadratic:
    """A quadratic loss 1/2 sum_i h_i theta_i^2 whose gradient comes with noise.

    E[loss] = 1/2 sum_i multiplicity_i h_i E[theta_i^2] (zhang2019 eq. 1).

    noise_model="additive": noise of variance c_i / batch size, wherever theta is; every coordinate evolves on its own.

    noise_model="gaussian-features": the noise of least-squares regression on Gaussian features with covariance H,
    labels x . theta_* + N(0, label_noise). With d = theta - theta_*, one example's gradient x (x . d - label noise) has
    covariance

        H (label_noise + 2 L) + H d d^T H,   L = 1/2 d^T H d,

    so noise grows with the loss, coordinates feel each other through L, and stability depends on the batch size. The
    risk is L, that is, without the label_noise / 2 nobody can learn.

    Args:
        curvature: h > 0, one entry per node (a number or a 1-D array).
        noise: c >= 0, variance of a single example's gradient; None means C = H. Not with Gaussian features.
        init: E[theta_0^2] >= 0 of each coordinate.
        multiplicity: how many coordinates share the node, > 0; need not be whole.
        noise_model: "additive" or "gaussian-features".
        label_noise: variance >= 0 of the labels' noise, with Gaussian features only (and then needed).

    Attributes ``curvature``, ``noise`` (at the optimum), ``init``, ``multiplicity`` are read-only float64 arrays of
    shape (nodes,); ``noise_model`` and ``label_noise`` (None if additive) are as given.

    Raises:
        TypeError, ValueError: for what is not a finite number in range, or lengths that differ.

    >>> problem = NoisyQuadratic([1.0, 0.1], noise=0.5)
    >>> problem
    NoisyQuadratic(dim=2, nodes=2, curvature 0.1 to 1)
    >>> problem.initial_risk
    0.55
    >>> NoisyQuadratic([1.0, 0.1], noise_model="gaussian-features", label_noise=0.5).noise
    array([0.5 , 0.05])
    """

    curvature: FloatArray
    noise: FloatArray
    init: FloatArray
    multiplicity: FloatArray
    noise_model: str
    label_noise: float | None

    def __init__(
        self,
        curvature: ArrayLike,
        noise: ArrayLike | None = None,
        init: ArrayLike = 1.0,
        multiplicity: ArrayLike = 1.0,
        noise_model: str = ADDITIVE,
        label_noise: float | None = None,
    ) -> None:
        h = _checks.reals(curvature, "curvature", low=0.0, ndim=1)
        c = h if noise is None else _checks.reals(noise, "noise", low=0.0, closed="low", ndim=1)
        s = _checks.reals(init, "init", low=0.0, closed="low", ndim=1)
        m = _checks.reals(multiplicity, "multiplicity", low=0.0, ndim=1)
        labels = _checked_model(noise_model, label_noise, noise)
        shape = _checks.broadcast(curvature=h.shape, noise=c.shape, init=s.shape, multiplicity=m.shape)
        nodes = Nodes(*(np.array(np.broadcast_to(a, shape or (1,))) for a in (h, c, s, m)))
        _require_finite(nodes, labels)
        self._set(nodes, None, 0, float(nodes.multiplicity.sum()), labels)

    def _set(self, nodes: Nodes, spectrum: Spectrum | None, level: int, dim: float, label_noise: float | None) -> None:
        self._nodes = nodes  # their noise is that of a unit of label noise, with Gaussian features
        self.noise_model = ADDITIVE if label_noise is None else GAUSSIAN_FEATURES
        self.label_noise = label_noise
        shown = nodes if label_noise is None else nodes._replace(noise=label_noise * nodes.noise)
        for name, array in zip(Nodes._fields, shown, strict=True):
            array.flags.writeable = False
            setattr(self, name, array)
        self._spectrum, self._level, self._dim = spectrum, level, dim
        self._next: NoisyQuadratic | None = None
        self._prepared: dict[Any, Any] = {}  # what others make of the nodes

    @classmethod
    def _made(
        cls, nodes: Nodes | None, spectrum: Spectrum | None, level: int, dim: float, label_noise: float | None
    ) -> NoisyQuadratic:
        problem = cls.__new__(cls)
        assert nodes is not None
        problem._set(nodes, spectrum, level, dim, label_noise)
        return problem

    @classmethod
    def power_law(
        cls,
        dim: int = 10_000,
        exponent: float = 1.0,
        noise_model: str = ADDITIVE,
        label_noise: float | None = None,
    ) -> NoisyQuadratic:
        """h_i = i^-exponent for i = 1 ... dim (at most 10^12), C = H, unit start: the problem of zhang2019,
        section 3.5. Or, with noise_model="gaussian-features", linear regression with this feature covariance.

        The nodes are a Gauss rule (:mod:`nqm.problems.spectra`), about 8 for each doubling of the index. Every function
        that takes a problem refines the rule until the answer is the explicit sum's to 1e-8 or better.

        >>> NoisyQuadratic.power_law(10**12).dim
        1000000000000
        """
        d = _checks.whole(dim, "dim", low=1, high=10**12)
        a = _checks.real(exponent, "exponent", low=0.0)
        if d > 1 and a * np.log10(d) > 300.0:
            raise ValueError(f"expected dim^-exponent of at least 1e-300, got dim {d} and exponent {a:g}")
        labels = _checked_model(noise_model, label_noise, None)
        law = spectra.PowerLaw(d, a)
        return cls._made(law.nodes(0), law, 0, d, labels)

    @classmethod
    def from_matrices(
        cls,
        hessian: ArrayLike,
        covariance: ArrayLike | None,
        start: ArrayLike,
        preconditioner: ArrayLike | None = None,
        noise_model: str = ADDITIVE,
        label_noise: float | None = None,
    ) -> NoisyQuadratic:
        """Loss 1/2 theta^T A theta with gradient noise of any covariance S, not codiagonal with A, divided by B.

        The noise C xi of wen2020 eq. 2, with xi ~ N(0, I), has S = C C^T. Exact for every linear optimizer: in the
        eigenbasis A = V diag(h) V^T the state of a coordinate, z_i, follows z_i' = M(h_i) z_i + b eps_i. Its second
        moment needs E[eps_i^2] = (V^T S V)_ii alone; the off-diagonal entries of V^T S V enter E[z_i z_j], which the
        risk 1/2 sum h_i E[theta_i^2] does not read. That holds for momentum, Nesterov and EMA, which are such filters,
        and along schedules. It fails for what mixes coordinates: a preconditioner that does not commute with A.
        That is what ``preconditioner`` is for: theta' = theta - lr P^-1 (A theta + noise) is plain descent for
        P^1/2 theta, with Hessian P^-1/2 A P^-1/2, covariance P^-1/2 S P^-1/2 and the same loss. It comes from the
        generalised eigenproblem A v = h P v with v^T P v = 1: c_i = v_i^T S v_i, init_i = (v_i^T P theta_0)^2.

        Args:
            hessian: A, (d, d), symmetric positive definite.
            covariance: S, (d, d), symmetric positive semidefinite; None means S = A, and with Gaussian features
                (whose covariance is A then) it has to be None.
            start: theta_0, (d,), or E[theta_0 theta_0^T], (d, d), symmetric positive semidefinite. The risk needs no
                more than second moments; :func:`nqm.simulate` draws starts that have them.
            preconditioner: P, (d, d), symmetric positive definite; None: the identity. ``curvature`` is then that of
                P^-1/2 A P^-1/2, in units of 1 / lr.
            noise_model, label_noise: as for :class:`NoisyQuadratic`.

        Returns a problem with one node for each eigenvalue, ascending; those below 1e-14 of the largest carry the
        rounding errors of the matrix, and below d 2^-52 of it they are refused.

        Raises:
            TypeError, ValueError: for wrong shapes, asymmetry (told by how much), eigenvalues not positive.

        >>> import nqm
        >>> problem = NoisyQuadratic.from_matrices([[2.0, 1.0], [1.0, 2.0]], [[1.0, 0.0], [0.0, 3.0]], [1.0, 0.0])
        >>> problem.curvature.round(12), problem.noise.round(12), problem.init.round(12)
        (array([1., 3.]), array([2., 2.]), array([0.5, 0.5]))
        """
        a = _checks.symmetric(hessian, "hessian")
        d = len(a)
        s = a if covariance is None else _checks.symmetric(covariance, "covariance", d)
        labels = _checked_model(noise_model, label_noise, covariance)
        theta = _checks.reals(start, "start")
        if theta.shape == (d,):
            moment = None
        elif theta.shape == (d, d):
            moment = _checks.symmetric(theta, "start", d)
            _checks.definite(np.linalg.eigvalsh(moment), "start", semi=True)
        else:
            raise ValueError(f"start: expected a vector ({d},) or a matrix ({d}, {d}), got shape {theta.shape}")
        if covariance is not None:
            _checks.definite(np.linalg.eigvalsh(s), "covariance", semi=True)
        if preconditioner is None:
            h, v = np.linalg.eigh(a)
            dual = v
        else:
            from scipy.linalg import eigh

            p = _checks.symmetric(preconditioner, "preconditioner", d)
            _checks.definite(np.linalg.eigvalsh(p), "preconditioner")
            _checks.definite(np.linalg.eigvalsh(a), "hessian")
            with np.errstate(over="ignore", invalid="ignore"):
                h, v = eigh(a, p)
                dual = p @ v
        if np.all(np.isfinite(h)):
            _checks.definite(h, "hessian")
        with np.errstate(over="ignore", invalid="ignore"):
            noise = h if labels is not None or covariance is None else np.maximum(np.sum(v * (s @ v), axis=0), 0.0)
            init = (dual.T @ theta) ** 2 if moment is None else np.maximum(np.sum(dual * (moment @ dual), axis=0), 0.0)
        nodes = Nodes(h, noise, init, np.ones(d))
        _require_finite(nodes, labels)
        return cls._made(nodes, None, 0, d, labels)

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

        For comparison with their figures; it changes the risk by up to 17% (:func:`nqm.problems.spectra.binned`).

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
        nodes = finer.nodes(0)
        return self if nodes is None else self._made(nodes, finer, 0, self._dim, self.label_noise)

    def _finer(self) -> NoisyQuadratic | None:
        """The same problem on the next finer rule; None where this one is exact or can't be refined."""
        if self._spectrum is not None and self._next is None:
            level = self._level + 1
            nodes = self._spectrum.nodes(level)
            if nodes is not None:
                self._next = self._made(nodes, self._spectrum, level, self._dim, self.label_noise)
        return self._next

    def _compressed_above(self, most: int) -> NoisyQuadratic:
        """The problem; if it is explicit and has more than ``most`` nodes, a rule that refines to it (kept)."""
        if not (self._is_exact() and self.curvature.size > most):
            return self
        if "compressed" not in self._prepared:
            self._prepared["compressed"] = self.compressed()
        found: NoisyQuadratic = self._prepared["compressed"]
        return found

    def _additive(self) -> NoisyQuadratic:
        """The same with additive noise; where batches are infinite, both are one problem."""
        if self.label_noise is None:
            return self
        if "additive" not in self._prepared:
            twin = self._made(self._nodes, self._spectrum, self._level, self._dim, None)
            self._prepared["additive"] = twin
        found: NoisyQuadratic = self._prepared["additive"]
        return found

    def _is_exact(self) -> bool:
        """Whether the nodes are all eigenvalues, so that no finer rule is needed."""
        return self._spectrum is None or self._spectrum._size() == self.curvature.size

    def _ladder(self) -> Spectrum:
        return self._spectrum or spectra.Measured(self._nodes)

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
        return self._made(nodes, None, 0, float(nodes.multiplicity.sum()), self.label_noise)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_next": None, "_prepared": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for name in Nodes._fields:
            getattr(self, name).flags.writeable = False

    def __repr__(self) -> str:
        largest, smallest = self._extremes()
        model = "" if self.label_noise is None else f", {self.noise_model}, label_noise={self.label_noise:.6g}"
        return (
            f"NoisyQuadratic(dim={self.dim:g}, nodes={self.curvature.size}, curvature {smallest:.4g} to {largest:.4g}"
            f"{model})"
        )


def _require_finite(nodes: Nodes, label_noise: float | None) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        noise = nodes.noise * max(1.0, label_noise or 0.0)
        spread = nodes.multiplicity * (noise / nodes.curvature + nodes.curvature * nodes.init)
        if not np.all(np.isfinite(noise) & np.isfinite(spread)):
            raise ValueError(
                "expected numbers whose multiplicity * noise / curvature and multiplicity * curvature * init are "
                "finite in float64, got an overflow"
            )


def _checked_model(noise_model: Any, label_noise: Any, noise: Any) -> float | None:
    """The label noise of Gaussian features; None for additive noise."""
    if not isinstance(noise_model, str) or noise_model not in (ADDITIVE, GAUSSIAN_FEATURES):
        raise ValueError(
            f'noise_model: expected "{ADDITIVE}" or "{GAUSSIAN_FEATURES}", got {_checks.describe(noise_model)}'
        )
    if noise_model == ADDITIVE:
        if label_noise is not None:
            raise ValueError(f'label_noise: expected noise_model="{GAUSSIAN_FEATURES}" with it, got "{ADDITIVE}"')
        return None
    if noise is not None:
        raise ValueError(f'noise: expected None with noise_model="{GAUSSIAN_FEATURES}"; give label_noise')
    if label_noise is None:
        raise ValueError(f'label_noise: expected a variance >= 0 with noise_model="{GAUSSIAN_FEATURES}", got None')
    return _checks.real(label_noise, "label_noise", low=0.0, closed="low")
