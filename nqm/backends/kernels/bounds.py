"""Bounds of the risk over a leap of many steps: boxes around the readouts, and means that are known to fall or rise."""

from __future__ import annotations

import math

from ..compilation import inlined, internal
from .blocks import BLOCK
from .powers import entry_slot

__all__ = [
    "add_leap_bounds",
    "add_least_start_risk",
    "add_most_start_risk",
    "advance_mean",
    "mark_monotone",
    "mean_range",
    "monotone",
    "read_mean",
    "size_range",
    "widen",
]

ROUNDED = 1.0 + 4e-16  # a few roundings


@internal
def widen(P, old, new, count, start):
    """Boxes around the readouts of the next 2s steps, from those of the next s and P = (M^s, G_s).

    v_j = (M^j)^T r is how the mean after j more steps is read off the state now: d = v_j . u. A box holds
    lower and upper bounds of each component of v_j over even j, 0 <= j < s; v_{j+s} = (M^s)^T v_j widens it.
    """
    N = BLOCK
    k = len(start)
    for j in range(k):
        least, most = j * N, (k + j) * N
        for n in range(count):
            new[least + n] = 0.0
            new[most + n] = 0.0
        for i in range(k):
            m, low, high = entry_slot(i, j, k) * N, i * N, (k + i) * N
            for n in range(count):
                p = P[m + n] * old[low + n]
                q = P[m + n] * old[high + n]
                new[least + n] += min(p, q)
                new[most + n] += max(p, q)
        for n in range(count):
            new[least + n] = min(new[least + n], old[least + n])
            new[most + n] = max(new[most + n], old[most + n])


@inlined
def monotone(m, q, d, slope):
    """Of d_t = A r1^t + B r2^t with real roots r1 >= r2 >= 0: -1 where |d_t| is proved never to rise, 1 where it never
    falls, else 0. The roots are m +- sqrt(q), d is d_0 and d_1 = m d + slope; A >= 0 is d sqrt(q) + slope >= 0.

    With A >= 0 and d_0 >= 0, steps d_(t+1) - d_t = A (r1 - 1) r1^t + B (r2 - 1) r2^t keep the sign of the first one if
    A (r1 - 1) has it: what has the other one only loses weight against it.
    """
    if not q >= 0.0:
        return 0.0
    half = math.sqrt(q)
    if d < 0.0:
        d, slope = -d, -slope
    if not (half <= m * ROUNDED and d * half + slope >= 0.0):
        return 0.0
    then = m * d + slope
    if m + half <= 1.0 and then <= d:
        return -1.0
    return 1.0 if m + half >= 1.0 and then >= d else 0.0


@internal
def mark_monotone(P, Z, average, start, even, odd, count):
    """even[n], odd[n]: as :func:`monotone` for the means of every second step, from state Z on and from the next.

    P: one step, in the coordinates of `set_up`. Roots of M^2 are no longer negative where those of M are real. One
    state just grows or shrinks. An average of two states falls as long as it lies above what it averages, if that falls
    and stays positive, and rises likewise. Nothing is known of other filters: 0.
    """
    N = BLOCK
    k = len(start)
    for n in range(count):
        even[n] = 0.0
        if k == 1:
            even[n] = -1.0 if abs(P[n]) <= 1.0 else 1.0
        elif k == 2:
            m, q, d, slope = P[n], P[2 * N + n], Z[n], Z[N + n]
            mm, qq = m * m + q, 4.0 * m * m * q
            even[n] = monotone(mm, qq, d, 2.0 * m * slope)
            odd[n] = monotone(mm, qq, m * d + slope, 2.0 * m * (q * d + m * slope))
        elif k == 3 and average:
            m, d, slope = P[n], Z[n], Z[N + n]
            mark, gap = monotone(m, P[3 * N + n], d, slope), m * d + slope - Z[2 * N + n]
            even[n] = mark if d >= 0.0 and Z[2 * N + n] >= 0.0 and mark * gap >= 0.0 else 0.0
        if k > 2:
            odd[n] = even[n]


@internal
def mean_range(Z, box, start, least, most, count):
    """Bounds of r . M^s u over the steps s of a box: intervals, multiplied and added up."""
    N = BLOCK
    k = len(start)
    least[:] = 0.0
    most[:] = 0.0
    for i in range(k):
        low, high = i * N, (k + i) * N
        for n in range(count):
            p = Z[i * N + n] * box[low + n]
            q = Z[i * N + n] * box[high + n]
            least[n] += min(p, q)
            most[n] += max(p, q)


@internal
def add_least_start_risk(weight, d, least, terms, count):
    """Add weight * least^2; a mean d that has overflowed counts as inf."""
    for n in range(count):
        nearest = least[n] if abs(d[n]) < math.inf else math.inf
        terms[n] += weight[n] * (nearest * nearest) if weight[n] > 0.0 else 0.0


@internal
def add_most_start_risk(weight, most, terms, count):
    for n in range(count):
        terms[n] += weight[n] * (most[n] * most[n]) if weight[n] > 0.0 else 0.0


@internal
def size_range(marks, now, after, least, most, count):
    """From bounds of a mean to bounds of its size: those at both ends where it only falls or only rises. Bounds that
    are NaN (overflowed boxes) count as 0 and NaN."""
    for n in range(count):
        nearest = least[n] if least[n] > 0.0 else (-most[n] if most[n] < 0.0 else 0.0)
        farthest = max(-least[n], most[n])
        first, end = abs(now[n]), abs(after[n])
        least[n] = nearest if marks[n] == 0.0 else (end if marks[n] < 0.0 else first)
        most[n] = farthest if marks[n] == 0.0 else (first if marks[n] < 0.0 else end)


@internal
def advance_mean(P, e, out, count, k):
    """out <- M e, in doubles."""
    N = BLOCK
    for i in range(k):
        to = i * N
        out[to : to + count] = 0.0
        for j in range(k):
            m, at = entry_slot(i, j, k) * N, j * N
            for n in range(count):
                out[to + n] += P[m + n] * e[at + n]


@internal
def read_mean(e, readout, d, count):
    N = BLOCK
    d[:] = 0.0
    for i in range(readout.size):
        for n in range(count):
            d[n] += readout[i] * e[i * N + n]


@internal
def add_leap_bounds(now, state, after, ahead, weight, step, leap, low, high, work, count, start):
    """Add to low (and, if last, to high) bounds of weight * mean^2 over a leap, from the means now and after.

    leap: (box, readout, average, single, last); single: a leap of 1. Every second step is bounded by itself, so that a
    mean may change its sign with each.
    """
    box, readout, average, single, last = leap
    k = len(start)
    least, most, even, odd = work[0], work[1], work[2], work[3]
    if single:  # it is known; states that are not read may have overflowed
        for n in range(count):
            least[n] = abs(now[n])
            most[n] = abs(now[n])
    else:
        mark_monotone(step, state, average, start, even, odd, count)
        mean_range(state, box, start, least, most, count)
        size_range(even, now, after, least, most, count)
        if k > 1:
            least2, most2, now2, after2 = work[4], work[5], work[6], work[7]
            following = work[8:].reshape(-1)
            advance_mean(step, ahead, following, count, k)
            read_mean(following, readout, after2, count)
            advance_mean(step, state, following, count, k)
            read_mean(following, readout, now2, count)
            mean_range(following, box, start, least2, most2, count)
            size_range(odd, now2, after2, least2, most2, count)
            for n in range(count):
                least[n] = min(least[n], least2[n])
                most[n] = max(most[n], most2[n])
    add_least_start_risk(weight, now, least, low, count)
    if last:
        add_most_start_risk(weight, most, high, count)
