"""Expected risk after a number of steps: of rows of hyperparameters, one step map each."""

from __future__ import annotations

import math

import numpy as np

from ..compilation import compiled, inlined, internal
from ..types import FilterBatch
from .blocks import BLOCK, POWER_SLOTS, STATE_SLOTS, copy, total
from .powers import advance, square
from .setup import set_up, set_up_readout
from .step_maps import new_tables, tabulate

__all__ = ["add_noise_risk", "add_risk", "add_start_risk", "dyadic_rows", "finite_or_inf", "read_state", "risk_rows"]


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
def add_noise_risk(curvature, weight, lr, inverse_batch_size, g, terms, count):
    """Add weight / B (lr h)^2 g of each node. A node without weight adds nothing, even to an overflow, and neither
    does an infinite batch."""
    if inverse_batch_size == 0.0:
        return
    for n in range(count):
        x = lr * curvature[n]
        terms[n] += weight[n] * inverse_batch_size * (x * (x * g[n])) if weight[n] > 0.0 and g[n] != 0.0 else 0.0


@internal
def add_start_risk(weight, d, terms, count):
    for n in range(count):
        terms[n] += weight[n] * (d[n] * d[n]) if weight[n] > 0.0 else 0.0


@inlined
def finite_or_inf(value):
    """Inputs are checked and weightless nodes and unread states skipped, so a NaN comes from overflow: diverged."""
    return value if value < math.inf else math.inf


@inlined
def add_risk(h, weights, Z, readout, start, lr, inverse_batch_size, d, g, terms):
    """Add the risk of a block of nodes in state Z, with noise in units of lr h sqrt(c / B) / h. weights: of start and
    noise."""
    read_state(Z, readout, start, d, g, h.size)
    add_start_risk(weights[0], d, terms, h.size)
    add_noise_risk(h, weights[1], lr, inverse_batch_size, g, terms, h.size)


@compiled
def risk_rows(fields, steps, out):
    """out[r] = expected risk of row r after steps[r] steps. fields: those of a FilterBatch.

    Work of k = 2, per node: 60 flops per doubling of the steps, 45 more for each bit of their number that is 1.
    """
    batch = FilterBatch(*fields)
    k = len(batch.start)
    P, Z = np.empty(POWER_SLOTS[k] * BLOCK), np.empty(STATE_SLOTS[k] * BLOCK)
    d, g, terms = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    tables = new_tables(k)
    for r in range(batch.lr.size):
        terms[:] = 0.0
        lr, inverse_batch_size = batch.lr[r], batch.inverse_batch_size[r]
        readout = set_up_readout(batch, r, batch.start)
        tabulate(batch, r, 0, 1.0, tables, batch.start)
        for first in range(0, batch.start_weight.size, BLOCK):
            count = min(BLOCK, batch.start_weight.size - first)
            h = batch.curvature[batch.power_index[r], first : first + count]
            weights = batch.start_weight[first : first + count], batch.noise_weight[first : first + count]
            set_up(batch, r, tables, h, batch.start, P, Z, count)
            left = steps[r]
            while left > 0:
                if left & 1:
                    advance(P, Z, count, batch.start)
                left >>= 1
                if left > 0:
                    square(P, count, batch.start)
            add_risk(h, weights, Z, readout, batch.start, lr, inverse_batch_size, d, g, terms)
        out[r] = finite_or_inf(total(terms))


@compiled
def dyadic_rows(fields, out):
    """out[r, j] = expected risk of row r after 2^j steps, for all j at the price of the last one."""
    batch = FilterBatch(*fields)
    k = len(batch.start)
    levels = out.shape[1]
    P, Z, origin = np.empty(POWER_SLOTS[k] * BLOCK), np.empty(STATE_SLOTS[k] * BLOCK), np.empty(STATE_SLOTS[k] * BLOCK)
    d, g, terms = np.empty(BLOCK), np.empty(BLOCK), np.empty((levels, BLOCK))
    tables = new_tables(k)
    for r in range(batch.lr.size):
        terms[:] = 0.0
        lr, inverse_batch_size = batch.lr[r], batch.inverse_batch_size[r]
        readout = set_up_readout(batch, r, batch.start)
        tabulate(batch, r, 0, 1.0, tables, batch.start)
        for first in range(0, batch.start_weight.size, BLOCK):
            count = min(BLOCK, batch.start_weight.size - first)
            h = batch.curvature[batch.power_index[r], first : first + count]
            weights = batch.start_weight[first : first + count], batch.noise_weight[first : first + count]
            set_up(batch, r, tables, h, batch.start, P, origin, count)
            for j in range(levels):
                copy(origin, Z)
                advance(P, Z, count, batch.start)
                add_risk(h, weights, Z, readout, batch.start, lr, inverse_batch_size, d, g, terms[j])
                if j + 1 < levels:
                    square(P, count, batch.start)
        for j in range(levels):
            out[r, j] = finite_or_inf(total(terms[j]))
