"""The papers' closed forms and recursions, and optimizers written by hand.

Equation numbers are those of Zhang et al. 2019.
"""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
from building import optimizer_of
from cases import RULES
from numpy.testing import assert_allclose
from reference import Rule, filter_risk, step_matrix

import nqm
from nqm.optimizers import transition_matrix

TOLERANCE = 1e-12
TINY = 1e-290  # below this a float64 runs out of digits

H = np.array([1.0, 0.31, 0.02, 1e-3])
C = np.array([0.5, 0.31, 0.1, 1e-5])
INIT = np.array([1.0, 0.0, 3.0, 20.0])
BATCH = 8.0
PROBLEM = nqm.NoisyQuadratic(H, C, INIT)
NOISE_FREE = nqm.NoisyQuadratic(H, 0.0, INIT)

STEPS = [0, 1, 2, 3, 10, 100, 10_000, 10**6]
LRS = [1e-6, 0.01, 0.3, 1.0, 1.9]
# none of them meets critical damping on H exactly: there the printed forms divide by zero
MOMENTA = [0.1, 0.9, 0.999]
DECAYS = [0.3, 0.95, 0.9999]


def total(terms):
    """Sum of one mpmath number for each coordinate."""
    return float(mp.fsum(terms))


def coordinates():
    return zip(*(map(mp.mpf, map(float, a)) for a in (H, C, INIT)), strict=True)


# --- closed forms ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lr", LRS)
@pytest.mark.parametrize("steps", STEPS)
def test_sgd_is_equation_4(lr, steps):
    lr, expected = mp.mpf(lr), []
    for h, c, init in coordinates():
        left = (1 - lr * h) ** (2 * steps)
        expected.append(left * h * init / 2 + (1 - left) * lr * c / (2 * BATCH * (2 - lr * h)))
    assert_allclose(nqm.risk(PROBLEM, nqm.SGD(float(lr)), BATCH, steps), total(expected), rtol=TOLERANCE)


def convergence(r1, r2, drag, steps):
    """The bracket of the first term of equations 6 and 12, squared."""
    return abs((r1 ** (steps + 1) - r2 ** (steps + 1) - drag * (r1**steps - r2**steps)) / (r1 - r2)) ** 2


@pytest.mark.parametrize("lr", LRS)
@pytest.mark.parametrize("momentum", MOMENTA)
def test_momentum_is_equation_6(lr, momentum):
    def start_left(h, init):
        middle = (1 - a * h + m) / 2
        half = mp.sqrt(middle**2 - m)
        return convergence(middle + half, middle - half, m, steps) * h * init / 2

    optimizer = nqm.SGD(lr, momentum)
    a, m = mp.mpf(lr), mp.mpf(momentum)
    steady = total((1 + m) * a * c / (2 * BATCH * (2 * m + 2 - a * h) * (1 - m)) for h, c, _ in coordinates())
    assert_allclose(nqm.steady_state_risk(PROBLEM, optimizer, BATCH), steady, rtol=TOLERANCE)
    for steps in STEPS:
        first = [start_left(h, init) for h, _, init in coordinates()]
        noise_free = nqm.risk(NOISE_FREE, optimizer, BATCH, steps)
        assert_allclose(noise_free, total(first), rtol=TOLERANCE, atol=TINY)
        assert nqm.risk(PROBLEM, optimizer, BATCH, steps) <= (noise_free + steady) * (1 + TOLERANCE)


@pytest.mark.parametrize("lr", LRS)
@pytest.mark.parametrize("decay", DECAYS)
def test_ema_is_equation_12(lr, decay):
    optimizer = nqm.EMA(nqm.SGD(lr), decay)
    a, d = mp.mpf(lr), mp.mpf(decay)
    steady = total(
        a * c / (2 * BATCH * (2 - a * h)) * (1 - d) * (1 + (1 - a * h) * d) / ((1 + d) * (1 - (1 - a * h) * d))
        for h, c, _ in coordinates()
    )
    assert_allclose(nqm.steady_state_risk(PROBLEM, optimizer, BATCH), steady, rtol=TOLERANCE)
    for steps in STEPS:
        first = [convergence(1 - a * h, d, d * (1 - a * h), steps) * h * s / 2 for h, _, s in coordinates()]
        noise_free = nqm.risk(NOISE_FREE, optimizer, BATCH, steps)
        assert_allclose(noise_free, total(first), rtol=TOLERANCE, atol=TINY)
        assert nqm.risk(PROBLEM, optimizer, BATCH, steps) <= (noise_free + steady) * (1 + TOLERANCE)


