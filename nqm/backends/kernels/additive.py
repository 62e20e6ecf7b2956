"""All compiled code: arrays and scalars in, arrays and scalars out; no classes, no raising.

One coordinate of the noisy quadratic under a linear optimizer is ``z' = M z + b eps`` with a state z of
k = 1, 2 or 3 numbers. This file carries, for a block of nodes (curvatures) at once,

* a *power*  P = (M^s, G_s),  G_s = sum_{j<s} M^j b b^T M^j^T: what s steps do to any state, and
* a *state*  Z = (u, S): the mean of z and its covariance, for a unit start and unit noise.

``square`` turns s steps into 2 s, ``advance`` applies s steps to a state; everything else is made of these
two. M and u are double-double numbers (an unevaluated sum hi + lo, about 32 digits), because M^s with s up to
2^53 amplifies the rounding of M by s. G and S are doubles, which is enough in coordinates where M is as good as
normal. For k = 2 these are y = (r . z, r^T K z), K = M - m I without trace: K^2 is a number q times I, so

    y' = [[m, 1], [q, m]] y,

whatever the filter. Powers keep the form [[a, b], [c, a]]; all entries have one sign when both roots are real, and
they make a scaled rotation when not. (In the coordinates of the update rule, heavy ball at the far end of its
critical damping, x = (1 + sqrt(momentum))^2, loses six digits.) An average on top (k = 3) keeps them and adds a row.

Layout: nodes lie in the inner loop. A block is a one-dimensional array cut into slots of ``BLOCK`` entries, so
that every access is at a constant distance from every other, which is what lets the compiler vectorise. Slots of
a power: the entries of M, high parts (k = 1: 1, k = 2: a, b, c, k = 3: 9, row by row), their low parts, then the
upper triangle of G. Slots of a state: u hi (k), u lo (k), upper triangle of S. Loops run over ``count`` <= BLOCK
nodes, a multiple of 8. k is ``len(start)`` of a tuple, hence known to the compiler.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba.core import types
from numba.extending import intrinsic

from ..compilation import compiled, inlined, internal

BLOCK = 128

# Slots of a power, of a state, and of a power in a chain (M hi and lo, upper triangle of G), for k = 1, 2, 3.
POWER_SLOTS, STATE_SLOTS, CHAIN_SLOTS = (0, 3, 9, 24), (0, 3, 7, 12), (0, 3, 11, 24)

HORIZON = 2**53  # the last step count that a float64 holds exactly

ROUNDED = 1.0 + 4e-16  # a few roundings
MOST_LEVELS = 54  # leaps of up to 2^53 steps

# What `march` reports.
FOUND, NEVER, MORE_LEVELS, OUT_OF_BUDGET = 0, 1, 2, 3


@intrinsic
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c with one rounding: the exact error of a product is fma(a, b, -(a * b))."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fma(*args)

    return types.float64(types.float64, types.float64, types.float64), generate


# --- double-double scalars -------------------------------------------------------------------------------


@inlined
def _mul(ah, al, bh, bl):
    """(ah + al)(bh + bl), not normalised: the low part may be a few units in the last place of the high."""
    p = ah * bh
    return p, fma(ah, bl, fma(al, bh, fma(ah, bh, -p)))


@inlined
def _norm(h, e):
    s = h + e
    return s, e - (s - h)


@inlined
def _add(ah, al, bh, bl):
    s = ah + bh
    t = s - ah
    return _norm(s, (ah - (s - t)) + (bh - t) + (al + bl))


@inlined
def _dot2(ah, al, bh, bl, ch, cl, dh, dl):
    """a b + c d."""
    p, e = _mul(ah, al, bh, bl)
    q, f = _mul(ch, cl, dh, dl)
    return _add(p, e, q, f)


@inlined
def _dot3(ah, al, bh, bl, ch, cl, dh, dl, eh, el, fh, fl):
    """a b + c d + e f."""
    p, e = _dot2(ah, al, bh, bl, ch, cl, dh, dl)
    q, f = _mul(eh, el, fh, fl)
    return _add(p, e, q, f)


# --- k = 1 -----------------------------------------------------------------------------------------------


@internal
def _square1(P, count):
    N = BLOCK
    for n in range(count):
        h = P[n]
        P[2 * N + n] += h * h * P[2 * N + n]
        q, e = _mul(h, P[N + n], h, P[N + n])
        P[n], P[N + n] = _norm(q, e)


@internal
def _advance1(P, Z, count):
    N = BLOCK
    for n in range(count):
        h = P[n]
        Z[2 * N + n] = P[2 * N + n] + h * h * Z[2 * N + n]
        q, e = _mul(h, P[N + n], Z[n], Z[N + n])
        Z[n], Z[N + n] = _norm(q, e)


# --- k = 2 -----------------------------------------------------------------------------------------------


@internal
def _square2(P, count):
    """[[a, b], [c, a]]^2 = [[a a + b c, 2 a b], [2 a c, a a + b c]]."""
    N = BLOCK
    for n in range(count):
        a, b, c = P[n], P[N + n], P[2 * N + n]
        al, bl, cl = P[3 * N + n], P[4 * N + n], P[5 * N + n]
        g, o, q = P[6 * N + n], P[7 * N + n], P[8 * N + n]
        y0 = a * g + b * o
        y1 = a * o + b * q
        y2 = c * g + a * o
        y3 = c * o + a * q
        P[6 * N + n] = g + (y0 * a + y1 * b)
        P[7 * N + n] = o + (y0 * c + y1 * a)
        P[8 * N + n] = q + (y2 * c + y3 * a)
        P[n], P[3 * N + n] = _dot2(a, al, a, al, b, bl, c, cl)
        p, e = _mul(2.0 * a, 2.0 * al, b, bl)
        P[N + n], P[4 * N + n] = _norm(p, e)
        p, e = _mul(2.0 * a, 2.0 * al, c, cl)
        P[2 * N + n], P[5 * N + n] = _norm(p, e)


@internal
def _advance2(P, Z, count):
    N = BLOCK
    for n in range(count):
        a, b, c = P[n], P[N + n], P[2 * N + n]
        al, bl, cl = P[3 * N + n], P[4 * N + n], P[5 * N + n]
        u, v, ul, vl = Z[n], Z[N + n], Z[2 * N + n], Z[3 * N + n]
        g, o, q = Z[4 * N + n], Z[5 * N + n], Z[6 * N + n]
        y0 = a * g + b * o
        y1 = a * o + b * q
        y2 = c * g + a * o
        y3 = c * o + a * q
        Z[4 * N + n] = P[6 * N + n] + (y0 * a + y1 * b)
        Z[5 * N + n] = P[7 * N + n] + (y0 * c + y1 * a)
        Z[6 * N + n] = P[8 * N + n] + (y2 * c + y3 * a)
        Z[n], Z[2 * N + n] = _dot2(a, al, u, ul, b, bl, v, vl)
        Z[N + n], Z[3 * N + n] = _dot2(c, cl, u, ul, a, al, v, vl)


# --- k = 2, in any coordinates ---------------------------------------------------------------------------------


@internal
def _square22(P, count):
    """A general [[a, b], [c, d]]; slots: 4 high parts, 4 low parts, upper triangle of G."""
    N = BLOCK
    for n in range(count):
        a, b, c, d = P[n], P[N + n], P[2 * N + n], P[3 * N + n]
        al, bl, cl, dl = P[4 * N + n], P[5 * N + n], P[6 * N + n], P[7 * N + n]
        g, o, q = P[8 * N + n], P[9 * N + n], P[10 * N + n]
        y0 = a * g + b * o
        y1 = a * o + b * q
        y2 = c * g + d * o
        y3 = c * o + d * q
        P[8 * N + n] = g + (y0 * a + y1 * b)
        P[9 * N + n] = o + (y0 * c + y1 * d)
        P[10 * N + n] = q + (y2 * c + y3 * d)
        s, sl = _add(a, al, d, dl)
        P[n], P[4 * N + n] = _dot2(a, al, a, al, b, bl, c, cl)
        P[3 * N + n], P[7 * N + n] = _dot2(d, dl, d, dl, b, bl, c, cl)
        p, e = _mul(s, sl, b, bl)
        P[N + n], P[5 * N + n] = _norm(p, e)
        p, e = _mul(s, sl, c, cl)
        P[2 * N + n], P[6 * N + n] = _norm(p, e)


@internal
def _advance22(P, Z, count):
    N = BLOCK
    for n in range(count):
        a, b, c, d = P[n], P[N + n], P[2 * N + n], P[3 * N + n]
        al, bl, cl, dl = P[4 * N + n], P[5 * N + n], P[6 * N + n], P[7 * N + n]
        u, v, ul, vl = Z[n], Z[N + n], Z[2 * N + n], Z[3 * N + n]
        g, o, q = Z[4 * N + n], Z[5 * N + n], Z[6 * N + n]
        y0 = a * g + b * o
        y1 = a * o + b * q
        y2 = c * g + d * o
        y3 = c * o + d * q
        Z[4 * N + n] = P[8 * N + n] + (y0 * a + y1 * b)
        Z[5 * N + n] = P[9 * N + n] + (y0 * c + y1 * d)
        Z[6 * N + n] = P[10 * N + n] + (y2 * c + y3 * d)
        Z[n], Z[2 * N + n] = _dot2(a, al, u, ul, b, bl, v, vl)
        Z[N + n], Z[3 * N + n] = _dot2(c, cl, u, ul, d, dl, v, vl)


# --- k = 3 -----------------------------------------------------------------------------------------------


@internal
def _square3(P, count):
    _congruence3(P[: 18 * BLOCK], P[18 * BLOCK :], 1.0, count)
    N = BLOCK
    for n in range(count):
        a, b, c = P[n], P[N + n], P[2 * N + n]
        d, e, f = P[3 * N + n], P[4 * N + n], P[5 * N + n]
        g, h, i = P[6 * N + n], P[7 * N + n], P[8 * N + n]
        al, bl, cl = P[9 * N + n], P[10 * N + n], P[11 * N + n]
        dl, el, fl = P[12 * N + n], P[13 * N + n], P[14 * N + n]
        gl, hl, il = P[15 * N + n], P[16 * N + n], P[17 * N + n]
        P[n], P[9 * N + n] = _dot3(a, al, a, al, b, bl, d, dl, c, cl, g, gl)
        P[N + n], P[10 * N + n] = _dot3(a, al, b, bl, b, bl, e, el, c, cl, h, hl)
        P[2 * N + n], P[11 * N + n] = _dot3(a, al, c, cl, b, bl, f, fl, c, cl, i, il)
        P[3 * N + n], P[12 * N + n] = _dot3(d, dl, a, al, e, el, d, dl, f, fl, g, gl)
        P[4 * N + n], P[13 * N + n] = _dot3(d, dl, b, bl, e, el, e, el, f, fl, h, hl)
        P[5 * N + n], P[14 * N + n] = _dot3(d, dl, c, cl, e, el, f, fl, f, fl, i, il)
        P[6 * N + n], P[15 * N + n] = _dot3(g, gl, a, al, h, hl, d, dl, i, il, g, gl)
        P[7 * N + n], P[16 * N + n] = _dot3(g, gl, b, bl, h, hl, e, el, i, il, h, hl)
        P[8 * N + n], P[17 * N + n] = _dot3(g, gl, c, cl, h, hl, f, fl, i, il, i, il)


@internal
def _congruence3(P, S, keep, count):
    """S <- keep S + M S M^T. M and S come as arrays of their own, for the compiler to see that they do not overlap."""
    N = BLOCK
    for n in range(count):
        a, b, c = P[n], P[N + n], P[2 * N + n]
        d, e, f = P[3 * N + n], P[4 * N + n], P[5 * N + n]
        g, h, i = P[6 * N + n], P[7 * N + n], P[8 * N + n]
        s00, s01, s02 = S[n], S[N + n], S[2 * N + n]
        s11, s12, s22 = S[3 * N + n], S[4 * N + n], S[5 * N + n]
        y0 = a * s00 + b * s01 + c * s02
        y1 = a * s01 + b * s11 + c * s12
        y2 = a * s02 + b * s12 + c * s22
        y3 = d * s00 + e * s01 + f * s02
        y4 = d * s01 + e * s11 + f * s12
        y5 = d * s02 + e * s12 + f * s22
        y6 = g * s00 + h * s01 + i * s02
        y7 = g * s01 + h * s11 + i * s12
        y8 = g * s02 + h * s12 + i * s22
        S[n] = keep * s00 + (y0 * a + y1 * b + y2 * c)
        S[N + n] = keep * s01 + (y0 * d + y1 * e + y2 * f)
        S[2 * N + n] = keep * s02 + (y0 * g + y1 * h + y2 * i)
        S[3 * N + n] = keep * s11 + (y3 * d + y4 * e + y5 * f)
        S[4 * N + n] = keep * s12 + (y3 * g + y4 * h + y5 * i)
        S[5 * N + n] = keep * s22 + (y6 * g + y7 * h + y8 * i)


@internal
def _advance3(P, Z, count):
    N = BLOCK
    _congruence3(P[: 18 * N], Z[6 * N :], 0.0, count)
    for slot in range(6):
        for n in range(count):
            Z[(6 + slot) * N + n] += P[(18 + slot) * N + n]
    for n in range(count):
        u, v, w = Z[n], Z[N + n], Z[2 * N + n]
        ul, vl, wl = Z[3 * N + n], Z[4 * N + n], Z[5 * N + n]
        Z[n], Z[3 * N + n] = _dot3(
            P[n], P[9 * N + n], u, ul, P[N + n], P[10 * N + n], v, vl, P[2 * N + n], P[11 * N + n], w, wl
        )
        Z[N + n], Z[4 * N + n] = _dot3(
            P[3 * N + n], P[12 * N + n], u, ul, P[4 * N + n], P[13 * N + n], v, vl, P[5 * N + n], P[14 * N + n], w, wl
        )
        Z[2 * N + n], Z[5 * N + n] = _dot3(
            P[6 * N + n], P[15 * N + n], u, ul, P[7 * N + n], P[16 * N + n], v, vl, P[8 * N + n], P[17 * N + n], w, wl
        )


# --- any k -----------------------------------------------------------------------------------------------


@internal
def _square(P, count, start):
    if len(start) == 1:
        _square1(P, count)
    elif len(start) == 2:
        _square2(P, count)
    else:
        _square3(P, count)


@internal
def _advance(P, Z, count, start):
    if len(start) == 1:
        _advance1(P, Z, count)
    elif len(start) == 2:
        _advance2(P, Z, count)
    else:
        _advance3(P, Z, count)


@inlined
def _entry(a, al, b, bl, q, x, xl):
    """A_ij - x gain_i query_j."""
    t, e = _mul(x, xl, b, bl)
    t, e = _mul(t, e, -q, 0.0)
    return _add(a, al, t, e)


@inlined
def _two_states(transition, gain, query, readout, start):
    """What `_shifted` needs of the first two states, out of the arrays and into registers."""
    return (
        (transition[0, 0, 0], transition[1, 0, 0], transition[0, 0, 1], transition[1, 0, 1]),
        (transition[0, 1, 0], transition[1, 1, 0], transition[0, 1, 1], transition[1, 1, 1]),
        (gain[0, 0], gain[1, 0], gain[0, 1], gain[1, 1]),
        (query[0], query[1], readout[0], readout[1], start[0], start[1]),
    )


@inlined
def _shifted(states, x, xl):
    """m, q, and the pairs (r . w, r^T K w) for w = gain and w = start."""
    (a00, c00, a01, c01), (a10, c10, a11, c11), (b0, f0, b1, f1), (q0, q1, r0, r1, s0, s1) = states
    m00, l00 = _entry(a00, c00, b0, f0, q0, x, xl)
    m01, l01 = _entry(a01, c01, b0, f0, q1, x, xl)
    m10, l10 = _entry(a10, c10, b1, f1, q0, x, xl)
    m11, l11 = _entry(a11, c11, b1, f1, q1, x, xl)
    m, ml = _add(0.5 * m00, 0.5 * l00, 0.5 * m11, 0.5 * l11)
    d, dl = _add(0.5 * m00, 0.5 * l00, -0.5 * m11, -0.5 * l11)
    q, ql = _dot2(d, dl, d, dl, m01, l01, m10, l10)
    k0, e0 = _dot2(r0, 0.0, d, dl, r1, 0.0, m10, l10)
    k1, e1 = _dot2(r0, 0.0, m01, l01, -r1, 0.0, d, dl)
    gain0, _ = _dot2(r0, 0.0, b0, f0, r1, 0.0, b1, f1)
    gain1, _ = _dot2(k0, e0, b0, f0, k1, e1, b1, f1)
    z0, g0 = _dot2(r0, 0.0, s0, 0.0, r1, 0.0, s1, 0.0)
    z1, g1 = _dot2(k0, e0, s0, 0.0, k1, e1, s1, 0.0)
    return m, ml, q, ql, gain0, gain1, z0, g0, z1, g1


@internal
def _prepare1(curvature, lr, transition, gain, query, start, P, Z, count):
    N = BLOCK
    a, al, b, bl, q, s = transition[0, 0, 0], transition[1, 0, 0], gain[0, 0], gain[1, 0], query[0], start[0]
    for n in range(count):
        x = lr * curvature[n]
        P[n], P[N + n] = _entry(a, al, b, bl, q, x, fma(lr, curvature[n], -x))
        P[2 * N + n] = b * b
        Z[n] = s


@internal
def _prepare2(curvature, lr, transition, gain, query, readout, start, P, Z, count):
    N = BLOCK
    states = _two_states(transition, gain, query, readout, start)
    for n in range(count):
        x = lr * curvature[n]
        m, ml, q, ql, b0, b1, z0, g0, z1, g1 = _shifted(states, x, fma(lr, curvature[n], -x))
        P[n], P[N + n], P[2 * N + n] = m, 1.0, q
        P[3 * N + n], P[4 * N + n], P[5 * N + n] = ml, 0.0, ql
        P[6 * N + n], P[7 * N + n], P[8 * N + n] = b0 * b0, b0 * b1, b1 * b1
        Z[n], Z[N + n], Z[2 * N + n], Z[3 * N + n] = z0, z1, g0, g1


@internal
def _prepare_average(curvature, lr, transition, gain, query, fresh, readout, start, P, Z, count):
    """The last state is an average of the readout of the first two: [[m, 1, 0], [q, m, 0], [f m, f, decay]]."""
    N = BLOCK
    decay = transition[0, 2, 2]
    f, fl, average = fresh[0], fresh[1], start[2]
    states = _two_states(transition, gain, query, readout, start)
    for n in range(count):
        x = lr * curvature[n]
        m, ml, q, ql, b0, b1, z0, g0, z1, g1 = _shifted(states, x, fma(lr, curvature[n], -x))
        w, e = _mul(f, fl, m, ml)
        w, e = _norm(w, e)
        P[n], P[N + n], P[2 * N + n] = m, 1.0, 0.0
        P[3 * N + n], P[4 * N + n], P[5 * N + n] = q, m, 0.0
        P[6 * N + n], P[7 * N + n], P[8 * N + n] = w, f, decay
        P[9 * N + n], P[10 * N + n], P[11 * N + n] = ml, 0.0, 0.0
        P[12 * N + n], P[13 * N + n], P[14 * N + n] = ql, ml, 0.0
        P[15 * N + n], P[16 * N + n], P[17 * N + n] = e, fl, 0.0
        b2 = f * b0
        P[18 * N + n], P[19 * N + n], P[20 * N + n] = b0 * b0, b0 * b1, b0 * b2
        P[21 * N + n], P[22 * N + n], P[23 * N + n] = b1 * b1, b1 * b2, b2 * b2
        Z[n], Z[N + n], Z[2 * N + n] = z0, z1, average
        Z[3 * N + n], Z[4 * N + n], Z[5 * N + n] = g0, g1, 0.0


@internal
def _prepare3(curvature, lr, transition, gain, query, start, P, Z, count):
    """A filter of three states as it comes."""
    N = BLOCK
    slot = 18
    for i in range(3):
        for j in range(3):
            hi, lo = (3 * i + j) * N, (9 + 3 * i + j) * N
            a, al, b, bl, q = transition[0, i, j], transition[1, i, j], gain[0, i], gain[1, i], query[j]
            for n in range(count):
                x = lr * curvature[n]
                P[hi + n], P[lo + n] = _entry(a, al, b, bl, q, x, fma(lr, curvature[n], -x))
        for j in range(i, 3):
            P[slot * N : slot * N + count] = gain[0, i] * gain[0, j]
            slot += 1
        Z[i * N : i * N + count] = start[i]


@internal
def _prepare(curvature, lr, transition, gain, query, fresh, readout, start, P, Z, count):
    """P <- one step, Z <- the state before it, in units of x sqrt(c / B) / h for the noise. Readout stays as it
    is for k = 1, (1, 0) for k = 2, (0, 0, 1) for an average (fresh > 0)."""
    Z[:] = 0.0
    if len(start) == 1:
        _prepare1(curvature, lr, transition, gain, query, start, P, Z, count)
    elif len(start) == 2:
        _prepare2(curvature, lr, transition, gain, query, readout, start, P, Z, count)
    elif fresh[0] > 0.0:
        _prepare_average(curvature, lr, transition, gain, query, fresh, readout, start, P, Z, count)
    else:
        _prepare3(curvature, lr, transition, gain, query, start, P, Z, count)


@internal
def _read_from(readout, fresh, start):
    """The readout in the coordinates of `_prepare`."""
    k = len(start)
    chosen = readout.copy()
    if k == 2 or (k == 3 and fresh > 0.0):
        chosen[:] = 0.0
        chosen[0 if k == 2 else 2] = 1.0
    return chosen


@inlined
def _slot(i, j, k):
    """Where entry (i, j) of M lies; for k = 2 both diagonal entries are one."""
    return (2 * i + j) % 3 if k == 2 else i * k + j


@internal
def _copy(source, to):
    """Fill ``to`` from its beginning. In place of ``to[:] = source``, for whose error message Numba compiles a second
    or two of string formatting."""
    for n in range(source.size):
        to[n] = source[n]


@internal
def _total(terms):
    """Sum of the BLOCK per-lane sums by halving: a fixed order, whatever the machine."""
    width = BLOCK // 2
    while width > 0:
        for n in range(width):
            terms[n] += terms[n + width]
        width //= 2
    return terms[0]


@internal
def _read(Z, readout, start, d, g, count):
    """d = r . u and g = r^T S r of each node: how much of the start is left, how much noise has come in."""
    N = BLOCK
    k = len(start)
    d[:] = 0.0
    g[:] = 0.0
    slot = 2 * k
    for i in range(k):
        r = readout[i]
        if r != 0.0:  # a state that is not read may have overflowed
            for n in range(count):
                d[n] += r * Z[i * N + n]
        for j in range(i, k):
            rr = r * readout[j] if i == j else 2.0 * r * readout[j]
            if rr != 0.0:
                for n in range(count):
                    g[n] += rr * Z[slot * N + n]
            slot += 1


@internal
def _noise_risk(curvature, noise, lr, inverse_batch, g, terms, count):
    """Add c / (2 h B) (lr h)^2 g of each node. A node without weight adds nothing, even to an overflow, and neither
    does an infinite batch."""
    if inverse_batch == 0.0:
        return
    for n in range(count):
        x = lr * curvature[n]
        terms[n] += noise[n] * inverse_batch * (x * (x * g[n])) if noise[n] > 0.0 and g[n] != 0.0 else 0.0


@internal
def _start_risk(bias, d, terms, count):
    for n in range(count):
        terms[n] += bias[n] * (d[n] * d[n]) if bias[n] > 0.0 else 0.0


@inlined
def _finite_or_inf(value):
    """Inputs are checked and weightless nodes and unread states skipped, so a NaN comes from overflow: diverged."""
    return value if value < math.inf else math.inf


@compiled
def risk_rows(
    curvature, which, bias, noise, lr, transition, gain, fresh, query, readout, start, inverse_batch, steps, out
):
    """out[r] = expected risk of row r.

    curvature: (powers, nodes), the preconditioned curvatures h^(1-p); which: (rows,), the p of each row.
    bias: (nodes,) = mult h init / 2; noise: (nodes,) = mult c / (2 h). nodes: a multiple of 8, weights of
    the padding 0. lr, inverse_batch, steps: (rows,). transition: (rows, 2, k, k), gain: (rows, 2, k), fresh:
    (rows, 2), all as (hi, lo). query, readout: (k,). start: tuple of k floats. Work of k = 2, a node: 60 flops a
    doubling of the steps, 45 more for each bit of their number that is 1.
    """
    k = len(start)
    P, Z = np.empty(POWER_SLOTS[k] * BLOCK), np.empty(STATE_SLOTS[k] * BLOCK)
    d, g, terms = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    for r in range(lr.size):
        terms[:] = 0.0
        read = _read_from(readout, fresh[r, 0], start)
        for first in range(0, bias.size, BLOCK):
            count = min(BLOCK, bias.size - first)
            h = curvature[which[r], first : first + count]
            _prepare(h, lr[r], transition[r], gain[r], query, fresh[r], readout, start, P, Z, count)
            left = steps[r]
            while left > 0:
                if left & 1:
                    _advance(P, Z, count, start)
                left >>= 1
                if left > 0:
                    _square(P, count, start)
            _read(Z, read, start, d, g, count)
            _start_risk(bias[first : first + count], d, terms, count)
            _noise_risk(h, noise[first : first + count], lr[r], inverse_batch[r], g, terms, count)
        out[r] = _finite_or_inf(_total(terms))


@compiled
def dyadic_rows(curvature, which, bias, noise, lr, transition, gain, fresh, query, readout, start, inverse_batch, out):
    """out[r, j] = expected risk of row r after 2^j steps, for all j at the price of the last one."""
    k = len(start)
    levels = out.shape[1]
    P, Z, origin = np.empty(POWER_SLOTS[k] * BLOCK), np.empty(STATE_SLOTS[k] * BLOCK), np.empty(STATE_SLOTS[k] * BLOCK)
    d, g, terms = np.empty(BLOCK), np.empty(BLOCK), np.empty((levels, BLOCK))
    for r in range(lr.size):
        terms[:] = 0.0
        read = _read_from(readout, fresh[r, 0], start)
        for first in range(0, bias.size, BLOCK):
            count = min(BLOCK, bias.size - first)
            h = curvature[which[r], first : first + count]
            _prepare(h, lr[r], transition[r], gain[r], query, fresh[r], readout, start, P, origin, count)
            for j in range(levels):
                _copy(origin, Z)
                _advance(P, Z, count, start)
                _read(Z, read, start, d, g, count)
                _start_risk(bias[first : first + count], d, terms[j], count)
                _noise_risk(h, noise[first : first + count], lr[r], inverse_batch[r], g, terms[j], count)
                if j + 1 < levels:
                    _square(P, count, start)
        for j in range(levels):
            out[r, j] = _finite_or_inf(_total(terms[j]))


# --- the search for a crossing ---------------------------------------------------------------------------


@internal
def _widen(P, old, new, count, start):
    """Boxes around the readouts of the next 2s steps, from those of the next s and P = (M^s, G_s).

    v_j = (M^j)^T r is how the mean after j more steps is read off the state now: d = v_j . u. A box holds
    lower and upper bounds of each component of v_j over even j, 0 <= j < s; v_{j+s} = (M^s)^T v_j widens it.
    """
    N = BLOCK
    k = len(start)
    for j in range(k):
        least, most = j * N, (k + j) * N
        for n in range(count):
            new[least + n] = 0.0
            new[most + n] = 0.0
        for i in range(k):
            m, low, high = _slot(i, j, k) * N, i * N, (k + i) * N
            for n in range(count):
                p = P[m + n] * old[low + n]
                q = P[m + n] * old[high + n]
                new[least + n] += min(p, q)
                new[most + n] += max(p, q)
        for n in range(count):
            new[least + n] = min(new[least + n], old[least + n])
            new[most + n] = max(new[most + n], old[most + n])


@inlined
def _course(m, q, d, slope):
    """Of d_t = A r1^t + B r2^t with real roots r1 >= r2 >= 0: -1 where |d_t| is proved never to rise, 1 where it never
    falls, else 0. The roots are m +- sqrt(q), d is d_0 and d_1 = m d + slope; A >= 0 is d sqrt(q) + slope >= 0.

    With A >= 0 and d_0 >= 0, steps d_(t+1) - d_t = A (r1 - 1) r1^t + B (r2 - 1) r2^t keep the sign of the first one if
    A (r1 - 1) has it: what has the other one only loses weight against it.
    """
    if not q >= 0.0:
        return 0.0
    half = math.sqrt(q)
    if d < 0.0:
        d, slope = -d, -slope
    if not (half <= m * ROUNDED and d * half + slope >= 0.0):
        return 0.0
    then = m * d + slope
    if m + half <= 1.0 and then <= d:
        return -1.0
    return 1.0 if m + half >= 1.0 and then >= d else 0.0


@internal
def _mark_courses(P, Z, fresh, start, even, odd, count):
    """even[n], odd[n]: as :func:`_course` for the means of every second step, from state Z on and from the next; P: one
    step.

    Roots of M^2 are no longer negative where those of M are real. One state just grows or shrinks. An average falls as
    long as it lies above what it averages, if that falls and stays positive, and rises likewise.
    """
    N = BLOCK
    k = len(start)
    average = k == 3 and fresh > 0.0
    for n in range(count):
        even[n] = 0.0
        if k == 1:
            even[n] = -1.0 if abs(P[n]) <= 1.0 else 1.0
        elif k == 2:
            m, q, d, slope = P[n], P[2 * N + n], Z[n], Z[N + n]
            mm, qq = m * m + q, 4.0 * m * m * q
            even[n] = _course(mm, qq, d, 2.0 * m * slope)
            odd[n] = _course(mm, qq, m * d + slope, 2.0 * m * (q * d + m * slope))
        elif average:
            m, d, slope = P[n], Z[n], Z[N + n]
            course, gap = _course(m, P[3 * N + n], d, slope), m * d + slope - Z[2 * N + n]
            even[n] = course if d >= 0.0 and Z[2 * N + n] >= 0.0 and course * gap >= 0.0 else 0.0
        if k > 2:
            odd[n] = even[n]


@compiled
def fill_levels(
    curvature, lr, transition, gain, fresh, query, readout, start, powers, boxes, origin, begin, end
):  # fmt: skip
    """powers[j, block] = 2^j steps; boxes[j, block] = the readouts of every second one of the next 2^j steps, from now
    on; origin[block] = state at 0. Levels begin <= j < end; those below ``begin`` are there."""
    k = len(start)
    read = _read_from(readout, fresh[0], start)
    for block in range(powers.shape[1]):
        first = block * BLOCK
        count = min(BLOCK, curvature.size - first)
        h = curvature[first : first + count]
        if begin == 0:
            _prepare(h, lr, transition, gain, query, fresh, readout, start, powers[0, block], origin[block], count)
            for i in range(k):
                boxes[0, block, i * BLOCK : i * BLOCK + count] = read[i]
                boxes[0, block, (k + i) * BLOCK : (k + i) * BLOCK + count] = read[i]
        for j in range(max(begin, 1), end):
            if j == 1:
                _copy(boxes[0, block], boxes[1, block])
            else:
                _widen(powers[j - 1, block], boxes[j - 1, block], boxes[j, block], count, start)
            _copy(powers[j - 1, block], powers[j, block])
            _square(powers[j, block], count, start)


@internal
def _mean_range(Z, box, start, least, most, count):
    """Bounds of r . M^s u over the steps s of a box: intervals, multiplied and added up."""
    N = BLOCK
    k = len(start)
    least[:] = 0.0
    most[:] = 0.0
    for i in range(k):
        low, high = i * N, (k + i) * N
        for n in range(count):
            p = Z[i * N + n] * box[low + n]
            q = Z[i * N + n] * box[high + n]
            least[n] += min(p, q)
            most[n] += max(p, q)


@internal
def _least_start_risk(bias, d, least, terms, count):
    """Add bias * least^2; a mean d that has overflowed counts as inf."""
    for n in range(count):
        nearest = least[n] if abs(d[n]) < math.inf else math.inf
        terms[n] += bias[n] * (nearest * nearest) if bias[n] > 0.0 else 0.0


@internal
def _most_start_risk(bias, most, terms, count):
    for n in range(count):
        terms[n] += bias[n] * (most[n] * most[n]) if bias[n] > 0.0 else 0.0


@internal
def _sizes(course, now, after, least, most, count):
    """From bounds of a mean to bounds of its size: those at both ends where it only falls or only rises. Bounds that
    are NaN (overflowed boxes) count as 0 and NaN."""
    for n in range(count):
        nearest = least[n] if least[n] > 0.0 else (-most[n] if most[n] < 0.0 else 0.0)
        farthest = max(-least[n], most[n])
        first, end = abs(now[n]), abs(after[n])
        least[n] = nearest if course[n] == 0.0 else (end if course[n] < 0.0 else first)
        most[n] = farthest if course[n] == 0.0 else (first if course[n] < 0.0 else end)


@internal
def _advance_mean(P, e, out, count, k):
    """out <- M e, in doubles."""
    N = BLOCK
    for i in range(k):
        to = i * N
        out[to : to + count] = 0.0
        for j in range(k):
            m, at = _slot(i, j, k) * N, j * N
            for n in range(count):
                out[to + n] += P[m + n] * e[at + n]


@internal
def _read_mean(e, readout, d, count):
    N = BLOCK
    d[:] = 0.0
    for i in range(readout.size):
        for n in range(count):
            d[n] += readout[i] * e[i * N + n]


@internal
def _leap_of_mean(
    now, state, after, ahead, weight, box, step, read, fresh, start, single, last, low, high, work, count
):  # fmt: skip
    """Add to low (and, if last, to high) bounds of weight * mean^2 over a leap, from the means now and after; single:
    a leap of 1. Every second step is bounded by itself, so that a mean may change its sign with each."""
    k = len(start)
    least, most, even, odd = work[0], work[1], work[2], work[3]
    if single:  # it is known; states that are not read may have overflowed
        for n in range(count):
            least[n] = abs(now[n])
            most[n] = abs(now[n])
    else:
        _mark_courses(step, state, fresh, start, even, odd, count)
        _mean_range(state, box, start, least, most, count)
        _sizes(even, now, after, least, most, count)
        if k > 1:
            least2, most2, now2, after2 = work[4], work[5], work[6], work[7]
            following = work[8:].reshape(-1)
            _advance_mean(step, ahead, following, count, k)
            _read_mean(following, read, after2, count)
            _advance_mean(step, state, following, count, k)
            _read_mean(following, read, now2, count)
            _mean_range(following, box, start, least2, most2, count)
            _sizes(odd, now2, after2, least2, most2, count)
            for n in range(count):
                least[n] = min(least[n], least2[n])
                most[n] = max(most[n], most2[n])
    _least_start_risk(weight, now, least, low, count)
    if last:
        _most_start_risk(weight, most, high, count)


@compiled
def march(
    curvature, bias, noise, carried, lr, fresh, readout, start, inverse_batch, powers, boxes, state, ahead, extra,
    extra_ahead, target, last, until, progress, budget,
):  # fmt: skip
    """Walk through time in leaps of 2^j steps, each one proved to hold no crossing, until one is found.

    last = False: the first t with risk <= target. last = True: the step after the last t with risk > target.
    A leap over [t, t + 2^j) is taken when bounds prove that the risk stays on one side of the target there;
    otherwise j shrinks, and at j = 0 the bounds are the risk itself. The bounds: the noise part never falls,
    since every step adds a square, so it lies between its values at both ends; the mean part lies between its values
    at both ends where it is known to fall or to rise, and is (v . u)^2 with the readout v inside the box of its level
    elsewhere: of every second step from now, and from the next state on.
    Noise carried over from earlier pieces of a schedule is like V means more, one a column of a root of its covariance:
    extra (V, blocks, k BLOCK), of weight carried (nodes,). The walk ends at t = until.
    progress = [t, j, answer so far, leaps tried], so that a walk goes on where it stopped (budget spent, or more levels
    wanted). Returns a status.
    """
    k = len(start)
    low, high = np.empty(BLOCK), np.empty(BLOCK)
    d, g, after, work = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK), np.empty((8 + k, BLOCK))
    read = _read_from(readout, fresh, start)
    while budget > 0:
        t, j = progress[0], progress[1]
        while j > 0 and t + (1 << j) > until:
            j -= 1
        if j >= powers.shape[0]:
            return MORE_LEVELS
        budget -= 1
        progress[3] += 1
        low[:] = 0.0
        high[:] = 0.0
        for block in range(powers.shape[1]):
            first = block * BLOCK
            count = min(BLOCK, curvature.size - first)
            h, b, c = curvature[first : first + count], bias[first : first + count], noise[first : first + count]
            w = carried[first : first + count]
            _read(state[block], read, start, d, g, count)
            _noise_risk(h, c, lr, inverse_batch, g, low, count)
            _copy(state[block], ahead[block])
            _advance(powers[j, block], ahead[block], count, start)
            _read(ahead[block], read, start, after, g, count)
            if last:
                _noise_risk(h, c, lr, inverse_batch, g, high, count)
            step, box = powers[0, block], boxes[j, block]
            single = j == 0
            _leap_of_mean(
                d, state[block], after, ahead[block], b, box, step, read, fresh, start, single, last, low, high, work,
                count,
            )  # fmt: skip
            for v in range(extra.shape[0]):
                _advance_mean(powers[j, block], extra[v, block], extra_ahead[v, block], count, k)
                _read_mean(extra[v, block], read, d, count)
                _read_mean(extra_ahead[v, block], read, after, count)
                _leap_of_mean(
                    d, extra[v, block], after, extra_ahead[v, block], w, box, step, read, fresh, start, single, last,
                    low, high, work, count,
                )  # fmt: skip
        lowest = _total(low)
        above = not lowest <= target  # NaN (overflow) lies above every target
        below = last and (lowest <= target if j == 0 else _total(high) <= target)
        if above and last:
            progress[2] = t + (1 << j)
        if j == 0 and not above and not last:
            progress[2] = t
            return FOUND
        if above or below:
            for block in range(powers.shape[1]):
                _copy(ahead[block], state[block])
                for v in range(extra.shape[0]):
                    _copy(extra_ahead[v, block], extra[v, block])
            progress[0] = t + (1 << j)
            progress[1] = j + 1
            if progress[0] >= until:
                return NEVER if above else FOUND
        else:
            progress[1] = j - 1
    return OUT_OF_BUDGET


@compiled
def crossing_rows(
    curvature, which, bias, noise, lr, transition, gain, fresh, query, readout, start, inverse_batch, targets, last,
    budget, out,
):  # fmt: skip
    """out[r] = what `march` finds for row r: a step, inf for never, NaN where more than ``budget`` leaps are wanted.

    As `risk_rows`, with targets: (rows,). Levels are filled as they are asked for.
    """
    k = len(start)
    blocks = -(-bias.size // BLOCK)
    powers = np.empty((MOST_LEVELS, blocks, POWER_SLOTS[k] * BLOCK))
    boxes = np.empty((MOST_LEVELS, blocks, 2 * k * BLOCK))
    origin = np.empty((blocks, STATE_SLOTS[k] * BLOCK))
    ahead = np.empty((blocks, STATE_SLOTS[k] * BLOCK))
    extra = np.empty((0, blocks, k * BLOCK))
    progress, end = np.empty(4, dtype=np.int64), np.int64(HORIZON)
    for r in range(lr.size):
        h = curvature[which[r]]
        progress[:] = 0
        filled, status = progress[0], MORE_LEVELS
        while status == MORE_LEVELS:
            wanted = min(MOST_LEVELS, filled + 4)
            fill_levels(
                h, lr[r], transition[r], gain[r], fresh[r], query, readout, start, powers, boxes, origin, filled, wanted
            )
            filled = wanted
            status = march(
                h, bias, noise, noise, lr[r], fresh[r, 0], readout, start, inverse_batch[r], powers[:filled],
                boxes[:filled], origin, ahead, extra, extra, targets[r], last, end, progress,
                budget - progress[3],
            )  # fmt: skip
        out[r] = float(progress[2]) if status == FOUND else (math.inf if status == NEVER else math.nan)


# --- a trust-region Newton step ---------------------------------------------------------------------------


@internal
def _reduced_step(gradient, hessian, low, high, side, step):
    """Stationary point of g.p + p.H.p/2, each p_i free (side 1), at low (0) or high (2); False if not in the box."""
    n = gradient.size
    matrix, right = np.empty((n, n)), np.empty(n)
    for i in range(n):
        inside = side[i] == 1
        right[i] = -gradient[i] if inside else (low[i] if side[i] == 0 else high[i])
        for j in range(n):
            matrix[i, j] = hessian[i, j] if inside else 0.0
        if not inside:
            matrix[i, i] = 1.0
    for i in range(n):  # Gauss-Jordan with row pivoting; n <= 3
        pivot = i
        for j in range(i + 1, n):
            if abs(matrix[j, i]) > abs(matrix[pivot, i]):
                pivot = j
        if matrix[pivot, i] == 0.0:
            return False
        for j in range(n):
            matrix[i, j], matrix[pivot, j] = matrix[pivot, j], matrix[i, j]
        right[i], right[pivot] = right[pivot], right[i]
        for j in range(n):
            if j != i:
                factor = matrix[j, i] / matrix[i, i]
                for q in range(n):
                    matrix[j, q] -= factor * matrix[i, q]
                right[j] -= factor * right[i]
    for i in range(n):
        step[i] = right[i] / matrix[i, i]
        if side[i] == 1 and not low[i] <= step[i] <= high[i]:
            return False
    return True


@compiled
def newton_steps(values, center, size, radius, low, high, out, gain):
    """Minimise the quadratic through each stencil over a box: out[s] = the point, gain[s] = what the model promises.

    values: (S, 1 + 2n + n(n-1)/2): at the centre, at +- size along each axis, at + size along each pair of axes.
    center, out: (S, n); size, radius, gain: (S,); low, high: (n,). The box is center +- radius within [low, high].
    The minimum over a box lies in its inside, or inside one of its faces: all 3^n are looked at.
    """
    starts, n = center.shape
    gradient, hessian, step = np.empty(n), np.empty((n, n)), np.empty(n)
    below, above, side = np.empty(n), np.empty(n), np.empty(n, dtype=np.int64)
    for s in range(starts):
        f, h = values[s], size[s]
        for i in range(n):
            gradient[i] = (f[1 + 2 * i] - f[2 + 2 * i]) / (2.0 * h)
            hessian[i, i] = (f[1 + 2 * i] - 2.0 * f[0] + f[2 + 2 * i]) / (h * h)
            below[i] = max(low[i] - center[s, i], -radius[s])
            above[i] = min(high[i] - center[s, i], radius[s])
        pair = 1 + 2 * n
        for i in range(n):
            for j in range(i + 1, n):
                mixed = (f[pair] - f[1 + 2 * i] - f[1 + 2 * j] + f[0]) / (h * h)
                hessian[i, j] = mixed
                hessian[j, i] = mixed
                pair += 1
        _copy(center[s], out[s])
        gain[s] = 0.0
        for code in range(3**n):
            rest = code
            for i in range(n):
                side[i] = rest % 3
                rest //= 3
            if _reduced_step(gradient, hessian, below, above, side, step):
                change = 0.0
                for i in range(n):
                    change += gradient[i] * step[i]
                    for j in range(n):
                        change += 0.5 * step[i] * hessian[i, j] * step[j]
                if change < -gain[s]:
                    gain[s] = -change
                    for i in range(n):
                        out[s, i] = min(max(center[s, i] + step[i], low[i]), high[i])


# --- schedules: pieces in a chain --------------------------------------------------------------------------------
#
# Where lr or batch size change from piece to piece, the state must mean the same on both sides. So it is kept in the
# filter's own coordinates, with states that are proportional to lr (a velocity) in units of lr, and in absolute units
# of noise: b = lr^(1 - scaled) gain, times 1 / B. One step is affine in the curvature: M = constant + linear h.
# The caller scales lr and curvature by a power of two so that the largest lr is about 1.


@inlined
def _raised(a, al, lr, exponent):
    """a lr^exponent for exponent 0, 1, 2, as a pair."""
    for _ in range(exponent):
        a, al = _mul(a, al, lr, 0.0)
        a, al = _norm(a, al)
    return a, al


@internal
def _tables(lr, transition, gain, fresh, query, readout, scaled, constant, linear, b):
    """One step at learning rate lr: constant, linear (2, k, k), hi and lo; b (k,), what a unit of noise does.

    scaled: (k,) of 0 and 1, the states in units of lr. transition must not feed others into those.
    """
    k = b.size
    average = k == 3 and fresh[0] > 0.0
    for i in range(2 if average else k):
        for j in range(k):
            e = scaled[j] - scaled[i]
            constant[0, i, j], constant[1, i, j] = 0.0, 0.0
            if e >= 0:
                constant[0, i, j], constant[1, i, j] = _raised(transition[0, i, j], transition[1, i, j], lr, e)
            t, tl = _mul(gain[0, i], gain[1, i], -query[j], 0.0)
            linear[0, i, j], linear[1, i, j] = _raised(t, tl, lr, 1 + e)
        b[i] = _raised(gain[0, i], gain[1, i], lr, 1 - scaled[i])[0]
    if average:  # of what the others read out after the step
        for table in (constant, linear):
            for j in range(2):
                r, rl = _dot2(readout[0], 0.0, table[0, 0, j], table[1, 0, j],
                              readout[1], 0.0, table[0, 1, j], table[1, 1, j])  # fmt: skip
                r, rl = _mul(fresh[0], fresh[1], r, rl)
                table[0, 2, j], table[1, 2, j] = _norm(r, rl)
            table[0, 2, 2], table[1, 2, 2] = 0.0, 0.0
        constant[0, 2, 2], constant[1, 2, 2] = transition[0, 2, 2], transition[1, 2, 2]
        b[2] = fresh[0] * (readout[0] * b[0] + readout[1] * b[1])


@internal
def _one_step(curvature, constant, linear, b, inverse_batch, P, count):
    N = BLOCK
    k = b.size
    slot = 2 * k * k
    for i in range(k):
        for j in range(k):
            hi, lo = (k * i + j) * N, (k * (k + i) + j) * N
            c, cl, t, tl = constant[0, i, j], constant[1, i, j], linear[0, i, j], linear[1, i, j]
            if t == 0.0:
                P[hi : hi + count] = c
                P[lo : lo + count] = cl
                continue
            for n in range(count):
                x = t * curvature[n]
                P[hi + n], P[lo + n] = _add(c, cl, x, fma(tl, curvature[n], fma(t, curvature[n], -x)))
        for j in range(i, k):
            P[slot * N : slot * N + count] = inverse_batch * b[i] * b[j]
            slot += 1


@internal
def _shifts(curvature, largest, lr, scaled, constant, linear, shift, count):
    """shift[n] for coordinates (theta, w + shift theta) in which a momentum's M has equal diagonal entries, where
    lr h > 1; 0 elsewhere, and for other filters. Returns whether any is not 0.

    At the far end of critical damping theta and the velocity w nearly are multiples of each other, and what tells them
    apart decides what comes. (At small lr h shifts would cost digits when lr rises again later.)
    """
    some = False
    if scaled[1] == 1 and lr * largest > 1.0:
        shift[:] = 0.0
        for n in range(count):
            h = curvature[n]
            if lr * h > 1.0:
                off = constant[0, 0, 1] + linear[0, 0, 1] * h
                gap = constant[0, 0, 0] + linear[0, 0, 0] * h - constant[0, 1, 1] - linear[0, 1, 1] * h
                if off != 0.0:
                    shift[n] = 0.5 * gap / off
                    some = True
    return some


@internal
def _shift_step(P, b, inverse_batch, shift, count):
    """One step in the coordinates of `_shifts`: T M T^-1 and T b with T = 1 + shift in entry (1, 0)."""
    N = BLOCK
    k = b.size
    for i in range(k):
        at, by, low = k * i * N, (k * i + 1) * N, k * k * N
        for n in range(count):
            p, e = _mul(P[by + n], P[low + by + n], -shift[n], 0.0)
            P[at + n], P[low + at + n] = _add(P[at + n], P[low + at + n], p, e)
    for j in range(k):
        at, by, low = (k + j) * N, j * N, k * k * N
        for n in range(count):
            p, e = _mul(P[by + n], P[low + by + n], shift[n], 0.0)
            P[at + n], P[low + at + n] = _add(P[at + n], P[low + at + n], p, e)
    first = 2 * k * k * N
    second = first + k * N
    for n in range(count):
        b1 = b[1] + shift[n] * b[0]
        P[first + N + n] = inverse_batch * b[0] * b1
        P[second + n] = inverse_batch * b1 * b1
        if k == 3:
            P[second + N + n] = inverse_batch * b1 * b[2]


@internal
def _shift_state(Z, before, after, k, count):
    """The state in the coordinates of another shift."""
    N = BLOCK
    s = 2 * k * N
    for n in range(count):
        t = after[n] - before[n]
        if t != 0.0:
            p, e = _dot2(Z[n], Z[k * N + n], after[n], 0.0, Z[n], Z[k * N + n], -before[n], 0.0)
            Z[N + n], Z[(k + 1) * N + n] = _add(Z[N + n], Z[(k + 1) * N + n], p, e)
            Z[s + k * N + n] += t * (2.0 * Z[s + N + n] + t * Z[s + n])
            Z[s + N + n] += t * Z[s + n]
            if k == 3:
                Z[s + 4 * N + n] += t * Z[s + 2 * N + n]


@internal
def _natural_readout(readout, fresh, start):
    """The readout in the filter's own coordinates: of an average its last state."""
    chosen = readout.copy()
    if len(start) == 3 and fresh[0] > 0.0:
        chosen[:] = 0.0
        chosen[2] = 1.0
    return chosen


