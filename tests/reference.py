"""Oracles that share nothing with the package: it is never imported here.

An optimizer is written once as the update rule a user would write in a training loop (`update`). From that one rule
come the step-by-step recursion and the 60-digit answer.
"""

from __future__ import annotations

import decimal
import itertools
from dataclasses import dataclass, replace

import mpmath as mp
import numpy as np

mp.mp.dps = 60
decimal.getcontext().prec = 60


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


# --- noise that grows with the loss: least squares on Gaussian features ------------------------------------


@dataclass(frozen=True)
class Regression:
    """Curvatures h, how many coordinates have each, E[theta_0^2] of each, and the variance of the labels' noise."""

    h: tuple[float, ...]
    multiplicity: tuple[float, ...]
    init: tuple[float, ...]
    label_noise: float


@dataclass(frozen=True)
class Linear:
    """z' = transition z - lr gain g with the gradient g taken at query . z; the risk is that of readout . z."""

    lr: float
    transition: tuple[tuple[float, ...], ...]
    gain: tuple[float, ...]
    query: tuple[float, ...]
    readout: tuple[float, ...]
    start: tuple[float, ...]


def moment_system(rule, problem, batch, number=float):
    """(one step, start, readout) of all second moments: dense, on (E[z_i z_j], i <= j, of each curvature in turn, 1).

    The gradient's noise has variance (h (label_noise + 2 L) + h^2 E[d^2]) / B on a coordinate, where d is the distance
    to the optimum at which the gradient is taken, and 2 L = sum_k multiplicity_k h_k E[d_k^2] there.
    """
    zero, h, weight = number(0), [number(x) for x in problem.h], [number(x) for x in problem.multiplicity]
    steps = [_linear_step(rule, x, number) for x in h]
    _, _, query, read, origin = steps[0]
    pairs = [(i, j) for i in range(len(query)) for j in range(i, len(query))]
    size = len(pairs)
    squared, risk = (
        [(1 + (i < j)) * v[i] * v[j] for i, j in pairs] for v in (query, read)
    )  # of query . z, readout . z
    full = np.full((len(h) * size + 1,) * 2, zero)
    start, readout = np.full(len(full), number(1)), np.full(len(full), zero)
    for n, (m, b, *_) in enumerate(steps):
        own = slice(n * size, (n + 1) * size)
        start[own] = [number(problem.init[n]) * origin[i] * origin[j] for i, j in pairs]
        readout[own] = [weight[n] * h[n] / 2 * r for r in risk]
        for row, (i, j) in enumerate(pairs, start=n * size):
            for p in range(len(query)):
                for q in range(len(query)):
                    full[row, n * size + pairs.index((min(p, q), max(p, q)))] += m[i][p] * m[j][q]
            share = b[i] * b[j] * h[n] / number(batch)
            full[row, -1] = share * number(problem.label_noise)
            for k, v in itertools.product(range(len(h)), range(size)):
                full[row, k * size + v] += share * (weight[k] + (k == n)) * h[k] * squared[v]
    full[-1, -1] = number(1)
    return full, start, readout


def _linear_step(rule, h, number):
    """(M, b, query, readout, start) on a coordinate; of (theta, buffer, average) those that the rule uses."""
    if isinstance(rule, Linear):
        query, readout, start, gain = (
            [number(x) for x in v] for v in (rule.query, rule.readout, rule.start, rule.gain)
        )
        b = [number(rule.lr) * g for g in gain]
        m = [
            [number(a) - b[i] * h * q for a, q in zip(row, query, strict=True)] for i, row in enumerate(rule.transition)
        ]
        return m, b, query, readout, start
    used = [0] + [1] * (rule.momentum > 0.0) + [2] * (rule.decay is not None)
    m, b = step_matrix(rule, h, number)
    query, readout, start = (
        [number(int(i in at)) for i in used] for at in ({0}, {0 if rule.decay is None else 2}, {0, 2})
    )
    return [[m[i][j] for j in used] for i in used], [b[i] for i in used], query, readout, start


