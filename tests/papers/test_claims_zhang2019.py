"""Claims of zhang2019 on the model that no figure's test shows: rates of momentum, averages, other dimensions."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import nqm
from nqm import EMA, FREE, SGD, NoisyQuadratic, Preconditioned
from nqm.papers.zhang2019 import constant as zhang2019

PROBLEM = NoisyQuadratic.power_law(10_000)
SMALL, LARGE = 4.0, 2.0**20  # the paper's batch sizes end here, where examples and steps are fewest
LR, H = 0.5, 0.04
CRITICAL = (1.0 - np.sqrt(LR * H)) ** 2


def optimizer_of(kind, power=0.0):
    core = {"SGD": SGD(FREE), "momentum": SGD(FREE, FREE), "momentum 0.9": SGD(FREE, 0.9)}[kind]
    return Preconditioned(core, power) if power else core


@cache
def steps(kind, power=0.0, batch_size=LARGE, problem=PROBLEM, target=zhang2019.TARGET):
    return nqm.tune(problem, optimizer_of(kind, power), batch_size, target).steps


def critical(kind, power=0.0, **options):
    """Fewest examples over fewest steps."""
    small, large = (steps(kind, power, batch_size, **options) for batch_size in (SMALL, LARGE))
    return small * SMALL / large


# --- momentum, one coordinate, no noise -------------------------------------------------------------------------------


def left(momentum, at, h=H):
    """What is left of the risk of one coordinate after so many steps."""
    problem = NoisyQuadratic([h], noise=[0.0])
    return nqm.risk(problem, SGD(LR, momentum), 1, at) / problem.initial_risk


def transition(momentum, h=H):
    """The matrix of eq. 21 for E theta^2, lr^2 E m^2 and -lr E theta m."""
    x, m = LR * h, momentum
    return np.array([
        [(1 - x) ** 2, m**2, 2 * (1 - x) * m], [x**2, m**2, -2 * m * x], [-(1 - x) * x, m**2, (1 - 2 * x) * m],
    ])  # fmt: skip


@pytest.mark.parametrize("momentum", [CRITICAL + 0.05, 0.9, 0.97])
def test_underdamped_roots_have_norm_sqrt_m(momentum):
    """The risk then falls as m^t, whatever the curvature: largest over a swing, late against early."""
    for h in (H, 0.3, 1.0):
        assert np.abs(np.linalg.eigvals(transition(momentum, h))) == pytest.approx([momentum] * 3, rel=1e-6)
        early, late = (np.arange(start, start + 120) for start in (100, 400))
        largest = [np.max(left(momentum, at, h) / momentum**at) for at in (early, late)]
        assert largest[1] == pytest.approx(largest[0], rel=0.02)


def test_at_critical_damping_all_eigenvalues_are_m_and_no_momentum_is_faster():
    assert np.abs(np.linalg.eigvals(transition(CRITICAL))) == pytest.approx([CRITICAL] * 3, rel=1e-4)  # a triple root
    momenta = np.linspace(0.0, 0.99, 100)
    radii = [np.abs(np.linalg.eigvals(transition(m))).max() for m in momenta]
    assert momenta[np.argmin(radii)] == pytest.approx(CRITICAL, abs=0.01)
    risks = [left(m, 600) for m in momenta]
    assert momenta[np.argmin(risks)] == pytest.approx(CRITICAL, abs=0.015)


def test_the_best_momentum_leaves_the_slowest_coordinate_overdamped():
    """With all coordinates underdamped a smaller momentum has lower risk, of the start and of the noise."""
    problem = NoisyQuadratic(1.0 / np.arange(1, 101))
    for lr in (0.1, 1.0):
        limit = (1.0 - np.sqrt(lr / 100.0)) ** 2
        steady = [nqm.steady_state_risk(problem, SGD(lr, m), 64) for m in np.linspace(limit, 0.999, 20)]
        assert np.all(np.diff(steady) > 0.0)
    for batch_size in (SMALL, 256.0, LARGE):
        best = nqm.tune(PROBLEM, optimizer_of("momentum"), batch_size, zhang2019.TARGET).optimizer
        assert best.momentum <= (1.0 - np.sqrt(best.lr * 1e-4)) ** 2 + 1e-9


# --- preconditioning, averages ----------------------------------------------------------------------------------------


def test_preconditioning_divides_steps_by_a_power_of_the_condition_number():
    """kappa^p = 10, 100, 1000 at the largest batches, where the risk is nearly deterministic."""
    gains = [steps("SGD") / steps("SGD", power) for power in (0.25, 0.5, 0.75)]
    for gain, expected in zip(gains, (10.0, 100.0, 1000.0), strict=True):
        assert 0.6 < gain / expected < 1.0
    assert np.all(np.diff(gains) > 0.0)


def test_momentum_and_preconditioning_add_up_and_momentum_gains_less_with_it():
    plain = steps("SGD")
    both, alone = plain / steps("momentum", 0.5), (plain / steps("momentum"), plain / steps("SGD", 0.5))
    assert both > 5.0 * max(alone)
    assert critical("momentum", 0.5) > max(critical("momentum"), critical("SGD", 0.5))
    gains = [steps("SGD", power) / steps("momentum", power) for power in zhang2019.POWERS]
    assert gains == pytest.approx([44.8, 14.9, 5.1, 2.2], rel=0.02)


def test_an_average_lowers_the_steady_state_at_no_cost_in_rate():
    """A decay below 1 - lr h_d; the slowest coordinate's rate is then the iterate's own."""
    slowest = NoisyQuadratic([1e-4], noise=[0.0])
    for decay in (0.5, 0.9, 0.99):
        averaged = EMA(SGD(LR), decay)
        ratio = nqm.steady_state_risk(PROBLEM, averaged, 16) / nqm.steady_state_risk(PROBLEM, SGD(LR), 16)
        assert ratio < 0.95
        start, end = (nqm.risk(slowest, averaged, 16, at) / nqm.risk(slowest, SGD(LR), 16, at) for at in (5000, 50_000))
        assert end == pytest.approx(start, rel=1e-6)
        assert 1.0 < start < 1.02


# --- other problems ---------------------------------------------------------------------------------------------------


def test_other_dimensions_behave_alike():
    """d = 100, 10^4, 10^6 at the same share of the initial risk: momentum and preconditioning raise the critical batch
    size everywhere; how far depends on d."""
    share = zhang2019.TARGET / PROBLEM.initial_risk
    raised = []
    for dim in (100, 10_000, 1_000_000):
        problem = NoisyQuadratic.power_law(dim)
        options = {"problem": problem, "target": share * problem.initial_risk}
        plain = critical("SGD", **options)
        assert 800.0 < plain < 1000.0
        raised.append([critical("momentum 0.9", **options) / plain, critical("SGD", 0.5, **options) / plain])
    assert np.min(raised) > 1.5
    assert raised[1] == pytest.approx([18.9, 18.9], rel=0.02)
    assert np.array(raised)[:, 1] == pytest.approx([3.25, 18.9, 128.0], rel=0.02)


def test_the_initial_variance_matters_little():
    """0.1, 1 and 10 times the paper's: critical batch sizes, and what momentum and preconditioning add."""
    plain, raised = [], []
    for variance in (0.1, 1.0, 10.0):
        problem = NoisyQuadratic(1.0 / np.arange(1.0, 10_001.0), init=variance)
        plain.append(critical("SGD", problem=problem))
        raised.append([critical(*which, problem=problem) / plain[-1] for which in (("momentum 0.9",), ("SGD", 0.5))])
    assert plain == pytest.approx([1206.0, 897.0, 776.0], rel=0.01)
    assert np.array(raised) == pytest.approx(np.full((3, 2), 18.7), rel=0.1)