@internal
def _chain(P, Z, steps, count, start):
    """Z <- the state `steps` steps of P on; P is spent."""
    k = len(start)
    left = steps
    while left > 0:
        if left & 1:
            if k == 1:
                _advance1(P, Z, count)
            elif k == 2:
                _advance22(P, Z, count)
            else:
                _advance3(P, Z, count)
        left >>= 1
        if left > 0:
            if k == 1:
                _square1(P, count)
            elif k == 2:
                _square22(P, count)
            else:
                _square3(P, count)


@compiled
def chain_rows(
    curvature, which, bias, noise, lr, transition, gain, fresh, query, readout, start, inverse_batch,
    scaled, piece_lr, piece_inverse_batch, lengths, column, states, out,
):  # fmt: skip
    """out[r, column[j]] += the risk of row r after piece j, for pieces with column[j] >= 0.

    As `risk_rows`, with learning rate lr[r] piece_lr[j] and inverse batch size inverse_batch[r] piece_inverse_batch[j]
    for lengths[j] steps. curvature: (powers, nodes) with the caller's power of two in it. states: (rows, blocks,
    slots BLOCK), the state before the first piece, and after the last when done.
    """
    k = len(start)
    P = np.empty(CHAIN_SLOTS[k] * BLOCK)
    d, g, terms = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    constant, linear, b = np.empty((2, k, k)), np.empty((2, k, k)), np.empty(k)
    shift, before, none = np.empty(BLOCK), np.empty(BLOCK), np.zeros(BLOCK)
    for r in range(lr.size):
        read = _natural_readout(readout, fresh[r], start)
        noisy = 1.0 if inverse_batch[r] > 0.0 else 0.0  # the batch size is in the state already
        for block in range(states.shape[1]):
            first = block * BLOCK
            count = min(BLOCK, bias.size - first)
            h = curvature[which[r], first : first + count]
            largest = h.max()
            Z = states[r, block]
            shifted = False
            for j in range(lengths.size):
                rate, share = lr[r] * piece_lr[j], inverse_batch[r] * piece_inverse_batch[j]
                _tables(rate, transition[r], gain[r], fresh[r], query, readout, scaled, constant, linear, b)
                _one_step(h, constant, linear, b, share, P, count)
                if k > 1:
                    before, shift, was = shift, before, shifted
                    shifted = _shifts(h, largest, rate, scaled, constant, linear, shift, count)
                    if shifted:
                        _shift_step(P, b, share, shift, count)
                    if was or shifted:
                        _shift_state(Z, before if was else none, shift if shifted else none, k, count)
                _chain(P, Z, lengths[j], count, start)
                if column[j] >= 0:
                    terms[:] = 0.0
                    _read(Z, read, start, d, g, count)
                    _start_risk(bias[first : first + count], d, terms, count)
                    _noise_risk(h, noise[first : first + count], 1.0, noisy, g, terms, count)
                    out[r, column[j]] += _total(terms)
            if shifted:
                _shift_state(Z, shift, none, k, count)


