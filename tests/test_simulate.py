"""Monte Carlo of the process against its expectation: |mean - risk| <= 5 standard errors at every recorded time.

Five standard errors: over the some 60 comparisons here a correct program fails once in 30,000 seeds; seeds are fixed.
"""

from __future__ import annotations

import numpy as np
import pytest

import nqm

PROBLEM = nqm.NoisyQuadratic([1.0, 0.3, 0.02], noise=[0.5, 1.0, 0.1], init=[1.0, 0.2, 3.0], multiplicity=[1, 2, 4])
TIMES = [0, 1, 2, 5, 20, 60]
OPTIMIZERS = [
    nqm.SGD(0.7),
    nqm.SGD(0.4, momentum=0.8),
    nqm.SGD(0.4, momentum=0.8, nesterov=True),
    nqm.EMA(nqm.SGD(0.7), decay=0.9),
    nqm.EMA(nqm.SGD(0.4, momentum=0.8, nesterov=True), decay=0.7),
    nqm.Preconditioned(nqm.EMA(nqm.SGD(0.2, momentum=0.5), decay=0.5), power=0.5),
    nqm.LinearOptimizer(0.1, [[1, 0.5, 0.2], [0, 0.5, 0], [0, 0, 0.2]], [1, 1, 1]),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_mean_is_the_risk(optimizer):
    trials = nqm.simulate(PROBLEM, optimizer, batch_size=3, steps=TIMES, runs=20_000, seed=1)
    expected = nqm.risk(PROBLEM, optimizer, 3, TIMES)
    assert np.all(np.abs(trials.mean - expected) <= 5 * trials.standard_error)
    # and the test has teeth: the standard error is small beside the risk
    assert np.all(trials.standard_error < 0.02 * expected)


def test_same_seed_same_bits_other_seed_other_runs():
    first, again, other = (nqm.simulate(PROBLEM, nqm.SGD(0.5), 2, 10, runs=50, seed=s).losses for s in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_power_law_is_simulated_eigenvalue_by_eigenvalue():
    problem = nqm.NoisyQuadratic.power_law(2000)
    trials = nqm.simulate(problem, nqm.SGD(0.5), 16, [5, 20], runs=400, seed=0)
    assert np.all(np.abs(trials.mean - nqm.risk(problem, nqm.SGD(0.5), 16, [5, 20])) <= 5 * trials.standard_error)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"steps": [5, 5]}, ValueError, "increasing"),
        ({"steps": -1}, ValueError, "steps: expected whole numbers"),
        ({"runs": 0}, ValueError, "runs: expected whole numbers from 1"),
        ({"seed": 0.5}, ValueError, "seed: expected whole"),
        ({"batch_size": [1, 2]}, ValueError, "batch_size: expected a single number"),
        ({"optimizer": nqm.SGD([0.1, 0.2])}, ValueError, "expected plain numbers"),
        ({"optimizer": nqm.SGD(nqm.FREE)}, TypeError, "lr is nqm.FREE"),
        ({"problem": nqm.NoisyQuadratic([1.0], multiplicity=0.5)}, ValueError, "whole multiplicities"),
        ({"problem": nqm.NoisyQuadratic.power_law(10**9)}, ValueError, "at most"),
    ],
)
def test_bad_input(arguments, error, words):
    good = {"problem": PROBLEM, "optimizer": nqm.SGD(0.1), "batch_size": 1, "steps": 3}
    with pytest.raises(error, match=words):
        nqm.simulate(**{**good, **arguments})
