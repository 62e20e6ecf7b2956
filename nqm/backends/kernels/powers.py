"""Powers and states: what many steps do, by squaring.

One coordinate of the noisy quadratic under a linear optimizer is ``z' = M z + b eps`` with a state z of k numbers. For
a block of nodes (curvatures) at once, kernels carry

* a *power*  P = (M^s, G_s),  G_s = sum_{j<s} M^j b b^T M^j^T: what s steps do to any state, and
* a *state*  Z = (u, S): the mean of z and its covariance, for a unit start and unit noise.

``square`` turns s steps into 2 s, ``advance`` applies s steps to a state; everything else is made of these two. M and
u are double-double numbers (an unevaluated sum high + low, about 32 digits), because M^s with s up to 2^53 amplifies
the rounding of M by s. G and S are doubles, which is enough in coordinates where M is as good as normal: see
:mod:`nqm.backends.kernels.setup`.
"""

from __future__ import annotations

from ..compilation import inlined, internal
from .unrolled_powers import advance1, advance2, advance2_own, advance3, square1, square2, square2_own, square3


@internal
def square(P, count, start):
    if len(start) == 1:
        square1(P, count)
    elif len(start) == 2:
        square2(P, count)
    else:
        square3(P, count)


@internal
def advance(P, Z, count, start):
    if len(start) == 1:
        advance1(P, Z, count)
    elif len(start) == 2:
        advance2(P, Z, count)
    else:
        advance3(P, Z, count)


@internal
def run(P, Z, steps, count, start):
    """Z <- the state `steps` steps of P on; P is spent."""
    k = len(start)
    left = steps
    while left > 0:
        if left & 1:
            if k == 1:
                advance1(P, Z, count)
            elif k == 2:
                advance2_own(P, Z, count)
            else:
                advance3(P, Z, count)
        left >>= 1
        if left > 0:
            if k == 1:
                square1(P, count)
            elif k == 2:
                square2_own(P, count)
            else:
                square3(P, count)


@inlined
def entry_slot(i, j, k):
    """Where entry (i, j) of M lies; for k = 2 both diagonal entries are one."""
    return (2 * i + j) % 3 if k == 2 else i * k + j
