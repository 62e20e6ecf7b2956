"""Gauss rules of discrete measures: of whole indices in closed form, of any nodes by Lanczos."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .._checks import FloatArray

__all__ = ["index_rule", "lanczos_rule", "window_rule"]


def index_rule(dim: int, points: int, pieces: int) -> tuple[FloatArray, FloatArray]:
    """Nodes and weights for sums over i = 1 ... dim; windows [2^j, 2^(j+1)) cut into ``pieces``."""
    index, weight = [], []
    lengths, firsts = [], []
    first = 1
    while first <= dim:
        last = min(2 * first - 1, dim)
        count = last - first + 1
        cuts = [first + count * p // pieces for p in range(pieces + 1)] if count > points * pieces else None
        if cuts is None:
            index.append(np.arange(first, last + 1, dtype=float))
            weight.append(np.ones(count))
        else:
            firsts += cuts[:-1]
            lengths += [b - a for a, b in pairwise(cuts)]
        first = last + 1
    if lengths:
        offset, gauss = _gram_rules(np.array(lengths, dtype=float), points)
        index.append((np.array(firsts, dtype=float)[:, None] + offset).ravel())
        weight.append(gauss.ravel())
    order = np.argsort(np.concatenate(index), kind="stable")
    return np.concatenate(index)[order], np.concatenate(weight)[order]


def _gram_rules(lengths: FloatArray, points: int) -> tuple[FloatArray, FloatArray]:
    """Gauss rules for sum_{i=0}^{N-1} f(i), one row for each N: Golub-Welsch on the Gram recurrence.

    Jacobi matrix: diagonal (N - 1) / 2, squared off-diagonal k^2 (N^2 - k^2) / (4 (4 k^2 - 1)).
    """
    k = np.arange(1.0, points)
    n = lengths[:, None]
    off = np.sqrt(k * k * (n - k) * (n + k) / (4.0 * (4.0 * k * k - 1.0)))
    jacobi = np.zeros((lengths.size, points, points))
    diagonal = np.arange(points)
    jacobi[:, diagonal, diagonal] = (n - 1.0) / 2.0
    jacobi[:, diagonal[1:], diagonal[:-1]] = off  # eigh reads the lower triangle
    nodes, vectors = np.linalg.eigh(jacobi)
    return nodes, n * vectors[:, 0, :] ** 2


def window_rule(h: FloatArray, mass: FloatArray, points: int, pieces: int) -> tuple[FloatArray, FloatArray]:
    """Gauss nodes in h for sum mass f(h), window by window of width 1 / pieces octaves; empty windows vanish.

    The largest and the smallest h stay nodes of their own, however little they weigh: they decide stability.
    """
    window = np.floor(np.log2(h.max() / h) * pieces).astype(np.int64) + 1
    window[h == h.max()], window[h == h.min()] = 0, window.max() + 1
    order = np.lexsort((h, window))
    bounds = np.flatnonzero(np.diff(window[order], prepend=-1, append=np.iinfo(np.int64).max))
    rules = [lanczos_rule(h[part], mass[part], points) for part in np.split(order, bounds[1:-1])]
    return np.concatenate([r[0] for r in rules]), np.concatenate([r[1] for r in rules])


def lanczos_rule(h: FloatArray, mass: FloatArray, points: int) -> tuple[FloatArray, FloatArray]:
    """Gauss rule of a discrete measure by Lanczos with full reorthogonalisation (Golub-Welsch)."""
    present = mass > 0.0
    h, mass = h[present], mass[present]
    if np.unique(h).size <= points:
        return h, mass
    middle, half = 0.5 * (h.max() + h.min()), 0.5 * (h.max() - h.min())
    scaled = (h - middle) / half
    basis = [np.sqrt(mass / mass.sum())]
    alpha, beta = [], []
    for step in range(points):
        image = scaled * basis[-1]
        alpha.append(float(basis[-1] @ image))
        if step + 1 < points:
            for _ in range(2):
                for vector in basis:
                    image = image - (vector @ image) * vector
            beta.append(float(np.linalg.norm(image)))
            basis.append(image / beta[-1])
    nodes, vectors = np.linalg.eigh(np.diag(alpha) + np.diag(beta, 1) + np.diag(beta, -1))
    return middle + half * nodes, mass.sum() * vectors[0] ** 2
