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
nodes, a multiple of LANES. k is ``len(start)`` of a tuple, hence known to the compiler.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba.core import types
from numba.extending import intrinsic

from ._jit import compiled, inlined

BLOCK = 128
LANES = 8

HORIZON = 2**53  # the last step count that a float64 holds exactly

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


@compiled
def _square1(P, count):
    N = BLOCK
    for n in range(count):
        h = P[n]
        P[2 * N + n] += h * h * P[2 * N + n]
        q, e = _mul(h, P[N + n], h, P[N + n])
        P[n], P[N + n] = _norm(q, e)


@compiled
def _advance1(P, Z, count):
    N = BLOCK
    for n in range(count):
        h = P[n]
        Z[2 * N + n] = P[2 * N + n] + h * h * Z[2 * N + n]
        q, e = _mul(h, P[N + n], Z[n], Z[N + n])
        Z[n], Z[N + n] = _norm(q, e)


# --- k = 2 -----------------------------------------------------------------------------------------------


@compiled
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


@compiled
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


# --- k = 3 -----------------------------------------------------------------------------------------------


@compiled
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


@compiled
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


@compiled
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


@compiled
def _square(P, count, start):
    if len(start) == 1:
        _square1(P, count)
    elif len(start) == 2:
        _square2(P, count)
    else:
        _square3(P, count)


@compiled
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


@compiled
def _prepare1(curvature, lr, transition, gain, query, start, P, Z, count):
    N = BLOCK
    a, al, b, bl, q, s = transition[0, 0, 0], transition[1, 0, 0], gain[0, 0], gain[1, 0], query[0], start[0]
    for n in range(count):
        x = lr * curvature[n]
        P[n], P[N + n] = _entry(a, al, b, bl, q, x, fma(lr, curvature[n], -x))
        P[2 * N + n] = b * b
        Z[n] = s


@compiled
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


@compiled
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


@compiled
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


@compiled
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


@compiled
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


@compiled
def _total(terms):
    """Sum of the BLOCK per-lane sums by halving: a fixed order, whatever the machine."""
    width = BLOCK // 2
    while width > 0:
        for n in range(width):
            terms[n] += terms[n + width]
        width //= 2
    return terms[0]


@compiled
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


@compiled
def _noise_risk(curvature, noise, lr, inverse_batch, g, terms, count):
    """Add c / (2 h B) (lr h)^2 g of each node. A node without weight adds nothing, even to an overflow."""
    for n in range(count):
        x = lr * curvature[n]
        terms[n] += noise[n] * inverse_batch * (x * (x * g[n])) if noise[n] > 0.0 and g[n] != 0.0 else 0.0


@compiled
def _start_risk(bias, d, terms, count):
    for n in range(count):
        terms[n] += bias[n] * (d[n] * d[n]) if bias[n] > 0.0 else 0.0


@inlined
def _finite_or_inf(value):
    """Inputs are checked and weightless nodes and unread states skipped, so a NaN comes from overflow: diverged."""
    return value if value < math.inf else math.inf


@compiled
def power_slots(k):
    return 9 if k == 2 else 2 * k * k + k * (k + 1) // 2


@compiled
def state_slots(k):
    return 2 * k + k * (k + 1) // 2


