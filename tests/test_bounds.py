"""Information bounds: against a posterior computed by hand, and against every optimizer."""

from __future__ import annotations

import numpy as np
import pytest

import nqm

PROBLEM = nqm.NoisyQuadratic([1.0, 0.3, 0.02], noise=[0.5, 1.0, 0.1], init=[1.0, 0.2, 3.0], multiplicity=[1, 2, 4])


def test_bayes_is_the_risk_of_the_posterior_mean():
    """Gaussian conditioning on N gradients h theta + noise, written out with matrices: one coordinate at a time."""
    total = 0.0
    examples = 7
    for h, c, s, m in zip(PROBLEM.curvature, PROBLEM.noise, PROBLEM.init, PROBLEM.multiplicity, strict=True):
        observed = s * h * h * np.ones((examples, examples)) + c * np.eye(examples)
        gain = np.linalg.solve(observed, np.full(examples, s * h))
        total += 0.5 * m * h * (s - s * h * gain.sum())
    assert nqm.bounds.bayes(PROBLEM, examples) == pytest.approx(total, rel=1e-12)


def test_mle_with_unit_ratio_is_half_d_over_n():
    assert nqm.bounds.mle(nqm.NoisyQuadratic.power_law(10_000), [50, 500_000]) == pytest.approx(
        [100.0, 0.01], rel=1e-12
    )


def test_limits():
    assert nqm.bounds.bayes(PROBLEM, 0) == pytest.approx(PROBLEM.initial_risk, rel=1e-15)
    assert nqm.bounds.mle(PROBLEM, 0) == np.inf
    assert nqm.bounds.bayes(PROBLEM, 1e12) == pytest.approx(nqm.bounds.mle(PROBLEM, 1e12), rel=1e-6)
    still = nqm.NoisyQuadratic([1.0, 0.5], noise=0.0)
    assert nqm.bounds.bayes(still, [0, 1]) == pytest.approx([0.75, 0.0])


def test_no_optimizer_beats_bayes_and_shrinkage_beats_mle():
    random = np.random.default_rng(0)
    lr = 2.0 * random.random(500)
    momentum, decay, batch = random.random(500), random.random(500), 2.0 ** random.integers(0, 12, 500)
    steps = random.integers(1, 2000, 500)
    for optimizer in (nqm.SGD(lr), nqm.SGD(lr, momentum), nqm.EMA(nqm.SGD(lr, momentum), decay)):
        risk = nqm.risk(PROBLEM, optimizer, batch, steps)
        assert np.all(risk >= nqm.bounds.bayes(PROBLEM, batch * steps))
    # few examples: doing nothing is already better than the maximum-likelihood estimate
    assert nqm.bounds.mle(PROBLEM, 1) > PROBLEM.initial_risk > nqm.bounds.bayes(PROBLEM, 1)


@pytest.mark.parametrize("target", [0.5, 0.01, 1e-6])
def test_examples_to_target_inverts(target):
    for bound in ("bayes", "mle"):
        number = nqm.bounds.examples_to_target(PROBLEM, target, bound)
        assert getattr(nqm.bounds, bound)(PROBLEM, number) == pytest.approx(target, rel=1e-10)
    assert nqm.bounds.examples_to_target(PROBLEM, 10.0) == 0.0  # already there


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: nqm.bounds.mle([1.0], 1), TypeError, "problem: expected a nqm.NoisyQuadratic"),
        (lambda: nqm.bounds.bayes(PROBLEM, -1), ValueError, "examples"),
        (lambda: nqm.bounds.examples_to_target(PROBLEM, 0.0), ValueError, "target"),
        (lambda: nqm.bounds.examples_to_target(PROBLEM, 0.1, "best"), ValueError, "'best'"),
    ],
)
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call()
