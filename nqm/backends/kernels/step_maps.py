"""One step in the filter's own coordinates, for words, in which learning rate and batch size change on the way.

There the state must mean the same on both sides of a change. So it is kept in the filter's own coordinates, with states
that are proportional to lr (a velocity) in units of lr, and in absolute units of noise: b = lr^(1 - scaled) gain, times
1 / B. One step is affine in the curvature: M = constant + linear h. The caller scales lr and curvature by a power of
two so that the largest lr is about 1.
"""

from __future__ import annotations

from ..compilation import inlined, internal
from .blocks import BLOCK
from .double_double import add, dot2, fma, mul, norm


@inlined
def raised(a, al, lr, exponent):
    """a lr^exponent for exponent 0, 1, 2, as a pair."""
    for _ in range(exponent):
        a, al = mul(a, al, lr, 0.0)
        a, al = norm(a, al)
    return a, al


@internal
def tabulate(lr, transition, gain, fresh, query, readout, scaled, constant, linear, b):
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
                constant[0, i, j], constant[1, i, j] = raised(transition[0, i, j], transition[1, i, j], lr, e)
            t, tl = mul(gain[0, i], gain[1, i], -query[j], 0.0)
            linear[0, i, j], linear[1, i, j] = raised(t, tl, lr, 1 + e)
        b[i] = raised(gain[0, i], gain[1, i], lr, 1 - scaled[i])[0]
    if average:  # of what the others read out after the step
        for table in (constant, linear):
            for j in range(2):
                r, rl = dot2(readout[0], 0.0, table[0, 0, j], table[1, 0, j],
                              readout[1], 0.0, table[0, 1, j], table[1, 1, j])  # fmt: skip
                r, rl = mul(fresh[0], fresh[1], r, rl)
                table[0, 2, j], table[1, 2, j] = norm(r, rl)
            table[0, 2, 2], table[1, 2, 2] = 0.0, 0.0
        constant[0, 2, 2], constant[1, 2, 2] = transition[0, 2, 2], transition[1, 2, 2]
        b[2] = fresh[0] * (readout[0] * b[0] + readout[1] * b[1])


@internal
def fill_step(curvature, constant, linear, b, inverse_batch, P, count):
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
                P[hi + n], P[lo + n] = add(c, cl, x, fma(tl, curvature[n], fma(t, curvature[n], -x)))
        for j in range(i, k):
            P[slot * N : slot * N + count] = inverse_batch * b[i] * b[j]
            slot += 1


@internal
def own_readout(readout, fresh, start):
    """The readout in the filter's own coordinates: of an average its last state."""
    chosen = readout.copy()
    if len(start) == 3 and fresh[0] > 0.0:
        chosen[:] = 0.0
        chosen[2] = 1.0
    return chosen
