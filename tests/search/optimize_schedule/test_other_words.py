"""The best schedules of one problem in other words: the same."""

from __future__ import annotations

import numpy as np
import pytest
from schedule_problems import SMALL, TARGET, C, H, S, let_in
from sizes import every

import nqm
from nqm import EMA, FREE, SGD, NoisyQuadratic, Preconditioned, Schedule, optimize_schedule


@pytest.mark.parametrize(
    ("optimizer", "scale"),
    every(2, [(SGD(FREE), 4.0), (SGD(FREE), 0.01), (SGD(FREE, FREE), 0.01), (EMA(SGD(FREE), FREE), 4.0)]),
    ids=str,
)
def test_scaled_curvatures(optimizer, scale):
    """h -> s h, and gradients with them: learning rates of 1 / s, risks of s times as much."""
    first = optimize_schedule(SMALL, 4, target=0.06, pieces=4, optimizer=optimizer)
    scaled = NoisyQuadratic(scale * H, scale**2 * C, S)
    best = optimize_schedule(scaled, 4, target=0.06 * scale, pieces=4, optimizer=optimizer)
    assert best.steps == first.steps
    assert best.risk == pytest.approx(scale * first.risk, rel=1e-8)
    assert best.schedule.values == pytest.approx(first.schedule.values / scale, rel=1e-3)


OTHER_WORDS = {
    "noise and batch": (NoisyQuadratic(H, 8.0 * C, S), 32, 1.0),
    "noise and start": (NoisyQuadratic(H, 8.0 * C, 8.0 * S), 4, 8.0),
    "order": (NoisyQuadratic(H[::-1], C[::-1], S[::-1]), 4, 1.0),
    "split": (NoisyQuadratic(np.repeat(H, 2), np.repeat(C, 2), np.repeat(S, 2), 0.5), 4, 1.0),
    "a ramp that does not rise": (SMALL, Schedule([4, 4], [7, 1]), 1.0),
}


@pytest.mark.parametrize("words", OTHER_WORDS)
def test_the_same_problem_in_other_words(words):
    problem, batch, factor = OTHER_WORDS[words]
    best = optimize_schedule(problem, batch, target=0.05 * factor, pieces=4)
    first = optimize_schedule(SMALL, 4, target=0.05, pieces=4)
    assert best.steps == first.steps
    assert best.risk == pytest.approx(factor * first.risk, rel=1e-8)
    assert best.schedule.values == pytest.approx(first.schedule.values, rel=1e-3)


def test_momentum_averages_and_preconditioners_that_do_nothing():
    plain = optimize_schedule(SMALL, 4, target=0.05, pieces=4)
    nesterov = SGD(FREE, FREE, nesterov=True).with_values(momentum=0.0)
    for optimizer in (nesterov, EMA(SGD(FREE), 0.0), Preconditioned(SGD(FREE), 0.0)):
        best = optimize_schedule(SMALL, 4, target=0.05, pieces=4, optimizer=optimizer)
        assert (best.steps, best.risk) == (plain.steps, pytest.approx(plain.risk, rel=1e-9))


@pytest.mark.parametrize("optimizer", [SGD(FREE), EMA(SGD(FREE), 0.99)], ids=str)
def test_power_laws_are_optimised_on_the_explicit_sum(optimizer):
    law, explicit = NoisyQuadratic.power_law(200), NoisyQuadratic(1.0 / np.arange(1.0, 201.0))
    best, other = (
        optimize_schedule(problem, 256, target=TARGET, pieces=10, optimizer=optimizer) for problem in (law, explicit)
    )
    assert best.steps == other.steps
    assert best.risk == pytest.approx(other.risk, rel=1e-7)
    assert nqm.risk(explicit, best.optimizer, 256, best.steps) <= TARGET
    sooner = optimize_schedule(explicit, 256, steps=best.steps - 1, pieces=10, optimizer=optimizer)
    assert sooner.risk > TARGET


def test_ten_thousand_curvatures_and_their_power_law():
    law, explicit = NoisyQuadratic.power_law(10**4), NoisyQuadratic(1.0 / np.arange(1.0, 10**4 + 1.0))
    best, other = (optimize_schedule(problem, 256, target=TARGET, pieces=10) for problem in (law, explicit))
    assert best.steps == other.steps
    left = np.ones(10**4)
    for lr, steps in zip(best.schedule.values, best.schedule.lengths, strict=True):
        x = lr * explicit.curvature
        left = (1.0 - x) ** (2 * steps) * left + lr**2 * explicit.noise / 256 * let_in(x, steps)
    assert 0.5 * np.sum(explicit.curvature * left) == pytest.approx(best.risk, rel=1e-9)
