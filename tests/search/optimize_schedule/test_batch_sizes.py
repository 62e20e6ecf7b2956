"""The best schedules of batch sizes, alone and beside learning rates."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from schedule_problems import BOUND, PROBLEM, SMALL, TARGET, every_step, lengths_of, soonest, walked
from scipy.optimize import differential_evolution, minimize
from sizes import every

import nqm
from nqm import FREE, SGD, Schedule, optimize_schedule

RATES = {
    "constant": (0.3, 4),
    "large": (1.8, 4),
    "falling": (Schedule([1.5, 0.7, 0.2], [8, 8, 8]), 3),
    "every step": (Schedule.from_function(lambda t: 1.2 / (1.0 + 0.2 * (t // 4)), 24), 6),
}


def sizes_of(best, pieces):
    lengths = lengths_of(best.steps, pieces)
    return best.batch_size(np.cumsum(lengths) - lengths)


def lowest_of_sizes(rates, lengths, examples):
    """The least risk over batch sizes of so many examples, and the sizes, by SLSQP: again from where it stops, until it
    stays there, since its line search may give up early."""
    mean, relative = examples / sum(lengths), np.ones(len(lengths))
    for _ in range(10):
        found = minimize(
            lambda relative: math.log(walked(rates, np.repeat(mean * relative, lengths))[0]),
            relative,
            method="SLSQP",
            bounds=[(1.0 / mean, None)] * len(lengths),
            constraints={"type": "eq", "fun": lambda relative: relative @ lengths / sum(lengths) - 1.0},
            options={"ftol": 1e-14, "maxiter": 1000},
        )
        moved, relative = np.abs(found.x - relative).max(), found.x
        if moved < 1e-6:
            break
    assert relative @ lengths == pytest.approx(sum(lengths), rel=1e-7)
    return math.exp(found.fun), mean * relative


@pytest.mark.parametrize("examples", [25, 30, 60, 192, 5000])
@pytest.mark.parametrize("name", RATES)
def test_batch_sizes_of_least_risk(name, examples):
    """A convex problem: SLSQP's answer, and the conditions for its minimum, from the recursion."""
    (lr, pieces), steps = RATES[name], 24
    best = optimize_schedule(SMALL, FREE, steps=steps, pieces=pieces, examples=examples, optimizer=SGD(lr))
    sizes, lengths = sizes_of(best, pieces), lengths_of(steps, pieces)
    rates = every_step(lr) if isinstance(lr, Schedule) else np.full(steps, lr)
    assert best.status == "converged"
    assert sizes @ lengths == pytest.approx(examples, rel=1e-9)
    assert best.examples == pytest.approx(examples, rel=1e-9)
    assert sizes.min() >= 1.0

    def risk(sizes):
        return walked(rates, np.repeat(sizes, lengths))[0]

    assert risk(sizes) == pytest.approx(best.risk, rel=1e-12)
    lowest, found = lowest_of_sizes(rates, lengths, examples)
    assert best.risk <= lowest * (1.0 + 1e-9)
    assert best.risk >= lowest * (1.0 - 1e-5)
    assert sizes == pytest.approx(found, rel=0.05)

    # One example more is worth as much in every piece, and no more where the batch size is at its bound.
    alone = np.where(np.eye(pieces, dtype=bool), 1.0, math.inf)
    weights = np.array([risk(only) for only in alone]) - risk(np.full(pieces, math.inf))
    gains = weights / (lengths * sizes**2)
    above = sizes > 1.0
    assert gains[above] == pytest.approx(np.full(above.sum(), gains[above].mean()), rel=1e-6)
    assert np.all(gains[~above] <= gains[above].min() * (1.0 + 1e-9))


def test_batch_sizes_down_to_one_example():
    least = {}
    for examples in (24, 30, 192):
        best = optimize_schedule(SMALL, FREE, steps=24, pieces=4, examples=examples, optimizer=SGD(0.3))
        least[examples] = (np.sum(sizes_of(best, 4) == 1.0), best.batch_size.values.min())
    assert least[24] == (4, 1.0)
    assert least[30] == (3, 1.0)
    assert least[192][1] > 1.0


@pytest.mark.parametrize("lr", [0.01, 0.3, 1.8])
@pytest.mark.parametrize(("examples", "pieces"), [(10**4, 5), (10**5, 24)])
def test_batches_ramp_up_under_a_constant_learning_rate(lr, examples, pieces):
    """What is let in early is forgotten."""
    best = optimize_schedule(SMALL, FREE, steps=120, pieces=pieces, examples=examples, optimizer=SGD(lr))
    sizes = sizes_of(best, pieces)
    assert np.all(np.diff(sizes[sizes > 1.0]) > 0.0)
    assert np.all(np.diff(sizes) >= 0.0)
    assert sizes[-1] > 1.1 * sizes[0]


