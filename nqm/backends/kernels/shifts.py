"""Coordinates in which a momentum's step has equal diagonal entries, for words with large learning rates.

(theta, w + shift theta), for a filter whose second state w is a velocity in units of lr. At the far end of critical
damping theta and w nearly are multiples of each other, and what tells them apart decides what comes.
"""

from __future__ import annotations

from ..compilation import internal
from .blocks import BLOCK, copy
from .double_double import add, dot2, mul

__all__ = ["follow_shift", "undo_shift"]


@internal
def follow_shift(start, curvature, largest, scales, tables, shifts, was, P, Z, count):
    """Take step P, in the filter's own coordinates, and state Z to the coordinates for a letter with learning rate lr.

    scales: (lr, inverse_batch_size, lr_scaled, readout). A velocity that is read stays as it is.

    shifts: (2, BLOCK), those that Z is in, not all 0 if ``was``, and room for the new ones, which take
    their place. Returns whether the new ones are not all 0.
    """
    if len(start) == 1:
        return False
    lr, inverse_batch_size, lr_scaled, readout = scales
    before, new = shifts[0], shifts[1]
    some = False
    if lr_scaled[1] == 1 and readout[1] == 0.0 and lr * largest > 1.0:
        some = _choose(curvature, lr, tables, new, count)
    if not (was or some):
        return False
    for n in range(count):
        before[n] = before[n] if was else 0.0
        new[n] = new[n] if some else 0.0
    if some:
        _shift_step(P, tables[2], inverse_batch_size, new, count)
    _shift_state(Z, before, new, len(start), count)
    copy(new, before)
    return some


@internal
def undo_shift(start, shifts, Z, count):
    """Take the state back to the filter's own coordinates."""
    if len(start) > 1:
        for n in range(count):
            shifts[1, n] = 0.0
        _shift_state(Z, shifts[0], shifts[1], len(start), count)


@internal
def _choose(curvature, lr, tables, shift, count):
    """shift[n] where lr h > 1, 0 elsewhere. Returns whether any is not 0.

    (At small lr h shifts would cost digits when lr rises again later.)
    """
    constant, linear, _ = tables
    some = False
    for n in range(count):
        shift[n] = 0.0
        h = curvature[n]
        if lr * h > 1.0:
            off = constant[0, 0, 1] + linear[0, 0, 1] * h
            gap = constant[0, 0, 0] + linear[0, 0, 0] * h - constant[0, 1, 1] - linear[0, 1, 1] * h
            if off != 0.0:
                shift[n] = 0.5 * gap / off
                some = True
    return some


@internal
def _shift_step(P, b, inverse_batch_size, shift, count):
    """One step in the shifted coordinates: T M T^-1 and T b with T = 1 + shift in entry (1, 0)."""
    N = BLOCK
    k = b.size
    for i in range(k):
        at, by, low = k * i * N, (k * i + 1) * N, k * k * N
        for n in range(count):
            p, e = mul(P[by + n], P[low + by + n], -shift[n], 0.0)
            P[at + n], P[low + at + n] = add(P[at + n], P[low + at + n], p, e)
    for j in range(k):
        at, by, low = (k + j) * N, j * N, k * k * N
        for n in range(count):
            p, e = mul(P[by + n], P[low + by + n], shift[n], 0.0)
            P[at + n], P[low + at + n] = add(P[at + n], P[low + at + n], p, e)
    first = 2 * k * k * N
    second = first + k * N
    for n in range(count):
        b1 = b[1] + shift[n] * b[0]
        P[first + N + n] = inverse_batch_size * b[0] * b1
        P[second + n] = inverse_batch_size * b1 * b1
        for j in range(2, k):
            P[second + (j - 1) * N + n] = inverse_batch_size * b1 * b[j]


@internal
def _shift_state(Z, before, after, k, count):
    """The state in the coordinates of another shift."""
    N = BLOCK
    s = 2 * k * N
    for n in range(count):
        t = after[n] - before[n]
        if t != 0.0:
            p, e = dot2(Z[n], Z[k * N + n], after[n], 0.0, Z[n], Z[k * N + n], -before[n], 0.0)
            Z[N + n], Z[(k + 1) * N + n] = add(Z[N + n], Z[(k + 1) * N + n], p, e)
            Z[s + k * N + n] += t * (2.0 * Z[s + N + n] + t * Z[s + n])
            Z[s + N + n] += t * Z[s + n]
            for j in range(2, k):
                Z[s + (k + j - 1) * N + n] += t * Z[s + j * N + n]
