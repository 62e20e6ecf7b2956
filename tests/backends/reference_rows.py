"""Rows, schedules and courses to ask the readable backend for, for the tests beside this file."""

from __future__ import annotations

import numpy as np

import nqm
from nqm.backends.types import FilterBatch, Word
from nqm.dynamics import additive
from nqm.dynamics.words import word_until

TOLERANCE = 1e-12


def nodes(rng, count=6, weightless=True):
    """h up to 1 and down to 1e-4, with noise and start, some of them 0."""
    h = np.append(1.0, 10.0 ** rng.uniform(-4.0, 0.0, size=count - 1))
    c, init = rng.exponential(size=(2, count))
    if weightless:
        c, init = c * (rng.random(count) < 0.8), init * (rng.random(count) < 0.8)
    return h, c * h, init


def long_momentum(rng):
    return 1.0 - 10.0 ** rng.uniform(-6.0, -1.0)


def stable(momentum, nesterov=False):
    return 2.0 * (1.0 + momentum) / (1.0 + 2.0 * momentum * nesterov)


def rows_of(problem, optimizer, batch, count):
    return additive.rows(problem, optimizer, optimizer.hyperparameters, batch, count)


def some_optimizer(family, rng, rows):
    """``rows`` of hyperparameters: stable ones, long momenta and averages, and some that diverge."""
    momentum = np.where(rng.random(rows) < 0.5, rng.uniform(size=rows), [long_momentum(rng) for _ in range(rows)])
    decay = np.where(rng.random(rows) < 0.5, rng.uniform(size=rows), [long_momentum(rng) for _ in range(rows)])
    x = 10.0 ** rng.uniform(-6.0, 0.0, size=rows)
    x[0] = 1.02  # of the limit
    plain = nqm.SGD(x * stable(0.0))
    heavy, fast = (nqm.SGD(x * stable(momentum, n), momentum, n) for n in (False, True))
    if family.startswith("linear"):
        k = int(family[-1])
        matrix = rng.normal(size=(k, k))
        matrix *= rng.uniform(0.8, 1.0) / np.abs(np.linalg.eigvals(matrix)).max()
        return nqm.LinearOptimizer(0.01 * x, matrix, *rng.normal(size=(4, k)))
    return {
        "SGD": plain,
        "momentum": heavy,
        "Nesterov": fast,
        "EMA": nqm.EMA(plain, decay),
        "EMA of momentum": nqm.EMA(heavy, decay),
        "EMA of Nesterov": nqm.EMA(fast, decay),
        "preconditioned": nqm.Preconditioned(heavy, rng.choice([0.0, 0.3, 0.5, 1.0], size=rows)),
    }[family]


ROWS = 8


def assert_close(found, expected, tolerance=TOLERANCE):
    """To a relative ``tolerance``; inf where inf is expected, and never NaN."""
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=0.0, equal_nan=False)


def pieces_of(lr, batch, times):
    return word_until(lr, batch, np.array(times))


WARM_UP = nqm.Schedule([*np.linspace(0.0, 1.0, 10), 0.3], [1] * 10 + [500])
RAMP = nqm.Schedule([1.0, 4.0, 64.0], [20, 50, 1000])


def slope_arguments(problem, optimizer, free, lr, inverse_batch, lengths):
    """What backends are asked for, in the units of the learning rates given: batch, word, spans."""
    values = optimizer.hyperparameters
    spans = np.array([0.5 * min(values[name], 1.0 - values[name]) for name in free])
    changed = [(name, sign * span) for name, span in zip(free, spans, strict=True) for sign in (0.5, -0.5)]
    filters = [optimizer.step_map({**values, n: values[n] + by}).packed for n, by in [("lr", 0.0), *changed]]
    row, first = rows_of(problem, optimizer, 1.0, 1), filters[0]
    parts = (
        np.stack([getattr(f, name) for f in filters])[:, None] for name in ("transition", "gain", "averaging_weight")
    )
    ones, none = np.ones(len(filters)), np.zeros(len(lengths), dtype=np.int64)
    batch = FilterBatch(
        row.curvature, np.zeros(len(filters), dtype=np.int64), row.start_weight, row.noise_weight, ones, *parts,
        first.query, first.readout, first.start, ones, row.lr_scaled,
    )  # fmt: skip
    return batch, Word(none, lr, inverse_batch, np.array(lengths), none - 1), spans


COURSE = np.array([0.3, 1.0, 0.1]), np.array([1.0, 0.1, 0.01]), [30, 100, 60]


def flat(found):
    return np.concatenate([[found.risk], *found[1:]])
