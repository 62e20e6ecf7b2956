"""One step, and the state before it, in the coordinates in which powers of a constant map are taken.

For k = 2 these are y = (r . z, r^T K z), K = M - m I without trace: K^2 is a number q times I, so

    y' = [[m, 1], [q, m]] y,

whatever the filter. Powers keep the form [[a, b], [c, a]]; all entries have one sign when both roots are real, and
they make a scaled rotation when not. (In the coordinates of the update rule, heavy ball at the far end of its
critical damping, x = (1 + sqrt(momentum))^2, loses six digits.) An average on top (k = 3) keeps them and adds a row.
"""

from __future__ import annotations

from ..compilation import inlined, internal
from .blocks import BLOCK
from .double_double import add, dot2, fma, mul, norm


@inlined
def entry(a, al, b, bl, q, x, xl):
    """A_ij - x gain_i query_j."""
    t, e = mul(x, xl, b, bl)
    t, e = mul(t, e, -q, 0.0)
    return add(a, al, t, e)


@inlined
def load_two_states(transition, gain, query, readout, start):
    """What `shifted` needs of the first two states, out of the arrays and into registers."""
    return (
        (transition[0, 0, 0], transition[1, 0, 0], transition[0, 0, 1], transition[1, 0, 1]),
        (transition[0, 1, 0], transition[1, 1, 0], transition[0, 1, 1], transition[1, 1, 1]),
        (gain[0, 0], gain[1, 0], gain[0, 1], gain[1, 1]),
        (query[0], query[1], readout[0], readout[1], start[0], start[1]),
    )


@inlined
def shifted(states, x, xl):
    """m, q, and the pairs (r . w, r^T K w) for w = gain and w = start."""
    (a00, c00, a01, c01), (a10, c10, a11, c11), (b0, f0, b1, f1), (q0, q1, r0, r1, s0, s1) = states
    m00, l00 = entry(a00, c00, b0, f0, q0, x, xl)
    m01, l01 = entry(a01, c01, b0, f0, q1, x, xl)
    m10, l10 = entry(a10, c10, b1, f1, q0, x, xl)
    m11, l11 = entry(a11, c11, b1, f1, q1, x, xl)
    m, ml = add(0.5 * m00, 0.5 * l00, 0.5 * m11, 0.5 * l11)
    d, dl = add(0.5 * m00, 0.5 * l00, -0.5 * m11, -0.5 * l11)
    q, ql = dot2(d, dl, d, dl, m01, l01, m10, l10)
    k0, e0 = dot2(r0, 0.0, d, dl, r1, 0.0, m10, l10)
    k1, e1 = dot2(r0, 0.0, m01, l01, -r1, 0.0, d, dl)
    gain0, _ = dot2(r0, 0.0, b0, f0, r1, 0.0, b1, f1)
    gain1, _ = dot2(k0, e0, b0, f0, k1, e1, b1, f1)
    z0, g0 = dot2(r0, 0.0, s0, 0.0, r1, 0.0, s1, 0.0)
    z1, g1 = dot2(k0, e0, s0, 0.0, k1, e1, s1, 0.0)
    return m, ml, q, ql, gain0, gain1, z0, g0, z1, g1


@internal
def set_up1(curvature, lr, transition, gain, query, start, P, Z, count):
    N = BLOCK
    a, al, b, bl, q, s = transition[0, 0, 0], transition[1, 0, 0], gain[0, 0], gain[1, 0], query[0], start[0]
    for n in range(count):
        x = lr * curvature[n]
        P[n], P[N + n] = entry(a, al, b, bl, q, x, fma(lr, curvature[n], -x))
        P[2 * N + n] = b * b
        Z[n] = s


@internal
def set_up2(curvature, lr, transition, gain, query, readout, start, P, Z, count):
    N = BLOCK
    states = load_two_states(transition, gain, query, readout, start)
    for n in range(count):
        x = lr * curvature[n]
        m, ml, q, ql, b0, b1, z0, g0, z1, g1 = shifted(states, x, fma(lr, curvature[n], -x))
        P[n], P[N + n], P[2 * N + n] = m, 1.0, q
        P[3 * N + n], P[4 * N + n], P[5 * N + n] = ml, 0.0, ql
        P[6 * N + n], P[7 * N + n], P[8 * N + n] = b0 * b0, b0 * b1, b1 * b1
        Z[n], Z[N + n], Z[2 * N + n], Z[3 * N + n] = z0, z1, g0, g1


@internal
def set_up_average(curvature, lr, transition, gain, query, fresh, readout, start, P, Z, count):
    """The last state is an average of the readout of the first two: [[m, 1, 0], [q, m, 0], [f m, f, decay]]."""
    N = BLOCK
    decay = transition[0, 2, 2]
    f, fl, average = fresh[0], fresh[1], start[2]
    states = load_two_states(transition, gain, query, readout, start)
    for n in range(count):
        x = lr * curvature[n]
        m, ml, q, ql, b0, b1, z0, g0, z1, g1 = shifted(states, x, fma(lr, curvature[n], -x))
        w, e = mul(f, fl, m, ml)
        w, e = norm(w, e)
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
def set_up3(curvature, lr, transition, gain, query, start, P, Z, count):
    """A filter of three states as it comes."""
    N = BLOCK
    slot = 18
    for i in range(3):
        for j in range(3):
            hi, lo = (3 * i + j) * N, (9 + 3 * i + j) * N
            a, al, b, bl, q = transition[0, i, j], transition[1, i, j], gain[0, i], gain[1, i], query[j]
            for n in range(count):
                x = lr * curvature[n]
                P[hi + n], P[lo + n] = entry(a, al, b, bl, q, x, fma(lr, curvature[n], -x))
        for j in range(i, 3):
            P[slot * N : slot * N + count] = gain[0, i] * gain[0, j]
            slot += 1
        Z[i * N : i * N + count] = start[i]


@internal
def set_up(curvature, lr, transition, gain, query, fresh, readout, start, P, Z, count):
    """P <- one step, Z <- the state before it, in units of x sqrt(c / B) / h for the noise. Readout stays as it
    is for k = 1, (1, 0) for k = 2, (0, 0, 1) for an average (fresh > 0)."""
    Z[:] = 0.0
    if len(start) == 1:
        set_up1(curvature, lr, transition, gain, query, start, P, Z, count)
    elif len(start) == 2:
        set_up2(curvature, lr, transition, gain, query, readout, start, P, Z, count)
    elif fresh[0] > 0.0:
        set_up_average(curvature, lr, transition, gain, query, fresh, readout, start, P, Z, count)
    else:
        set_up3(curvature, lr, transition, gain, query, start, P, Z, count)


@internal
def set_up_readout(readout, fresh, start):
    """The readout in the coordinates of `set_up`."""
    k = len(start)
    chosen = readout.copy()
    if k == 2 or (k == 3 and fresh > 0.0):
        chosen[:] = 0.0
        chosen[0 if k == 2 else 2] = 1.0
    return chosen
