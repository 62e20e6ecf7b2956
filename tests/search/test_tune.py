"""Tuning against the step counts of the paper's authors, against grids, random search, and what it must contain."""

from __future__ import annotations

import itertools
import json
import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import nqm
from nqm import FREE

TARGET = 0.01
POWERS = (0.0, 0.25, 0.5, 0.75)
BATCHES = tuple(4**k for k in range(1, 11))
CELLS = [(power, batch) for power in POWERS for batch in BATCHES]

# The bins on which the paper's authors tuned: 10^4 eigenvalues 1/i in 100 bins.
PROBLEM = nqm.NoisyQuadratic.power_law(10**4).binned(100)

KINDS = {
    "sgd": nqm.SGD(FREE),
    "momentum": nqm.SGD(FREE, momentum=FREE),
    "nesterov": nqm.SGD(FREE, momentum=FREE, nesterov=True),
    "ema": nqm.EMA(nqm.SGD(FREE), decay=FREE),
}

# Step counts of their public notebook, run unchanged but for names of NumPy's.
REFERENCE = json.loads((Path(__file__).parents[1] / "data" / "zhang2019_notebook_steps.json").read_text())


@cache
def tuned(kind, power, batch, target=TARGET):
    return nqm.tune(PROBLEM, nqm.Preconditioned(KINDS[kind], power), batch, target)


# --- the whole table ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("power", "batch"), CELLS)
def test_the_returned_optimizer_reaches_the_target_at_that_step_and_no_sooner(kind, power, batch):
    best = tuned(kind, power, batch)
    assert (best.status, best.batch_size, best.target) == ("tuned", batch, TARGET)
    assert type(best.steps) is int
    assert best.examples == best.steps * batch
    before, after = nqm.risk(PROBLEM, best.optimizer, batch, [best.steps - 1, best.steps])
    assert after <= TARGET < before
    assert best.risk == after
    assert nqm.steps_to_target(PROBLEM, best.optimizer, batch, TARGET) == best.steps
    assert 0.0 < best.optimizer.hyperparameters["lr"] < nqm.max_stable_lr(PROBLEM, best.optimizer)


@pytest.mark.parametrize("kind", ["momentum", "nesterov", "ema"])
@pytest.mark.parametrize(("power", "batch"), CELLS)
def test_what_contains_sgd_is_never_worse(kind, power, batch):
    assert tuned(kind, power, batch).steps <= tuned("sgd", power, batch).steps


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("power", POWERS)
def test_larger_batches_never_need_more_steps(kind, power):
    steps = [tuned(kind, power, batch).steps for batch in BATCHES]
    assert steps == sorted(steps, reverse=True)


REFERENCE_CELLS = [cell for kind in ("sgd", "momentum", "ema", "targets") for cell in REFERENCE[kind]]


def name_of(cell):
    return "-".join(str(cell[key]) for key in ("kind", "power", "batch", "target") if key in cell)


@pytest.mark.parametrize("cell", REFERENCE_CELLS, ids=name_of)
def test_never_more_steps_than_the_authors_notebook(cell):
    """The notebook returns the last step that does not reach the target.

    It adds 1e-8 to a denominator, and so counts up to a few steps too few: where it says less than is possible, its own
    hyperparameters must miss the target at its step.
    """
    target, steps = cell.get("target", TARGET), cell["steps"] + 1
    best = tuned(cell["kind"], cell["power"], cell["batch"], target)
    theirs = KINDS[cell["kind"]].with_values(**{k: cell[k] for k in ("lr", "momentum", "decay") if k in cell})
    theirs = nqm.Preconditioned(theirs, cell["power"])
    assert best.steps <= nqm.steps_to_target(PROBLEM, theirs, cell["batch"], target)
    assert best.steps <= steps or nqm.risk(PROBLEM, theirs, cell["batch"], steps) > target * (1 + 1e-5)


