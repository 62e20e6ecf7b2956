"""When is the target reached, where coordinates feel each other?"""

from __future__ import annotations

import math

import numpy as np

from ..._checks import FloatArray
from ..._status import TooManyLeaps
from ...backends.types import Word
from ...backends.zero_lr import first_passage_at_zero_lr
from .recursion import Recursion, Recursions

__all__ = ["first_passage_along"]

LEAP = 1e5
"""Nanoseconds that a leap takes at least."""

MOST = 3e10
"""Nanoseconds, as far as they are known beforehand, for which a search for a crossing goes on."""


def first_passage_along(
    recursions: Recursions, row: int, decay: float | None, word: Word, end: int, target: float, last: bool
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
    lrs, inverse_batch_sizes, lengths = (column.tolist() for column in (word.lr, word.inverse_batch_size, word.repeat))
    for lr, inverse_batch_size, length in zip(lrs, inverse_batch_sizes, lengths, strict=True):
        one = recursions.recursion(row, lr, inverse_batch_size)
        state = one.start() if state is None else state
        final = time + length == end
        if lr == 0.0 and decay is not None:  # the iterate rests
            found = first_passage_at_zero_lr(_moments(state), decay, target, last, length)
            found = float(length) if last and np.isinf(found) else found
        else:
            try:
                with np.errstate(over="ignore", invalid="ignore"):  # what diverges
                    found = _Letter(one, target, last, length).run(state if final else state.copy())
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


class _Letter:
    """The same for one letter of a word, of ``length`` steps; with ``last`` the answer is ``length`` or more where it
    ends above the target."""

    def __init__(self, one: Recursion, target: float, last: bool, length: int) -> None:
        self.one, self.target, self.last, self.length = one, target, last, length
        self.future = one.resolvent()
        self.end = one.steady(self.future)
        # leaps of 2^least steps pay, and longer ones
        self.least = next(j for j in range(11, 64) if one.cost_of_steps(2.0**j) >= one.cost_of_powers(j))
        self.sums = [one.readout.repeat(one.kick.shape[1])]  # r (1 + A + ... + A^(2^j - 1))
        self.powers = one.powers()
        self.time, self.answer = 0, 0.0
        self.tried, self.spent = 0, 0.0

    def run(self, state: FloatArray) -> float:
        """From ``state``, which is spent."""
        one, j, stride = self.one, 10, 2**10
        while self.time < self.length:
            if self.spent > MOST:
                raise TooManyLeaps(self.target, self.time, self.tried)
            here, change = one.risk(state), one.change(state)
            if here <= self.target and not self.last:
                return float(self.time)
            if not np.all(np.isfinite(change)):
                return np.inf
            if not np.any(change):
                return np.inf if here > self.target else self.answer
            rise, fall = _split(change)
            known = self._for_good(state, here, rise, fall)
            if known is not None:
                return known
            j, ahead = self._leap(state, here, rise, fall, j)
            if ahead is not None:
                state, j = ahead, j + 1
                continue
            taken, found = one.walk(state, min(stride, self.length - self.time), self.target, self.last)
            self.tried, self.spent = self.tried + 1, self.spent + one.cost_of_steps(taken) + LEAP
            if found and not self.last:
                return float(self.time + taken)
            self.answer = float(self.time + found) if found else self.answer
            self.time, stride = self.time + taken, min(2 * stride, 2**self.least)
            j = self.least if stride == 2**self.least else 10
        return self.answer if self.last else np.inf

    def _for_good(self, state: FloatArray, here: float, rise: FloatArray, fall: FloatArray) -> float | None:
        """The answer, where what is still to come is known to be on one side of the target."""
        target, end = self.target, self.end
        if self.future is None:
            return np.inf if here > target and not np.any(fall) else None  # it grows for good
        up, down = float(np.sum(self.future * rise)), float(np.sum(self.future * fall))
        slack = 1e-12 * (end + here + up + down)
        if end - up - slack > target:
            return np.inf
        if self.last and here + up + slack <= target:
            return self.answer
        rounding = 2e-15 * float(np.sum(np.abs(self.future * state)))  # of a change, as often as it is remembered
        if up + down <= 1e-12 * target + rounding:  # it stays where it is; `risk` decides
            return float(self.time) if end <= target * (1.0 + 1e-12) else np.inf
        return None

    def _leap(
        self, state: FloatArray, here: float, rise: FloatArray, fall: FloatArray, j: int
    ) -> tuple[int, FloatArray | None]:
        """The longest leap of at most 2^j steps that is proved to hold no crossing: (its j, the state after it), None
        where walking is cheaper."""
        one, target = self.one, self.target
        while j >= self.least and self.time + 2**j <= self.length:
            while len(self.sums) <= j:
                self.sums.append(self.sums[-1] + next(self.powers).times_from_left(self.sums[-1]))
            ahead = one.advance(state.copy(), 2**j)
            self.tried, self.spent = self.tried + 1, self.spent + 2.0 * state.size**2 + LEAP
            up, down = float(self.sums[j] @ rise.ravel()), float(self.sums[j] @ fall.ravel())
            there = one.risk(ahead)
            above = max(here - down, there - up) > target
            if above or (self.last and min(here + up, there + down) <= target):
                self.time += 2**j
                self.answer = float(self.time) if above else self.answer
                return j, ahead
            j -= 1
        return j, None


def _moments(state: FloatArray) -> FloatArray:
    """Sum over nodes, as a (k, k) matrix."""
    return _matrices(state.sum(axis=1, keepdims=True))[0]


def _matrices(triangles: FloatArray) -> FloatArray:
    """Symmetric matrices (nodes, k, k) from their upper triangles (s, nodes)."""
    k = math.isqrt(2 * len(triangles))
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