@compiled
def chain_scan(
    curvature, bias, noise, lr, transition, gain, fresh, query, readout, start, scaled, inverse_batch, lengths, states,
    target, last, progress,
):  # fmt: skip
    """Step by step along pieces, one row: FOUND at the first t with risk <= target, NEVER if there is none.

    last = True: to the end, with progress[1] = the step after the last t with risk > target. progress = [t, answer].
    states: (blocks, slots BLOCK), as in `chain_rows`.
    """
    k = len(start)
    blocks = states.shape[0]
    P = np.empty((blocks, CHAIN_SLOTS[k] * BLOCK))
    d, g, terms = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    constant, linear, b = np.empty((2, k, k)), np.empty((2, k, k)), np.empty(k)
    read, one = _natural_readout(readout, fresh, start), np.int64(1)
    noisy = 1.0 if inverse_batch[0] > 0.0 else 0.0  # for all pieces alike: the batch size is in the state already
    for j in range(lengths.size):
        _tables(lr[j], transition, gain, fresh, query, readout, scaled, constant, linear, b)
        for block in range(blocks):
            first = block * BLOCK
            count = min(BLOCK, bias.size - first)
            _one_step(curvature[first : first + count], constant, linear, b, inverse_batch[j], P[block], count)
        for _ in range(lengths[j]):
            terms[:] = 0.0
            for block in range(blocks):
                first = block * BLOCK
                count = min(BLOCK, bias.size - first)
                Z = states[block]
                _read(Z, read, start, d, g, count)
                _start_risk(bias[first : first + count], d, terms, count)
                h, c = curvature[first : first + count], noise[first : first + count]
                _noise_risk(h, c, 1.0, noisy, g, terms, count)
                _chain(P[block], Z, one, count, start)
            above = not _total(terms) <= target
            if above and last:
                progress[1] = progress[0] + 1
            elif not above and not last:
                progress[1] = progress[0]
                return FOUND
            progress[0] += 1
    return NEVER


