"""One step: M = constant + x linear and what a unit of noise does, in the filter's own coordinates.

In words, in which learning rate and batch size change on the way, the state must mean the same on both sides of a
change. So it is kept in the filter's own coordinates, with states that are proportional to lr (a velocity) in units of
lr, and in absolute units of noise: b = lr^(1 - lr_scaled) gain, times 1 / B; x is the curvature. The caller scales lr
and curvature by a power of two so that the largest lr is about 1. Where lr stays, x is lr times the curvature, and b is
the gain: this is the same at lr = 1.
"""

from __future__ import annotations

import numpy as np

from ..compilation import inlined, internal
from .blocks import BLOCK
from .double_double import add, dot2, fma, mul, norm

__all__ = ["affine", "averages", "fill_step", "new_tables", "own_readout", "raised", "tabulate"]


@internal
def new_tables(k):
    """constant, linear: (2, k, k), high and low parts; b: (k,)."""
    return np.empty((2, k, k)), np.empty((2, k, k)), np.empty(k)


@inlined
def affine(c, cl, t, tl, x, xl):
    """c + x t."""
    p, e = mul(x, xl, t, tl)
    return add(c, cl, p, e)


@inlined
def raised(a, al, lr, exponent):
    """a lr^exponent for exponent 0, 1, 2, as a pair."""
    for _ in range(exponent):
        a, al = mul(a, al, lr, 0.0)
        a, al = norm(a, al)
    return a, al


@inlined
def averages(batch, r, m, start):
    """Whether the last state is an average of what the others read out after the step."""
    if len(start) > 2:
        return batch.averaging_weight[r, m, 0] > 0.0
    return False


@internal
def tabulate(batch, r, m, lr, tables, start):
    """Fill ``tables`` for map m of row r at learning rate lr. transition must not feed others into states in units of
    lr. (start: the batch's, here and elsewhere an argument of its own, for the compiler to see how many states there
    are and to leave out what is for others.)"""
    constant, linear, b = tables
    transition, gain, query, scaled = batch.transition, batch.gain, batch.query, batch.lr_scaled
    averaging = averages(batch, r, m, start)
    for i in range(len(start) - 1 if averaging else len(start)):
        for j in range(len(start)):
            e = scaled[j] - scaled[i]
            constant[0, i, j], constant[1, i, j] = 0.0, 0.0
            if e >= 0:
                constant[0, i, j], constant[1, i, j] = raised(
                    transition[r, m, 0, i, j], transition[r, m, 1, i, j], lr, e
                )
            t, tl = mul(gain[r, m, 0, i], gain[r, m, 1, i], -query[j], 0.0)
            linear[0, i, j], linear[1, i, j] = raised(t, tl, lr, 1 + e)
        b[i] = raised(gain[r, m, 0, i], gain[r, m, 1, i], lr, 1 - scaled[i])[0]
    if len(start) > 2 and averaging:
        _tabulate_average(batch, r, m, tables)


@internal
def _tabulate_average(batch, r, m, tables):
    """The last row: averaging_weight times what the others read out after the step, and the average itself."""
    constant, linear, b = tables
    last, readout = len(batch.start) - 1, batch.readout
    weight, low = batch.averaging_weight[r, m, 0], batch.averaging_weight[r, m, 1]
    for table in (constant, linear):
        for j in range(last):
            s, sl = dot2(readout[0], 0.0, table[0, 0, j], table[1, 0, j],
                         readout[1], 0.0, table[0, 1, j], table[1, 1, j])  # fmt: skip
            for i in range(2, last):
                p, e = mul(readout[i], 0.0, table[0, i, j], table[1, i, j])
                s, sl = add(s, sl, p, e)
            s, sl = mul(weight, low, s, sl)
            table[0, last, j], table[1, last, j] = norm(s, sl)
        table[0, last, last], table[1, last, last] = 0.0, 0.0
    constant[0, last, last], constant[1, last, last] = batch.transition[r, m, 0, last, last], 0.0
    read = readout[0] * b[0] + readout[1] * b[1]
    for i in range(2, last):
        read += readout[i] * b[i]
    b[last] = weight * read


@internal
def fill_step(curvature, lr, tables, inverse_batch_size, P, count):
    """P <- one step of nodes with x = lr curvature, noise times 1 / B."""
    constant, linear, b = tables
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
                x = lr * curvature[n]
                P[hi + n], P[lo + n] = affine(c, cl, t, tl, x, fma(lr, curvature[n], -x))
        for j in range(i, k):
            P[slot * N : slot * N + count] = inverse_batch_size * b[i] * b[j]
            slot += 1


@internal
def own_readout(batch, r, start):
    """The readout in the filter's own coordinates: of an average its last state."""
    read = batch.readout.copy()
    if len(start) > 2:
        averaging = False
        for m in range(batch.averaging_weight.shape[1]):
            averaging |= averages(batch, r, m, start)
        if averaging:
            read[:] = 0.0
            read[-1] = 1.0
    return read