def test_what_the_authors_grid_costs():
    """Steps of the notebook over the fewest there are, at power 0 to 0.75: median, and at most.

    It has EMA slower than plain SGD in some cells, although a decay of 0 is plain SGD.
    """
    excess = {
        kind: [(c["steps"] + 1) / tuned(kind, c["power"], c["batch"]).steps for c in REFERENCE[kind]]
        for kind in ("sgd", "momentum", "ema")
    }
    medians = {kind: float(np.median(ratios)) for kind, ratios in excess.items()}
    assert medians == pytest.approx({"sgd": 1.007, "momentum": 1.05, "ema": 1.05}, abs=0.01)
    plain = {(c["power"], c["batch"]): c["steps"] for c in REFERENCE["sgd"]}
    assert any(c["steps"] > plain[c["power"], c["batch"]] for c in REFERENCE["ema"])


# --- grids and random search -------------------------------------------------------------------------------


def least_risk(problem, optimizers, batch, steps):
    return np.min(nqm.risk(problem, optimizers, batch, int(steps)))


def scattered(problem, optimizer, steps, count=10**5):
    """Random values for what is FREE: lr log-uniform below the stability limit, -log(1 - momentum or decay) uniform."""
    rng = np.random.default_rng(0)
    for name in set(optimizer.free) - {"lr"}:
        # a memory of more than about 7 times the run remembers no more of it
        optimizer = optimizer.with_values(**{name: 1.0 - np.exp(-rng.uniform(0.0, math.log(steps) + 2.0, count))})
    limit = nqm.max_stable_lr(problem, optimizer)
    return optimizer.with_values(lr=limit * np.exp(-rng.uniform(0.0, math.log(steps) + 6.0, count)))


def around(problem, optimizer, best, spread, count=10**5):
    """Random values close to the best ones found."""
    rng = np.random.default_rng(1)
    found = best.optimizer.hyperparameters
    for name in set(optimizer.free) - {"lr"}:
        memory = -math.log1p(-found[name]) + rng.normal(0.0, spread, count)
        optimizer = optimizer.with_values(**{name: 1.0 - np.exp(-np.maximum(memory, 0.0))})
    limit = nqm.max_stable_lr(problem, optimizer) * (1.0 - 1e-12)
    return optimizer.with_values(lr=np.minimum(limit, found["lr"] * np.exp(rng.normal(0.0, spread, count))))


def authors_grid(kind, power):
    """lr = 10^(k/18) for SGD; else lr = 10^(k/11) and 1 - momentum = 10^(-5k/19), as the numbers in their table are."""
    optimizer = nqm.Preconditioned(KINDS[kind], power)
    if kind == "sgd":
        return optimizer.with_values(lr=10.0 ** (np.arange(-90, 10) / 18.0))
    second = 1.0 - 10.0 ** (-5.0 * np.arange(20)[:, None] / 19.0)
    return optimizer.with_values(**{"lr": 10.0 ** (np.arange(-88, 12) / 11.0), optimizer.free[1]: second})


@pytest.mark.parametrize("kind", ["sgd", "momentum", "ema"])
@pytest.mark.parametrize(("power", "batch"), CELLS)
def test_no_point_of_the_authors_grid_is_sooner(kind, power, batch):
    """The risk is not monotone, so a look at the step before is not enough: earlier ones too."""
    steps, grid = tuned(kind, power, batch).steps, authors_grid(kind, power)
    for share in (0.5, 0.9, 0.99, 0.999, 1.0):
        assert least_risk(PROBLEM, grid, batch, max(0, int(share * steps) - 1)) > TARGET


SEARCHED = [
    ("sgd", 0.0, 4),
    ("sgd", 0.5, 2**16),
    ("momentum", 0.0, 2**4),
    ("momentum", 0.0, 2**10),
    ("momentum", 0.0, 2**12),
    ("momentum", 0.0, 2**14),
    ("momentum", 0.0, 2**20),
    ("momentum", 0.25, 2**8),
    ("momentum", 0.5, 2**12),
    ("momentum", 0.75, 2**16),
    ("nesterov", 0.0, 2**12),
    ("nesterov", 0.25, 2**14),
    ("ema", 0.0, 2**8),
    ("ema", 0.25, 2**12),
    ("ema", 0.5, 4),
]


