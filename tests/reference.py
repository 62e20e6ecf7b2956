"""Oracles that share nothing with the package: it is never imported here.

An optimizer is written once as the update rule a user would write in a training loop (`update`). From that one rule
come the step-by-step recursion and the 60-digit answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import mpmath as mp
import numpy as np

mp.mp.dps = 60


@dataclass(frozen=True)
class Rule:
    """Hyperparameters of one run; `decay=None` means no averaging."""

    lr: float
    momentum: float = 0.0
    nesterov: bool = False
    power: float = 0.0
    decay: float | None = None


def update(rule, state, gradient, number=float):
    """One step of torch.optim.SGD and of an average: state = (theta, buffer, average)."""
    theta, buffer, average = state
    lr, momentum = number(rule.lr), number(rule.momentum)
    buffer = momentum * buffer + gradient
    theta = theta - lr * (gradient + momentum * buffer if rule.nesterov else buffer)
    decay = number(rule.decay or 0)
    average = decay * average + (1 - decay) * theta
    return theta, buffer, average


def step_matrix(rule, h, number=float):
    """(M, b): the state after a step is M state + b noise, read off from `update` on unit vectors."""
    scale = number(h) ** (-number(rule.power))
    one, zero = number(1), number(0)
    columns = []
    for i in range(3):
        state = tuple(one if i == j else zero for j in range(3))
        columns.append(update(rule, state, scale * number(h) * state[0], number))
    noise = update(rule, (zero, zero, zero), scale * one, number)
    return [[columns[j][i] for j in range(3)] for i in range(3)], list(noise)


def exact_risk(rule, h, c, init, batch, steps):
    """Expected risk of one coordinate with 60 digits, as an mpf."""
    return exact_risk_along(rule, [(rule.lr, batch, steps)], h, c, init)


def exact_risk_along(rule, pieces, h, c, init):
    """The same along `pieces` (lr, batch, steps), one after the other; the rule's own lr is not looked at.

    The six second moments E[z_i z_j], i <= j, obey a linear recursion: S' = M S M^T + b b^T c / B. Its matrix,
    with a column more for the noise, is raised to the power `steps`.
    """
    pairs = [(i, j) for i in range(3) for j in range(i, 3)]
    # theta and average start at theta_0, the buffer at 0
    vector = mp.matrix([mp.mpf(init) if 1 not in pair else 0 for pair in pairs] + [1])
    for lr, batch, steps in pieces:
        m, b = step_matrix(replace(rule, lr=lr), mp.mpf(h), mp.mpf)
        big = mp.zeros(7)
        for row, (i, j) in enumerate(pairs):
            for k in range(3):
                for q in range(3):
                    big[row, pairs.index((min(k, q), max(k, q)))] += m[i][k] * m[j][q]
            big[row, 6] = b[i] * b[j] * mp.mpf(c) / mp.mpf(batch)
        big[6, 6] = 1
        while steps:
            if steps & 1:
                vector = big * vector
            steps >>= 1
            if steps:
                big = big * big
    return mp.mpf(h) * vector[pairs.index((2, 2))] / 2


def recursion_risk(rule, h, c, init, batch, steps):
    """Expected risk after 0, 1, ..., steps steps of a whole spectrum, one step at a time in float64."""
    return recursion_risk_along(rule, [(rule.lr, batch, steps)], h, c, init)


def recursion_risk_along(rule, pieces, h, c, init):
    """The same along `pieces` (lr, batch, steps), one after the other; the rule's own lr is not looked at."""
    h, c, init = np.broadcast_arrays(*(np.asarray(a, dtype=float) for a in (h, c, init)))
    second = np.zeros((len(h), 3, 3))
    second[:, [0, 0, 2, 2], [0, 2, 0, 2]] = init[:, None]
    risks = [0.5 * np.sum(h * second[:, 2, 2])]
    for lr, batch, steps in pieces:
        matrices = [step_matrix(replace(rule, lr=lr), float(x)) for x in h]
        m = np.array([a for a, _ in matrices])
        b = np.array([v for _, v in matrices])
        noise = b[:, :, None] * b[:, None, :] * (c / batch)[:, None, None]
        for _ in range(steps):
            second = m @ second @ m.transpose(0, 2, 1) + noise
            risks.append(0.5 * np.sum(h * second[:, 2, 2]))
    return np.array(risks)


def filter_risk(lr, parts, h, c, init, batch, steps, power=0.0):
    """The same for a linear filter parts = (transition, gain, query, readout, start) instead of a `Rule`."""
    return filter_risk_along([(lr, batch, steps)], parts, h, c, init, power)


def filter_risk_along(pieces, parts, h, c, init, power=0.0):
    """The same along `pieces` (lr, batch, steps); a change of lr leaves the state as it is."""
    transition, gain, query, readout, start = (np.asarray(part, dtype=float) for part in parts)
    risks = np.zeros(1 + sum(steps for _, _, steps in pieces))
    for curvature, noise, second in zip(*np.broadcast_arrays(h, c, init), strict=True):
        moments = second * np.outer(start, start)
        course = [0.5 * curvature * readout @ moments @ readout]
        for lr, batch, steps in pieces:
            scale = lr * curvature**-power
            matrix = transition - scale * curvature * np.outer(gain, query)
            fresh = scale**2 * noise / batch * np.outer(gain, gain)
            for _ in range(steps):
                moments = matrix @ moments @ matrix.T + fresh
                course.append(0.5 * curvature * readout @ moments @ readout)
        risks += course
    return risks
