"""Noise that grows with the loss: regression on Gaussian features against oracles that share nothing with the package.

60-digit moments (`reference.moment_system`), moments of theta as a dense matrix, drawn data, plain sums over 10^4
coordinates, spectral radii, and scans.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from functools import cache

import cases
import mpmath as mp
import numpy as np
import pytest
from building import optimizer_of
from reference import (
    Linear,
    Regression,
    Rule,
    moment_system,
    regression_course,
    regression_risks,
    regression_sum,
    update,
)
from sizes import every

import nqm
from nqm import FREE
from nqm.dynamics.gaussian_features import recursion

EPS = np.finfo(float).eps

SGD, HEAVY, NESTEROV = Rule(1.0), Rule(1.0, 0.9), Rule(1.0, 0.9, nesterov=True)
NAMES = ("SGD", "heavy ball", "Nesterov", "EMA of SGD", "EMA of heavy ball", "SGD, power 0.5")
RULES = {name: replace(cases.RULES[name], lr=1.0) for name in NAMES}
RULES["all, slow"] = Rule(1.0, 0.99, nesterov=True, power=0.25, decay=0.999)
rules = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
batches = pytest.mark.parametrize("batch", [1.0, 8.0, 64.0])

PROBLEM = Regression((1.0, 0.02), (1.5, 40.0), (1.0, 0.5), 0.3)


def features(curvature, init=1.0, multiplicity=1.0, label_noise=1.0):
    return nqm.NoisyQuadratic(
        curvature, None, init, multiplicity, noise_model="gaussian-features", label_noise=label_noise
    )


def features_of(problem):
    return features(problem.h, problem.init, problem.multiplicity, problem.label_noise)


def made(rule):
    if isinstance(rule, Linear):
        return nqm.LinearOptimizer(rule.lr, rule.transition, rule.gain, rule.query, rule.readout, rule.start)
    return optimizer_of(rule)


def radius(rule, problem, batch):
    """Spectral radius of the second moments' recursion."""
    return float(np.abs(np.linalg.eigvals(moment_system(rule, problem, batch)[0][:-1, :-1])).max())


def at_limit(rule, problem, batch, share):
    """The rule at this share of its stability limit."""
    return replace(rule, lr=float(share * nqm.max_stable_lr(features_of(problem), made(rule), batch)))


class TooSlow(Exception):
    pass


HANGS = 20.0


@contextlib.contextmanager
def soon():
    """TooSlow after HANGS seconds of this process's own computing time: what is walked step by step takes far more."""

    def stop(*_):
        raise TooSlow

    compiled()
    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, HANGS)
    try:
        yield
    except TooSlow:
        # anew: pytest cannot show where a signal struck, which may be at no line at all
        raise TooSlow(f"not done after {HANGS} s") from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)


@cache
def compiled():
    """Once, so that no limit counts it."""
    nqm.steps_to_target(features(1.0), nqm.SGD(0.1), 8, 0.1)


def crossings(problem, optimizer, batch, target):
    return tuple(nqm.steps_to_target(problem, optimizer, batch, target, crossing) for crossing in ("first", "last"))


# --- against 60 digits -------------------------------------------------------------------------------------

TIMES = [0, 1, 2, 17, 1000, 10**5, 10**7, 10**9]


def allowed(rule, problem, batch, times):
    """A rounding error a step adds up for as many steps as the moments remember: 1 / (1 - spectral radius)."""
    memory = 1.0 / abs(1.0 - radius(rule, problem, batch))
    return 4e-15 * (1.0 + np.minimum(times, memory))


def relative_errors(found, exact):
    return np.array([float(abs(Decimal(float(a)) - b) / b) for a, b in zip(found, exact, strict=True)])


def test_the_oracle_in_decimals_is_the_oracle_in_mpmath():
    rule, pieces = replace(RULES["all, slow"], lr=0.01), [(0.01, 8.0, 50), (0.002, 3.0, 1)]
    exact = regression_risks(rule, PROBLEM, pieces, [3, 5000], mp.mpf)
    for a, b in zip(exact, regression_risks(rule, PROBLEM, pieces, [3, 5000], Decimal), strict=True):
        assert abs(a - mp.mpf(str(b))) < a * mp.mpf(10) ** -50


@rules
@batches
@pytest.mark.parametrize("share", [0.003, 0.3, 0.999, 0.999999])
def test_risk_is_exact(rule, batch, share):
    rule = at_limit(rule, PROBLEM, batch, share)
    exact = regression_risks(rule, PROBLEM, [(rule.lr, batch, 1)], TIMES, Decimal)
    found = nqm.risk(features_of(PROBLEM), made(rule), batch, TIMES)
    assert np.all(relative_errors(found, exact) <= allowed(rule, PROBLEM, batch, TIMES))
    steady = nqm.steady_state_risk(features_of(PROBLEM), made(rule), batch)
    if abs(1.0 - radius(rule, PROBLEM, batch)) > 1e-7:  # 10^9 steps are for ever
        assert relative_errors([steady], exact[-1:])[0] <= allowed(rule, PROBLEM, batch, math.inf)