@inlined
def _root(value):
    return math.sqrt(value) if value > 0.0 else 0.0


@compiled
def carry_over(
    curvature, lr, unit, transition, gain, fresh, query, readout, start, scaled, kept, state, columns, block
):  # fmt: skip
    """From a chain's state to those that `march` wants for a piece with learning rate lr, one block.

    kept: (slots BLOCK), states in units of lr / unit where they scale. state: its mean, with no noise; columns:
    (k, blocks, k BLOCK), those of the Cholesky root of its covariance; both in the coordinates of `_prepare`.
    """
    N = BLOCK
    k = len(start)
    average = k == 3 and fresh[0] > 0.0
    size = np.empty(3)
    size[:] = 1.0
    for i in range(k):
        if scaled[i] > 0:
            size[i] = lr / unit
    extra = columns[:, block]
    state[:] = 0.0
    extra[:] = 0.0
    for n in range(curvature.size):
        for i in range(k):
            state[i * N + n] = size[i] * kept[i * N + n]
        s = 2 * k * N + n
        if k == 1:
            extra[0, n] = _root(kept[s])
        else:
            a = _root(kept[s])
            b = kept[s + N] / a if a > 0.0 else 0.0
            extra[0, n], extra[0, N + n] = size[0] * a, size[1] * b
            if k == 2:
                extra[1, N + n] = size[1] * _root(kept[s + 2 * N] - b * b)
            else:
                c = kept[s + 2 * N] / a if a > 0.0 else 0.0
                d = _root(kept[s + 3 * N] - b * b)
                e = (kept[s + 4 * N] - b * c) / d if d > 0.0 else 0.0
                extra[0, 2 * N + n] = size[2] * c
                extra[1, N + n], extra[1, 2 * N + n] = size[1] * d, size[2] * e
                extra[2, 2 * N + n] = size[2] * _root(kept[s + 5 * N] - c * c - e * e)
        if k == 2 or average:  # y = (r . z, r^T K z)
            x = lr * curvature[n]
            m00 = transition[0, 0, 0] - x * gain[0, 0] * query[0]
            m01 = transition[0, 0, 1] - x * gain[0, 0] * query[1]
            m10 = transition[0, 1, 0] - x * gain[0, 1] * query[0]
            m11 = transition[0, 1, 1] - x * gain[0, 1] * query[1]
            half = 0.5 * (m00 - m11)
            r0, r1 = readout[0], readout[1]
            k0, k1 = r0 * half + r1 * m10, r0 * m01 - r1 * half
            p, q = state[n], state[N + n]
            state[n], state[N + n] = r0 * p + r1 * q, k0 * p + k1 * q
            for v in range(k):
                p, q = extra[v, n], extra[v, N + n]
                extra[v, n], extra[v, N + n] = r0 * p + r1 * q, k0 * p + k1 * q