@pytest.mark.parametrize(("kind", "power", "batch"), SEARCHED)
def test_random_search_finds_nothing_sooner(kind, power, batch):
    """10^5 points over the whole space, and as many around the best point, at one step less."""
    best, optimizer = tuned(kind, power, batch), nqm.Preconditioned(KINDS[kind], power)
    for points in (scattered(PROBLEM, optimizer, best.steps), around(PROBLEM, optimizer, best, 0.2)):
        assert least_risk(PROBLEM, points, batch, best.steps - 1) > TARGET


@pytest.mark.parametrize(("kind", "power", "batch"), SEARCHED)
def test_among_ties_the_lowest_risk(kind, power, batch):
    """No point nearby has a lower risk at the step found."""
    best, optimizer = tuned(kind, power, batch), nqm.Preconditioned(KINDS[kind], power)
    points = around(PROBLEM, optimizer, best, 0.01, 10**4)
    assert least_risk(PROBLEM, points, batch, best.steps) > best.risk * (1 - 1e-8)


@pytest.mark.parametrize("batch", [pytest.param(2**8, marks=pytest.mark.thorough), 2**12])
def test_three_at_once(batch):
    """Momentum under an average is never worse than either alone."""
    optimizer = nqm.EMA(KINDS["momentum"], FREE)
    best = nqm.tune(PROBLEM, optimizer, batch, TARGET)
    assert best.status == "tuned"
    assert best.steps <= min(tuned("momentum", 0.0, batch).steps, tuned("ema", 0.0, batch).steps)
    assert nqm.steps_to_target(PROBLEM, best.optimizer, batch, TARGET) == best.steps
    for points in (scattered(PROBLEM, optimizer, best.steps), around(PROBLEM, optimizer, best, 0.1)):
        assert least_risk(PROBLEM, points, batch, best.steps - 1) > TARGET


# On few steps and without much noise the landscape is at its roughest: waves of the largest curvatures all over it.
# Every fifth of them in each run, with the two that were missed once.
ROUGH = [
    pytest.param(*case, marks=() if number % 5 == 0 or number in (6, 19) else pytest.mark.thorough)
    for number, case in enumerate(
        itertools.product(
            (nqm.SGD(FREE, 0.99), KINDS["momentum"], KINDS["nesterov"]),
            (1.0, 1.5),
            (2**12, 2**16, 2**20),
            (0.1, 0.03, 0.01),
        )
    )
]


@pytest.mark.parametrize(("optimizer", "exponent", "batch", "share"), ROUGH, ids=str)
def test_rough_landscapes(optimizer, exponent, batch, share):
    problem = nqm.NoisyQuadratic.power_law(10**4, exponent).binned(50)
    target = share * problem.initial_risk
    best = nqm.tune(problem, optimizer, batch, target)
    for steps in (0.9 * best.steps, best.steps - 1):
        points = scattered(problem, optimizer, best.steps, 20_000)
        assert least_risk(problem, points, batch, steps) > target


@pytest.mark.parametrize("optimizer", [nqm.SGD(0.5, momentum=FREE), nqm.EMA(nqm.SGD(1.0), FREE)], ids=str)
def test_one_free_beside_a_given_learning_rate(optimizer):
    """A fine scan over the only free number finds nothing sooner."""
    best = nqm.tune(PROBLEM, optimizer, 4096, TARGET)
    name = optimizer.free[0]
    scan = optimizer.with_values(**{name: 1.0 - np.geomspace(1.0, 1e-6, 20_000)})
    assert best.status == "tuned"
    assert nqm.risk(PROBLEM, best.optimizer, 4096, best.steps) <= TARGET
    assert nqm.risk(PROBLEM, scan, 4096, best.steps - 1).min() > TARGET


