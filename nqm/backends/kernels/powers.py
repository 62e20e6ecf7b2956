"""Powers and states: what many steps do, by squaring.

One coordinate of the noisy quadratic under a linear optimizer is ``z' = M z + b eps`` with a state z of k numbers. For
a block of nodes (curvatures) at once, kernels carry

* a *power*  P = (M^s, G_s),  G_s = sum_{j<s} M^j b b^T M^j^T: what s steps do to any state, and
* a *state*  Z = (u, S): the mean of z and its covariance, for a unit start and unit noise.

``square`` turns s steps into 2 s, ``advance`` applies s steps to a state; everything else is made of these two. M and
u are double-double numbers (an unevaluated sum high + low, about 32 digits), because M^s with s up to 2^53 amplifies
the rounding of M by s. G and S are doubles, which is enough in coordinates where M is as good as normal: see
:mod:`nqm.backends.kernels.setup`. Up to three states are written out, more are loops.
"""

from __future__ import annotations

import numpy as np

from ..compilation import inlined, internal
from .blocks import BLOCK, copy
from .double_double import add, mul
from .unrolled_powers import advance1, advance2, advance2_own, advance3, square1, square2, square2_own, square3

__all__ = ["advance", "advance_own", "entry_slot", "run", "square", "square_own"]


@internal
def square(P, count, start):
    """2 s steps from s, in the coordinates of `set_up`."""
    if len(start) == 1:
        square1(P, count)
    elif len(start) == 2:
        square2(P, count)
    elif len(start) == 3:
        square3(P, count)
    else:
        _square_in_loops(P, count, start)


@internal
def advance(P, Z, count, start):
    """The state s steps on, in the coordinates of `set_up`."""
    if len(start) == 1:
        advance1(P, Z, count)
    elif len(start) == 2:
        advance2(P, Z, count)
    elif len(start) == 3:
        advance3(P, Z, count)
    else:
        _advance_in_loops(P, Z, count, start)


@internal
def square_own(P, count, start):
    """2 s steps from s, in the filter's own coordinates."""
    if len(start) == 2:
        square2_own(P, count)
    else:
        square(P, count, start)


@internal
def advance_own(P, Z, count, start):
    """The state s steps on, in the filter's own coordinates."""
    if len(start) == 2:
        advance2_own(P, Z, count)
    else:
        advance(P, Z, count, start)


@internal
def run(P, Z, steps, count, start):
    """Z <- the state `steps` steps of P on, in the filter's own coordinates; P is spent."""
    left = steps
    while left > 0:
        if left & 1:
            advance_own(P, Z, count, start)
        left >>= 1
        if left > 0:
            square_own(P, count, start)


@inlined
def entry_slot(i, j, k):
    """Where entry (i, j) of M lies in the coordinates of `set_up`; for k = 2 both diagonal entries are one."""
    return (2 * i + j) % 3 if k == 2 else i * k + j


# --- more than three states ------------------------------------------------------------------------------------


@internal
def _square_in_loops(P, count, start):
    k = len(start)
    size = k * k * BLOCK
    _congruence_in_loops(P[:size], P[2 * size :], 1.0, count, start)
    squared = np.empty(2 * size)
    for i in range(k):
        for j in range(k):
            at = (k * i + j) * BLOCK
            _product_entry(P[:size], P[size : 2 * size], k * i, 1, P[:size], P[size : 2 * size], j, k,
                           squared[at : at + BLOCK], squared[size + at : size + at + BLOCK], count, start)  # fmt: skip
    copy(squared, P)


@internal
def _advance_in_loops(P, Z, count, start):
    k = len(start)
    size, mean = k * k * BLOCK, k * BLOCK
    _congruence_in_loops(P[:size], Z[2 * mean :], 0.0, count, start)
    for slot in range(k * (k + 1) // 2):
        for n in range(count):
            Z[2 * mean + slot * BLOCK + n] += P[2 * size + slot * BLOCK + n]
    moved = np.empty(2 * mean)
    for i in range(k):
        at = i * BLOCK
        _product_entry(P[:size], P[size : 2 * size], k * i, 1, Z[:mean], Z[mean : 2 * mean], 0, 1,
                       moved[at : at + BLOCK], moved[mean + at : mean + at + BLOCK], count, start)  # fmt: skip
    copy(moved, Z)


@internal
def _product_entry(A, Al, a, da, B, Bl, b, db, high, low, count, start):
    """high, low <- the sum over l < k of A in slot a + l da times B in slot b + l db."""
    for n in range(count):
        high[n], low[n] = mul(A[a * BLOCK + n], Al[a * BLOCK + n], B[b * BLOCK + n], Bl[b * BLOCK + n])
    for other in range(1, len(start)):
        p, q = (a + other * da) * BLOCK, (b + other * db) * BLOCK
        for n in range(count):
            t, e = mul(A[p + n], Al[p + n], B[q + n], Bl[q + n])
            high[n], low[n] = add(high[n], low[n], t, e)


@internal
def _congruence_in_loops(M, S, keep, count, start):
    """S <- keep S + M S M^T, S an upper triangle."""
    N = BLOCK
    k = len(start)
    half = np.zeros(k * k * N)  # M S
    for i in range(k):
        for j in range(k):
            to = (k * i + j) * N
            for p in range(k):
                m, s = (k * i + p) * N, _triangle_slot(min(p, j), max(p, j), k) * N
                for n in range(count):
                    half[to + n] += M[m + n] * S[s + n]
    slot = 0
    for i in range(k):
        for j in range(i, k):
            to = slot * N
            for n in range(count):
                S[to + n] *= keep
            for p in range(k):
                y, m = (k * i + p) * N, (k * j + p) * N
                for n in range(count):
                    S[to + n] += half[y + n] * M[m + n]
            slot += 1


@inlined
def _triangle_slot(i, j, k):
    """Where entry (i, j), i <= j, of an upper triangle lies."""
    return i * k - i * (i - 1) // 2 + j - i