# --- schedules: gradients ----------------------------------------------------------------------------------------
#
# Plain doubles: M^s is right to about s ulps, ample for a direction. Second moments Q of start and noise together.


@internal
def _gradient1(
    curvature, bias, noise, lr, transition, gain, query, readout, start, inverse_batch, lengths, by_lr, by_batch
):  # fmt: skip
    """`chain_gradient` for one state: q' = A q + v W G with A = a^2s, G = sum_(j<s) a^2j, W = b^2 / batch.

    Tangents of A and G with respect to a come with the doubling, lambda = d risk / d q from behind.
    """
    pieces = lr.size
    terms = np.zeros(BLOCK)
    weight = np.empty(BLOCK)
    q, grown = np.empty((pieces + 1, BLOCK)), np.empty((pieces, BLOCK))
    left_over, d_left, d_grown = np.empty((pieces, BLOCK)), np.empty((pieces, BLOCK)), np.empty((pieces, BLOCK))
    A, dA, G, dG = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    slopes, shares = np.empty(BLOCK), np.empty(BLOCK)
    for first in range(0, bias.size, BLOCK):
        count = min(BLOCK, bias.size - first)
        h = curvature[first : first + count]
        for n in range(count):
            q[0, n] = bias[first + n] * start[0] * start[0]
            weight[n] = noise[first + n] * h[n] * h[n]
        for j in range(pieces):
            t = -lr[j] * gain[0, 0] * query[0]
            W = (lr[j] * gain[0, 0]) ** 2 * inverse_batch[j]
            At, dAt, Gt, dGt = left_over[j], d_left[j], grown[j], d_grown[j]
            for n in range(count):
                a = fma(t, h[n], transition[0, 0, 0])
                A[n], dA[n], G[n], dG[n] = a * a, 2.0 * a, 1.0, 0.0
                At[n], dAt[n], Gt[n], dGt[n] = 1.0, 0.0, 0.0, 0.0
            steps = lengths[j]
            while steps > 0:
                if steps & 1:
                    for n in range(count):
                        dGt[n] = dG[n] + dA[n] * Gt[n] + A[n] * dGt[n]
                        Gt[n] = G[n] + A[n] * Gt[n]
                        dAt[n] = dA[n] * At[n] + A[n] * dAt[n]
                        At[n] = A[n] * At[n]
                steps >>= 1
                if steps > 0:
                    for n in range(count):
                        dG[n] += dA[n] * G[n] + A[n] * dG[n]
                        G[n] += A[n] * G[n]
                        dA[n] = 2.0 * A[n] * dA[n]
                        A[n] = A[n] * A[n]
            for n in range(count):
                q[j + 1, n] = At[n] * q[j, n] + weight[n] * W * Gt[n]
        for n in range(count):
            terms[n] += readout[0] * readout[0] * q[pieces, n]
            A[n] = readout[0] * readout[0]
        for j in range(pieces - 1, -1, -1):
            t = -lr[j] * gain[0, 0] * query[0]
            W = (lr[j] * gain[0, 0]) ** 2 * inverse_batch[j]
            slopes[:] = 0.0
            shares[:] = 0.0
            for n in range(count):
                share = A[n] * weight[n] * W * grown[j, n]
                slope = A[n] * (d_left[j, n] * q[j, n] + weight[n] * W * d_grown[j, n])
                slopes[n] = slope * t * h[n] + 2.0 * share
                shares[n] = share
                A[n] *= left_over[j, n]
            by_lr[j] += _total(slopes)
            by_batch[j] += _total(shares)
    return _total(terms)


