"""One step, and the state before it, in the coordinates in which powers of a constant map are taken.

For k = 2 these are y = (r . z, r^T K z), K = M - m I without trace: K^2 is a number q times I, so

    y' = [[m, 1], [q, m]] y,

whatever the filter. Powers keep the form [[a, b], [c, a]]; all entries have one sign when both roots are real, and
they make a scaled rotation when not. (In the coordinates of the update rule, heavy ball at the far end of its
critical damping, x = (1 + sqrt(momentum))^2, loses six digits.) An average on top (k = 3) keeps them and adds a row.
One state, three that are no such average, and more than three stay in the filter's own coordinates.
"""

from __future__ import annotations

from ..compilation import inlined, internal
from .blocks import BLOCK
from .double_double import add, dot2, fma, mul, norm
from .step_maps import affine, averages, fill_step

__all__ = ["set_up", "set_up_readout"]


@internal
def set_up(batch, r, tables, curvature, start, P, Z, count):
    """P <- one step, Z <- the state before it, in units of x sqrt(c / B) / h for the noise; tables: at lr = 1."""
    Z[:] = 0.0
    lr = batch.lr[r]
    if len(start) == 1:
        _set_up1(tables, curvature, lr, start, P, Z, count)
    elif len(start) == 2:
        _set_up2(batch, r, tables, curvature, lr, start, P, Z, count)
    elif len(start) == 3 and averages(batch, r, 0, start):
        _set_up_average(batch, r, tables, curvature, lr, start, P, Z, count)
    else:
        fill_step(curvature, lr, tables, 1.0, P, count)
        for i in range(len(start)):
            Z[i * BLOCK : i * BLOCK + count] = start[i]


@internal
def set_up_readout(batch, r, start):
    """The readout in the coordinates of ``set_up``: (1, 0) for k = 2, the last state for an average."""
    k = len(start)
    read = batch.readout.copy()
    if k == 2 or averages(batch, r, 0, start):
        read[:] = 0.0
        read[0 if k == 2 else k - 1] = 1.0
    return read


@inlined
def _two_states(batch, r, tables, start):
    """What `_shifted` needs of the first two states, out of the arrays and into registers."""
    constant, linear, _ = tables
    gain, readout = batch.gain[r, 0], batch.readout
    return (
        (constant[0, 0, 0], constant[1, 0, 0], constant[0, 0, 1], constant[1, 0, 1]),
        (constant[0, 1, 0], constant[1, 1, 0], constant[0, 1, 1], constant[1, 1, 1]),
        (linear[0, 0, 0], linear[1, 0, 0], linear[0, 0, 1], linear[1, 0, 1]),
        (linear[0, 1, 0], linear[1, 1, 0], linear[0, 1, 1], linear[1, 1, 1]),
        (gain[0, 0], gain[1, 0], gain[0, 1], gain[1, 1]),
        (readout[0], readout[1], start[0], start[1]),
    )


@inlined
def _shifted(states, x, xl):
    """m, q, and the pairs (r . w, r^T K w) for w = gain and w = start."""
    (a00, c00, a01, c01), (a10, c10, a11, c11), (t00, d00, t01, d01), (t10, d10, t11, d11) = states[:4]
    (b0, f0, b1, f1), (r0, r1, s0, s1) = states[4:]
    m00, l00 = affine(a00, c00, t00, d00, x, xl)
    m01, l01 = affine(a01, c01, t01, d01, x, xl)
    m10, l10 = affine(a10, c10, t10, d10, x, xl)
    m11, l11 = affine(a11, c11, t11, d11, x, xl)
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
def _set_up1(tables, curvature, lr, start, P, Z, count):
    constant, linear, gain = tables
    N = BLOCK
    a, al, t, tl, b, s = constant[0, 0, 0], constant[1, 0, 0], linear[0, 0, 0], linear[1, 0, 0], gain[0], start[0]
    for n in range(count):
        x = lr * curvature[n]
        P[n], P[N + n] = affine(a, al, t, tl, x, fma(lr, curvature[n], -x))
        P[2 * N + n] = b * b
        Z[n] = s


@internal
def _set_up2(batch, r, tables, curvature, lr, start, P, Z, count):
    N = BLOCK
    states = _two_states(batch, r, tables, start)
    for n in range(count):
        x = lr * curvature[n]
        m, ml, q, ql, b0, b1, z0, g0, z1, g1 = _shifted(states, x, fma(lr, curvature[n], -x))
        P[n], P[N + n], P[2 * N + n] = m, 1.0, q
        P[3 * N + n], P[4 * N + n], P[5 * N + n] = ml, 0.0, ql
        P[6 * N + n], P[7 * N + n], P[8 * N + n] = b0 * b0, b0 * b1, b1 * b1
        Z[n], Z[N + n], Z[2 * N + n], Z[3 * N + n] = z0, z1, g0, g1


@internal
def _set_up_average(batch, r, tables, curvature, lr, start, P, Z, count):
    """The last state is an average of the readout of the first two: [[m, 1, 0], [q, m, 0], [f m, f, decay]]."""
    N = BLOCK
    decay = batch.transition[r, 0, 0, 2, 2]
    f, fl, average = batch.averaging_weight[r, 0, 0], batch.averaging_weight[r, 0, 1], start[2]
    states = _two_states(batch, r, tables, start)
    for n in range(count):
        x = lr * curvature[n]
        m, ml, q, ql, b0, b1, z0, g0, z1, g1 = _shifted(states, x, fma(lr, curvature[n], -x))
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
