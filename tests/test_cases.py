"""Calls that once gave wrong answers or none, with the right ones from independent computations."""

from __future__ import annotations

import math

import numpy as np
import pytest

import nqm

# --- nothing times infinity ------------------------------------------------------------------------------------
#
# The first coordinate starts at its optimum, no noise moves it, and M^t overflows; the second one follows 0.7^t.

RESTS = nqm.NoisyQuadratic([1.0, 0.1], init=[0.0, 1.0])
UNSTABLE = {
    "plain": nqm.SGD(3.0),
    "momentum": nqm.SGD(5.0, 0.5),
    "nesterov": nqm.SGD(3.0, 0.5, True),
    "average": nqm.EMA(nqm.SGD(3.0), 0.5),
    "average of momentum": nqm.EMA(nqm.SGD(5.0, 0.5), 0.5),
    "three states": nqm.LinearOptimizer(3.0, np.diag([1.0, 0.5, 0.2]), [1.0, 0.0, 0.0]),
}
ALONE = nqm.NoisyQuadratic([0.1])
LATE = [0, 1, 20, 700, 5000, 2**40]


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("name", UNSTABLE)
def test_a_coordinate_that_nothing_moves_adds_nothing(name, backend):
    """As the other one alone; what is left of it after 5000 steps underflows."""
    optimizer = UNSTABLE[name]
    ramped = nqm.Schedule([2.5, 3.0], [3, 5])
    with nqm.use_backend(backend):
        expected = nqm.risk(ALONE, optimizer, math.inf, LATE)
        assert np.all(np.isfinite(expected))
        assert nqm.risk(RESTS, optimizer, math.inf, LATE) == pytest.approx(expected, rel=1e-13, abs=0.0)
        mixed = nqm.risk(RESTS, optimizer, [[math.inf], [8.0]], LATE)
        assert mixed[0] == pytest.approx(expected, rel=1e-13, abs=0.0)
        assert mixed[1, -1] == math.inf  # where there is noise, it grows
        scheduled = [nqm.risk(p, optimizer.with_values(lr=ramped), math.inf, LATE) for p in (RESTS, ALONE)]
        assert scheduled[0] == pytest.approx(scheduled[1], rel=1e-13, abs=0.0)
        assert nqm.steady_state_risk(RESTS, optimizer, math.inf) == 0.0
        assert nqm.steady_state_risk(RESTS, optimizer, 8.0) == math.inf


@pytest.mark.parametrize("name", UNSTABLE)
@pytest.mark.parametrize("crossing", ["first", "last"])
def test_nor_does_it_hold_up_a_crossing(name, crossing):
    optimizer = UNSTABLE[name]
    for lr in (optimizer.hyperparameters["lr"], nqm.Schedule([2.5, 3.0], [3, 500]), nqm.Schedule([3.0, 0.0], [900, 1])):
        run = optimizer.with_values(lr=lr)
        steps = nqm.steps_to_target(RESTS, run, math.inf, 1e-6, crossing)
        assert math.isfinite(steps)
        assert steps == nqm.steps_to_target(ALONE, run, math.inf, 1e-6, crossing)


def test_plain_descent_on_what_moves_is_its_power():
    for steps in (1, 20, 700):
        expected = 0.05 * 0.7 ** (2 * steps)
        assert nqm.risk(RESTS, nqm.SGD(3.0), math.inf, steps) == pytest.approx(expected, rel=1e-12, abs=0.0)
    assert nqm.risk(RESTS, nqm.SGD(3.0), math.inf, 5000) == 0.0  # 0.7^10000 is below any float
    assert np.all(nqm.simulate(RESTS, nqm.SGD(3.0), math.inf, 5000, runs=3).losses == 0.0)


def test_gaussian_features_without_sampling_too():
    rests = nqm.NoisyQuadratic([1.0, 0.1], init=[0.0, 1.0], noise_model="gaussian-features", label_noise=1.0)
    for optimizer in UNSTABLE.values():
        expected = nqm.risk(ALONE, optimizer, math.inf, LATE)
        assert nqm.risk(rests, optimizer, [[math.inf]], LATE)[0] == pytest.approx(expected, rel=1e-9, abs=1e-300)
        assert nqm.steady_state_risk(rests, optimizer, [math.inf, 8.0]).tolist() == [0.0, math.inf]
    still = nqm.NoisyQuadratic([1.0, 0.1], init=0.0, noise_model="gaussian-features", label_noise=0.0)
    assert nqm.steady_state_risk(still, nqm.SGD(50.0), 8.0) == 0.0


def test_a_state_that_stays_0_is_no_start_and_no_gain_no_noise():
    """z' = 2 z: from 0 it stays there, and without a gain no noise comes in."""
    twice = nqm.LinearOptimizer(0.1, [[2.0]], [0.0], start=[0.0])
    assert nqm.risk(nqm.NoisyQuadratic(1.0), twice, 1.0, 5000) == 0.0
    assert nqm.risk(nqm.NoisyQuadratic(1.0), nqm.LinearOptimizer(0.1, [[2.0]], [0.0]), 1.0, 5000) == math.inf


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_schedules_may_use_the_room_that_a_resting_coordinate_leaves(backend):
    """Without a bound the others want lr near 2 / 0.01, and the first one's (1 - 200)^400 never matters."""
    rests, alone = nqm.NoisyQuadratic([1.0, 0.01, 1e-5], init=[0.0, 1.0, 1.0]), nqm.NoisyQuadratic([0.01, 1e-5])
    with nqm.use_backend(backend):
        best = nqm.optimize_schedule(rests, math.inf, steps=400, pieces=1, max_lr=None)
    grid = nqm.risk(alone, nqm.SGD(np.geomspace(1.0, 250.0, 20_001)), math.inf, 400)
    assert best.schedule.values[0] > 100.0
    assert best.risk <= grid.min() * (1.0 + 1e-9)