@rules
def test_both_sides_of_the_switch_from_walking_to_squaring(rule, monkeypatch):
    """Neighbouring steps, of which one is walked to and one is squared to."""
    walks, walk = [0], recursion.Recursion.walk

    def counting(self, state, steps, *arguments):
        walks[0] += steps
        return walk(self, state, steps, *arguments)

    monkeypatch.setattr(recursion.Recursion, "walk", counting)
    rule = at_limit(rule, PROBLEM, 8.0, 0.1)
    problem, optimizer = features_of(PROBLEM), made(rule)

    def is_walked(steps):
        walks[0] = 0
        nqm.risk(problem, optimizer, 8.0, steps)
        return walks[0] == steps

    low, high = 1, 10**6
    assert is_walked(low)
    assert not is_walked(high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_walked(middle) else (low, middle)
    found = [nqm.risk(problem, optimizer, 8.0, steps) for steps in (low, high)]
    exact = regression_risks(rule, PROBLEM, [(rule.lr, 8.0, 1)], [low, high], Decimal)
    assert np.all(relative_errors(found, exact) <= allowed(rule, PROBLEM, 8.0, [low, high]))


@rules
def test_risk_along_schedules_is_exact(rule):
    """Learning rate and batch size change, also to a rest; with momentum the buffer goes on. The steps between are one
    walk, and a question for each alone gives the same."""
    lr = at_limit(rule, PROBLEM, 4.0, 0.3).lr
    pieces = [(lr, 4.0, 30), (0.2 * lr, 4.0, 70), (0.0, 16.0, 5), (2.0 * lr, 64.0, 3000), (0.01 * lr, 1.0, 1)]
    rates, sizes, lengths = zip(*pieces, strict=True)
    optimizer = made(rule).with_values(lr=nqm.Schedule(rates, lengths))
    times = [0, 1, 29, 31, 103, 110, 3105, 4000, 10**6]
    exact = regression_risks(rule, PROBLEM, pieces, times, Decimal)
    found = nqm.risk(features_of(PROBLEM), optimizer, nqm.Schedule(sizes, lengths), times)
    assert np.all(relative_errors(found, exact) <= allowed(replace(rule, lr=0.01 * lr), PROBLEM, 1.0, times))
    for steps, value in zip(times, found, strict=True):
        alone = nqm.risk(features_of(PROBLEM), optimizer, nqm.Schedule(sizes, lengths), steps)
        assert alone == pytest.approx(value, rel=1e-11, abs=0.0)


def test_any_linear_filter_is_exact():
    """Three states, each of gradient, readout and start in directions of their own."""
    rng = np.random.default_rng(0)
    for _ in range(8):
        states = int(rng.integers(1, 4))
        transition = rng.normal(size=(states, states))
        transition *= 0.97 / np.abs(np.linalg.eigvals(transition)).max()
        vectors = [tuple(v) for v in rng.normal(size=(4, states)).tolist()]
        rule = Linear(0.01, tuple(map(tuple, transition.tolist())), *vectors)
        times = [0, 1, 2, 17, 10**5]
        exact = regression_risks(rule, PROBLEM, [(0.01, 8.0, 1)], times, Decimal)
        found = nqm.risk(features_of(PROBLEM), made(rule), 8.0, times)
        assert np.all(relative_errors(found, exact) <= 20.0 * allowed(rule, PROBLEM, 8.0, times))


@pytest.mark.parametrize(("rule", "share"), [(SGD, 0.05), (HEAVY, 0.01), (RULES["EMA of SGD"], 0.05)], ids=str)
def test_without_label_noise_what_is_left_of_the_start_is_exact(rule, share):
    problem = replace(PROBLEM, label_noise=0.0)
    rule = at_limit(rule, problem, 8.0, share)
    times = [10**4, 3 * 10**4, 10**5]
    exact = regression_risks(rule, problem, [(rule.lr, 8.0, 1)], times, Decimal)
    assert exact[0] > 1e-280
    found = nqm.risk(features_of(problem), made(rule), 8.0, times)
    assert np.all(relative_errors(found, exact) <= allowed(rule, problem, 8.0, times))


# --- moments of theta itself -------------------------------------------------------------------------------


def theta_course(rule, hessian, preconditioner, moment, label_noise, batch, steps):
    """Risks after 0 ... steps steps, from E[z z^T] of z = (theta, buffer, average), (3 d, 3 d), off-diagonals and all.

    Isserlis: E[x x^T D x x^T] = 2 H D H + H tr(H D), so that the averaged gradient of B examples has the covariance
    (H (label_noise + tr(H D)) + H D H) / B.
    """
    d = len(hessian)
    eye, zero, inverse = np.eye(d), np.zeros((d, d)), np.linalg.inv(preconditioner)
    columns = []
    for i in range(3):
        state = tuple(eye if i == j else zero for j in range(3))
        columns.append(np.vstack(update(rule, state, inverse @ hessian @ state[0])))
    step, kick = np.hstack(columns), np.vstack(update(rule, (zero, zero, zero), inverse))
    second = np.kron([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 1.0]], moment)
    read = 0 if rule.decay is None else 2 * d
    risks = []
    for _ in range(steps + 1):
        risks.append(0.5 * np.trace(hessian @ second[read : read + d, read : read + d]))
        now = second[:d, :d]
        noise = hessian * (label_noise + np.trace(hessian @ now)) + hessian @ now @ hessian
        second = step @ second @ step.T + kick @ (noise / batch) @ kick.T
    return np.array(risks)


@pytest.mark.parametrize("rule", [r for r in RULES.values() if not r.power], ids=str)
@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("kind", ["vector", "matrix"])
def test_the_moments_of_theta_off_the_diagonal_do_not_matter(rule, preconditioned, kind):
    rng = np.random.default_rng(3)
    a, p, s = rng.normal(size=(3, 4, 4))
    hessian, p = a @ a.T + 0.1 * np.eye(4), p @ p.T + 0.5 * np.eye(4) if preconditioned else np.eye(4)
    assert not preconditioned or np.abs(hessian @ p - p @ hessian).max() > 1.0
    start = rng.normal(size=4) if kind == "vector" else s @ s.T
    moment = np.outer(start, start) if kind == "vector" else start
    for batch in (1.0, 8.0, 64.0):
        problem = nqm.NoisyQuadratic.from_matrices(
            hessian, None, start, p if preconditioned else None, noise_model="gaussian-features", label_noise=0.7
        )
        mine = replace(rule, lr=0.5 * nqm.max_stable_lr(problem, made(rule), batch))
        expected = theta_course(mine, hessian, p, moment, 0.7, batch, 60)
        assert nqm.risk(problem, made(mine), batch, np.arange(61)) == pytest.approx(expected, rel=1e-11, abs=0.0)


# --- drawn data --------------------------------------------------------------------------------------------

HESSIAN = np.array([[1.0, 0.4, 0.1], [0.4, 0.6, -0.2], [0.1, -0.2, 0.3]])
OPTIMUM, START = np.array([1.0, -2.0, 0.5]), np.array([0.3, -0.5, 2.0])
RECORDED = [1, 2, 4, 8]


def trained(rule, batch, runs, seed):
    """Losses (times, runs) of linear regression, run by run in a training loop: data drawn, gradients averaged."""
    rng, root = np.random.default_rng(seed), np.linalg.cholesky(HESSIAN)
    theta = np.tile(START, (runs, 1))
    state, losses = (theta, np.zeros_like(theta), theta), []
    for t in range(1, RECORDED[-1] + 1):
        x = rng.standard_normal((runs, batch, 3)) @ root.T
        y = x @ OPTIMUM + np.sqrt(0.5) * rng.standard_normal((runs, batch))
        residual = np.einsum("rbi,ri->rb", x, state[0]) - y
        state = update(rule, state, np.einsum("rbi,rb->ri", x, residual) / batch)
        distance = state[0 if rule.decay is None else 2] - OPTIMUM
        if t in RECORDED:
            losses.append(0.5 * np.einsum("ri,ij,rj->r", distance, HESSIAN, distance))
    return np.array(losses)


