"""Monte Carlo of the process against its expectation: |mean - risk| <= 5 standard errors at every recorded time.

Five standard errors: over the some 60 comparisons here a correct program fails once in 30,000 seeds; seeds are fixed.
"""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

import nqm
from nqm import _simulate as simulation

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


def by_hand(optimizer, batch, steps, runs, seed, draw):
    """Losses after ``steps`` steps of the update rules as they are written down, one number at a time; ``draw`` gives
    the gradient's error of all runs."""
    inner, decay = (optimizer.optimizer, optimizer.decay) if isinstance(optimizer, nqm.EMA) else (optimizer, None)
    lr, momentum, nesterov = inner.lr, inner.momentum, inner.nesterov
    h, noise, init = np.repeat([PROBLEM.curvature, PROBLEM.noise, PROBLEM.init], [1, 2, 4], axis=1)
    generator = np.random.default_rng(seed)
    theta = np.sqrt(init) * generator.standard_normal((runs, 7))
    velocity, average = np.zeros((runs, 7)), theta.copy()
    for _ in range(steps):
        error = draw(generator, h, noise, theta, batch)
        for r in range(runs):
            for n in range(7):
                gradient = h[n] * theta[r, n] + error[r, n]
                velocity[r, n] = momentum * velocity[r, n] + gradient
                move = gradient + momentum * velocity[r, n] if nesterov else velocity[r, n]
                theta[r, n] -= lr * move
                if decay is not None:
                    average[r, n] = decay * average[r, n] + (1.0 - decay) * theta[r, n]
    read = theta if decay is None else average
    return [sum(0.5 * h[n] * read[r, n] ** 2 for n in range(7)) for r in range(runs)]


def plain_noise(generator, h, noise, theta, batch):
    return np.sqrt(noise / batch) * generator.standard_normal(theta.shape)


def sampled_noise(generator, h, noise, theta, batch):
    """Gradient of a drawn batch of a regression with label noise 0.5, less the true one."""
    x = np.sqrt(h) * generator.standard_normal((len(theta), batch, h.size))
    residual = np.einsum("rbn,rn->rb", x, theta) - np.sqrt(0.5) * generator.standard_normal((len(theta), batch))
    return np.einsum("rbn,rb->rn", x, residual) / batch - h * theta


@pytest.mark.parametrize("block", [1, 14, 2**15])
@pytest.mark.parametrize("optimizer", OPTIMIZERS[:5], ids=str)
def test_losses_are_those_of_the_rules_step_by_step(optimizer, block, monkeypatch):
    """The same draws in the same order, so the same losses but for rounding; whatever is computed at a time."""
    monkeypatch.setattr(simulation, "NUMBERS_IN_CACHE", block)
    found = nqm.simulate(PROBLEM, optimizer, 3, [0, 7, 30], runs=5, seed=2).losses
    for column, steps in enumerate((0, 7, 30)):
        assert found[:, column] == pytest.approx(by_hand(optimizer, 3, steps, 5, 2, plain_noise), rel=1e-12)


def test_losses_of_a_regression_are_those_of_its_rules():
    problem = nqm.NoisyQuadratic(
        PROBLEM.curvature, init=PROBLEM.init, multiplicity=[1, 2, 4], noise_model="gaussian-features", label_noise=0.5
    )
    optimizer = nqm.EMA(nqm.SGD(0.2, momentum=0.5, nesterov=True), decay=0.7)
    found = nqm.simulate(problem, optimizer, 3, 12, runs=5, seed=4).losses[:, 0]
    assert found == pytest.approx(by_hand(optimizer, 3, 12, 5, 4, sampled_noise), rel=1e-12)


def test_what_has_no_weight_may_be_anything():
    """A filter whose first row is zero, and a state that overflows but is not read."""
    still = nqm.LinearOptimizer(0.1, [[0, 0, 0], [0, 0.5, 0], [0, 0, 0.5]], [0, 0, 0])
    assert nqm.simulate(PROBLEM, still, 3, 1, runs=2).losses.tolist() == [[0.0], [0.0]]
    runaway = nqm.LinearOptimizer(0.1, [[0.5, 0, 0], [0, 10.0, 0], [0, 0, 0.5]], [1, 0, 0], start=[1.0, 1.0, 0.0])
    assert np.all(nqm.simulate(PROBLEM, runaway, 3, 400, runs=2).losses < 10.0)


def test_another_array_module_gives_the_same(monkeypatch):
    """One with the functions that NumPy and CuPy share, which takes all runs at once."""
    names = ("asarray", "empty", "einsum", "isnan", "inf", "random", "sqrt", "zeros_like")
    other = SimpleNamespace(**{name: getattr(np, name) for name in names})
    for problem in (PROBLEM, nqm.NoisyQuadratic([1.0, 0.3], noise_model="gaussian-features", label_noise=0.5)):
        arguments = (problem, OPTIMIZERS[4], 3, [0, 3, 9], 5, 2)
        expected = nqm.simulate(*arguments).losses
        with monkeypatch.context() as patch:
            patch.setattr(simulation.backends, "array_module", lambda: nullcontext(other))
            assert nqm.simulate(*arguments).losses == pytest.approx(expected, rel=1e-14)
