"""Of any step map, for optimizers without formulas of their own: where it stops converging, and what noise it keeps.

The eigenvalues of M(x) = A - x gain query^T are the roots of p(z) + x n(z), with p(z) = det(z - A) and
n(z) = query^T adj(z - A) gain.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._checks import FloatArray
from .step_map import StepMap

__all__ = ["long_run_noise", "stability_limit"]

SMALLEST = 1e-12
"""Crossings at smaller x are that of x = 0, where an optimizer stands still."""


def stability_limit(of: StepMap) -> FloatArray:
    """The least x > 0 at which a coordinate no longer converges, for hyperparameters of any shape; inf for none.

    Eigenvalues can only leave the unit disc through its rim, so that stability changes at few x, which are found from
    polynomials (:func:`_crossings`); the first of them behind which M(x) has a spectral radius of 1 or more is it.
    """
    parts, k = of.packed, of.states
    transition, gain = parts.transition[..., 0, :, :].reshape(-1, k, k), parts.gain[..., 0, :].reshape(-1, k)
    crossings = _crossings(transition, gain, parts.query)
    begin = np.pad(crossings, ((0, 0), (1, 0)))
    end = np.pad(crossings, ((0, 0), (0, 1)), constant_values=np.inf)
    inside = np.where(np.isfinite(end), 0.5 * (begin + end), np.where(begin > 0.0, 2.0 * begin, 1.0))
    there = np.isfinite(begin) & (end > begin * (1.0 + 1e-12))  # of crossings that are one, rounding makes two
    x = np.where(there, inside, 0.0)[..., None, None]
    radius = np.abs(np.linalg.eigvals(transition[:, None] - x * (gain[:, None, :, None] * parts.query))).max(axis=-1)
    unstable = there & (radius >= 1.0)
    limit = np.where(unstable.any(axis=1), np.take_along_axis(begin, unstable.argmax(axis=1)[:, None], 1)[:, 0], np.inf)
    return limit.reshape(parts.gain.shape[:-2])


def _crossings(transition: FloatArray, gain: FloatArray, query: FloatArray) -> FloatArray:
    """All x > 0, ascending and followed by inf, at which an eigenvalue z of M(x) has |z| = 1: one row for each A.

    There x = -p(z) / n(z), which is real at z = 1, at z = -1, and where p(z) conj(n(z)) is. With p = sum a_i z^i and
    n = sum b_j z^j the imaginary part of that product is a sum of c_d sin(d phi) = c_d sin(phi) U_(d-1)(cos phi),
    d = 1 ... k: a polynomial in cos(phi).
    """
    rows, k = gain.shape
    a, b, one = np.zeros((rows, k + 1)), np.zeros((rows, k + 1)), np.eye(k)
    a[:, k], adjugate = 1.0, np.broadcast_to(one, (rows, k, k))
    for i in range(1, k + 1):  # Faddeev and LeVerrier, from the highest power down
        b[:, k - i] = np.einsum("i,rij,rj->r", query, adjugate, gain)
        product = transition @ adjugate
        a[:, k - i] = -np.trace(product, axis1=1, axis2=2) / i
        adjugate = product + a[:, k - i, None, None] * one
    polynomial = np.zeros((rows, k))  # in cos(phi), from the highest power down
    for d, chebyshev in enumerate(_second_kind(k), start=1):
        sine = np.sum(a[:, d:] * b[:, : k + 1 - d] - a[:, : k + 1 - d] * b[:, d:], axis=1)
        polynomial[:, k - d :] += sine[:, None] * chebyshev
    cosines = _roots(polynomial)
    inner = (np.abs(cosines.imag) < 1e-7) & (np.abs(cosines.real) < 1.0)
    cosines = np.where(inner, cosines.real, np.nan)
    z = np.concatenate([np.full((rows, 1), 1.0), np.full((rows, 1), -1.0), cosines + 1j * np.sqrt(1.0 - cosines**2)], 1)
    powers = z[..., None] ** np.arange(k + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        x = -(np.einsum("rzi,ri->rz", powers, a) / np.einsum("rzi,ri->rz", powers, b)).real
    return np.sort(np.where(np.isfinite(x) & (x > SMALLEST), x, np.inf), axis=1)


def _second_kind(count: int) -> list[FloatArray]:
    """Coefficients of Chebyshev's U_0, U_1, ..., from the highest power down."""
    found = [np.array([1.0]), np.array([2.0, 0.0])]
    while len(found) < count:
        found.append(np.polysub(np.append(2.0 * found[-1], 0.0), found[-2]))
    return found[:count]


def _roots(polynomials: FloatArray) -> Any:
    """Complex roots (rows, degree) of polynomials (rows, degree + 1), NaN where there are fewer."""
    rows, degree = len(polynomials), polynomials.shape[1] - 1
    found = np.full((rows, degree), np.nan + 0j)
    full = np.abs(polynomials[:, 0]) > 1e-12 * np.abs(polynomials).max(axis=1)
    if degree:
        companions = np.zeros((int(full.sum()), degree, degree))
        companions[:, np.arange(1, degree), np.arange(degree - 1)] = 1.0
        companions[:, 0, :] = -polynomials[full, 1:] / polynomials[full, :1]
        found[full] = np.linalg.eigvals(companions)
    for row in np.flatnonzero(~full):
        some = np.roots(
            np.where(np.abs(polynomials[row]) > 1e-12 * np.abs(polynomials[row]).max(), polynomials[row], 0.0)
        )
        found[row, : some.size] = some
    return found


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
