"""Compiled code for noise that grows with the loss: coordinates whose second moments feel each other.

Self-contained, for Numba's cache: nothing here calls a compiled function of another file.
"""

from __future__ import annotations

import numpy as np

from ._jit import compiled

LANES = 8


@compiled
def _sum(terms):
    """Sum in a fixed order: lanes first, then across them."""
    lanes = np.zeros(LANES)
    for first in range(0, terms.size, LANES):
        for lane in range(LANES):
            lanes[lane] += terms[first + lane]
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]))


@compiled
def walk(decay, kick, level, label_noise, readout, state, steps, target, last, progress):
    """``steps`` steps of  y' = y - decay y + kick (label_noise + sum level y),  in place; looks for a crossing.

    decay: (s, s, nodes), kick, state: (s, nodes), level, readout: (s,); nodes a multiple of LANES.
    progress = [steps taken, answer]. last = False: stops before the first step with readout . y <= target, with the
    answer 1. last = True: goes on, and the answer is the number of steps taken when last above the target, plus one.
    target < 0 looks for nothing.
    """
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
        if target >= 0.0:
            risks[:] = 0.0
            for a in range(s):
                if readout[a] != 0.0:
                    for n in range(nodes):
                        risks[n] += readout[a] * state[a, n]
            above = not _sum(risks) <= target  # NaN, from an overflow, lies above
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
        noise = label_noise + _sum(terms)
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
        progress[0] += 1
