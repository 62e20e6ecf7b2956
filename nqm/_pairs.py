"""Double-double arithmetic on arrays, for the few entries of a filter that a float64 would round.

A pair (high, low) of numbers or arrays stands for their sum, with about 32 digits.
"""

from __future__ import annotations

from typing import Any

from ._checks import FloatArray

Pair = tuple[Any, Any]


def pair_of(parts: FloatArray) -> Pair:
    """(high, low) from an array that holds them along its last axis."""
    return parts[..., 0], parts[..., 1]


def two_sum(a: Any, b: Any) -> Pair:
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def two_product(a: Any, b: Any) -> Pair:
    """Dekker's exact product: each factor is split into halves of 26 bits."""
    p = a * b
    ah, bh = 134217729.0 * a, 134217729.0 * b
    ah, bh = ah - (ah - a), bh - (bh - b)
    al, bl = a - ah, b - bh
    return p, ((ah * bh - p) + ah * bl + al * bh) + al * bl


def pair_mul(a: Pair, b: Pair) -> Pair:
    p, e = two_product(a[0], b[0])
    return two_sum(p, e + (a[0] * b[1] + a[1] * b[0]))
