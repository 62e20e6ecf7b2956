"""Coordinates in which a momentum's step has equal diagonal entries, for words with large learning rates."""

from __future__ import annotations

from ..compilation import internal
from .blocks import BLOCK
from .double_double import add, dot2, mul


@internal
def choose_shifts(curvature, largest, lr, scaled, constant, linear, shift, count):
    """shift[n] for coordinates (theta, w + shift theta) in which a momentum's M has equal diagonal entries, where
    lr h > 1; 0 elsewhere, and for other filters. Returns whether any is not 0.

    At the far end of critical damping theta and the velocity w nearly are multiples of each other, and what tells them
    apart decides what comes. (At small lr h shifts would cost digits when lr rises again later.)
    """
    some = False
    if scaled[1] == 1 and lr * largest > 1.0:
        shift[:] = 0.0
        for n in range(count):
            h = curvature[n]
            if lr * h > 1.0:
                off = constant[0, 0, 1] + linear[0, 0, 1] * h
                gap = constant[0, 0, 0] + linear[0, 0, 0] * h - constant[0, 1, 1] - linear[0, 1, 1] * h
                if off != 0.0:
                    shift[n] = 0.5 * gap / off
                    some = True
    return some


@internal
def shift_step(P, b, inverse_batch, shift, count):
    """One step in the coordinates of `choose_shifts`: T M T^-1 and T b with T = 1 + shift in entry (1, 0)."""
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
        P[first + N + n] = inverse_batch * b[0] * b1
        P[second + n] = inverse_batch * b1 * b1
        if k == 3:
            P[second + N + n] = inverse_batch * b1 * b[2]


@internal
def shift_state(Z, before, after, k, count):
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
            if k == 3:
                Z[s + 4 * N + n] += t * Z[s + 2 * N + n]
