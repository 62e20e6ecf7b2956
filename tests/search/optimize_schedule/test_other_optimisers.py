"""The best schedules against random restarts, differential evolution and polynomials; also under a given ramp."""

from __future__ import annotations

import math

import numpy as np
import pytest
from schedule_problems import PROBLEM, SMALL, C, H, S, every_step, lengths_of, nodes, walked
from scipy.optimize import differential_evolution, minimize
from sizes import every

from nqm import EMA, FREE, SGD, NoisyQuadratic, Schedule, optimize_schedule


def test_the_recursion_that_stands_for_training_here():
    """Against the plainest matrix form, step by step, and against one noise-free step by hand."""
    lr, batch, m, g = [0.3, 1.1, 0.7, 0.2], [2.0, 5.0, 1.0, 9.0], 0.6, 0.4
    total = 0.0
    for h, c, s in zip(H, C, S, strict=True):
        cov = s * np.outer([1, 0, 1], [1, 0, 1])  # theta, buffer, average
        for a, b in zip(lr, batch, strict=True):
            buffer, noise = np.array([h, m, 0.0]), np.array([0.0, 1.0, 0.0])
            theta, kick = np.array([1.0, 0.0, 0.0]) - a * buffer, -a
            step = np.array([theta, buffer, g * np.array([0, 0, 1.0]) + (1 - g) * theta])
            push = np.array([kick, noise[1], (1 - g) * kick])
            cov = step @ cov @ step.T + c / b * np.outer(push, push)
        total += 0.5 * h * cov[2, 2]
    assert walked(lr, batch, m, g)[0] == pytest.approx(total, rel=1e-13)
    assert walked([0.5], math.inf)[0] == pytest.approx(0.5 * np.sum(H * S * (1 - 0.5 * H) ** 2), rel=1e-14)


# --- no fewer steps are possible ---------------------------------------------------------------------------


def lr_unit(momentum):
    return 2.0 * (1.0 + momentum) / H[0]


def log_risk_of(optimizer, steps, pieces, batch):
    """The log risk of ``walked`` over log(lr / limit) of the pieces and -log(1 - value) of what else is FREE."""
    given, lengths = optimizer.hyperparameters, lengths_of(steps, pieces)

    def log_risk(x):
        columns = x.reshape(len(x), -1)
        values = {}
        for name in ("momentum", "decay"):
            is_free = name in optimizer.free
            values[name] = -np.expm1(-columns[-1]) if is_free else given.get(name, 0.0)
        lr = lr_unit(values["momentum"]) * np.exp(columns[:pieces])
        with np.errstate(divide="ignore"):
            found = np.log(walked(np.repeat(lr, lengths, axis=0), batch, **values))
        return found if x.ndim == 2 else float(found[0])

    return log_risk


def with_slopes(log_risk, step=1e-6):
    """The same and its gradient, by central differences in one go."""

    def both(x):
        moves = step * np.eye(len(x))
        values = log_risk(x[:, None] + np.hstack([np.zeros((len(x), 1)), moves, -moves]))
        up, down = np.split(values[1:], 2)
        return float(values[0]), (up - down) / (2.0 * step)

    return both


@pytest.mark.parametrize(
    ("optimizer", "batch", "target"),
    [(SGD(FREE), 4, 0.05), (SGD(FREE), 50, 0.02), (SGD(FREE, FREE), 4, 0.06), (EMA(SGD(FREE), FREE), 50, 0.02)],
    ids=str,
)
def test_random_restarts_find_nothing_sooner(optimizer, batch, target):
    best, pieces = optimize_schedule(SMALL, batch, target=target, pieces=4, optimizer=optimizer), 4
    assert pieces < best.steps < 50
    more = len(optimizer.free) - 1
    bounds = [(-9.0, 0.0)] * pieces + [(0.0, 4.0)] * more
    rng = np.random.default_rng(0)
    lowest = {}
    for steps in (best.steps - 1, best.steps):
        log_risk = log_risk_of(optimizer, steps, pieces, batch)
        found = []
        for start in rng.uniform([0.6 * low for low, _ in bounds], [high for _, high in bounds], (6, len(bounds))):
            descent = minimize(with_slopes(log_risk), start, method="L-BFGS-B", jac=True, bounds=bounds)
            found.append(descent.fun)
        lowest[steps] = math.exp(min(found))
    assert lowest[best.steps - 1] > target  # not sooner
    assert lowest[best.steps] <= target  # although they do get there at its step
    assert lowest[best.steps] > best.risk * (1.0 - 1e-7)  # and among ties, the lowest


