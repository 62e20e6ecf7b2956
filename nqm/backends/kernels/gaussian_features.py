"""Noise that grows with the loss: coordinates whose second moments feel each other."""

from __future__ import annotations

import numpy as np

from ..compilation import compiled, internal
from ..types import LANES


@internal
def _sum(terms):
    """Sum in a fixed order: LANES running sums, which the compiler keeps in one register, then across them."""
    a, b, c, d, e, f, g, h = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for n in range(0, terms.size, LANES):
        a += terms[n]
        b += terms[n + 1]
        c += terms[n + 2]
        d += terms[n + 3]
        e += terms[n + 4]
        f += terms[n + 5]
        g += terms[n + 6]
        h += terms[n + 7]
    return ((a + e) + (c + g)) + ((b + f) + (d + h))


@internal
def _step(decay, kick, noise, state, couples, new):
    s, nodes = state.shape
    for a in range(s):
        for n in range(nodes):
            new[a, n] = kick[a, n] * noise
        for b in range(s):
            if couples[a, b] != 0.0:
                for n in range(nodes):
                    new[a, n] -= decay[a, b, n] * state[b, n]
    for a in range(s):
        for n in range(nodes):
            state[a, n] += new[a, n]


@internal
def _step3(decay, kick, noise, state):
    """The same for two state variables, in one pass."""
    for n in range(state.shape[1]):
        p, q, r = state[0, n], state[1, n], state[2, n]
        state[0, n] = p + (kick[0, n] * noise - (decay[0, 0, n] * p + decay[0, 1, n] * q + decay[0, 2, n] * r))
        state[1, n] = q + (kick[1, n] * noise - (decay[1, 0, n] * p + decay[1, 1, n] * q + decay[1, 2, n] * r))
        state[2, n] = r + (kick[2, n] * noise - (decay[2, 0, n] * p + decay[2, 1, n] * q + decay[2, 2, n] * r))


@compiled
def take_steps(recursion, state, steps, target_risk, last, progress):
    """``steps`` steps of a :class:`~nqm.backends.types.MomentRecursion`, in place; looks for a crossing.

    state: (s, nodes), nodes a multiple of LANES. progress = [steps taken, answer]. last = False: stops before the first
    step with risk <= target_risk, with the answer 1. last = True: goes on, and the answer is the number of steps taken
    when last above the target, plus one. target_risk < 0 looks for nothing.
    """
    decay, kick, level, readout = recursion.decay, recursion.kick, recursion.level, recursion.readout
    s, nodes = state.shape
    terms, risks = np.empty(nodes), np.empty(nodes)
    new = np.empty((s, nodes))
    couples = np.zeros((s, s))
    for a in range(s):
        for b in range(s):
            for n in range(nodes):
                if decay[a, b, n] != 0.0:
                    couples[a, b] = 1.0
    for _ in range(steps):
        if target_risk >= 0.0:
            risks[:] = 0.0
            for a in range(s):
                if readout[a] != 0.0:
                    for n in range(nodes):
                        risks[n] += readout[a] * state[a, n]
            above = not _sum(risks) <= target_risk  # NaN, from an overflow, lies above
            if last and above:
                progress[1] = progress[0] + 1
            if not last and not above:
                progress[1] = 1
                return
        terms[:] = 0.0
        for a in range(s):
            if level[a] != 0.0:
                for n in range(nodes):
                    terms[n] += level[a] * state[a, n]
        noise = recursion.label_noise + _sum(terms)
        if s == 3:
            _step3(decay, kick, noise, state)
        else:
            _step(decay, kick, noise, state, couples, new)
        progress[0] += 1