@internal
def _product(C, A, ai, aj, B, bi, bj, scale, k, count):
    """C += scale A B for blocks of k x k matrices, k = 2 or 3. Entry (i, j) lies in slot i ai + j aj: (k, 1) plain,
    (1, k) transposed."""
    N = BLOCK
    for i in range(k):
        for j in range(k):
            c, a, b = (k * i + j) * N, i * ai * N, j * bj * N
            a1, b1, a2, b2 = a + aj * N, b + bi * N, a + 2 * aj * N, b + 2 * bi * N
            if k == 2:
                for n in range(count):
                    C[c + n] += scale * (A[a + n] * B[b + n] + A[a1 + n] * B[b1 + n])
            else:
                for n in range(count):
                    C[c + n] += scale * (A[a + n] * B[b + n] + A[a1 + n] * B[b1 + n] + A[a2 + n] * B[b2 + n])


@internal
def _sandwich(C, M, mi, mj, S, work, k, count):
    """C += M S M^T; with (mi, mj) = (1, k), C += M^T S M."""
    work[:] = 0.0
    _product(work, M, mi, mj, S, k, 1, 1.0, k, count)
    _product(C, work, k, 1, M, mj, mi, 1.0, k, count)


@internal
def _forward(M, G, Q, before, weight, steps, work, k, count):
    """Fill M[l], G[l] for 2^l steps from M[0], G[0]; before[l] = Q before it takes those; returns levels used."""
    N = BLOCK
    level = 0
    while True:
        if steps & 1:
            _copy(Q, before[level])
            Q[:] = 0.0
            _sandwich(Q, M[level], k, 1, before[level], work, k, count)
            for slot in range(k * k):
                for n in range(count):
                    Q[slot * N + n] += weight[n] * G[level, slot * N + n]
        steps >>= 1
        level += 1
        if steps == 0:
            return level
        M[level] = 0.0
        _product(M[level], M[level - 1], k, 1, M[level - 1], k, 1, 1.0, k, count)
        _copy(G[level - 1], G[level])
        _sandwich(G[level], M[level - 1], k, 1, G[level - 1], work, k, count)


