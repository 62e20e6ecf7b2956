"""Double-double arithmetic: (high, low) stands for the sum of two float64 that do not overlap, about 32 digits.

For the few entries of a filter that a float64 would round, tuples of numbers or arrays; for the reference backend,
matrices of :class:`Pair` on arrays of any namespace of the Python array API standard. Also :func:`one_step` of an
optimizer, which is the same in floats and in pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

import numpy as np

__all__ = [
    "Pair",
    "constant",
    "dot",
    "exact",
    "product",
    "product_transposed",
    "sandwich",
    "two_product",
    "two_sum",
]

Array = Any  # of a namespace


def two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def two_product(a: Any, b: Any) -> tuple[Any, Any]:
    """Dekker's exact product: each factor is split into halves of 26 bits."""
    p = a * b
    ah, bh = 134217729.0 * a, 134217729.0 * b
    ah, bh = ah - (ah - a), bh - (bh - b)
    al, bl = a - ah, b - bh
    return p, ((ah * bh - p) + ah * bl + al * bh) + al * bl


@dataclass(frozen=True)
class Pair:
    """high + low, two float64 that do not overlap. What overflows (beyond 1e300 in a product) is NaN.

    Numbers and arrays may stand beside it: ``1.0 - Pair(decay)`` has all the digits of 1 - decay.
    """

    high: Array
    low: Array = 0.0
    __array_ufunc__: ClassVar[None] = None  # an array beside a pair leaves the arithmetic to the pair

    def __getitem__(self, at: Any) -> Pair:
        return Pair(self.high[at], self.low[at])

    def __neg__(self) -> Pair:
        return Pair(-self.high, -self.low)

    def __add__(self, other: Any) -> Pair:
        other = other if isinstance(other, Pair) else Pair(other)
        high, error = two_sum(self.high, other.high)
        return Pair(*two_sum(high, error + (self.low + other.low)))

    __radd__ = __add__

    def __sub__(self, other: Any) -> Pair:
        return self + -other

    def __rsub__(self, other: Any) -> Pair:
        return -self + other

    def __mul__(self, other: Any) -> Pair:
        other = other if isinstance(other, Pair) else Pair(other)
        high, error = two_product(self.high, other.high)
        return Pair(*two_sum(high, error + (self.high * other.low + self.low * other.high)))

    __rmul__ = __mul__


def product(a: Pair, b: Pair) -> Pair:
    """A B for matrices (i, j, R, n) and (j, l, R, n)."""
    return reduce(Pair.__add__, [a[:, j, None, ...] * b[None, j, ...] for j in range(b.high.shape[0])])


def product_transposed(a: Pair, b: Pair) -> Pair:
    """A B^T for matrices (i, j, R, n) and (l, j, R, n)."""
    return reduce(Pair.__add__, [a[:, j, None, ...] * b[None, :, j, ...] for j in range(b.high.shape[1])])


def sandwich(a: Pair, s: Pair) -> Pair:
    """A S A^T."""
    return product_transposed(product(a, s), a)


def exact(x: Array, xp: Any) -> Pair:
    return Pair(x, xp.zeros_like(x))


def constant(matrix: Any, xp: Any, shape: tuple[int, int] = (1, 1)) -> Pair:
    """The same matrix of floats everywhere: (i, j, *shape)."""
    entries = xp.asarray(np.asarray(matrix, dtype=np.float64)[:, :, None, None])
    return exact(xp.broadcast_to(entries, (*entries.shape[:2], *shape)), xp)


def dot(r: list[float], u: Pair, zero: Pair) -> Pair:
    """r . u for columns u (k, 1, R, n). What is not read may have overflowed."""
    return reduce(Pair.__add__, [u[i, 0, ...] * p for i, p in enumerate(r) if p != 0.0], zero)


def one_step(
    transition: Sequence[Sequence[Any]],
    gain: Sequence[Any],
    query: Sequence[float],
    lr_scaled: Sequence[int],
    lr: Any,
    h: Any,
    average: tuple[Any, Sequence[float]] | None = None,
) -> tuple[list[list[Any]], list[Any]]:
    """M (k rows of k) and b (k) of one step z' = M z - b eps, with states of lr_scaled = 1 in units of lr:

        M_ij = A_ij lr^e - h lr^(1+e) gain_i query_j,   b_i = lr^(1 - s_i) gain_i,   e = s_j - s_i,   s = lr_scaled.

    These mean the same at any lr; A feeds nothing else into states that scale (A_ij = 0 where e < 0). ``average``,
    (weight, averaged): the last state then adds up weight times what the new states read out and decay times itself.

    Generic in the numbers: entries, lr and h = h^(1-p) may be floats, arrays or :class:`Pair`, of any namespace.
    """
    k = len(gain)
    powers = [1.0, lr, lr * lr]
    matrix, kick = [], []
    for i in range(k):
        row = []
        for j in range(k):
            e = lr_scaled[j] - lr_scaled[i]
            entry = transition[i][j] if e == 0 else transition[i][j] * powers[1] if e > 0 else 0.0
            row.append(entry - h * ((powers[1 + e] * gain[i]) * query[j]) if query[j] else entry)
        matrix.append(row)
        kick.append(powers[1 - lr_scaled[i]] * gain[i])
    if average is not None:
        weights = [average[0] * part for part in average[1]]
        for j in range(k - 1):
            matrix[-1][j] = _dot(weights, [matrix[i][j] for i in range(k - 1)])
        kick[-1] = _dot(weights, kick[:-1])
    return matrix, kick


def _dot(weights: Sequence[Any], values: Sequence[Any]) -> Any:
    total = weights[0] * values[0]
    for weight, value in zip(weights[1:], values[1:], strict=False):
        total = total + weight * value
    return total
