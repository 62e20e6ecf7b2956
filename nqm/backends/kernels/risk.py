"""Expected risk after a number of steps: of rows of hyperparameters, one step map each."""

from __future__ import annotations

import math

import numpy as np

from ..compilation import compiled, inlined, internal
from .blocks import BLOCK, POWER_SLOTS, STATE_SLOTS, copy, total
from .powers import advance, square
from .setup import set_up, set_up_readout


@internal
def read_state(Z, readout, start, d, g, count):
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
def add_noise_risk(curvature, noise, lr, inverse_batch, g, terms, count):
    """Add c / (2 h B) (lr h)^2 g of each node. A node without weight adds nothing, even to an overflow, and neither
    does an infinite batch."""
    if inverse_batch == 0.0:
        return
    for n in range(count):
        x = lr * curvature[n]
        terms[n] += noise[n] * inverse_batch * (x * (x * g[n])) if noise[n] > 0.0 and g[n] != 0.0 else 0.0


@internal
def add_start_risk(bias, d, terms, count):
    for n in range(count):
        terms[n] += bias[n] * (d[n] * d[n]) if bias[n] > 0.0 else 0.0


@inlined
def finite_or_inf(value):
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
        read = set_up_readout(readout, fresh[r, 0], start)
        for first in range(0, bias.size, BLOCK):
            count = min(BLOCK, bias.size - first)
            h = curvature[which[r], first : first + count]
            set_up(h, lr[r], transition[r], gain[r], query, fresh[r], readout, start, P, Z, count)
            left = steps[r]
            while left > 0:
                if left & 1:
                    advance(P, Z, count, start)
                left >>= 1
                if left > 0:
                    square(P, count, start)
            read_state(Z, read, start, d, g, count)
            add_start_risk(bias[first : first + count], d, terms, count)
            add_noise_risk(h, noise[first : first + count], lr[r], inverse_batch[r], g, terms, count)
        out[r] = finite_or_inf(total(terms))


@compiled
def dyadic_rows(curvature, which, bias, noise, lr, transition, gain, fresh, query, readout, start, inverse_batch, out):
    """out[r, j] = expected risk of row r after 2^j steps, for all j at the price of the last one."""
    k = len(start)
    levels = out.shape[1]
    P, Z, origin = np.empty(POWER_SLOTS[k] * BLOCK), np.empty(STATE_SLOTS[k] * BLOCK), np.empty(STATE_SLOTS[k] * BLOCK)
    d, g, terms = np.empty(BLOCK), np.empty(BLOCK), np.empty((levels, BLOCK))
    for r in range(lr.size):
        terms[:] = 0.0
        read = set_up_readout(readout, fresh[r, 0], start)
        for first in range(0, bias.size, BLOCK):
            count = min(BLOCK, bias.size - first)
            h = curvature[which[r], first : first + count]
            set_up(h, lr[r], transition[r], gain[r], query, fresh[r], readout, start, P, origin, count)
            for j in range(levels):
                copy(origin, Z)
                advance(P, Z, count, start)
                read_state(Z, read, start, d, g, count)
                add_start_risk(bias[first : first + count], d, terms[j], count)
                add_noise_risk(h, noise[first : first + count], lr[r], inverse_batch[r], g, terms[j], count)
                if j + 1 < levels:
                    square(P, count, start)
        for j in range(levels):
            out[r, j] = finite_or_inf(total(terms[j]))