@pytest.mark.parametrize("momentum", [0.5, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("batch", [2**10, 2**14, 2**18])
def test_a_given_momentum(momentum, batch):
    best = nqm.tune(PROBLEM, nqm.SGD(FREE, momentum), batch, TARGET)
    assert best.optimizer.momentum == momentum
    limit = nqm.max_stable_lr(PROBLEM, best.optimizer)
    scan = nqm.SGD(limit * np.geomspace(1e-4, 1.0 - 1e-9, 10_000), momentum)
    assert least_risk(PROBLEM, scan, batch, best.steps - 1) > TARGET


def test_power_laws_are_tuned_on_the_explicit_sum():
    problem, explicit = nqm.NoisyQuadratic.power_law(1000), nqm.NoisyQuadratic(1.0 / np.arange(1.0, 1001.0))
    for optimizer in KINDS.values():
        best = nqm.tune(problem, optimizer, 1024, TARGET)
        assert nqm.tune(explicit, optimizer, 1024, TARGET).steps == best.steps
        assert nqm.steps_to_target(explicit, best.optimizer, 1024, TARGET) == best.steps


def test_any_optimizer_of_ones_own():
    """Heavy ball written by hand, momentum fixed: the same steps."""
    by_hand = nqm.LinearOptimizer(FREE, [[1, 0.9], [0, 0.9]], [1, 1])
    steps = [nqm.tune(PROBLEM, optimizer, 4096, TARGET).steps for optimizer in (by_hand, nqm.SGD(FREE, 0.9))]
    assert steps[0] == steps[1]


# --- bounds and ends ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bounds",
    [
        {"lr": (1e-3, 1e-2)},
        {"lr": (1e-4, 2e-4), "momentum": (0.5, 0.6)},
        {"momentum": (0.0, 0.3)},
        {"momentum": (0.95, 0.999)},
        {"lr": (0.1, 0.5), "momentum": (0.9, 0.91)},
    ],
    ids=str,
)
def test_bounds_are_respected_and_the_best_inside_them_found(bounds):
    best = nqm.tune(PROBLEM, KINDS["momentum"], 4096, TARGET, bounds)
    for name, (low, high) in bounds.items():
        assert low <= getattr(best.optimizer, name) <= high
    assert nqm.risk(PROBLEM, best.optimizer, 4096, best.steps) <= TARGET
    low, high = bounds.get("momentum", (0.0, 1.0 - 1e-6))
    momentum = 1.0 - np.geomspace(1.0 - low, 1.0 - high, 150)[:, None]
    limit = nqm.max_stable_lr(PROBLEM, nqm.SGD(FREE, momentum)) * (1.0 - 1e-9)
    low, high = bounds.get("lr", (1e-6, math.inf))
    lr = np.minimum(low * (np.minimum(high, limit) / low) ** np.linspace(0.0, 1.0, 150), limit)
    assert nqm.risk(PROBLEM, nqm.SGD(lr, momentum), 4096, best.steps - 1).min() > TARGET


LEAST = {
    "sgd": nqm.SGD(FREE),
    "momentum": nqm.SGD(FREE, FREE),
    "nesterov": nqm.SGD(FREE, FREE, nesterov=True),
    "ema": nqm.EMA(nqm.SGD(FREE), FREE),
    "three": nqm.EMA(nqm.SGD(FREE, FREE), FREE),
    "preconditioned": nqm.Preconditioned(nqm.SGD(FREE, FREE), 0.5),
    "a given lr": nqm.SGD(0.5, FREE),
    "a schedule": nqm.EMA(nqm.SGD(nqm.Schedule([1.0, 0.3, 0.1], [20, 200, 1])), FREE),
}


@pytest.mark.parametrize(("steps", "batch"), [(1, 64), (30, 4096), (500, 4096), (20_000, 256)])
@pytest.mark.parametrize("kind", LEAST)
def test_nothing_is_lower_after_given_steps(kind, steps, batch):
    """20,000 random points, and as many around the answer."""
    best = nqm.tune(PROBLEM, LEAST[kind], batch, steps=steps)
    assert (best.status, best.steps, best.target) == ("tuned", steps, None)
    assert best.risk == nqm.risk(PROBLEM, best.optimizer, batch, steps)
    rng, points, near = np.random.default_rng(0), LEAST[kind], best.optimizer
    for name in set(points.free) - {"lr"}:
        points = points.with_values(**{name: 1.0 - np.exp(-rng.uniform(0.0, math.log(steps) + 2.0, 20_000))})
        rest = (1.0 - near.hyperparameters[name]) * np.exp(rng.uniform(-0.2, 0.2, 20_000))
        near = near.with_values(**{name: 1.0 - np.minimum(rest, 1.0)})
    if "lr" in points.free:
        limit = nqm.max_stable_lr(PROBLEM, points)
        points = points.with_values(lr=limit * np.exp(-rng.uniform(0.0, math.log(steps) + 4.0, 20_000)))
        limit = nqm.max_stable_lr(PROBLEM, near) * (1.0 - 1e-9)
        lr = near.hyperparameters["lr"] * np.exp(rng.uniform(-0.2, 0.2, 20_000))
        near = near.with_values(lr=np.minimum(lr, limit))
    for cloud in (points, near):
        assert best.risk <= nqm.risk(PROBLEM, cloud, batch, steps).min() * (1.0 + 1e-9)


def test_given_steps_are_those_of_optimize_schedule_with_one_piece():
    best = nqm.tune(PROBLEM, nqm.SGD(FREE), 256, steps=20_000)
    piece = nqm.optimize_schedule(PROBLEM, 256, steps=20_000, pieces=1, shape=nqm.schedules.constant)
    assert best.optimizer.lr == pytest.approx(piece.schedule.values[0], rel=1e-4)
    assert best.risk == pytest.approx(piece.risk, rel=1e-9)
    regression = nqm.NoisyQuadratic([1.0, 0.1], noise_model="gaussian-features", label_noise=0.5)
    best = nqm.tune(regression, nqm.SGD(FREE), 8, steps=200)
    grid = nqm.SGD(nqm.max_stable_lr(regression, nqm.SGD(FREE), 8) * np.geomspace(1e-4, 1.0, 2000, endpoint=False))
    assert best.risk <= nqm.risk(regression, grid, 8, 200).min() * (1.0 + 1e-9)


def test_either_a_target_or_steps():
    for given in ({}, {"target": 0.1, "steps": 10}):
        with pytest.raises(ValueError, match=r"expected exactly one of target and steps, got (none|both)"):
            nqm.tune(PROBLEM, nqm.SGD(FREE), 8, **given)
    with pytest.raises(ValueError, match="steps: expected whole numbers from 1"):
        nqm.tune(PROBLEM, nqm.SGD(FREE), 8, steps=0)


def test_bounds_that_leave_out_the_optimum_end_on_the_bound():
    free = nqm.tune(PROBLEM, KINDS["sgd"], 4096, TARGET)
    best = nqm.tune(PROBLEM, KINDS["sgd"], 4096, TARGET, {"lr": (1e-3, free.optimizer.lr / 10)})
    assert best.optimizer.lr == pytest.approx(free.optimizer.lr / 10, rel=1e-6)
    assert best.steps > free.steps


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_out_of_reach(kind):
    """With bounds that keep the noise up."""
    bounds = {"lr": (0.5, 1.0), "decay": (0.0, 0.5)} if kind == "ema" else {"lr": (0.5, 1.0)}
    best = nqm.tune(PROBLEM, KINDS[kind], 4, TARGET, bounds)
    assert (best.status, best.steps) == ("unreachable", math.inf)
    assert math.isfinite(best.risk)
    assert best.risk > TARGET
    assert not best.optimizer.free


@pytest.mark.parametrize("kind", KINDS)
def test_already_there(kind):
    best = nqm.tune(PROBLEM, KINDS[kind], 4, PROBLEM.initial_risk)
    assert (best.status, best.steps, best.risk) == ("already there", 0, PROBLEM.initial_risk)
    assert not best.optimizer.free


def test_one_step_is_enough():
    """With a preconditioner of power 1, Newton's step is there at once."""
    best = nqm.tune(PROBLEM, nqm.Preconditioned(nqm.SGD(FREE), 1.0), 1e9, TARGET)
    assert (best.status, best.steps) == ("tuned", 1)


@pytest.mark.parametrize("kind", KINDS)
def test_without_noise_and_with_one_eigenvalue_one_step_is_enough(kind):
    best = nqm.tune(nqm.NoisyQuadratic(0.3, noise=0.0), KINDS[kind], 1, 1e-6)
    assert (best.status, best.steps) == ("tuned", 1)


def test_the_same_answer_twice():
    assert nqm.tune(PROBLEM, KINDS["momentum"], 4096, TARGET) == nqm.tune(PROBLEM, KINDS["momentum"], 4096, TARGET)
