"""Matrices of double-double numbers on arrays of any namespace of the Python array API standard: 32 digits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from .._pairs import two_product, two_sum

Array = Any  # of the namespace


@dataclass(frozen=True)
class Pair:
    """high + low, two float64 that do not overlap. What overflows (beyond 1e300 in a product) is NaN."""

    high: Array
    low: Array = 0.0

    def __getitem__(self, at: Any) -> Pair:
        return Pair(self.high[at], self.low[at])

    def __add__(self, other: Pair) -> Pair:
        high, error = two_sum(self.high, other.high)
        return Pair(*two_sum(high, error + (self.low + other.low)))

    def __sub__(self, other: Pair) -> Pair:
        return self + Pair(-other.high, -other.low)

    def __mul__(self, other: Any) -> Pair:
        other = other if isinstance(other, Pair) else Pair(other)
        high, error = two_product(self.high, other.high)
        return Pair(*two_sum(high, error + (self.high * other.low + self.low * other.high)))


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
