"""When is the target reached, where coordinates feel each other?"""

from __future__ import annotations

import numpy as np

from ..._checks import FloatArray
from ..._status import TooManyLeaps
from ...backends.types import Pieces
from ...backends.zero_lr import rest_crossing
from .recursion import Recursion, Recursions

LEAP = 1e5
"""Nanoseconds that a leap takes at least."""

MOST = 3e10
"""Nanoseconds, as far as they are known beforehand, for which a search for a crossing goes on."""


def first_passage_along(
    recursions: Recursions, row: int, decay: float | None, word: Pieces, end: int, target: float, last: bool
) -> float:
    """First step at or below ``target``; or the one after the last above it (0: none); inf if there is none.

    For one row along a word, and steps before its ``end`` (2^53 if it holds), without a look at the risk there.
    ``decay``: that of the average (0: none) of an optimizer whose iterate rests while lr = 0; else None.

    Leaps of 2^j steps are each proved to hold no crossing, with walks in between. A step maps positive semidefinite
    moments to such, so what it does to a change of the state it does to its parts. Split the change of now into R - S,
    both positive semidefinite: in the next s steps the risk rises by at most r (1 + A + ... + A^(s-1)) R in all, and
    falls by at most the same of S. So at any time in between it is at least risk(t) less that fall, and risk(t + s)
    less that rise; and at most risk(t) plus that rise, and risk(t + s) plus that fall. All that is still to come is
    r (1 - A)^-1 R and S.
    """
    time, answer = 0, 0.0
    state: FloatArray | None = None
    lrs, shares, lengths = (column.tolist() for column in word[:3])
    for lr, share, length in zip(lrs, shares, lengths, strict=True):
        one = recursions.recursion(row, lr, share)
        state = one.start() if state is None else state
        final = time + length == end
        if lr == 0.0 and decay is not None:  # the iterate rests
            found = rest_crossing(_moments(state), decay, target, last, length)
            found = float(length) if last and np.isinf(found) else found
        else:
            try:
                with np.errstate(over="ignore", invalid="ignore"):  # what diverges
                    found = _first_passage(one, state if final else state.copy(), target, last, length)
            except TooManyLeaps as error:
                raise TooManyLeaps(target, time + error.steps, error.leaps) from None
        if not last and np.isfinite(found):
            return time + found
        if last and found > 0.0:
            answer = time + found
        if not final:
            state = one.advance(state, length)
        time += length
    return answer if last and answer < 2**53 else np.inf


def _first_passage(one: Recursion, state: FloatArray, target: float, last: bool, length: int) -> float:
    """The same for one letter; with ``last`` the answer is ``length`` or more where it ends above."""
    future = one.resolvent()
    end = one.steady(future)
    least = next(j for j in range(11, 64) if one.walking(2.0**j) >= one.squaring(j))  # leaps pay from here on
    sums, powers = [one.readout.repeat(one.kick.shape[1])], one.ladder()  # r (1 + A + ... + A^(2^j - 1))
    time, j, answer, walk, tried, spent = 0, 10, 0.0, 2**10, 0, 0.0
    while time < length:
        if spent > MOST:
            raise TooManyLeaps(target, time, tried)
        here, change = one.risk(state), one.change(state)
        if here <= target and not last:
            return float(time)
        if not np.all(np.isfinite(change)):
            return np.inf
        if not np.any(change):
            return np.inf if here > target else answer
        rise, fall = _split(change)
        if future is None:
            if here > target and not np.any(fall):  # it grows for good
                return np.inf
        else:
            up, down = float(np.sum(future * rise)), float(np.sum(future * fall))
            slack = 1e-12 * (end + here + up + down)
            if end - up - slack > target:
                return np.inf
            if last and here + up + slack <= target:
                return answer
            rounding = 2e-15 * float(np.sum(np.abs(future * state)))  # of a change, as often as it is remembered
            if up + down <= 1e-12 * target + rounding:  # it stays where it is; `risk` has the last word
                return float(time) if end <= target * (1.0 + 1e-12) else np.inf
        while j >= least and time + 2**j <= length:
            while len(sums) <= j:
                sums.append(sums[-1] + next(powers).times_from_left(sums[-1]))
            ahead = one.advance(state.copy(), 2**j)
            tried, spent = tried + 1, spent + 2.0 * state.size**2 + LEAP
            up, down, there = float(sums[j] @ rise.ravel()), float(sums[j] @ fall.ravel()), one.risk(ahead)
            above = max(here - down, there - up) > target
            if above or (last and min(here + up, there + down) <= target):
                break
            j -= 1
        if j >= least and time + 2**j <= length:
            state, time = ahead, time + 2**j
            answer, j = float(time) if above else answer, j + 1
        else:
            taken, found = one.walk(state, min(walk, length - time), target, last)
            tried, spent = tried + 1, spent + one.walking(taken) + LEAP
            if found and not last:
                return float(time + taken)
            answer = float(time + found) if found else answer
            time, walk = time + taken, min(2 * walk, 2**least)
            j = least if walk == 2**least else 10
    return answer if last else np.inf


def _moments(state: FloatArray) -> FloatArray:
    """Sum over nodes, as a (k, k) matrix."""
    return _matrices(state.sum(axis=1, keepdims=True))[0]


def _matrices(triangles: FloatArray) -> FloatArray:
    """Symmetric matrices (nodes, k, k) from their upper triangles (s, nodes)."""
    k = (1, 2, 3)[len(triangles) // 3]
    i, j = np.triu_indices(k)
    full = np.empty((triangles.shape[1], k, k))
    full[:, i, j] = full[:, j, i] = triangles.T
    return full


def _split(moments: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Positive semidefinite R and S, node by node, with R - S the given: upper triangles, (s, nodes)."""
    if len(moments) == 1:
        return np.maximum(moments, 0.0), np.maximum(-moments, 0.0)
    values, vectors = np.linalg.eigh(_matrices(moments))
    i, j = np.triu_indices(values.shape[1])
    parts = []
    for kept in (np.maximum(values, 0.0), np.maximum(-values, 0.0)):
        matrix = np.einsum("nir,nr,njr->nij", vectors, kept, vectors)
        parts.append(matrix[:, i, j].T)
    return parts[0], parts[1]