def regression_risks(rule, problem, pieces, times, number, walked=1000):
    """Expected risks at the increasing ``times`` along ``pieces`` (lr, batch, steps), of which the last is held.

    Up to ``walked`` steps are taken one at a time, more by powers of the dense matrix. ``number``: mpf, or Decimal,
    which is ten times faster.
    """
    ends = np.cumsum([steps for _, _, steps in pieces]).tolist()
    now, state, risks = 0, None, []
    for i, (lr, batch, _) in enumerate(pieces):
        full, start, readout = moment_system(replace(rule, lr=lr), problem, batch, number)
        state, powers = start if i == 0 else state, [full]
        end = times[-1] if i == len(pieces) - 1 else ends[i]
        for stop in sorted({t for t in times if now <= t <= end} | {end}):
            steps = stop - now
            for bit in range(steps.bit_length() if steps > walked else 0):
                if bit == len(powers):
                    powers.append(powers[-1] @ powers[-1])
                if steps >> bit & 1:
                    state = powers[bit] @ state
            for _ in range(steps if steps <= walked else 0):
                state = full @ state
            if stop in times and len(risks) == times.index(stop):
                risks.append(readout @ state)
            now = stop
    return risks


def regression_course(rule, problem, pieces, block=256):
    """Expected risks after 0, 1, 2, ... steps along ``pieces`` (lr, batch, steps), in float64, ``block`` at once."""
    risks, state = [], None
    for lr, batch, steps in pieces:
        leap, start, readout = moment_system(replace(rule, lr=lr), problem, batch)
        states = (start if state is None else state)[:, None]
        while states.shape[1] < block:
            states, leap = np.hstack([states, leap @ states]), leap @ leap
        for _ in range(steps // block):
            risks.append(readout @ states)
            states = leap @ states
        risks.append(readout @ states[:, : steps % block])
        state = states[:, steps % block]
    return np.append(np.concatenate(risks), readout @ state)


def regression_sum(rule, problem, batch, steps):
    """Expected risks after 0, 1, ..., steps steps: many coordinates of their own, one step at a time in float64."""
    h, multiplicity, init = (np.array(a) for a in (problem.h, problem.multiplicity, problem.init))
    used = [0] + [1] * (rule.momentum > 0.0) + [2] * (rule.decay is not None)
    m, b = step_matrix(rule, h, np.asarray)
    pairs = [(i, j) for i in used for j in used if i <= j]
    moments = {(i, j): init * (i != 1 and j != 1) for i in used for j in used}
    read, risks = used[-1] if rule.decay is not None else 0, []
    for t in range(steps + 1):
        risks.append(0.5 * np.sum(multiplicity * h * moments[read, read]))
        if t < steps:
            loss = 0.5 * np.sum(multiplicity * h * moments[0, 0])
            noise = (h * (problem.label_noise + 2.0 * loss) + h * h * moments[0, 0]) / batch
            half = {(i, q): sum(m[i][p] * moments[p, q] for p in used) for i in used for q in used}
            for i, j in pairs:
                moments[i, j] = moments[j, i] = sum(half[i, q] * m[j][q] for q in used) + b[i] * b[j] * noise
    return np.array(risks)


def exact_filter_risks(lr, parts, h, c, init, batch, times):
    """Expected risks of one coordinate with 60 digits for a linear filter, as in :func:`filter_risk`, at ``times``.

    The mean and the covariance come from powers of a step, M^2s = M^s M^s and G_2s = G_s + M^s G_s M^s^T.
    """
    transition, gain, query, readout, start = (
        np.vectorize(mp.mpf, otypes=[object])(np.asarray(part, dtype=float)) for part in parts
    )
    lr, h, c, init, batch = (mp.mpf(float(x)) for x in (lr, h, c, init, batch))
    step, noise = transition - lr * h * np.outer(gain, query), lr**2 * c / batch * np.outer(gain, gain)
    levels = [(step, noise)]
    for _ in range(max(times).bit_length() - 1):
        m, g = levels[-1]
        levels.append((m @ m, g + m @ g @ m.T))
    risks = []
    for steps in times:
        mean, covariance = start, 0 * noise
        for level, (m, g) in enumerate(levels):
            if steps >> level & 1:
                mean, covariance = m @ mean, g + m @ covariance @ m.T
        risks.append(h / 2 * (init * (readout @ mean) ** 2 + readout @ covariance @ readout))
    return risks