@pytest.mark.parametrize("rule", [SGD, HEAVY, replace(HEAVY, decay=0.5)], ids=str)
@pytest.mark.parametrize(("batch", "runs"), [(1, 20_000), (8, 20_000), (64, 6000)])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_risk_is_the_mean_of_trainings_on_drawn_data(rule, batch, runs, share):
    """Within 5 standard errors: over these 72 comparisons a correct program fails once in 20,000 seeds.

    Near the limit the variance of the loss needs E[theta^4], whose own limit lies lower: it explodes while the mean
    converges, and the standard error measured on many steps means nothing. So 8 steps, over which it stays below a
    tenth of the risk, while additive noise is 5 standard errors off.
    """
    problem = nqm.NoisyQuadratic.from_matrices(
        HESSIAN, None, START - OPTIMUM, noise_model="gaussian-features", label_noise=0.5
    )
    rule = replace(rule, lr=share * nqm.max_stable_lr(problem, made(rule), batch))
    losses = trained(rule, batch, runs, seed=1)
    expected = nqm.risk(problem, made(rule), batch, RECORDED)
    error = losses.std(axis=1, ddof=1) / np.sqrt(runs)
    assert np.all(np.abs(losses.mean(axis=1) - expected) <= 5.0 * error)
    assert np.all(error < 0.1 * expected)
    additive = nqm.NoisyQuadratic.from_matrices(HESSIAN, 0.5 * HESSIAN, START - OPTIMUM)
    assert np.any(np.abs(losses.mean(axis=1) - nqm.risk(additive, made(rule), batch, RECORDED)) > 5.0 * error)


def test_simulation_near_the_stability_limit():
    problem = features([1.0, 0.3], 1.0, [1, 2], 0.5)
    optimizer = nqm.SGD(0.9 * nqm.max_stable_lr(problem, nqm.SGD(FREE), 8))
    trials = nqm.simulate(problem, optimizer, 8, [1, 2, 4, 8], runs=10_000, seed=2)
    assert np.all(np.abs(trials.mean - nqm.risk(problem, optimizer, 8, trials.steps)) <= 5.0 * trials.standard_error)
    again = nqm.simulate(problem, optimizer, 8, [1, 2, 4, 8], runs=10_000, seed=2)
    assert np.array_equal(trials.losses, again.losses)


# --- stability ---------------------------------------------------------------------------------------------


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


# --- crossings against a scan ------------------------------------------------------------------------------


def scanned(risks, target):
    """First and last crossing of a curve whose end stands for all that follows; NaN, from an overflow, lies above."""
    reached = np.flatnonzero(risks <= target)
    above = np.flatnonzero(~(risks <= target))
    first = float(reached[0]) if reached.size else math.inf
    last = float(above[-1] + 1) if above.size else 0.0
    return first, (math.inf if last == len(risks) else last)


def random_rule(rng):
    """Of every kind; the learning rate is 1."""
    if rng.random() < 0.15:
        states = int(rng.integers(2, 4))
        transition = rng.normal(size=(states, states))
        transition *= rng.uniform(0.8, 0.99) / np.abs(np.linalg.eigvals(transition)).max()
        vectors = [tuple(v) for v in rng.normal(size=(4, states)).tolist()]
        return Linear(1.0, tuple(map(tuple, transition.tolist())), *vectors)
    momentum = float(rng.choice([0.0, rng.uniform(), 0.9, 0.99]))
    decay = float(rng.choice([rng.uniform(), 0.9, 0.99])) if rng.random() < 0.4 else None
    return Rule(1.0, momentum, bool(rng.integers(2)), float(rng.choice([0.0, 0.0, 0.5])), decay)


def random_problem(rng):
    """Some coordinates start at the optimum and rise; some labels are exact."""
    n = int(rng.integers(1, 4))
    init = rng.exponential(size=n) * (rng.random(n) < 0.7)
    h, multiplicity = 10.0 ** -rng.uniform(0.0, 2.5, n), rng.integers(1, 30, n).astype(float)
    label_noise = float(rng.choice([0.0, 0.01, 1.0, 100.0]))
    return Regression(*(tuple(a.tolist()) for a in (h, multiplicity, init)), label_noise)


def random_pieces(rng, lr, batch):
    """Schedules of learning rate, and at half of the times of batch size, that end at these."""
    count = int(rng.integers(2, 5))
    rates = [*(lr * 10.0 ** rng.uniform(-2.0, 0.2, count - 1)).tolist(), lr]
    sizes = [*(batch * 2.0 ** rng.integers(-1, 3, count - 1)).tolist(), batch] if rng.integers(2) else [batch] * count
    return list(zip(rates, sizes, rng.integers(1, 400, count).tolist(), strict=True))


def settled_after(rule, problem, batch):
    """Steps after which the risk has settled (to 1e-13 of the steady state, or of its start without one), or exploded
    by e^300; None where that takes more than 10^5."""
    full, start, readout = moment_system(rule, problem, batch)
    rate = radius(rule, problem, batch) - 1.0
    if rate > 0.0:
        needed = 300.0 / rate
    else:
        steady = readout[:-1] @ np.linalg.solve(np.eye(len(full) - 1) - full[:-1, :-1], full[:-1, -1])
        larger = readout @ start / steady if steady > 0.0 else 1.0
        needed = (35.0 + max(0.0, math.log(max(larger, 1e-9)))) / -rate
    return int(needed) if needed < 1e5 else None


def some_targets(risks, problem, unstable, rng):
    """Levels crossed often, once, barely and never; none where rounding errors of either side decide."""
    risks = risks[np.isfinite(risks)]
    low, high = risks.min(), min(risks.max(), 1e6 * max(risks.min(), 1e-9))
    levels = low + (high - low) * rng.uniform(0.001, 0.999, 3)
    targets = [
        low * (1.0 + 1e-9),
        low * (1.0 - 1e-9),
        1.01 * risks[-1],
        0.99 * risks[-1],
        *levels,
        2.0 * high,
        0.5 * low,
    ]
    top = 1e-3 * risks[-1] if unstable else math.inf
    floor = 1e-9 * max(risks[0], high) if problem.label_noise == 0.0 else 0.0
    return [t for t in targets if floor < t < top and np.abs(risks - t).min() > 1e-10 * t]


