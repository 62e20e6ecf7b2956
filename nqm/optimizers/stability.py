"""Of any step map, for optimizers without formulas of their own: where it stops converging, and what noise it keeps.

The eigenvalues of M(x) = A - x gain query^T are the roots of p(z) + x n(z), with p(z) = det(z - A) and
n(z) = query^T adj(z - A) gain.
"""

from __future__ import annotations

import numpy as np

from .._checks import FloatArray
from .step_map import StepMap

SMALLEST = 1e-12
"""Crossings at smaller x are that of x = 0, where an optimizer stands still."""


def stability_limit(of: StepMap) -> FloatArray:
    """The least x > 0 at which a coordinate no longer converges, for hyperparameters of any shape; inf for none.

    Eigenvalues can only leave the unit disc through its rim, so that stability changes at few x, which are found from
    polynomials (:func:`_crossings`); the first of them behind which M(x) has a spectral radius of 1 or more is it.
    """
    parts = of.packed
    transition, gain = parts.transition[..., 0, :, :], parts.gain[..., 0, :]
    shape, k = transition.shape[:-2], of.states
    found = [
        _first_unstable(a, g, parts.query)
        for a, g in zip(transition.reshape(-1, k, k), gain.reshape(-1, k), strict=True)
    ]
    return np.array(found).reshape(shape)


def _first_unstable(transition: FloatArray, gain: FloatArray, query: FloatArray) -> float:
    at = _crossings(transition, gain, query)
    inside = (
        np.array([1.0]) if not at.size else np.concatenate([[0.5 * at[0]], 0.5 * (at[1:] + at[:-1]), [2.0 * at[-1]]])
    )
    matrices = transition - inside[:, None, None] * np.outer(gain, query)
    unstable = np.abs(np.linalg.eigvals(matrices)).max(axis=1) >= 1.0
    first = int(np.argmax(unstable))
    return float("inf") if not unstable.any() else 0.0 if first == 0 else float(at[first - 1])


def _crossings(transition: FloatArray, gain: FloatArray, query: FloatArray) -> FloatArray:
    """All x > 0, ascending, at which an eigenvalue z of M(x) has |z| = 1: x = -p(z) / n(z) there, which is real at
    z = 1, at z = -1, and where p(z) conj(n(z)) is.

    With p = sum a_i z^i and n = sum b_j z^j the imaginary part of that product is a sum of
    c_d sin(d phi) = c_d sin(phi) U_(d-1)(cos phi), d = 1 ... k: a polynomial in cos(phi).
    """
    k, one = len(gain), np.eye(len(gain))
    a, b, adjugate = np.zeros(k + 1), np.zeros(k + 1), one  # Faddeev and LeVerrier: from the highest power down
    a[k] = 1.0
    for i in range(1, k + 1):
        b[k - i] = query @ adjugate @ gain
        product = transition @ adjugate
        a[k - i] = -np.trace(product) / i
        adjugate = product + a[k - i] * one
    sines = [a[d:] @ b[: k + 1 - d] - a[: k + 1 - d] @ b[d:] for d in range(1, k + 1)]
    second_kind = [np.array([1.0]), np.array([2.0, 0.0])]  # U_0, U_1: coefficients from the highest power down
    while len(second_kind) < k:
        second_kind.append(np.polysub(np.append(2.0 * second_kind[-1], 0.0), second_kind[-2]))
    polynomial = np.zeros(1)
    for sine, chebyshev in zip(sines, second_kind, strict=False):
        polynomial = np.polyadd(polynomial, sine * chebyshev)
    cosines = np.roots(polynomial)
    cosines = cosines.real[(np.abs(cosines.imag) < 1e-7) & (np.abs(cosines.real) < 1.0)]
    z = np.concatenate([[1.0, -1.0], cosines + 1j * np.sqrt(1.0 - cosines**2)])
    with np.errstate(divide="ignore", invalid="ignore"):
        x = -(np.polyval(a[::-1], z) / np.polyval(b[::-1], z)).real
    return np.unique(x[np.isfinite(x) & (x > SMALLEST)])


def long_run_noise(
    transition: FloatArray, gain: FloatArray, query: FloatArray, x: FloatArray, limit: FloatArray | float
) -> FloatArray:
    """x^2 sum_t (query^T M(x)^t gain)^2 from S = M S M^T + gain gain^T, a linear system for each x; inf from ``limit``
    on. transition: (*S, k, k) and gain: (*S, k), for S that broadcasts with x."""
    k, points = gain.shape[-1], np.asarray(x, dtype=float)
    one = np.eye(k)
    forgets = (points > 0.0) & (points < limit * (1.0 - 1e-13))
    w = (transition - one) - points[..., None, None] * (gain[..., :, None] * query)
    w = np.where(forgets[..., None, None], w, -one)
    # 1 - M x M, without rounding what is small
    lost = -(np.einsum("ij,...kl->...ikjl", one, w) + np.einsum("...ij,...kl->...ikjl", w, w + one))
    kick = np.broadcast_to(
        (gain[..., :, None] * gain[..., None, :]).reshape(*gain.shape[:-1], -1, 1), (*forgets.shape, k * k, 1)
    )
    moments = np.linalg.solve(lost.reshape(*forgets.shape, k * k, k * k), kick)
    read = np.outer(query, query).ravel()
    return np.where(forgets, points**2 * (moments[..., 0] @ read), np.inf)