@pytest.mark.parametrize("power", [0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("lr", [0.01, 0.3, 1.9])
def test_preconditioning_is_equation_9(lr, power):
    optimizer = nqm.Preconditioned(nqm.SGD(lr), power)
    a, p = mp.mpf(lr), mp.mpf(power)
    steady = total(a * c * h**-p / (2 * BATCH * (2 - a * h ** (1 - p))) for h, c, _ in coordinates())
    assert_allclose(nqm.steady_state_risk(PROBLEM, optimizer, BATCH), steady, rtol=TOLERANCE)
    for steps in (0, 1, 2, 3, 10, 100):  # the rounding of h^(1-p) counts for as many steps
        first = total((1 - a * h ** (1 - p)) ** (2 * steps) * h * s / 2 for h, _, s in coordinates())
        noise_free = nqm.risk(NOISE_FREE, optimizer, BATCH, steps)
        assert_allclose(noise_free, first, rtol=TOLERANCE, atol=TINY)
        assert nqm.risk(PROBLEM, optimizer, BATCH, steps) <= (noise_free + steady) * (1 + TOLERANCE)


# --- recursions --------------------------------------------------------------------------------------------


def iterate(matrix, noise, vector, steps):
    """Entries of v(0), ..., v(steps) with v(t + 1) = T v(t) + n: shape (steps + 1, 3)."""
    vectors = [vector]
    for _ in range(steps):
        vectors.append(matrix @ vectors[-1] + noise)
    return np.array(vectors)


@pytest.mark.parametrize("lr", LRS)
@pytest.mark.parametrize("momentum", MOMENTA)
def test_momentum_is_the_recursion_of_appendix_b(lr, momentum):
    expected = 0.0
    for h, c, init in zip(H, C, INIT, strict=True):
        x, m = lr * h, momentum
        # equation 21, with v = (A(theta), lr^2 A(m), -lr C)
        matrix = np.array(
            [
                [(1 - x) ** 2, m**2, 2 * (1 - x) * m],
                [x**2, m**2, -2 * m * x],
                [-(1 - x) * x, m**2, (1 - 2 * x) * m],
            ]
        )
        noise = np.full(3, lr**2 * c / BATCH)
        expected += 0.5 * h * iterate(matrix, noise, np.array([init, 0.0, 0.0]), 300)[:, 0]
    found = nqm.risk(PROBLEM, nqm.SGD(lr, momentum), BATCH, np.arange(301))
    assert_allclose(found, expected, rtol=1e-11)


@pytest.mark.parametrize("lr", LRS)
@pytest.mark.parametrize("decay", DECAYS)
def test_ema_is_the_recursion_of_appendix_d(lr, decay):
    expected = 0.0
    for h, c, init in zip(H, C, INIT, strict=True):
        keep, g = 1 - lr * h, decay
        # equation 38, with v = (A(theta), A(average) / (1 - g)^2, C / (1 - g)). The printed middle entry has a factor
        # (1 - g) too many; and the coefficient of Cov in equation 37 is g (1 - lr h), not (1 - lr g) as printed.
        matrix = np.array([[keep**2, 0, 0], [keep**2, g**2, 2 * g * keep], [keep**2, 0, g * keep]])
        noise = np.full(3, lr**2 * c / BATCH)
        start = init * np.array([1, 1 / (1 - g) ** 2, 1 / (1 - g)])
        expected += 0.5 * h * (1 - g) ** 2 * iterate(matrix, noise, start, 300)[:, 1]
    found = nqm.risk(PROBLEM, nqm.EMA(nqm.SGD(lr), decay), BATCH, np.arange(301))
    assert_allclose(found, expected, rtol=1e-11)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("x", [0.0, 1e-3, 0.5, 1.0, 1.7])
def test_the_transition_matrix_has_the_eigenvalues_of_a_step(rule, x):
    # as roots of the characteristic polynomial: double roots themselves are only as good as sqrt(1e-16).
    # The oracle always carries three states; those that nothing depends on have eigenvalue 0.
    expected = np.poly(np.array(step_matrix(Rule(x, rule.momentum, rule.nesterov, 0.0, rule.decay), 1.0)[0]))
    found = np.poly(transition_matrix(optimizer_of(rule), x))
    assert_allclose(np.pad(found, (0, 4 - found.size)), expected, rtol=0, atol=1e-14)


# --- written by hand ---------------------------------------------------------------------------------------

ANY_STEPS = np.array([0, 1, 2, 7, 100, 10_001, 10**7])


def same(first, second, problem=PROBLEM, **tolerance):
    found = [nqm.risk(problem, optimizer, BATCH, ANY_STEPS) for optimizer in (first, second)]
    assert_allclose(*found, **tolerance or {"rtol": 0})


@pytest.mark.parametrize("lr", [0.01, 0.7, 1.9])
def test_momentum_written_by_hand(lr):
    """With m = 0.875 all entries are exact, so other coordinates leave only their own rounding."""
    m = 0.875
    heavy_ball = nqm.SGD(lr, m)
    same(nqm.LinearOptimizer(lr, [[1, m], [0, m]], [1, 1]), heavy_ball, rtol=TOLERANCE)
    # z = (theta_t, theta_{t-1})
    same(nqm.LinearOptimizer(lr, [[1 + m, -m], [1, 0]], [1, 0], start=[1, 1]), heavy_ball, rtol=TOLERANCE)
    # z = (theta, lr m): theta' = theta - lr g - m w' with w' = m w + lr g
    by_hand = nqm.LinearOptimizer(lr, [[1, -m * m], [0, m]], [1 + m, -1])
    same(by_hand, nqm.SGD(lr, m, nesterov=True), rtol=TOLERANCE)


@pytest.mark.parametrize("lr", [0.01, 0.7, 1.9])
@pytest.mark.parametrize("decay", [0.5, 0.9375])
def test_averages_written_by_hand(lr, decay):
    """A filter of three states comes in coordinates of the user's, in which covariances are only plain doubles."""
    m, f = 0.875, 1 - decay
    matrix = [[1, m, 0], [0, m, 0], [f, f * m, decay]]
    three = nqm.LinearOptimizer(lr, matrix, [1, 1, f], readout=[0, 0, 1], start=[1, 0, 1])
    same(three, nqm.EMA(nqm.SGD(lr, m), decay), rtol=1e-9)
    two = nqm.LinearOptimizer(lr, [[1, 0], [f, decay]], [1, f], readout=[0, 1], start=[1, 1])
    same(two, nqm.EMA(nqm.SGD(lr), decay), rtol=TOLERANCE)
    same(nqm.LinearOptimizer(lr, [[1]], [1]), nqm.SGD(lr), rtol=TOLERANCE)
    wrapped = nqm.EMA(nqm.LinearOptimizer(lr, [[1, m], [0, m]], [1, 1]), decay)
    same(wrapped, nqm.EMA(nqm.SGD(lr, m), decay), rtol=TOLERANCE)


@pytest.mark.parametrize("states", [1, 2, 3])
@pytest.mark.parametrize("power", [0.0, 0.5])
def test_any_linear_filter_is_the_naive_recursion(states, power):
    rng = np.random.default_rng(states)
    for _ in range(10):
        transition = rng.normal(size=(states, states))
        transition *= rng.uniform(0.3, 1.0) / np.abs(np.linalg.eigvals(transition)).max()
        parts = transition, *rng.normal(size=(4, states))
        optimizer = nqm.Preconditioned(nqm.LinearOptimizer(0.2, *parts), power)
        expected = filter_risk(0.2, parts, H, C, INIT, BATCH, 100, power)
        assert_allclose(nqm.risk(PROBLEM, optimizer, BATCH, np.arange(101)), expected, rtol=1e-11)


# --- stability ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.999])
def test_max_stable_lr_of_a_hand_written_momentum(momentum):
    by_hand = nqm.LinearOptimizer(nqm.FREE, [[1, momentum], [0, momentum]], [1, 1])
    expected = nqm.max_stable_lr(PROBLEM, nqm.SGD(nqm.FREE, momentum))
    assert expected == 2 * (1 + momentum) / H.max()
    assert_allclose(nqm.max_stable_lr(PROBLEM, by_hand), expected, rtol=1e-9)