def scanned_case(rng):
    """(problem, optimizer, batch size, risks, targets) of a random case, or None where a scan would take too long."""
    problem, rule = random_problem(rng), random_rule(rng)
    batch = float(rng.choice([1.0, 4.0, 64.0, 1024.0]))
    given = features_of(problem)
    share = float(rng.choice([0.03, 0.3, 0.7, 0.95, 0.999, 1.001, 1.05, 1.5]))
    try:
        limit = nqm.max_stable_lr(given, made(rule), batch)
    except np.linalg.LinAlgError:  # see test_the_limit_of_a_filter_with_one_state
        return None
    rule = replace(rule, lr=float(share * limit) if limit < 1e100 else share)
    ends, scheduled = rng.random() < 0.3, rng.random() < 0.5
    steps, unstable = settled_after(rule, problem, batch), radius(rule, problem, batch) > 1.0
    pieces = random_pieces(rng, rule.lr, batch) if scheduled else [(rule.lr, batch, 1)]
    if scheduled and ends:
        steps = 0
    if steps is None:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        risks = regression_course(rule, problem, [*pieces[:-1], (*pieces[-1][:2], pieces[-1][2] + steps)])
    if not np.any(risks > 0.0):
        return None
    optimizer, size = made(rule), batch
    if scheduled:
        rates, sizes, lengths = zip(*pieces, strict=True)
        beyond = "error" if ends else "hold"
        optimizer = optimizer.with_values(lr=nqm.Schedule(rates, lengths, beyond))
        size = nqm.Schedule(sizes, lengths, beyond) if len(set(sizes)) > 1 else batch
    return given, optimizer, size, risks, some_targets(risks, problem, unstable and steps > 0, rng)


@pytest.mark.filterwarnings("ignore:the target is reached after the schedule's end")
@pytest.mark.parametrize("seed", every(3, range(12)))
def test_crossings_are_those_of_a_scan(seed):
    """Twelve random problems each, some eight targets for each, first and last; none takes a second."""
    rng, compared = np.random.default_rng(seed), 0
    for _ in range(12):
        case = scanned_case(rng)
        if case is None:
            continue
        problem, optimizer, batch, risks, targets = case
        for target in targets:
            with soon():
                found = crossings(problem, optimizer, batch, target)
            assert found == scanned(risks, target), (problem.__getstate__(), optimizer, batch, target)
            compared += 1
    assert compared > 40


HARD_SHAPES = {
    "coordinates that rise": (SGD, Regression((1.0, 0.05, 0.02), (1.0, 30.0, 50.0), (0.0, 1.0, 0.0), 1.0), 4.0, 0.3),
    "falls, then rises": (SGD, Regression((1.0, 0.01), (1.0, 100.0), (1.0, 0.0), 0.1), 8.0, 0.1),
    "only rises": (HEAVY, Regression((1.0, 0.03), (1.0, 9.0), (0.0, 0.0), 1.0), 4.0, 0.9),
    "rises before it falls": (SGD, Regression((1.0, 0.1), (1.0, 1.0), (0.0, 300.0), 0.1), 2.0, 0.7),
    "underdamped": (Rule(1.0, 0.995), Regression((1.0, 0.3), (1.0, 2.0), (1.0, 1.0), 1e-3), 4096.0, 0.5),
    "underdamped average": (Rule(1.0, 0.995, True, 0.0, 0.9), Regression((1.0,), (1.0,), (1.0,), 1e-3), 4096.0, 0.3),
    "slow average": (Rule(1.0, decay=0.998), Regression((1.0, 0.3), (1.0, 2.0), (1.0, 1.0), 1.0), 1.0, 0.9),
    "below the limit": (SGD, Regression((1.0, 0.1), (1.0, 5.0), (3.0, 9.0), 1.0), 8.0, 0.99),
    "below the limit, momentum": (HEAVY, Regression((1.0, 0.1), (1.0, 5.0), (3.0, 9.0), 1.0), 8.0, 0.99),
    "above the limit": (SGD, Regression((1.0, 0.1), (1.0, 5.0), (0.0, 900.0), 1e-3), 1024.0, 1.0001),
    "above the limit, momentum": (HEAVY, Regression((1.0, 0.1), (1.0, 5.0), (0.0, 900.0), 1e-3), 1024.0, 1.0001),
}


@pytest.mark.parametrize("name", HARD_SHAPES)
def test_hard_shapes_are_those_of_a_scan(name):
    rule, problem, batch, share = HARD_SHAPES[name]
    rule = at_limit(rule, problem, batch, share)
    unstable = radius(rule, problem, batch) > 1.0
    risks = regression_course(rule, problem, [(rule.lr, batch, 60_000)])
    full, _, readout = moment_system(rule, problem, batch)
    steady = readout[:-1] @ np.linalg.solve(np.eye(len(full) - 1) - full[:-1, :-1], full[:-1, -1])
    assert unstable or risks[-1] == pytest.approx(steady, rel=1e-9, abs=0.0)
    rng = np.random.default_rng(0)
    levels = risks[np.unique(np.geomspace(1, 60_000, 30).astype(int))] * (1.0 + 1e-7 * rng.normal(size=None))
    targets = [*levels, risks.min() * (1.0 + 1e-8), risks.min() * (1.0 - 1e-8), risks.max() * (1.0 + 1e-6)]
    if not unstable:
        targets += [steady * (1.0 + 1e-7), steady * (1.0 - 1e-7)]
    for target in targets:
        if not np.abs(risks - target).min() > 1e-10 * target or (unstable and target >= risks[-1]):
            continue
        with soon():
            assert crossings(features_of(problem), made(rule), batch, target) == scanned(risks, target), target


def test_the_hard_shapes_are_what_they_are_called():
    """The oscillating one crosses dozens of times; the rising ones rise."""

    def course(name):
        rule, problem, batch, share = HARD_SHAPES[name]
        rule = at_limit(rule, problem, batch, share)
        return regression_course(rule, problem, [(rule.lr, batch, 20_000)])

    risks = course("underdamped")
    assert np.count_nonzero(np.diff(risks <= 0.05)) > 50
    risks = course("rises before it falls")
    assert risks.max() > 1.05 * risks[0]
    assert risks[-1] < 0.5 * risks[0]
    risks = course("falls, then rises")
    assert risks.min() < 0.9 * min(risks[0], risks[-1])
    assert np.all(np.diff(course("only rises")[:100]) > 0.0)


LONG_WAYS = {
    "SGD": (replace(SGD, lr=1e-7), 1e-3),
    "heavy ball": (Rule(1e-9, 0.99), 1e-3),
    "EMA": (Rule(1e-7, decay=0.9999), 1e-3),
    "slow EMA": (Rule(1e-4, decay=1.0 - 1e-7), 1e-2),
    "preconditioned": (Rule(1e-8, power=0.5), 1e-3),
}