EACH_STEP = [
    (SGD(FREE), (4, 4), 0.1),
    (SGD(FREE), (100, 5), 0.05),
    (SGD(FREE, FREE), (4, 4), 0.25),
    (EMA(SGD(FREE), FREE), (100, 5), 0.1),
    (SGD(FREE, 0.9), (1000, 5), 0.1),
]


@pytest.mark.parametrize(("optimizer", "case", "target"), every(2, EACH_STEP), ids=str)
def test_no_step_before_the_answer_reaches_the_target(optimizer, case, target):
    """Fixed steps, one after the other, with as many pieces as there are steps while there are fewer."""
    batch, pieces = case
    best = optimize_schedule(SMALL, batch, target=target, pieces=pieces, optimizer=optimizer)
    for steps in range(1, best.steps):
        sooner = optimize_schedule(
            SMALL, batch, steps=steps, pieces=min(pieces, steps), optimizer=optimizer, restarts=1
        )
        assert sooner.risk > target


@pytest.mark.parametrize(("batch", "target"), [(4, 0.2), (4, 0.05), (100, 0.2), (100, 0.05)])
def test_among_schedules_of_as_many_steps_the_lowest(batch, target):
    best = optimize_schedule(SMALL, batch, target=target, pieces=5)
    fixed = optimize_schedule(SMALL, batch, steps=best.steps, pieces=min(5, best.steps))
    assert best.risk == pytest.approx(fixed.risk, rel=1e-7)


# --- another optimiser -------------------------------------------------------------------------------------

EVOLVED = [
    (SGD(FREE), 20, 5, 4.0),
    (SGD(FREE), 30, 4, 32.0),
    (SGD(FREE), 12, 5, 100.0),
    (SGD(FREE), 6, 6, 32.0),
    (SGD(FREE), 5, 5, 32.0),
    (SGD(FREE, 0.9), 20, 4, 64.0),
    (SGD(FREE, FREE), 20, 3, 4.0),
    (SGD(FREE, FREE), 20, 4, 64.0),
    (EMA(SGD(FREE), FREE), 20, 3, 4.0),
    (EMA(SGD(FREE), FREE), 20, 4, 64.0),
    (EMA(SGD(FREE), 0.8), 20, 4, 64.0),
]


def evolved(log_risk, bounds, seeds=(0,)):
    """The least risk that differential evolution finds."""
    settings = {"vectorized": True, "updating": "deferred", "popsize": 15, "maxiter": 300, "tol": 1e-9}
    return math.exp(min(differential_evolution(log_risk, bounds, seed=seed, **settings).fun for seed in seeds))


@pytest.mark.parametrize(("optimizer", "steps", "pieces", "batch"), every(2, EVOLVED), ids=str)
def test_differential_evolution_finds_nothing_lower(optimizer, steps, pieces, batch):
    best = optimize_schedule(SMALL, batch, steps=steps, pieces=pieces, optimizer=optimizer)
    found = best.optimizer.hyperparameters
    others = {name: found.get(name, 0.0) for name in ("momentum", "decay")}
    assert walked(every_step(best.schedule), batch, **others)[0] == pytest.approx(best.risk, rel=1e-11)
    bounds = [(-8.0, 0.0)] * pieces + [(0.0, 5.0)] * (len(optimizer.free) - 1)
    seeds = range(4) if steps == pieces else (0,)  # one step a piece is where basins are many, and evaluations cheap
    lowest = evolved(log_risk_of(optimizer, steps, pieces, batch), bounds, seeds)
    assert best.risk <= lowest * (1.0 + 1e-7)
    assert best.risk >= lowest * (1.0 - 1e-3)  # an opponent that gets there