@compiled
def risk_rows(
    curvature, which, bias, noise, lr, transition, gain, fresh, query, readout, start, inverse_batch, steps, out
):
    """out[r] = expected risk of row r.

    curvature: (powers, nodes), the preconditioned curvatures h^(1-p); which: (rows,), the p of each row.
    bias: (nodes,) = mult h init / 2; noise: (nodes,) = mult c / (2 h). nodes: a multiple of LANES, weights of
    the padding 0. lr, inverse_batch, steps: (rows,). transition: (rows, 2, k, k), gain: (rows, 2, k), fresh:
    (rows, 2), all as (hi, lo). query, readout: (k,). start: tuple of k floats. Work of k = 2, a node: 60 flops a
    doubling of the steps, 45 more for each bit of their number that is 1.
    """
    k = len(start)
    P, Z = np.empty(power_slots(k) * BLOCK), np.empty(state_slots(k) * BLOCK)
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
    P, Z, origin = np.empty(power_slots(k) * BLOCK), np.empty(state_slots(k) * BLOCK), np.empty(state_slots(k) * BLOCK)
    d, g, terms = np.empty(BLOCK), np.empty(BLOCK), np.empty((levels, BLOCK))
    for r in range(lr.size):
        terms[:] = 0.0
        read = _read_from(readout, fresh[r, 0], start)
        for first in range(0, bias.size, BLOCK):
            count = min(BLOCK, bias.size - first)
            h = curvature[which[r], first : first + count]
            _prepare(h, lr[r], transition[r], gain[r], query, fresh[r], readout, start, P, origin, count)
            for j in range(levels):
                Z[:] = origin
                _advance(P, Z, count, start)
                _read(Z, read, start, d, g, count)
                _start_risk(bias[first : first + count], d, terms[j], count)
                _noise_risk(h, noise[first : first + count], lr[r], inverse_batch[r], g, terms[j], count)
                if j + 1 < levels:
                    _square(P, count, start)
        for j in range(levels):
            out[r, j] = _finite_or_inf(_total(terms[j]))


# --- the search for a crossing ---------------------------------------------------------------------------


