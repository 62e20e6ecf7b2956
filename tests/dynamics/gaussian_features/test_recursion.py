"""Risks on Gaussian features against oracles that share nothing with nqm: 60 digits, moments of theta, drawn data."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal

import cases
import mpmath as mp
import numpy as np
import pytest
from features import (
    HARMONIC,
    HEAVY,
    PROBLEM,
    SGD,
    at_limit,
    crossings,
    features,
    features_of,
    made,
    radius,
    scanned,
    soon,
)
from reference import Linear, Regression, Rule, regression_risks, regression_sum, update

import nqm
from nqm import FREE
from nqm.dynamics.gaussian_features import recursion

NAMES = ("SGD", "heavy ball", "Nesterov", "EMA of SGD", "EMA of heavy ball", "SGD, power 0.5")
RULES = {name: replace(cases.RULES[name], lr=1.0) for name in NAMES}
RULES["all, slow"] = Rule(1.0, 0.99, nesterov=True, power=0.25, decay=0.999)
rules = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
batches = pytest.mark.parametrize("batch", [1.0, 8.0, 64.0])

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


# --- many coordinates --------------------------------------------------------------------------------------

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