@pytest.mark.parametrize("steps", [4, 5, 6])
def test_without_a_bound_and_with_few_steps_longer_ones_help(steps):
    """One piece a step: learning rates beyond 2 / h_1, and differential evolution finds nothing lower."""
    bounded = optimize_schedule(SMALL, 32, steps=steps, pieces=steps)
    best = optimize_schedule(SMALL, 32, steps=steps, pieces=steps, max_lr=None)
    assert np.sum(best.schedule.values > 2.0) >= 2
    assert best.risk < 0.6 * bounded.risk
    assert walked(every_step(best.schedule), 32)[0] == pytest.approx(best.risk, rel=1e-8)
    lowest = evolved(log_risk_of(SGD(FREE), steps, steps, 32), [(-4.0, 4.0)] * steps, seeds=range(4))
    assert best.risk <= lowest * (1.0 + 1e-7)
    assert best.risk >= lowest * (1.0 - 1e-3)


def test_a_step_for_each_curvature_leaves_nothing_without_noise():
    best = optimize_schedule(NoisyQuadratic([1.0, 0.5, 0.2], noise=0.0), 1, steps=3, pieces=3, max_lr=None)
    assert sorted(best.schedule.values) == pytest.approx([1.0, 2.0, 5.0], rel=1e-6)
    assert best.risk < 1e-20


# --- Chebyshev's steps -------------------------------------------------------------------------------------


def least_of_polynomials(problem, degree):
    """1/2 sum mult h init p(h)^2, least over polynomials with p(0) = 1: no schedule is below it, even without noise.

    p = 1 + h q; the basis of q is made orthonormal on the nodes (Arnoldi's method with reorthogonalisation).
    """
    h, root = problem.curvature, np.sqrt(0.5 * problem.multiplicity * problem.curvature * problem.init)
    basis = [h * root / np.linalg.norm(h * root)]
    while len(basis) < degree:
        new, known = h * basis[-1], np.array(basis)
        for _ in range(2):
            new = new - known.T @ (known @ new)
        basis.append(new / np.linalg.norm(new))
    known = np.array(basis)
    rest = root - known.T @ (known @ root)
    return float(rest @ rest)


@pytest.mark.thorough
def test_sixty_steps_of_their_own_go_far_beyond_the_stable_ones():
    bounded, best = (optimize_schedule(PROBLEM, 1024, steps=60, pieces=60, max_lr=bound) for bound in ("stable", None))
    assert bounded.risk == pytest.approx(1.5434, rel=1e-3)
    assert np.all(bounded.schedule.values <= 2.0)
    assert np.sum(best.schedule.values > 2.0) >= 20
    assert best.risk < 0.4 * bounded.risk
    assert least_of_polynomials(PROBLEM, 60) < best.risk
    assert walked(every_step(best.schedule), 1024, problem=nodes(PROBLEM))[0] == pytest.approx(best.risk, rel=1e-6)


# --- schedules that are given ------------------------------------------------------------------------------


def test_a_given_ramp_that_changes_between_pieces():
    ramp = Schedule([2, 8], [50, 50])
    best = optimize_schedule(SMALL, ramp, steps=100, pieces=4)
    lowest = evolved(log_risk_of(SGD(FREE), 100, 4, every_step(ramp)), [(-8.0, 0.0)] * 4)
    assert lowest * (1.0 - 1e-3) <= best.risk <= lowest * (1.0 + 1e-7)


def test_a_given_ramp_that_changes_within_a_piece():
    ramp = Schedule([2, 8], [13, 27])
    best = optimize_schedule(SMALL, ramp, steps=40, pieces=4)
    lowest = evolved(log_risk_of(SGD(FREE), 40, 4, every_step(ramp)), [(-8.0, 0.0)] * 4)
    assert best.risk <= lowest * (1.0 + 1e-7)


def test_no_fewer_steps_under_a_given_ramp():
    best = optimize_schedule(SMALL, Schedule([2, 8], [50, 50]), target=0.02, pieces=4)
    sooner = optimize_schedule(SMALL, Schedule([2, 8], [50, 50]), steps=best.steps - 1, pieces=4)
    assert sooner.risk > 0.02 >= best.risk
