"""First and last crossings along schedules, against a scan of the risk, and in few leaps."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from building import optimizer_of
from scheduled_cases import BATCH, FAMILIES, LR, SPECTRUM, limit_of, rule_of

import nqm
from nqm import schedules
from nqm.backends.kernels import first_passage as leaps
from nqm.schedules import Schedule
from nqm.search import first_passage

# Schedules that are held to see what a walk makes of that.
pytestmark = pytest.mark.filterwarnings("ignore:the target is reached after the schedule's end")

KINDS = [*itertools.product(FAMILIES, (False, True)), "filter"]


def crossings(problem, optimizer, batch, target):
    return tuple(nqm.steps_to_target(problem, optimizer, batch, target, crossing) for crossing in ("first", "last"))


def scanned(risks, target):
    """First and last crossing of a curve whose end stands for all that follows."""
    above = np.flatnonzero(~(risks <= target))
    first = float(np.argmax(risks <= target)) if above.size < risks.size else math.inf
    last = float(above[-1] + 1) if above.size else 0.0
    return first, (math.inf if last == risks.size else last)


def random_course(kind, rng):
    """Settled 5000 steps after the end, if it is held; until then learning rates of 0 and beyond the limit as well."""
    if kind == "filter":
        optimizer, limit = nqm.LinearOptimizer(1.0, [[1, 0.5, 0], [0, 0.5, 0.1], [0, 0, 0.3]], [1, 1, 0.2]), 1.4
    else:
        momentum, decay = rng.choice([rng.uniform(), 0.97]), rng.choice([rng.uniform(), 0.99])
        rule = rule_of(kind[0], 0.0, kind[1], float(momentum), float(decay))
        optimizer, limit = optimizer_of(rule), limit_of(rule)
    pieces = rng.integers(1, 7)
    x = rng.uniform(0.1, 0.99, size=pieces)
    lengths = rng.integers(1, rng.choice([10, 100, 1000]), size=pieces)
    x[:-1] **= rng.choice([1.0, 4.0])
    if rng.uniform() < 0.3:
        x[rng.integers(pieces)] = 0.0
    wild = int(rng.integers(pieces))
    if wild < pieces - 1 and rng.uniform() < 0.2:
        x[wild], lengths[wild] = 1.3, min(lengths[wild], 60)
    lr = Schedule(limit * x, lengths, beyond=rng.choice(["hold", "hold", "error"]))
    batch = 10.0 ** rng.uniform(0.0, 4.0, size=3)
    ramp = Schedule(batch, rng.integers(1, 500, 3), beyond=rng.choice(["hold", "hold", "hold", "error"]))
    return optimizer.with_values(lr=lr), ramp if rng.integers(2) else batch[0]


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_crossings_are_those_of_a_scan(kind, seed):
    rng = np.random.default_rng(1000 * KINDS.index(kind) + seed)
    h = np.append(10.0 ** rng.uniform(-1.5, 0.0, size=2), 1.0)
    c = rng.exponential(size=3) * h * rng.choice([0.0, 1.0, 1.0])
    problem = nqm.NoisyQuadratic(h, c, rng.exponential(size=3))
    optimizer, batch = random_course(kind, rng)
    lr = optimizer.schedule
    ends = [s.steps for s in (lr, batch) if isinstance(s, Schedule) and s.beyond == "error"]
    end = min(ends, default=lr.steps + 6000)
    risks = nqm.risk(problem, optimizer, batch, np.arange(end + 1))
    if not ends:
        settled = nqm.steady_state_risk(problem, optimizer, batch) if lr.values[-1] else risks[-1]
        assert np.all(np.abs(risks[-1000:] - settled) <= 1e-3 * settled + 1e-12)
    finite = risks[np.isfinite(risks)]
    low, high, last = finite.min(), finite.max(), finite[-1]
    targets = [
        *(low + (high - low) * rng.uniform(1e-3, 0.999, size=3)),
        1.01 * last,
        0.99 * last,
        0.5 * low,
        2.0 * high,
    ]
    for target in targets:
        if target > 1e-11:
            assert crossings(problem, optimizer, batch, target) == scanned(risks, target), (optimizer, batch, target)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_walk_needs_no_correction(kind, monkeypatch):
    """`risk` has the last word on the step, for the sake of last digits; it must not have to move it."""
    looks, risk = [], first_passage.risk

    def counting(problem, optimizer, batch_size, steps):
        looks.append(steps)
        return risk(problem, optimizer, batch_size, steps)

    monkeypatch.setattr(first_passage, "risk", counting)
    for seed in range(8):
        optimizer, batch = random_course(kind, np.random.default_rng(seed))
        for target in np.geomspace(0.05, 0.9, 5) * SPECTRUM.initial_risk:
            for crossing in ("first", "last"):
                looks.clear()
                nqm.steps_to_target(SPECTRUM, optimizer, batch, target, crossing)
                assert sum(isinstance(steps, list) for steps in looks) <= 1


def test_the_courses_are_hard():
    """Many cross a target more than once, some stop for good, and some explode."""
    courses = [random_course(kind, np.random.default_rng(seed)) for kind in KINDS for seed in range(30)]
    lrs = [optimizer.schedule for optimizer, _ in courses]
    assert 10 < sum(lr.values[-1] == 0.0 for lr in lrs) < 100
    assert sum(0.0 in lr.values[:-1] for lr in lrs) > 10
    assert 50 < sum(lr.beyond == "error" for lr in lrs) < 100
    assert 50 < sum(isinstance(batch, Schedule) for _, batch in courses) < 150


def test_the_end_of_a_schedule():
    """With "error" the risk after its last step still counts; a target beyond is never reached."""
    problem, values = nqm.NoisyQuadratic([1.0, 0.1], 0.0), ([0.5, 0.1], [100, 100])
    risks = nqm.risk(problem, nqm.SGD(Schedule(*values)), 1, np.arange(301))
    ends, held, stopped = (nqm.SGD(lr) for lr in (
        Schedule(*values, beyond="error"), Schedule(*values), Schedule(*values).then(Schedule(0.0, 1))
    ))  # fmt: skip
    above, below = 1.001 * risks[200], 0.999 * risks[200]
    assert crossings(problem, ends, 1, above) == crossings(problem, held, 1, above) == (200, 200)
    assert crossings(problem, ends, 1, below) == crossings(problem, stopped, 1, below) == (math.inf, math.inf)
    assert crossings(problem, held, 1, below) == (201, 201)
    assert crossings(problem, nqm.SGD(0.1), Schedule(1.0, 50, beyond="error"), 1e-3) == (math.inf, math.inf)


@pytest.mark.parametrize("optimizer", [nqm.SGD(LR), nqm.SGD(LR, 0.9), nqm.EMA(nqm.SGD(LR, 0.5), 0.9)], ids=str)
@pytest.mark.parametrize("target", [2.0, 0.5, 0.3])
def test_power_laws_are_scanned_like_the_explicit_sum(optimizer, target):
    explicit = nqm.NoisyQuadratic(1.0 / np.arange(1.0, 2001.0))
    optimizer, batch = optimizer.with_values(lr=LR.then(Schedule(0.3, 1))), Schedule([64.0, 2.0**16], 100)
    expected = scanned(nqm.risk(explicit, optimizer, batch, np.arange(2000)), target)
    assert 0 < expected[0] < 2000
    assert crossings(nqm.NoisyQuadratic.power_law(2000), optimizer, batch, target) == expected
    assert crossings(explicit, optimizer, batch, target) == expected


LONG = {
    "held after a warm-up": (nqm.SGD(schedules.warmup(Schedule(1e-9, 1), 50)), 1e3, 0.3),
    "held with momentum": (nqm.SGD(Schedule([1e-3, 1e-10], 20), 0.9), 1e4, 0.2),
    "held with an average": (nqm.EMA(nqm.SGD(Schedule([1e-3, 1e-9], 20), 0.5), 0.99), 1e4, 0.2),
    "a drop after 10^9 steps": (nqm.SGD(Schedule([0.5, 1e-6], [10**9, 10**9])), 10.0, 1e-4),
    "a drop with momentum": (nqm.SGD(Schedule([0.5, 1e-6], [10**9, 10**9]), 0.9), 10.0, 1e-4),
    "more examples after 10^9 steps": (nqm.SGD(0.1), Schedule([1.0, 1000.0], 10**9), 1e-4),
    "and with error beyond": (nqm.SGD(Schedule([0.5, 1e-6], 10**9, beyond="error"), 0.9), 10.0, 1e-4),
}


@pytest.mark.parametrize("crossing", ["first", "last"])
@pytest.mark.parametrize("name", LONG)
def test_long_pieces_take_few_leaps(name, crossing, monkeypatch):
    tried, march = [], leaps.first_passage

    def counting(*arguments):
        progress = arguments[2][-1]
        before = int(progress[3])
        status = march(*arguments)
        tried.append(int(progress[3]) - before)
        return status

    monkeypatch.setattr(leaps, "first_passage", counting)
    problem = nqm.NoisyQuadratic([1.0, 0.1])
    optimizer, batch, target = LONG[name]
    steps = nqm.steps_to_target(problem, optimizer, batch, target, crossing)
    before, after = nqm.risk(problem, optimizer, batch, [steps - 1, steps])
    assert after <= target < before
    assert steps > 10**8
    assert sum(tried) < 400


def test_broadcasting_of_crossings():
    optimizer = nqm.SGD(LR, np.array([0.0, 0.9])[:, None])
    target = [0.5, 0.2, 1e-9]
    found = nqm.steps_to_target(SPECTRUM, optimizer, BATCH, target)
    assert found.shape == (2, 3)
    assert found.dtype == np.float64
    for i, j in np.ndindex(found.shape):
        alone = nqm.steps_to_target(SPECTRUM, nqm.SGD(LR, optimizer.momentum[i, 0]), BATCH, target[j])
        assert found[i, j] == alone
        assert type(alone) is (float if alone == math.inf else int)
    assert np.all(found[:, 2] == math.inf)
    assert np.all(found[:, 0] < math.inf)


def test_rows_of_very_different_learning_rates_know_nothing_of_each_other():
    """Followed in one unit, the small ones would underflow."""
    ramp = Schedule([1.0, 2.0], [5, 5])
    rates = [0.5, 1e200, 1e-200, 1e80, 0.25]
    found = nqm.risk(nqm.NoisyQuadratic([1.0]), nqm.SGD(np.array(rates)), ramp, [8])
    alone = [nqm.risk(nqm.NoisyQuadratic([1.0]), nqm.SGD(lr), ramp, 8) for lr in rates]
    assert np.array_equal(found, alone)
    steep = nqm.NoisyQuadratic([1e100])
    found = nqm.risk(steep, nqm.SGD(np.array([1e-100, 1e80, 1e250])), ramp, 1)
    assert found[0] == nqm.risk(steep, nqm.SGD(1e-100), ramp, 1)
