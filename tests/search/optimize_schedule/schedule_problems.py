"""Problems to optimise schedules on, and the risk along a schedule without nqm, for the tests beside this file."""

from __future__ import annotations

from functools import cache

import numpy as np

import nqm
from nqm import FREE, SGD, NoisyQuadratic, Preconditioned, optimize_schedule

TARGET = 0.01

# The bins on which the paper's authors optimised: 10^4 eigenvalues 1/i in 100 bins.
PROBLEM = NoisyQuadratic.power_law(10**4).binned(100)
BOUND = nqm.bounds.examples_to_target(PROBLEM, TARGET)

# Few coordinates, neither in proportion nor in order, for optimisers that need thousands of evaluations.
H, C, S = np.array([1.0, 0.5, 0.2, 0.08, 0.03]), np.array([1.0, 0.3, 0.4, 0.1, 0.05]), np.array([1.0, 2, 1, 3, 4])
SMALL = NoisyQuadratic(H, C, S)


def sgd(power=0.0):
    return Preconditioned(SGD(FREE), power) if power else SGD(FREE)


@cache
def soonest(power, batch, pieces, target=TARGET):
    return optimize_schedule(PROBLEM, batch, target=target, pieces=pieces, optimizer=sgd(power))


def lengths_of(steps, pieces):
    return np.diff(np.arange(pieces + 1) * steps // pieces)


def every_step(schedule):
    return np.repeat(schedule.values, schedule.lengths)


def walked(lr, batch, momentum=0.0, decay=0.0, problem=(H, C, S)):
    """Risk after steps of learning rates lr[0], lr[1], ..., each a row for many candidates at once (steps, candidates).

    The second moments of theta, momentum buffer and average, one step at a time; nothing of nqm.
    """
    h, c, s = (np.asarray(v, dtype=float)[:, None] for v in problem)
    lr = np.asarray(lr, dtype=float).reshape(len(lr), -1)
    m, g = momentum, decay
    tt = ta = aa = s + 0.0 * lr[0]
    tb = bb = ba = np.zeros_like(tt)
    for a, b in zip(lr, np.broadcast_to(batch, len(lr)), strict=True):
        shrink, noise = 1.0 - a * h, c / b
        bt, ab = m * tb + h * tt, m * ba + h * ta  # the new buffer with the old theta and the old average
        tt, bb = (
            shrink**2 * tt - 2.0 * a * m * shrink * tb + (a * m) ** 2 * bb + a**2 * noise,
            m**2 * bb + 2.0 * m * h * tb + h**2 * tt + noise,
        )
        tb, at = bt - a * bb, ta - a * ab
        ta, ba = g * at + (1.0 - g) * tt, g * ab + (1.0 - g) * tb
        aa = g * g * aa + 2.0 * g * (1.0 - g) * at + (1.0 - g) ** 2 * tt
    return 0.5 * np.sum(h * aa, axis=0)


def let_in(x, steps, extra=0.0):
    """sum_{t < steps} (1 - x)^2t; the notebook adds extra = 1e-8 to its denominator."""
    gap = x * (2.0 - x) + extra
    return np.where(gap == 0.0, steps, (1.0 - (1.0 - x) ** (2 * steps)) / np.where(gap == 0.0, 1.0, gap))


def nodes(problem):
    """(curvature, noise, init) with the multiplicity in the start and the noise: the risk is linear in both."""
    return problem.curvature, problem.multiplicity * problem.noise, problem.multiplicity * problem.init