@pytest.mark.parametrize("name", LONG_WAYS)
def test_long_ways(name):
    """More than 10^7 steps, over which the risk only falls: the crossing is where 60 digits say."""
    rule, target = LONG_WAYS[name]
    with soon():
        first, last = crossings(features_of(PROBLEM), made(rule), 8.0, target)
    assert first == last > 10**7
    before, after = regression_risks(rule, PROBLEM, [(rule.lr, 8.0, 1)], [int(first) - 1, int(first)], Decimal)
    slack = Decimal("1e-10")  # rounding errors of the risk itself
    assert before * (1 + slack) > Decimal(target) >= after * (1 - slack)


@pytest.mark.parametrize("rule", [replace(SGD, lr=0.05), replace(HEAVY, lr=0.005), Rule(0.05, decay=0.9)], ids=str)
def test_targets_at_the_ends(rule):
    problem, optimizer = features_of(PROBLEM), made(rule)
    steady = nqm.steady_state_risk(problem, optimizer, 4)
    first, last = crossings(problem, optimizer, 4, steady * (1.0 + 1e-9))
    assert 0 < first <= last < math.inf
    assert crossings(problem, optimizer, 4, steady * (1.0 - 1e-9)) == (math.inf, math.inf)
    assert crossings(problem, optimizer, 4, 1e-300) == (math.inf, math.inf)
    assert crossings(problem, optimizer, 4, 1e300) == (0, 0)
    assert crossings(problem, optimizer, 4, problem.initial_risk) == (0, 0)
    with soon():
        at = nqm.steps_to_target(problem, optimizer, 4, steady * (1.0 + 1e-12))
        assert at == math.inf or nqm.risk(problem, optimizer, 4, at) <= steady * (1.0 + 1e-12)


@pytest.mark.parametrize("lr", [0.1, 50.0])
def test_a_problem_that_starts_at_its_optimum_without_label_noise_is_there(lr):
    with soon():
        assert crossings(features([1.0, 0.1], 0.0, 1.0, 0.0), nqm.SGD(lr, 0.9), 8, 1e-6) == (0, 0)


@pytest.mark.parametrize("crossing", ["first", "last"])
def test_crossings_broadcast(crossing):
    problem, batch, target = features_of(PROBLEM), np.array([8.0, 64.0])[:, None], np.array([0.3, 0.05])[:, None, None]
    found = nqm.steps_to_target(problem, nqm.SGD([0.01, 0.1], momentum=0.5), batch, target, crossing)
    assert found.shape == (2, 2, 2)
    for i, j, k in np.ndindex(found.shape):
        alone = nqm.SGD([0.01, 0.1][k], momentum=0.5)
        assert found[i, j, k] == nqm.steps_to_target(problem, alone, batch[j, 0], target[i, 0, 0], crossing)


@pytest.mark.parametrize("share", [1.0 - 1e-3, 1.0 - 1e-12])
def test_near_the_stability_limit_the_start_is_already_there(share):
    problem = features([1.0, 0.3], 0.01)
    optimizer = nqm.SGD(share * nqm.max_stable_lr(problem, nqm.SGD(FREE), 1))
    assert nqm.risk(problem, optimizer, 1, 0) == problem.initial_risk
    assert nqm.steps_to_target(problem, optimizer, 1, problem.initial_risk) == 0


@pytest.mark.parametrize("case", ["falls below, then rises slowly", "slow fall and slow rise"])
def test_slow_coordinates_that_rise_take_no_walk(case):
    """10^8 steps of rise to the steady state; additive noise answers at once."""
    if case == "slow fall and slow rise":
        problem = features([1.0, 1e-8, 5e-9], [0.0, 1.0, 0.0], [1.0, 1e8, 2e8], 3.0)
        target, crossing, expected = 1.1 * 0.029242974, "first", 2.49e9
    else:
        problem, crossing, expected = features([1.0, 1e-9], [1.0, 0.0], [1.0, 1e9], 0.01), "last", math.inf
        target = 0.8 * nqm.steady_state_risk(problem, nqm.SGD(0.1), 8)
    with soon():
        assert nqm.steps_to_target(problem, nqm.SGD(0.1), 8, target, crossing) == pytest.approx(
            expected, rel=1e-3, abs=0.0
        )


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_schedule_that_ends_at_rest_takes_no_walk(momentum):
    """The learning rate 0 is held for ever."""
    optimizer = nqm.SGD(nqm.Schedule([0.1, 0.0], [100, 1]), momentum)
    with soon():
        last = nqm.steps_to_target(features([1.0, 0.1]), optimizer, 8, 0.1, "last")
        never = nqm.steps_to_target(features([1.0, 0.1]), optimizer, 8, 1e-3)
    assert last <= 100
    assert never == math.inf


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("share", [1.0 - 1e-12])
def test_gradient_descent_next_to_its_limit_takes_no_walk(momentum, share):
    """Above the limit the alternating part stays where it is for 10^8 steps, far above the target."""
    problem, optimizer = features([1.0, 0.1]), nqm.SGD(2.0 * (1.0 + momentum) * share, momentum)
    with soon():
        found = nqm.steps_to_target(problem, optimizer, math.inf, 1e-4)
    assert math.isfinite(found) == (share < 1.0)


STEADY = [
    (features([1.0, 0.1]), nqm.EMA(nqm.SGD(0.001, 0.9), 0.999), 0.0),
    (features(0.04, 9.0, 3500.0), nqm.SGD(2.6e-5, 0.9, nesterov=True), 1e-12),
]


@pytest.mark.parametrize(("problem", "optimizer", "share"), STEADY, ids=str)
def test_a_target_at_the_steady_state_takes_no_walk(problem, optimizer, share):
    """Whatever the answer: rounding errors of the risk, which remembers 10^4 steps, are as large."""
    with soon():
        nqm.steps_to_target(problem, optimizer, 1, (1.0 + share) * nqm.steady_state_risk(problem, optimizer, 1))


def test_a_target_just_above_the_steady_state():
    """Additive noise answers."""
    problem, optimizer = features(1.0), nqm.SGD(0.001)
    target = nqm.steady_state_risk(problem, optimizer, 1) * (1.0 + 1e-11)
    assert math.isfinite(nqm.steps_to_target(problem, optimizer, 1, target))


# --- many coordinates --------------------------------------------------------------------------------------

HARMONIC = 1.0 / np.arange(1.0, 10_001.0)
SOME_TIMES = [0, 1, 10, 100, 500, 1000, 2000]


