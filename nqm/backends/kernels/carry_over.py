"""From a word's state to those that the search for a first passage starts from."""

from __future__ import annotations

import math

import numpy as np

from ..compilation import compiled, inlined, internal
from ..types import FilterBatch
from .blocks import BLOCK
from .first_passage import Search
from .step_maps import averages, new_tables, tabulate

__all__ = ["carry_over", "root"]


@inlined
def root(value):
    return math.sqrt(value) if value > 0.0 else 0.0


@compiled
def carry_over(fields, unit, kept, parts):
    """Fill a Search's state and columns for a letter, the one row of a FilterBatch, from the state before it.

    fields, parts: those of the two. kept: (blocks, slots BLOCK), states in units of lr / unit where they scale. The
    search's state is its mean, with no noise; its columns are those of the Cholesky root of its covariance; both in the
    coordinates of `set_up`.
    """
    batch, search = FilterBatch(*fields), Search(*parts)
    k = len(batch.start)
    tables, size = new_tables(k), np.ones(k)
    tabulate(batch, 0, 0, 1.0, tables, batch.start)
    for i in range(k):
        if batch.lr_scaled[i] > 0:
            size[i] = batch.lr[0] / unit
    for block in range(kept.shape[0]):
        first = block * BLOCK
        count = min(BLOCK, batch.start_weight.size - first)
        state, columns = search.state[block], search.columns[:, block]
        state[:] = 0.0
        columns[:] = 0.0
        _take_root(kept[block], columns, k, count)
        for i in range(k):
            for n in range(count):
                state[i * BLOCK + n] = size[i] * kept[block, i * BLOCK + n]
                for v in range(k):
                    columns[v, i * BLOCK + n] *= size[i]
        if (k == 2) or (k == 3 and averages(batch, 0, 0, batch.start)):
            h = batch.curvature[batch.power_index[0], first : first + count]
            _to_set_up(batch, h, tables, state, columns, count)


@internal
def _take_root(kept, columns, k, count):
    """columns[v] <- column v of the lower Cholesky factor of each node's covariance."""
    N = BLOCK
    for n in range(count):
        slot = 2 * k * N + n
        for v in range(k):
            for j in range(v, k):
                rest = kept[slot]
                for w in range(v):
                    rest -= columns[w, v * N + n] * columns[w, j * N + n]
                if j == v:
                    columns[v, j * N + n] = root(rest)
                else:
                    pivot = columns[v, v * N + n]
                    columns[v, j * N + n] = rest / pivot if pivot > 0.0 else 0.0
                slot += N


@internal
def _to_set_up(batch, curvature, tables, state, columns, count):
    """The first two states as y = (r . z, r^T K z)."""
    constant, linear, _ = tables
    N = BLOCK
    r0, r1 = batch.readout[0], batch.readout[1]
    for n in range(count):
        x = batch.lr[0] * curvature[n]
        m00 = constant[0, 0, 0] + x * linear[0, 0, 0]
        m01 = constant[0, 0, 1] + x * linear[0, 0, 1]
        m10 = constant[0, 1, 0] + x * linear[0, 1, 0]
        m11 = constant[0, 1, 1] + x * linear[0, 1, 1]
        half = 0.5 * (m00 - m11)
        k0, k1 = r0 * half + r1 * m10, r0 * m01 - r1 * half
        p, q = state[n], state[N + n]
        state[n], state[N + n] = r0 * p + r1 * q, k0 * p + k1 * q
        for v in range(columns.shape[0]):
            p, q = columns[v, n], columns[v, N + n]
            columns[v, n], columns[v, N + n] = r0 * p + r1 * q, k0 * p + k1 * q
