"""The noisy quadratic with a power-law spectrum, as fits to training logs need it: sums over modes, with derivatives.

Mode n = 1, 2, ... has curvature Q n^-q, starts with a loss of P/2 n^-p and has gradient noise R n^-r. One
row is one training run: pieces of m steps at an effective learning rate g, with x = g Q n^-q (zhang2019 eq. 4):

    d = (1 - x)^(2 m)      b <- d b      v <- d v + (g R n^-r / 2 B) (1 - d) / (2 - x)      loss = sum_n (b + v)

from b = P/2 n^-p, v = 0. The effective learning rate is that of weights whose norm grows under updates of a size that
the learning rate alone sets (as Adam's have) and shrinks by weight decay:

    dV/dk = s^2 / T0 - 2 kappa s V,   V = 1 at first,   g = s / sqrt(V)

with s the learning rate relative to its peak; over a piece that starts at V and ends at V', 1 / sqrt(V) is taken as
2 / (sqrt(V) + sqrt(V')), which is its mean where kappa = 0.

Only this module calls compiled code.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np

from ..._checks import FloatArray, IntArray
from ...backends import current_backend
from ...problems.quadrature import lanczos_rule

__all__ = ["LAST", "Pieces", "effective_lrs", "mode_sums", "modes"]

LAST: Final = 46.0  # log of the last mode that may be trained: far beyond the 10^13 parameters a model may have


class Pieces(NamedTuple):
    """Learning rates of many rows, one after the other.

    first: (rows + 1,) each row's first piece, and their end; lengths (steps, need not be whole) and lrs: (pieces,);
    seen: (pieces,), whether the loss at a piece's end is asked for.
    """

    first: IntArray
    lengths: FloatArray
    lrs: FloatArray
    seen: IntArray


@lru_cache(maxsize=1)
def modes() -> tuple[FloatArray, FloatArray]:
    """Nodes n and weights for sums over n = 1, 2, ... of functions smooth in log n, up to :data:`LAST`.

    The first eight one by one; the integers up to 1000 by Gauss rules in log n on windows that grow eightfold; beyond,
    the integral over log n by Gauss-Legendre, which differs from the sum by the derivative at 1000 over 24 (midpoint
    rule). Measured on the loss, q from 0.35 to 0.9, K to 10^5, N to 10^10: right to 1.2e-7 of it.
    """
    parts = [(np.arange(1.0, 9.0), np.ones(8))]
    for first, last in ((9, 72), (72, 576), (576, 1001)):
        within = np.log(np.arange(first, last, dtype=float))
        log_n, weight = lanczos_rule(within, np.ones(within.size), 6)
        parts.append((np.exp(log_n), weight))
    edges = np.linspace(np.log(1000.5), LAST, 6)
    x, gauss = np.polynomial.legendre.leggauss(14)
    half = 0.5 * (edges[1] - edges[0])
    log_n = (edges[:-1, None] + half * (1.0 + x)).ravel()
    parts.append((np.exp(log_n), np.tile(half * gauss, 5) * np.exp(log_n)))
    n, weight = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    n.flags.writeable = weight.flags.writeable = False
    return n, weight


def effective_lrs(pieces: Pieces, growth: float, decay: float) -> tuple[FloatArray, FloatArray]:
    """g of every piece, and its derivatives by growth = 1 / T0 and by decay = kappa, (pieces, 2)."""
    found: tuple[FloatArray, FloatArray] = current_backend().effective_lrs(pieces, float(growth), float(decay))
    return found


def mode_sums(
    n: FloatArray, h: FloatArray, start: FloatArray, noise: FloatArray, pieces: Pieces, tangents: FloatArray
) -> FloatArray:
    """Sums over modes at the end of every piece that is seen, (seen, 6 + D).

    n, h: (modes,); start, noise = R n^-r / 2 B: (rows, modes), both with the weights of the modes; tangents: (pieces,
    D), derivatives of the pieces' learning rates in D directions. Columns: b, b log n, v, v log n, w, w log n with w
    the derivative of b + v by log h, and the derivatives of b + v in the D directions.
    """
    sums: FloatArray = current_backend().mode_sums(np.log(n), h, start, noise, pieces, tangents)
    return sums