@pytest.mark.parametrize(
    ("rule", "batch", "label_noise"),
    [
        (Rule(0.3), 8.0, 1.0),
        (Rule(0.05), 1.0, 0.0),
        (Rule(0.3, 0.9), 64.0, 0.5),
        (Rule(0.2, 0.99), 256.0, 1.0),
        (Rule(0.5, 0.97, nesterov=True), 1e4, 0.1),
    ],
    ids=str,
)
def test_power_laws_are_the_sum_over_all_eigenvalues(rule, batch, label_noise):
    problem = nqm.NoisyQuadratic.power_law(10_000, noise_model="gaussian-features", label_noise=label_noise)
    expected = regression_sum(rule, Regression(HARMONIC, 1.0, 1.0, label_noise), batch, 2000)
    assert nqm.risk(problem, made(rule), batch, SOME_TIMES) == pytest.approx(expected[SOME_TIMES], rel=1e-8, abs=0.0)
    target = 0.5 * (expected[500] + expected[1000])
    assert crossings(problem, made(rule), batch, target) == scanned(expected, target)


@pytest.mark.parametrize("rule", [Rule(0.05), Rule(0.02, 0.9), Rule(0.02, 0.9, decay=0.95)], ids=str)
def test_three_hundred_nodes_are_their_sum(rule):
    """More than are taken one by one: a Gauss rule of the very same measure."""
    rng = np.random.default_rng(0)
    h, multiplicity, init = 10.0 ** -rng.uniform(0.0, 4.0, 300), rng.uniform(0.5, 5.0, 300), rng.exponential(size=300)
    problem = features(h, init, multiplicity, 0.7)
    expected = regression_sum(rule, Regression(h, multiplicity, init, 0.7), 64.0, 2000)
    assert nqm.risk(problem, made(rule), 64.0, SOME_TIMES) == pytest.approx(expected[SOME_TIMES], rel=1e-8, abs=0.0)
    target = 0.5 * (expected[500] + expected[1000])
    with soon():
        assert crossings(problem, made(rule), 64.0, target) == scanned(expected, target)
    assert nqm.risk(problem.compressed(), made(rule), 64.0, 2000) == pytest.approx(expected[2000], rel=1e-8, abs=0.0)


def test_power_laws_without_noise_are_additive_ones():
    """Long undamped oscillations."""
    additive = nqm.risk(nqm.NoisyQuadratic.power_law(10_000), nqm.SGD(2.0, 0.99), math.inf, 2000)
    problem = nqm.NoisyQuadratic.power_law(10_000, noise_model="gaussian-features", label_noise=1.0)
    assert nqm.risk(problem, nqm.SGD(2.0, 0.99), math.inf, 2000) == pytest.approx(additive, rel=1e-8, abs=0.0)


# --- what must not matter, and limits ----------------------------------------------------------------------

CHECKED = [0, 1, 5, 50, 5000, 10**6]


@rules
def test_label_noise_scales_the_risk_of_a_start_at_the_optimum(rule):
    optimizer = made(replace(rule, lr=0.01))
    one, many = (nqm.risk(features([1.0, 0.1], 0.0, 3.0, s), optimizer, 8, CHECKED) for s in (1.0, 2.0**40))
    assert np.array_equal(many, 2.0**40 * one)
    # and risk is linear in (start, label noise)
    start, both = (nqm.risk(features([1.0, 0.1], 2.0, 3.0, s), optimizer, 8, CHECKED) for s in (0.0, 1.0))
    assert both == pytest.approx(start + one, rel=1e-12, abs=1e-14 * both[0])


@rules
def test_without_sampling_it_is_gradient_descent(rule):
    """B = inf is additive noise of nothing, whatever the labels; to rounding errors of the start, see below."""
    rule = replace(rule, lr=0.1)
    problem, additive = features_of(PROBLEM), nqm.NoisyQuadratic(PROBLEM.h, 0.0, PROBLEM.init, PROBLEM.multiplicity)
    found, expected = (nqm.risk(p, made(rule), math.inf, CHECKED) for p in (problem, additive))
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12 * expected[0])
    target = 0.1 * problem.initial_risk
    assert crossings(problem, made(rule), math.inf, target) == crossings(additive, made(rule), math.inf, target)


@pytest.mark.parametrize("share", [0.99, 0.999])
def test_gradient_descent_with_momentum_is_exact(share):
    problem, optimizer, times = features([1.0, 0.3], 1.0), nqm.SGD(3.8 * share, 0.9), np.arange(300)
    expected = nqm.risk(nqm.NoisyQuadratic([1.0, 0.3], 0.0), optimizer, math.inf, times)
    assert nqm.risk(problem, optimizer, math.inf, times) == pytest.approx(expected, rel=1e-10, abs=0.0)


@rules
def test_small_noise_is_additive(rule):
    """Where label noise outweighs the loss, only it is left, but for a share that falls like 1 / B."""
    rule = replace(rule, lr=0.1)
    additive = nqm.NoisyQuadratic([1.0, 0.1], None, 0.0, 3.0)
    gaps = []
    for batch in (1e3, 1e4, 1e5):
        expected = nqm.risk(additive, made(rule), batch, [1, 50, 5000])
        gaps.append(nqm.risk(features([1.0, 0.1], 0.0, 3.0), made(rule), batch, [1, 50, 5000]) / expected - 1.0)
    assert np.all(np.abs(gaps[0]) < 0.1)
    assert np.all(gaps[0][1:] > 1e-5)
    assert gaps[1] == pytest.approx(0.1 * gaps[0], rel=0.05, abs=1e-13)
    assert gaps[2] == pytest.approx(0.1 * gaps[1], rel=0.05, abs=1e-13)


@pytest.mark.parametrize("sharper", [2.0**12, 2.0**-12])
def test_what_is_left_of_the_start_has_the_same_digits_in_any_units(sharper):
    one, other = (
        nqm.risk(features(h, 1.0, 1.0, 0.0), nqm.SGD(2.146 / h, 0.9), 64, [500, 1000, 3575]) for h in (1.0, sharper)
    )
    assert other == pytest.approx(sharper * one, rel=1e-10, abs=0.0)


# --- divergence --------------------------------------------------------------------------------------------


def test_no_risk_is_negative_on_its_way_to_inf():
    risks = nqm.risk(features([1.0, 0.1]), nqm.SGD(3.8038, 0.9), math.inf, np.arange(11_800, 12_000))
    assert np.all(risks >= 0.0)


