"""From a word's state to those that the search for a first passage starts from."""

from __future__ import annotations

import math

import numpy as np

from ..compilation import compiled, inlined
from .blocks import BLOCK


@inlined
def root(value):
    return math.sqrt(value) if value > 0.0 else 0.0


@compiled
def carry_over(
    curvature, lr, unit, transition, gain, fresh, query, readout, start, scaled, kept, state, columns, block
):  # fmt: skip
    """From a chain's state to those that `first_passage` wants for a piece with learning rate lr, one block.

    kept: (slots BLOCK), states in units of lr / unit where they scale. state: its mean, with no noise; columns:
    (k, blocks, k BLOCK), those of the Cholesky root of its covariance; both in the coordinates of `set_up`.
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
            extra[0, n] = root(kept[s])
        else:
            a = root(kept[s])
            b = kept[s + N] / a if a > 0.0 else 0.0
            extra[0, n], extra[0, N + n] = size[0] * a, size[1] * b
            if k == 2:
                extra[1, N + n] = size[1] * root(kept[s + 2 * N] - b * b)
            else:
                c = kept[s + 2 * N] / a if a > 0.0 else 0.0
                d = root(kept[s + 3 * N] - b * b)
                e = (kept[s + 4 * N] - b * c) / d if d > 0.0 else 0.0
                extra[0, 2 * N + n] = size[2] * c
                extra[1, N + n], extra[1, 2 * N + n] = size[1] * d, size[2] * e
                extra[2, 2 * N + n] = size[2] * root(kept[s + 5 * N] - c * c - e * e)
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