@compiled
def _widen(P, old, new, count, start):
    """Boxes around the readouts of the next 2s steps, from those of the next s and P = (M^s, G_s).

    v_j = (M^j)^T r is how the mean after j more steps is read off the state now: d = v_j . u. A box holds
    lower and upper bounds of each component of v_j over 0 <= j < s; v_{j+s} = (M^s)^T v_j widens it.
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


@compiled
def _mark_falling(P, Z, fresh, start, falling, count):
    """falling[n] = 1 where the size |d_t| of a node's mean is proved not to rise from state Z on; P: one step.

    k = 1: |M| <= 1. k = 2: d_t = A r1^t + B r2^t with real roots 0 <= r2 <= r1 <= 1 never rises if A >= 0 and
    d_1 <= d_0, because B r2^t only loses weight; with both roots negative the same holds for (-1)^t d_t. An average
    falls as long as it lies above what it averages, if that falls and stays positive.
    """
    N = BLOCK
    k = len(start)
    average = k == 3 and fresh > 0.0
    for n in range(count):
        falling[n] = 0.0
        if k == 1:
            falling[n] = 1.0 if abs(P[n]) <= 1.0 else 0.0
        elif k == 2 or average:
            m, q, d0, slope = P[n], P[(3 if average else 2) * N + n], Z[n], Z[N + n]
            if m < 0.0 and not average:
                m, slope = -m, -slope
            if d0 < 0.0 and not average:
                d0, slope = -d0, -slope
            if q >= 0.0:
                half = math.sqrt(q)
                real = half <= m and m + half <= 1.0
                falls = d0 >= 0.0 and d0 * half + slope >= 0.0 and m * d0 + slope <= d0
                falling[n] = 1.0 if real and falls and (not average or m * d0 + slope <= Z[2 * N + n]) else 0.0


@compiled
def fill_levels(curvature, lr, transition, gain, fresh, query, readout, start, powers, boxes, origin):
    """powers[j, block] = 2^j steps; boxes[j, block] = the readouts of the next 2^j steps; origin[block] = state
    at 0."""
    k = len(start)
    read = _read_from(readout, fresh[0], start)
    for block in range(powers.shape[1]):
        first = block * BLOCK
        count = min(BLOCK, curvature.size - first)
        h = curvature[first : first + count]
        _prepare(h, lr, transition, gain, query, fresh, readout, start, powers[0, block], origin[block], count)
        for i in range(k):
            boxes[0, block, i * BLOCK : i * BLOCK + count] = read[i]
            boxes[0, block, (k + i) * BLOCK : (k + i) * BLOCK + count] = read[i]
        for j in range(1, powers.shape[0]):
            _widen(powers[j - 1, block], boxes[j - 1, block], boxes[j, block], count, start)
            powers[j, block] = powers[j - 1, block]
            _square(powers[j, block], count, start)


@compiled
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


@compiled
def _least_start_risk(bias, d, least, most, terms, count):
    """Add bias * min d^2 over [least, most]. Bounds that are NaN (overflowed boxes) count as 0, and a mean d that
    has itself overflowed as inf."""
    for n in range(count):
        nearest = least[n] if least[n] > 0.0 else (most[n] if most[n] < 0.0 else 0.0)
        nearest = nearest if abs(d[n]) < math.inf else math.inf
        terms[n] += bias[n] * (nearest * nearest) if bias[n] > 0.0 else 0.0


@compiled
def _most_start_risk(bias, least, most, terms, count):
    for n in range(count):
        farthest = max(-least[n], most[n])
        terms[n] += bias[n] * (farthest * farthest) if bias[n] > 0.0 else 0.0


@compiled
def _narrow(falling, now, after, least, most, count):
    """A mean that falls in size lies between its values at both ends, but for its sign, which does not matter here."""
    for n in range(count):
        least[n] = abs(after[n]) if falling[n] > 0.0 else least[n]
        most[n] = abs(now[n]) if falling[n] > 0.0 else most[n]


@compiled
def march(
    curvature,
    bias,
    noise,
    lr,
    fresh,
    readout,
    start,
    inverse_batch,
    powers,
    boxes,
    state,
    ahead,
    target,
    last,
    progress,
    budget,
):
    """Walk through time in leaps of 2^j steps, each one proved to hold no crossing, until one is found.

    last = False: the first t with risk <= target. last = True: the step after the last t with risk > target.
    A leap over [t, t + 2^j) is taken when bounds prove that the risk stays on one side of the target there;
    otherwise j shrinks, and at j = 0 the bounds are the risk itself. The bounds: the noise part never falls,
    since every step adds a square, so it lies between its values at both ends; the mean part lies between its values
    at both ends where it is known to fall, and is (v . u)^2 with the readout v inside the box of its level elsewhere.
    progress = [t, j, answer so far, leaps tried], so that a walk goes on where it stopped (budget spent, or more levels
    wanted). Returns a status.
    """
    low, high = np.empty(BLOCK), np.empty(BLOCK)
    d, g, least, most = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    after, falling = np.empty(BLOCK), np.empty(BLOCK)
    read = _read_from(readout, fresh, start)
    while budget > 0:
        t, j = progress[0], progress[1]
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
            _read(state[block], read, start, d, g, count)
            _noise_risk(h, c, lr, inverse_batch, g, low, count)
            _mean_range(state[block], boxes[j, block], start, least, most, count)
            ahead[block] = state[block]
            _advance(powers[j, block], ahead[block], count, start)
            _read(ahead[block], read, start, after, g, count)
            if j > 0:
                _mark_falling(powers[0, block], state[block], fresh, start, falling, count)
                _narrow(falling, d, after, least, most, count)
            _least_start_risk(b, d, least, most, low, count)
            if last:
                _most_start_risk(b, least, most, high, count)
                _noise_risk(h, c, lr, inverse_batch, g, high, count)
        lowest = _total(low)
        above = not lowest <= target  # NaN (overflow) lies above every target
        below = last and (lowest <= target if j == 0 else _total(high) <= target)
        if above and last:
            progress[2] = t + (1 << j)
        if j == 0 and not above and not last:
            progress[2] = t
            return FOUND
        if above or below:
            state[:] = ahead
            progress[0] = t + (1 << j)
            progress[1] = j + 1
            if progress[0] >= HORIZON:
                return NEVER if above else FOUND
        else:
            progress[1] = j - 1
    return OUT_OF_BUDGET


# --- a trust-region Newton step ---------------------------------------------------------------------------


@compiled
def _reduced_step(gradient, hessian, low, high, side, step):
    """Stationary point of g.p + p.H.p/2, each p_i free (side 1), at low (0) or high (2); False if not in the box."""
    n = gradient.size
    matrix = np.eye(n)
    right = np.empty(n)
    for i in range(n):
        if side[i] == 1:
            right[i] = -gradient[i]
            for j in range(n):
                matrix[i, j] = hessian[i, j]
        else:
            right[i] = low[i] if side[i] == 0 else high[i]
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
        out[s] = center[s]
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
