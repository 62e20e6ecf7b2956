"""The largest stable learning rate on Gaussian features: where the spectral radius of all second moments reaches 1."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from features import PROBLEM, SGD, features, features_of, made, radius
from reference import Linear, Regression, Rule

import nqm
from nqm import FREE


def bisected_limit(rule, problem, batch, high):
    """Where the spectral radius reaches 1, below ``high``; on the way there it has to stay below 1."""
    low = 0.0
    assert radius(replace(rule, lr=high), problem, batch) > 1.0
    for _ in range(45):
        middle = 0.5 * (low + high)
        if radius(replace(rule, lr=middle), problem, batch) < 1.0:
            low = middle
        else:
            high = middle
    return low


@pytest.mark.parametrize(
    "rule",
    [
        SGD,
        Rule(1.0, 0.5),
        Rule(1.0, 0.95),
        Rule(1.0, 0.5, nesterov=True),
        Rule(1.0, 0.95, nesterov=True),
        Rule(1.0, power=0.5),
        Rule(1.0, 0.95, nesterov=True, power=1.0),
        Rule(1.0, 0.5, decay=0.9),
        Linear(1.0, ((1.0, 0.5), (0.0, 0.5)), (1.0, 1.0), (1.0, 0.0), (0.3, 1.0), (1.0, 2.0)),
        Linear(
            1.0,
            ((1.0, 0.5, 0.2), (0.0, 0.5, 0.1), (0.0, 0.0, 0.2)),
            (1.0, 1.0, 1.0),
            (0.9, 0.1, 0.3),
            *[(1.0,) * 3] * 2,
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("batch", [1.0, 8.0, 64.0, math.inf])
def test_the_limit_is_where_the_spectral_radius_reaches_1(rule, batch):
    problem, optimizer = features_of(PROBLEM), made(rule)
    limit = nqm.max_stable_lr(problem, optimizer, batch)
    alone = nqm.max_stable_lr(nqm.NoisyQuadratic(PROBLEM.h), optimizer)
    assert limit <= alone
    assert limit == pytest.approx(bisected_limit(rule, PROBLEM, batch, 1.01 * alone), rel=1e-10, abs=0.0)
    if batch == math.inf:
        assert limit == pytest.approx(alone, rel=1e-14, abs=0.0)
        return
    for share, is_finite in ((1.0 - 1e-6, True), (1.0 + 1e-6, False)):
        at = made(replace(rule, lr=float(share * limit)))
        assert math.isfinite(nqm.risk(problem, at, batch, 2**50)) == is_finite
        assert math.isfinite(nqm.steady_state_risk(problem, at, batch)) == is_finite


def test_limits_of_small_and_large_batches():
    """2 B / Tr(H), with momentum (1 - m) times as much, where Tr(H) is far beyond h_1; and the additive limit."""
    problem = features([1.0, 0.5], multiplicity=[1000.0, 3000.0])
    for momentum in (0.0, 0.5, 0.95):
        limits = nqm.max_stable_lr(problem, nqm.SGD(FREE, momentum), [1.0, 2.0, 1e15])
        assert limits[:2] == pytest.approx(2.0 * (1.0 - momentum) / 2500.0 * np.array([1.0, 2.0]), rel=5e-3, abs=0.0)
        assert limits[2] == pytest.approx(2.0 * (1.0 + momentum), rel=1e-10, abs=0.0)
    sizes = 2.0 ** np.arange(40)
    assert np.all(np.diff(nqm.max_stable_lr(problem, nqm.SGD(FREE, 0.9), sizes)) > 0.0)


def test_limits_broadcast():
    problem, momentum, power = features_of(PROBLEM), np.array([0.0, 0.5, 0.95]), np.array([0.0, 0.5])[:, None, None]
    batch = np.array([1.0, 64.0, math.inf])[:, None]
    found = nqm.max_stable_lr(problem, nqm.Preconditioned(nqm.SGD(FREE, momentum), power), batch)
    assert found.shape == (2, 3, 3)
    for p, b, m in np.ndindex(found.shape):
        alone = nqm.Preconditioned(nqm.SGD(0.1, momentum[m]), float(power[p, 0, 0]))
        one = nqm.max_stable_lr(problem, alone, batch[b, 0])
        assert isinstance(one, float)
        assert found[p, b, m] == pytest.approx(one, rel=1e-14, abs=0.0)
    decays = nqm.max_stable_lr(problem, nqm.EMA(nqm.SGD(FREE), [0.5, 0.9]), 8)
    assert decays.tolist() == [nqm.max_stable_lr(problem, nqm.SGD(FREE), 8)] * 2


def test_limits_of_a_power_law_are_those_of_its_eigenvalues():
    """sum phi / (B - phi) = 1 over all 10^4, with phi of heavy ball, an ARMA process."""
    problem = nqm.NoisyQuadratic.power_law(10_000, noise_model="gaussian-features", label_noise=0.0)
    for momentum, batch in itertools.product((0.0, 0.9, 0.99), (1.0, 64.0, 1e5)):
        limit = nqm.max_stable_lr(problem, nqm.SGD(FREE, momentum), batch)
        x = limit / np.arange(1.0, 10_001.0)
        phi = x * (1.0 + momentum) / ((1.0 - momentum) * (2.0 + 2.0 * momentum - x))
        assert np.sum(phi / (batch - phi)) == pytest.approx(1.0, rel=1e-7, abs=0.0)


def test_no_limit_without_a_batch_size():
    with pytest.raises(ValueError, match="batch_size: expected one with Gaussian features"):
        nqm.max_stable_lr(features(1.0), nqm.SGD(FREE))
    with pytest.raises(TypeError, match="batch_size: expected numbers"):
        nqm.max_stable_lr(features(1.0), nqm.SGD(FREE), nqm.Schedule([1, 2], 3))


def test_the_limit_of_a_filter_with_one_state():
    rule = Linear(1.0, ((-0.9611753295722614,),), (0.33962000824864264,), (0.42377135285334727,), (1.0,), (1.0,))
    limit = nqm.max_stable_lr(features_of(PROBLEM), made(rule), 8.0)
    assert limit == pytest.approx(bisected_limit(rule, PROBLEM, 8.0, 1e3), rel=1e-10, abs=0.0)


def test_the_limit_is_the_first_of_several():
    """A filter that is unstable from 0.09 on, though stable again further up."""
    rule = Linear(1.0, ((0.0, -0.6), (1.5, -0.5)), (1.7, -1.8), (-0.2, 0.5), (1.0, 0.0), (1.0, 0.0))
    one = Regression((1.0,), (1.0,), (1.0,), 1.0)
    limit = nqm.max_stable_lr(features_of(one), made(rule), 2.0)
    shares = np.linspace(0.01, 0.99, 99)
    assert all(radius(replace(rule, lr=float(share * limit)), one, 2.0) < 1.0 for share in shares)


def test_a_filter_that_no_learning_rate_makes_unstable():
    """Its state hears no gradient."""
    deaf = nqm.LinearOptimizer(FREE, [[0.5]], [0.0])
    assert nqm.max_stable_lr(nqm.NoisyQuadratic(1.0), deaf) == math.inf
    assert nqm.max_stable_lr(features(1.0), deaf, 8) > 1e100