def test_what_starts_at_its_optimum_without_label_noise_has_no_risk():
    problem = features([1.0, 0.1], 0.0, 1.0, 0.0)
    assert np.all(nqm.risk(problem, nqm.SGD([0.1, 50.0], momentum=0.5), 8, [[1], [10**9]]) == 0.0)


# --- tuning ------------------------------------------------------------------------------------------------

TUNED = features(10.0 ** -np.linspace(0.0, 2.0, 6), label_noise=0.5)
TARGET = 0.02

KINDS = {
    "sgd": nqm.SGD(FREE),
    "momentum": nqm.SGD(FREE, momentum=FREE),
    "nesterov": nqm.SGD(FREE, momentum=FREE, nesterov=True),
    "ema": nqm.EMA(nqm.SGD(FREE), decay=FREE),
    "preconditioned": nqm.Preconditioned(nqm.SGD(FREE), 0.5),
    "by hand": nqm.LinearOptimizer(FREE, [[1.0, 0.9], [0.0, 0.9]], [1.0, 1.0]),
}


def scattered(problem, optimizer, batch, steps, count=2000):
    """Random values for what is FREE: lr log-uniform below the stability limit, -log(1 - momentum or decay) uniform."""
    rng = np.random.default_rng(0)
    for name in set(optimizer.free) - {"lr"}:
        optimizer = optimizer.with_values(**{name: 1.0 - np.exp(-rng.uniform(0.0, math.log(steps) + 2.0, count))})
    limit = nqm.max_stable_lr(problem, optimizer, batch)
    return optimizer.with_values(lr=limit * np.exp(-rng.uniform(0.0, math.log(steps) + 4.0, count)))


SEARCHED = [("sgd", 1), ("momentum", 8), ("nesterov", 64), ("ema", 8), ("preconditioned", 1024)]


@cache
def tuned(kind, batch):
    return nqm.tune(TUNED, KINDS[kind], batch, TARGET)


@pytest.mark.parametrize(("kind", "batch"), every(2, SEARCHED))
def test_random_search_finds_nothing_sooner(kind, batch):
    """2,000 points; and the answer reaches the target at that step and no sooner."""
    best = tuned(kind, batch)
    assert best.status == "tuned"
    before, after = nqm.risk(TUNED, best.optimizer, batch, [best.steps - 1, best.steps])
    assert after <= TARGET < before
    assert best.risk == after
    assert nqm.steps_to_target(TUNED, best.optimizer, batch, TARGET) == best.steps
    assert best.optimizer.hyperparameters["lr"] < nqm.max_stable_lr(TUNED, best.optimizer, batch)
    points = scattered(TUNED, KINDS[kind], batch, best.steps)
    assert np.min(nqm.risk(TUNED, points, batch, best.steps - 1)) > TARGET


@pytest.mark.parametrize(("kind", "batch"), [("momentum", 8), ("momentum", 1024), ("nesterov", 64), ("ema", 8)])
def test_what_contains_sgd_is_never_worse(kind, batch):
    assert tuned(kind, batch).steps <= tuned("sgd", batch).steps


def test_tuning_by_hand_is_tuning_heavy_ball():
    """Its landscape has waves too, though nothing is called momentum."""
    best = [nqm.tune(TUNED, optimizer, 64, TARGET) for optimizer in (KINDS["by hand"], nqm.SGD(FREE, 0.9))]
    assert best[0].steps == best[1].steps
    assert best[0].optimizer.lr == pytest.approx(best[1].optimizer.lr, rel=1e-4, abs=0.0)


def test_tuning_a_power_law_is_tuning_its_eigenvalues():
    problem = nqm.NoisyQuadratic.power_law(300, noise_model="gaussian-features", label_noise=1.0)
    best = nqm.tune(problem, nqm.SGD(FREE), 64, 0.1)
    expected = regression_sum(Rule(best.optimizer.lr), Regression(HARMONIC[:300], 1.0, 1.0, 1.0), 64, best.steps)
    assert scanned(expected, 0.1)[0] == best.steps
    assert np.min(nqm.risk(problem, scattered(problem, nqm.SGD(FREE), 64, best.steps, 500), 64, best.steps - 1)) > 0.1


def test_tuning_along_schedules():
    ramp = nqm.Schedule([4, 64], [30, 1])
    best = nqm.tune(TUNED, nqm.SGD(FREE), ramp, TARGET)
    lrs = nqm.SGD(nqm.max_stable_lr(TUNED, nqm.SGD(FREE), 64) * np.geomspace(1e-4, 1.0, 2000, endpoint=False))
    assert nqm.risk(TUNED, best.optimizer, ramp, best.steps) <= TARGET
    assert np.min(nqm.risk(TUNED, lrs, ramp, best.steps - 1)) > TARGET


def test_already_there():
    best = nqm.tune(TUNED, KINDS["momentum"], 8, TUNED.initial_risk)
    assert (best.status, best.steps, best.risk) == ("already there", 0, TUNED.initial_risk)


def test_a_target_out_of_reach():
    best = nqm.tune(TUNED, nqm.SGD(FREE), 8, TARGET, {"lr": (1.0, 1.1)})
    assert (best.status, best.steps) == ("unreachable", math.inf)
    assert best.risk > TARGET


def test_sweep_is_tune_cell_by_cell():
    optimizers = {"sgd": KINDS["sgd"], "ema": KINDS["ema"], "slow": nqm.SGD(0.1), "fast": nqm.SGD(1.5)}
    result = nqm.sweep(TUNED, optimizers, [8.0], TARGET)
    for cell in zip(*(result.table[c] for c in ("optimizer", "steps", "lr", "status")), strict=True):
        name, steps, lr, status = cell
        if name in KINDS:
            best = tuned(name, 8)
            assert (steps, lr, status) == (best.steps, best.optimizer.hyperparameters["lr"], "tuned")
        else:
            assert steps == nqm.steps_to_target(TUNED, optimizers[name], 8.0, TARGET)
            assert status == ("fixed" if math.isfinite(steps) else "unreachable")
    assert set(result.table["status"]) == {"tuned", "fixed", "unreachable"}


# --- the problem as an object; bad input -------------------------------------------------------------------


