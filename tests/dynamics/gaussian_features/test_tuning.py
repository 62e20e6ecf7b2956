"""Tuning on Gaussian features: random search finds nothing sooner, and what must be the same."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from features import HARMONIC, PROBLEM, TUNED, features_of, scanned
from reference import Regression, Rule, regression_sum
from sizes import every

import nqm
from nqm import FREE

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


def test_the_same_answers_twice():
    problem, optimizer = features_of(PROBLEM), nqm.SGD([0.01, 0.03], 0.9)
    for function, rest in ((nqm.risk, (8, 10**6)), (nqm.steps_to_target, (8, 0.1)), (nqm.steady_state_risk, (8,))):
        assert np.array_equal(function(problem, optimizer, *rest), function(problem, optimizer, *rest))
    fresh = features_of(PROBLEM)
    assert np.array_equal(nqm.risk(fresh, optimizer, 8, 10**6), nqm.risk(problem, optimizer, 8, 10**6))
    assert nqm.tune(TUNED, KINDS["momentum"], 1024, TARGET) == tuned("momentum", 1024)
