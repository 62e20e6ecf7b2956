"""The best schedules against Bayes' bound, and against what they contain."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from schedule_problems import BOUND, PROBLEM, SMALL, TARGET, sgd, soonest

import nqm
from nqm import EMA, FREE, SGD, optimize_schedule

# --- Bayes' bound ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [1, 10, 50])
@pytest.mark.parametrize(("power", "batch"), [(0.0, 4), (0.0, 256), (0.0, 2**14), (0.25, 64), (0.5, 4), (0.5, 2**10)])
def test_never_fewer_examples_than_bayes(power, batch, pieces):
    best = soonest(power, batch, pieces)
    assert best.examples == best.steps * batch >= BOUND
    assert best.risk >= nqm.bounds.bayes(PROBLEM, best.examples)


@pytest.mark.parametrize("optimizer", [sgd(0.5), SGD(FREE, FREE), EMA(SGD(FREE), FREE)], ids=str)
@pytest.mark.parametrize(("batch", "steps"), [(1, 300), (2**16, 10)])
def test_never_below_bayes_at_fixed_steps(optimizer, batch, steps):
    best = optimize_schedule(SMALL, batch, steps=steps, pieces=4, optimizer=optimizer)
    assert best.risk >= nqm.bounds.bayes(SMALL, steps * batch)


@pytest.mark.parametrize("optimizer", [SGD(0.3), SGD(FREE)], ids=str)
@pytest.mark.parametrize("examples", [2000, 10**6])
def test_never_below_bayes_with_batch_sizes_of_ones_own(optimizer, examples):
    best = optimize_schedule(PROBLEM, FREE, steps=1000, pieces=10, optimizer=optimizer, examples=examples)
    assert best.risk >= nqm.bounds.bayes(PROBLEM, examples)


# --- what contains what ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("power", "batch"), [(0.0, 16), (0.0, 4096), (0.5, 1024)])
def test_more_pieces_are_never_worse(power, batch):
    """Each number of pieces contains the ones before, also at steps that they do not divide."""
    pieces = (1, 2, 5, 10, 20, 40)
    steps = [soonest(power, batch, k).steps for k in pieces]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] < steps[0]
    at = 1000 * 40 if power == 0.0 else 400
    risks = [optimize_schedule(PROBLEM, batch, steps=at, pieces=k, optimizer=sgd(power)).risk for k in pieces]
    assert all(more <= less * (1.0 + 1e-9) for less, more in itertools.pairwise(risks))
    assert risks[-1] < risks[0]


@pytest.mark.parametrize(("power", "batch"), [(0.0, 16), (0.0, 4096), (0.0, 2**18), (0.5, 1024)])
def test_one_piece_is_the_tuned_learning_rate(power, batch):
    one, tuned = soonest(power, batch, 1), nqm.tune(PROBLEM, sgd(power), batch, TARGET)
    assert one.steps == tuned.steps
    assert one.risk == pytest.approx(tuned.risk, rel=1e-9)
    assert one.schedule.values == pytest.approx([tuned.optimizer.hyperparameters["lr"]], rel=1e-4)


@pytest.mark.parametrize("optimizer", [SGD(FREE, FREE), SGD(FREE, 0.9), EMA(SGD(FREE), FREE)], ids=str)
def test_one_piece_is_tuned_with_momentum_or_averages_too(optimizer):
    """But for a ripple along the valley of momentum, at which ``tune`` looks more closely."""
    one = optimize_schedule(PROBLEM, 4096, target=TARGET, pieces=1, optimizer=optimizer)
    steps = nqm.tune(PROBLEM, optimizer, 4096, TARGET).steps
    assert steps <= one.steps <= (1.005 * steps if optimizer == SGD(FREE, FREE) else steps)


@pytest.mark.parametrize("optimizer", [SGD(FREE, FREE), SGD(FREE, FREE, nesterov=True), EMA(SGD(FREE), FREE)], ids=str)
def test_what_contains_sgd_is_never_worse(optimizer):
    best = optimize_schedule(PROBLEM, 1024, target=TARGET, pieces=5, optimizer=optimizer)
    assert best.status == "converged"
    assert best.steps <= soonest(0.0, 1024, 5).steps
    assert not best.optimizer.free


def test_larger_batches_are_never_worse():
    steps = [soonest(0.0, batch, 10).steps for batch in (4, 16, 64, 256, 1024, 4096, 2**14, 2**16)]
    assert steps == sorted(steps, reverse=True)


@pytest.mark.parametrize(("steps", "pieces"), [(5, 5), (40, 5)])
def test_a_higher_bound_of_the_learning_rates_is_never_worse(steps, pieces):
    bounds = (0.5, 2.0, 10.0, None)
    found = [optimize_schedule(SMALL, 32, steps=steps, pieces=pieces, max_lr=bound) for bound in bounds]
    for best, bound in zip(found, bounds, strict=True):
        assert np.all(best.schedule.values <= (bound or math.inf))
    assert all(more.risk <= less.risk * (1.0 + 1e-9) for less, more in itertools.pairwise(found))
    stable = optimize_schedule(SMALL, 32, steps=steps, pieces=pieces)
    assert stable.risk == pytest.approx(found[1].risk, rel=1e-9)  # 2 / h_1


def test_no_bound_at_all_is_never_worse_with_many_steps_a_piece():
    bounded, free = (optimize_schedule(PROBLEM, 1024, steps=2000, pieces=10, max_lr=bound) for bound in (100.0, None))
    assert free.risk <= bounded.risk * (1.0 + 1e-9)