@pytest.mark.parametrize("lr", [0.3, Schedule([1.0, 0.1], [12, 12])], ids=str)
def test_one_piece_is_a_constant_batch(lr):
    best = optimize_schedule(SMALL, FREE, steps=24, pieces=1, examples=192, optimizer=SGD(lr))
    assert best.batch_size.values == pytest.approx([8.0], rel=1e-14)
    if isinstance(lr, float):
        assert best.risk == pytest.approx(nqm.risk(SMALL, SGD(lr), 8, 24), rel=1e-13)
    free = optimize_schedule(SMALL, FREE, steps=24, pieces=1, examples=192)
    assert free.risk == pytest.approx(optimize_schedule(SMALL, 8, steps=24, pieces=1).risk, rel=1e-9)


@pytest.mark.parametrize(("steps", "examples"), [(24, 40), (24, 192), (24, 5000), (200, 400)])
def test_both_free_are_never_worse_than_either(steps, examples):
    both = optimize_schedule(SMALL, FREE, steps=steps, pieces=4, examples=examples)
    rates = optimize_schedule(SMALL, examples / steps, steps=steps, pieces=4)
    constant = optimize_schedule(SMALL, examples / steps, steps=steps, pieces=1)
    sizes = [
        optimize_schedule(SMALL, FREE, steps=steps, pieces=4, examples=examples, optimizer=optimizer)
        for optimizer in (rates.optimizer, constant.optimizer, SGD(1.0))
    ]
    assert both.risk <= min(rates.risk, *(best.risk for best in sizes)) * (1.0 + 1e-9)
    assert sizes[0].risk <= rates.risk * (1.0 + 1e-12)
    assert sizes[1].risk <= constant.risk * (1.0 + 1e-12)
    assert both.examples == pytest.approx(examples, rel=1e-9)
    assert both.batch_size.values.min() >= 1.0


def test_differential_evolution_over_learning_rates_and_batch_sizes():
    steps, pieces, examples = 12, 3, 60
    lengths = lengths_of(steps, pieces)
    best = optimize_schedule(SMALL, FREE, steps=steps, pieces=pieces, examples=examples)

    def log_risk(x):
        """Of log learning rates, and log shares of what is above one example a step."""
        share = np.exp(x[pieces:])
        sizes = 1.0 + (examples - steps) * share / (lengths @ share)
        lr = np.repeat(2.0 * np.exp(x[:pieces]), lengths)
        return math.log(walked(lr, np.repeat(sizes, lengths))[0])

    bounds = [(-6.0, 0.0)] * pieces + [(-8.0, 0.0)] * pieces
    found = differential_evolution(log_risk, bounds, seed=0, popsize=8, maxiter=60)
    assert best.risk <= math.exp(found.fun) * (1.0 + 1e-7)
    assert best.risk >= math.exp(found.fun) * (1.0 - 1e-3)


SPENT = [
    (SGD(1.0), 100, 1.0001),
    (SGD(1.0), 100, 1.5),
    (SGD(0.3), 100, 1.001),
    (SGD(0.3), 100, 1.1),
    (SGD(FREE), 30, 1.001),
    (SGD(FREE), 30, 1.5),
]


@cache
def least_by_steps(optimizer, examples):
    """Least risk after 1, 2, ... steps, one for each example at most."""
    return [
        optimize_schedule(
            SMALL, FREE, steps=n, pieces=min(n, 4), examples=examples, optimizer=optimizer, restarts=0
        ).risk
        for n in range(1, examples + 1)
    ]


@pytest.mark.parametrize(("optimizer", "examples", "share"), every(2, SPENT), ids=str)
def test_fewest_steps_with_so_many_examples(optimizer, examples, share):
    """More steps of smaller batches are not always better: every number of them is tried."""
    risks = np.array(least_by_steps(optimizer, examples))
    target = share * risks.min()
    best = optimize_schedule(SMALL, FREE, target=target, pieces=4, examples=examples, optimizer=optimizer)
    assert (best.status, best.steps) == ("converged", int(np.argmax(risks <= target)) + 1)
    assert best.risk <= target
    assert best.examples == pytest.approx(examples, rel=1e-9)
    assert best.batch_size.values.min() >= 1.0


def test_a_ramp_is_never_later_than_a_constant_batch_with_as_many_examples():
    constant = soonest(0.0, 256, 10)
    best = optimize_schedule(PROBLEM, FREE, target=TARGET, pieces=10, examples=constant.examples)
    assert best.examples >= BOUND
    assert best.steps <= constant.steps


def test_batch_sizes_under_learning_rates_that_change_within_a_piece():
    lr, lengths = Schedule([1.5, 0.1], [17, 7]), lengths_of(24, 4)
    best = optimize_schedule(SMALL, FREE, steps=24, pieces=4, examples=192, optimizer=SGD(lr))
    assert best.risk <= lowest_of_sizes(every_step(lr), lengths, 192)[0] * (1.0 + 1e-7)