@internal
def _first_level(h, constant, linear, b, inverse_batch, M, G, k, count):
    N = BLOCK
    for i in range(k):
        for j in range(k):
            slot = (k * i + j) * N
            for n in range(count):
                M[slot + n] = fma(linear[0, i, j], h[n], constant[0, i, j])
            G[slot : slot + count] = inverse_batch * b[i] * b[j]


@internal
def _lane_sum(values, scale, count, work):
    work[:] = 0.0
    for n in range(count):
        work[n] = values[n] * scale[n]
    return _total(work)


@compiled
def chain_gradient(
    curvature, bias, noise, lr, transition, gain, fresh, query, readout, start, scaled, inverse_batch, lengths,
    spans, by_lr, by_batch, by_value,
):  # fmt: skip
    """Risk after all pieces of one row, and its derivatives by log lr_j, log(1 / batch_j) and other hyperparameters.

    lr, inverse_batch, lengths, by_lr, by_batch: (pieces,). transition: (1 + 2 V, 2, k, k), gain: (1 + 2 V, 2, k),
    fresh: (1 + 2 V, 2): the filter, then for each of V hyperparameters the filter at value + span / 2 and at
    value - span / 2; entries are polynomials of degree two at most, so central differences are derivatives.
    k > 1 goes backwards through the doubling: adjoints of M^s and G_s, down to those of a single step.
    """
    k = len(start)
    by_lr[:] = 0.0
    by_batch[:] = 0.0
    by_value[:] = 0.0
    if k == 1:
        return _gradient1(
            curvature, bias, noise, lr, transition[0], gain[0], query, readout, start, inverse_batch, lengths, by_lr,
            by_batch,
        )  # fmt: skip
    N = BLOCK
    pieces, kk = lr.size, k * k
    levels = 1
    while (lengths.max() >> levels) > 0:
        levels += 1
    constant, linear, b = np.empty((2, k, k)), np.empty((2, k, k)), np.empty(k)
    constant1, linear1, b1 = np.empty((2, k, k)), np.empty((2, k, k)), np.empty(k)
    constant2, linear2, b2 = np.empty((2, k, k)), np.empty((2, k, k)), np.empty(k)
    constant_bar, linear_bar, b_bar = np.empty((k, k)), np.empty((k, k)), np.empty(k)
    M, G, before = np.empty((levels, kk * N)), np.empty((levels, kk * N)), np.empty((levels, kk * N))
    M_bar, G_bar = np.empty((levels, kk * N)), np.empty((levels, kk * N))
    Q, L, new = np.empty((pieces + 1, kk * N)), np.empty(kk * N), np.empty(kk * N)
    work, terms, weight, ones = np.empty(kk * N), np.zeros(N), np.empty(N), np.ones(N)
    read = _natural_readout(readout, fresh[0], start)
    for first in range(0, bias.size, N):
        count = min(N, bias.size - first)
        h = curvature[first : first + count]
        for n in range(count):
            weight[n] = noise[first + n] * h[n] * h[n]
        for i in range(k):
            for j in range(k):
                for n in range(count):
                    Q[0, (k * i + j) * N + n] = bias[first + n] * start[i] * start[j]
                    L[(k * i + j) * N + n] = read[i] * read[j]
        for p in range(pieces):
            _tables(lr[p], transition[0], gain[0], fresh[0], query, readout, scaled, constant, linear, b)
            _first_level(h, constant, linear, b, inverse_batch[p], M[0], G[0], k, count)
            _copy(Q[p], Q[p + 1])
            _forward(M, G, Q[p + 1], before, weight, lengths[p], work, k, count)
        for slot in range(kk):
            for n in range(count):
                terms[n] += L[slot * N + n] * Q[pieces, slot * N + n]
        for p in range(pieces - 1, -1, -1):
            _tables(lr[p], transition[0], gain[0], fresh[0], query, readout, scaled, constant, linear, b)
            _first_level(h, constant, linear, b, inverse_batch[p], M[0], G[0], k, count)
            _copy(Q[p], new)
            used = _forward(M, G, new, before, weight, lengths[p], work, k, count)
            for level in range(used - 1, -1, -1):
                m_bar, g_bar = M_bar[level], G_bar[level]
                m_bar[:] = 0.0
                g_bar[:] = 0.0
                if level + 1 < used:  # M' = M M, G' = G + M G M^T
                    above, g_above = M_bar[level + 1], G_bar[level + 1]
                    _product(m_bar, above, k, 1, M[level], 1, k, 1.0, k, count)
                    _product(m_bar, M[level], 1, k, above, k, 1, 1.0, k, count)
                    work[:] = 0.0
                    _product(work, M[level], k, 1, G[level], k, 1, 1.0, k, count)
                    _product(m_bar, g_above, k, 1, work, k, 1, 2.0, k, count)
                    _copy(g_above, g_bar)
                    _sandwich(g_bar, M[level], 1, k, g_above, work, k, count)
                if (lengths[p] >> level) & 1:  # Q' = M Q M^T + weight G
                    work[:] = 0.0
                    _product(work, M[level], k, 1, before[level], k, 1, 1.0, k, count)
                    _product(m_bar, L, k, 1, work, k, 1, 2.0, k, count)
                    for slot in range(kk):
                        for n in range(count):
                            g_bar[slot * N + n] += weight[n] * L[slot * N + n]
                    new[:] = 0.0
                    _sandwich(new, M[level], 1, k, L, work, k, count)
                    _copy(new, L)
            b_bar[:] = 0.0
            for i in range(k):
                for j in range(k):
                    slot = (k * i + j) * N
                    constant_bar[i, j] = _lane_sum(M_bar[0, slot:], ones, count, work)
                    linear_bar[i, j] = _lane_sum(M_bar[0, slot:], h, count, work)
                    g = _lane_sum(G_bar[0, slot:], ones, count, work)
                    b_bar[i] += 2.0 * g * inverse_batch[p] * b[j]
                    by_batch[p] += g * inverse_batch[p] * b[i] * b[j]
            for v in range(1 + by_value.size):  # v = 0: lr
                o, q = max(0, 2 * v - 1), 2 * v
                up, down = (1.5 * lr[p], 0.5 * lr[p]) if v == 0 else (lr[p], lr[p])
                _tables(up, transition[o], gain[o], fresh[o], query, readout, scaled, constant1, linear1, b1)
                _tables(down, transition[q], gain[q], fresh[q], query, readout, scaled, constant2, linear2, b2)
                slope = 0.0
                for i in range(k):
                    slope += b_bar[i] * (b1[i] - b2[i])
                    for j in range(k):
                        slope += constant_bar[i, j] * (constant1[0, i, j] - constant2[0, i, j])
                        slope += linear_bar[i, j] * (linear1[0, i, j] - linear2[0, i, j])
                if v == 0:
                    by_lr[p] += slope
                else:
                    by_value[v - 1] += slope / spans[v - 1]
    return _total(terms)
