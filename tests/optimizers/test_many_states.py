"""Optimizers of four to eight states: risk with 60 digits, along schedules, crossings against the risk itself."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
from reference import filter_risk_along
from sizes import thorough

import nqm

mp.mp.dps = 60


def stable(k, seed):
    """k states, of which the first is the iterate; stable for lr h up to 1 or more."""
    generator = np.random.default_rng(seed)
    while True:
        matrix = generator.standard_normal((k, k)) / k
        matrix[:, 0] = np.eye(k)[0]
        gain = np.append(1.0, generator.uniform(0.0, 0.5, k - 1))
        readout = np.append(1.0, generator.uniform(-0.1, 0.1, k - 1))
        found = nqm.LinearOptimizer(0.3, matrix, gain, query=np.eye(k)[0], readout=readout, start=np.eye(k)[0])
        if found.stability_limit(found.hyperparameters) > 1.0:
            return found


OPTIMIZERS = [
    *(stable(k, k) for k in range(4, 9)),
    *(nqm.EMA(stable(k, 10 + k), 0.99) for k in range(3, 8)),
    nqm.Preconditioned(nqm.EMA(stable(4, 20), 0.9), 0.5),
]
FEW = [optimizer if optimizer.states == 4 else thorough(optimizer) for optimizer in OPTIMIZERS]
"""Each number of states compiles kernels of its own: the others are for the thorough run."""
ENDS = [optimizer for optimizer in OPTIMIZERS if optimizer.states in (4, 8)]
CURVATURE, NOISE, INIT = np.array([1.0, 0.3, 0.01]), np.array([1.0, 0.5, 2.0]), np.array([1.0, 2.0, 0.5])
PROBLEM = nqm.NoisyQuadratic(CURVATURE, NOISE, INIT)
BATCH = 16.0


def parts_of(optimizer):
    """(linear optimizer, decay or None, power)"""
    decay, power = None, 0.0
    while not isinstance(optimizer, nqm.LinearOptimizer):
        decay = getattr(optimizer, "decay", decay)
        power = getattr(optimizer, "power", power)
        optimizer = optimizer.optimizer
    return optimizer, decay, power


def exact_risk(optimizer, pieces):
    """With 60 digits, along pieces (lr, batch, steps): the state is z, and the average of what is read out of it."""
    linear, decay, power = parts_of(optimizer)
    k, total = len(linear.transition), mp.mpf(0)
    vector = lambda values: mp.matrix([mp.mpf(float(x)) for x in values])  # noqa: E731
    query, readout, gain, start = (vector(v) for v in (linear.query, linear.readout, linear.gain, linear.start))
    transition = mp.matrix([[mp.mpf(float(x)) for x in row] for row in linear.transition])
    kept = mp.mpf(0) if decay is None else mp.mpf(float(decay))
    for h, c, init in zip(CURVATURE, NOISE, INIT, strict=True):
        h, c, init = mp.mpf(float(h)), mp.mpf(float(c)), mp.mpf(float(init))
        mean, spread = mp.zeros(k + 1, 1), mp.zeros(k + 1)
        mean[:k, 0], mean[k, 0] = start, (readout.T * start)[0]
        for lr, batch, steps in pieces:
            rate = mp.mpf(float(lr)) * h ** -mp.mpf(power)
            inner = transition - rate * h * gain * query.T
            m, b = mp.zeros(k + 1), mp.zeros(k + 1, 1)
            m[:k, :k], m[k, :k], m[k, k] = inner, (1 - kept) * (readout.T * inner), kept
            b[:k, 0], b[k, 0] = rate * gain, (1 - kept) * rate * (readout.T * gain)[0]
            grown = b * b.T * c / mp.mpf(batch)
            while steps:
                if steps & 1:
                    mean, spread = m * mean, grown + m * spread * m.T
                grown, m, steps = grown + m * grown * m.T, m * m, steps >> 1
        total += h / 2 * (init * mean[k] ** 2 + spread[k, k])
    return float(total)


@pytest.mark.parametrize("steps", [0, 1, 7, 1000, 10**6])
@pytest.mark.parametrize("optimizer", FEW, ids=repr)
def test_risk_with_60_digits(optimizer, steps):
    found = nqm.risk(PROBLEM, optimizer, BATCH, steps)
    assert found == pytest.approx(exact_risk(optimizer, [(0.3, BATCH, steps)]), rel=1e-12)


@pytest.mark.thorough
@pytest.mark.parametrize("optimizer", FEW, ids=repr)
def test_along_schedules(optimizer):
    pieces = [(0.3, BATCH, 100), (0.0, BATCH, 10), (0.01, 4.0 * BATCH, 500)]
    lr = nqm.Schedule([lr for lr, _, _ in pieces], [n for *_, n in pieces])
    batch = nqm.Schedule([b for _, b, _ in pieces], [n for *_, n in pieces])
    found = nqm.risk(PROBLEM, optimizer.with_values(lr=lr), batch, 610)
    assert found == pytest.approx(exact_risk(optimizer, pieces), rel=1e-12)


@pytest.mark.thorough
@pytest.mark.parametrize("crossing", ["first", "last"])
@pytest.mark.parametrize("optimizer", ENDS, ids=repr)
def test_crossings_are_those_of_a_scan(optimizer, crossing):
    course = nqm.risk(PROBLEM, optimizer, BATCH, np.arange(3001))
    for target in np.geomspace(1.05 * course[-1], 0.9 * course.max(), 7):
        above = np.flatnonzero(course > target)
        expected = np.argmax(course <= target) if crossing == "first" else above[-1] + 1
        assert nqm.steps_to_target(PROBLEM, optimizer, BATCH, target, crossing) == expected


@pytest.mark.thorough
@pytest.mark.parametrize("optimizer", [stable(4, 4), stable(8, 8)], ids=repr)
def test_crossings_along_a_schedule(optimizer):
    schedule = nqm.Schedule([0.3, 0.03, 0.003], [100, 400, 3000])
    parts = (optimizer.transition, optimizer.gain, optimizer.query, optimizer.readout, optimizer.start)
    pieces = [(lr, BATCH, n) for lr, n in zip(schedule.values, schedule.lengths, strict=True)]
    course = filter_risk_along(pieces, parts, CURVATURE, NOISE, INIT)
    for target in np.geomspace(1.05 * course.min(), 0.9 * course.max(), 5):
        first = nqm.steps_to_target(PROBLEM, optimizer.with_values(lr=schedule), BATCH, target)
        assert first == np.argmax(course <= target)


@pytest.mark.thorough
@pytest.mark.parametrize("optimizer", FEW, ids=repr)
def test_the_long_run_and_the_reference_backend(optimizer):
    steady = nqm.steady_state_risk(PROBLEM, optimizer, BATCH)
    assert steady == pytest.approx(exact_risk(optimizer, [(0.3, BATCH, 2**40)]), rel=1e-11)
    with nqm.use_backend("numpy"):
        assert nqm.risk(PROBLEM, optimizer, BATCH, 777) == pytest.approx(
            exact_risk(optimizer, [(0.3, BATCH, 777)]), rel=1e-12
        )


@pytest.mark.parametrize("optimizer", FEW, ids=repr)
def test_noise_that_grows_with_the_loss(optimizer):
    problem = nqm.NoisyQuadratic(CURVATURE, noise_model="gaussian-features", label_noise=0.1)
    found = nqm.risk(problem, optimizer, 64, 50)
    trials = nqm.simulate(problem, optimizer, 64, 50, runs=2000)
    assert abs(found - trials.mean[0]) < 4.5 * trials.standard_error[0]


@pytest.mark.thorough
@pytest.mark.parametrize("optimizer", FEW[::3], ids=repr)
def test_the_best_learning_rate(optimizer):
    best = nqm.tune(PROBLEM, optimizer.with_values(lr=nqm.FREE), BATCH, 0.1)
    limit = nqm.max_stable_lr(PROBLEM, optimizer)
    scan = optimizer.with_values(lr=limit * np.geomspace(1e-4, 0.9999, 2000))
    assert nqm.risk(PROBLEM, best.optimizer, BATCH, best.steps) <= 0.1
    assert nqm.risk(PROBLEM, scan, BATCH, best.steps - 1).min() > 0.1


@pytest.mark.thorough
@pytest.mark.parametrize(
    "optimizer",
    [
        nqm.EMA(stable(3, 13), nqm.FREE),
        thorough(nqm.EMA(stable(5, 15), nqm.FREE)),
    ],
    ids=repr,
)
def test_gradients_of_schedules(optimizer):
    """Learning rates and the decay a little off are worse."""
    found = nqm.optimize_schedule(
        PROBLEM, BATCH, steps=200, pieces=2, optimizer=optimizer.with_values(lr=nqm.FREE), restarts=1
    )
    assert found.gradient_norm < 1e-4
    for factors in ((1.001, 1.0), (0.999, 1.0), (1.0, 1.001), (1.0, 0.999)):
        lr = nqm.Schedule(np.minimum(found.schedule.values * factors, found.schedule.values.max()), 100)
        assert nqm.risk(PROBLEM, found.optimizer.with_values(lr=lr), BATCH, 200) > found.risk * (1.0 - 1e-9)