def test_pickle_repr_and_what_is_shown():
    problem = features([1.0, 0.1], 1.0, 2.0, 0.5)
    assert repr(problem) == ("NoisyQuadratic(dim=4, nodes=2, curvature 0.1 to 1, gaussian-features, label_noise=0.5)")
    assert problem.noise.tolist() == [0.5, 0.05]
    assert (problem.noise_model, problem.label_noise) == ("gaussian-features", 0.5)
    additive = nqm.NoisyQuadratic(1.0)
    assert (additive.noise_model, additive.label_noise) == ("additive", None)
    law = nqm.NoisyQuadratic.power_law(10_000, noise_model="gaussian-features", label_noise=0.5)
    for given in (problem, law, law.binned(50), features(HARMONIC[:300])):
        expected = nqm.risk(given, nqm.SGD(0.1, 0.5), 16, 100)
        copy = pickle.loads(pickle.dumps(given))
        assert repr(copy) == repr(given)
        assert nqm.risk(copy, nqm.SGD(0.1, 0.5), 16, 100) == expected
        assert (copy.noise_model, copy.label_noise) == (given.noise_model, given.label_noise)
        with pytest.raises(ValueError, match="read-only"):
            copy.noise[0] = 1.0


def test_without_labels_noise_the_noise_at_the_optimum_is_none():
    problem = features([1.0, 0.1], label_noise=0.0)
    assert problem.noise.tolist() == [0.0, 0.0]
    assert problem.label_noise == 0.0
    # and yet the steps are noisy
    assert nqm.risk(problem, nqm.SGD(0.5), 1, 1) > nqm.risk(problem, nqm.SGD(0.5), math.inf, 1)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"label_noise": None}, ValueError, "label_noise: expected a variance >= 0"),
        ({"label_noise": -1.0}, ValueError, "label_noise: expected finite real numbers"),
        ({"label_noise": math.nan}, ValueError, "label_noise: expected finite real numbers"),
        ({"label_noise": math.inf}, ValueError, "label_noise: expected finite real numbers"),
        ({"label_noise": [1.0]}, ValueError, "label_noise: expected a single number"),
        ({"label_noise": "1"}, TypeError, "label_noise: expected finite real numbers"),
        ({"noise": 1.0}, ValueError, "noise: expected None"),
        ({"noise_model": "gaussian"}, ValueError, 'noise_model: expected "additive" or "gaussian-features"'),
        ({"noise_model": None}, ValueError, "noise_model: expected"),
        ({"noise_model": "additive"}, ValueError, "label_noise: expected noise_model"),
    ],
    ids=str,
)
def test_bad_models(arguments, error, words):
    good = {"noise_model": "gaussian-features", "label_noise": 1.0}
    with pytest.raises(error, match=words):
        nqm.NoisyQuadratic([1.0], **{**good, **arguments})
    covariance = np.eye(2) if "noise" in arguments else None
    arguments = {k: v for k, v in arguments.items() if k != "noise"}
    with pytest.raises(error, match=words):
        nqm.NoisyQuadratic.from_matrices(np.eye(2), covariance, [1.0, 1.0], **{**good, **arguments})
    if covariance is None:
        with pytest.raises(error, match=words):
            nqm.NoisyQuadratic.power_law(100, **{**good, **arguments})


@pytest.mark.parametrize("batch", [2.5, 0.4, 1.0 + 1e-6, nqm.Schedule([2, 1.5], [3, 3])], ids=str)
def test_only_whole_batches_are_drawn(batch):
    with pytest.raises(ValueError, match="batch_size: expected whole numbers of examples"):
        nqm.simulate(features(1.0), nqm.SGD(0.1), batch, 5, runs=10)
    assert math.isfinite(nqm.risk(features(1.0), nqm.SGD(0.1), batch, 5))  # an expectation needs none


@pytest.mark.parametrize(
    "ask",
    [
        lambda problem: nqm.bounds.mle(problem, 100),
        lambda problem: nqm.bounds.bayes(problem, 100),
        lambda problem: nqm.bounds.examples_to_target(problem, 0.1),
        lambda problem: nqm.bounds.steady_state(problem, nqm.SGD(0.1), 8),
        lambda problem: nqm.bounds.momentum(problem, nqm.SGD(0.1, 0.9), 8, 100),
        lambda problem: nqm.bounds.ema(problem, nqm.EMA(nqm.SGD(0.1), 0.9), 8, 100),
        lambda problem: nqm.optimize_schedule(problem, batch_size=8, target=0.1, pieces=3),
        lambda problem: nqm.optimize_schedule(problem, batch_size=8, steps=100, pieces=3),
    ],
)
def test_what_is_about_additive_noise_refuses(ask):
    with pytest.raises(ValueError, match='problem: expected noise_model="additive"'):
        ask(TUNED)


@pytest.mark.parametrize("batch", [0.0, -1.0, math.nan, [8.0, 0.0]], ids=str)
def test_bad_batches(batch):
    for function in (nqm.max_stable_lr, nqm.steady_state_risk):
        with pytest.raises(ValueError, match="batch_size"):
            function(features(1.0), nqm.SGD(0.1), batch)


def test_a_filter_that_no_learning_rate_makes_unstable():
    """Its state hears no gradient."""
    deaf = nqm.LinearOptimizer(FREE, [[0.5]], [0.0])
    assert nqm.max_stable_lr(nqm.NoisyQuadratic(1.0), deaf) == math.inf
    assert nqm.max_stable_lr(features(1.0), deaf, 8) > 1e100


# --- the same bits -----------------------------------------------------------------------------------------

SQUARED = """
import numpy as np, nqm
problem = nqm.NoisyQuadratic(np.geomspace(1.0, 1e-5, 120), noise_model="gaussian-features", label_noise=1.0)
print(float(nqm.risk(problem, nqm.SGD(1e-3, 0.9), 8, 10**7)).hex())
"""


def test_nearly_the_same_bits_with_other_threads():
    """A matrix of 361 rows, squared: BLAS may sum in another order with other threads."""
    found = []
    for threads in ("1", "2"):
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads}
        command = [sys.executable, "-c", SQUARED]
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        found.append(float.fromhex(answer.strip()))
    assert found[1] == pytest.approx(found[0], rel=1e-12, abs=0.0)


def test_the_same_answers_twice():
    problem, optimizer = features_of(PROBLEM), nqm.SGD([0.01, 0.03], 0.9)
    for function, rest in ((nqm.risk, (8, 10**6)), (nqm.steps_to_target, (8, 0.1)), (nqm.steady_state_risk, (8,))):
        assert np.array_equal(function(problem, optimizer, *rest), function(problem, optimizer, *rest))
    fresh = features_of(PROBLEM)
    assert np.array_equal(nqm.risk(fresh, optimizer, 8, 10**6), nqm.risk(problem, optimizer, 8, 10**6))
    assert nqm.tune(TUNED, KINDS["momentum"], 1024, TARGET) == tuned("momentum", 1024)
