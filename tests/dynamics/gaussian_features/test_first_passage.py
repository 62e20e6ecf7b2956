"""First and last crossings on Gaussian features: those of a scan, where 60 digits say, and without long walks."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from features import HEAVY, PROBLEM, SGD, at_limit, crossings, features, features_of, made, radius, scanned, soon
from reference import Linear, Regression, Rule, moment_system, regression_course, regression_risks
from sizes import every

import nqm
from nqm import FREE


def random_rule(rng):
    """Of every kind; the learning rate is 1."""
    if rng.random() < 0.15:
        states = int(rng.integers(2, 4))
        transition = rng.normal(size=(states, states))
        transition *= rng.uniform(0.8, 0.99) / np.abs(np.linalg.eigvals(transition)).max()
        vectors = [tuple(v) for v in rng.normal(size=(4, states)).tolist()]
        return Linear(1.0, tuple(map(tuple, transition.tolist())), *vectors)
    momentum = float(rng.choice([0.0, rng.uniform(), 0.9, 0.99]))
    decay = float(rng.choice([rng.uniform(), 0.9, 0.99])) if rng.random() < 0.4 else None
    return Rule(1.0, momentum, bool(rng.integers(2)), float(rng.choice([0.0, 0.0, 0.5])), decay)


def random_problem(rng):
    """Some coordinates start at the optimum and rise; some labels are exact."""
    n = int(rng.integers(1, 4))
    init = rng.exponential(size=n) * (rng.random(n) < 0.7)
    h, multiplicity = 10.0 ** -rng.uniform(0.0, 2.5, n), rng.integers(1, 30, n).astype(float)
    label_noise = float(rng.choice([0.0, 0.01, 1.0, 100.0]))
    return Regression(*(tuple(a.tolist()) for a in (h, multiplicity, init)), label_noise)


def random_pieces(rng, lr, batch):
    """Schedules of learning rate, and at half of the times of batch size, that end at these."""
    count = int(rng.integers(2, 5))
    rates = [*(lr * 10.0 ** rng.uniform(-2.0, 0.2, count - 1)).tolist(), lr]
    sizes = [*(batch * 2.0 ** rng.integers(-1, 3, count - 1)).tolist(), batch] if rng.integers(2) else [batch] * count
    return list(zip(rates, sizes, rng.integers(1, 400, count).tolist(), strict=True))


def settled_after(rule, problem, batch):
    """Steps after which the risk has settled (to 1e-13 of the steady state, or of its start without one), or exploded
    by e^300; None where that takes more than 10^5."""
    full, start, readout = moment_system(rule, problem, batch)
    rate = radius(rule, problem, batch) - 1.0
    if rate > 0.0:
        needed = 300.0 / rate
    else:
        steady = readout[:-1] @ np.linalg.solve(np.eye(len(full) - 1) - full[:-1, :-1], full[:-1, -1])
        larger = readout @ start / steady if steady > 0.0 else 1.0
        needed = (35.0 + max(0.0, math.log(max(larger, 1e-9)))) / -rate
    return int(needed) if needed < 1e5 else None


def some_targets(risks, problem, unstable, rng):
    """Levels crossed often, once, barely and never; none where rounding errors of either side decide."""
    risks = risks[np.isfinite(risks)]
    low, high = risks.min(), min(risks.max(), 1e6 * max(risks.min(), 1e-9))
    levels = low + (high - low) * rng.uniform(0.001, 0.999, 3)
    targets = [
        low * (1.0 + 1e-9),
        low * (1.0 - 1e-9),
        1.01 * risks[-1],
        0.99 * risks[-1],
        *levels,
        2.0 * high,
        0.5 * low,
    ]
    top = 1e-3 * risks[-1] if unstable else math.inf
    floor = 1e-9 * max(risks[0], high) if problem.label_noise == 0.0 else 0.0
    return [t for t in targets if floor < t < top and np.abs(risks - t).min() > 1e-10 * t]


def scanned_case(rng):
    """(problem, optimizer, batch size, risks, targets) of a random case, or None where a scan would take too long."""
    problem, rule = random_problem(rng), random_rule(rng)
    batch = float(rng.choice([1.0, 4.0, 64.0, 1024.0]))
    given = features_of(problem)
    share = float(rng.choice([0.03, 0.3, 0.7, 0.95, 0.999, 1.001, 1.05, 1.5]))
    try:
        limit = nqm.max_stable_lr(given, made(rule), batch)
    except np.linalg.LinAlgError:  # see test_the_limit_of_a_filter_with_one_state
        return None
    rule = replace(rule, lr=float(share * limit) if limit < 1e100 else share)
    ends, scheduled = rng.random() < 0.3, rng.random() < 0.5
    steps, unstable = settled_after(rule, problem, batch), radius(rule, problem, batch) > 1.0
    pieces = random_pieces(rng, rule.lr, batch) if scheduled else [(rule.lr, batch, 1)]
    if scheduled and ends:
        steps = 0
    if steps is None:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        risks = regression_course(rule, problem, [*pieces[:-1], (*pieces[-1][:2], pieces[-1][2] + steps)])
    if not np.any(risks > 0.0):
        return None
    optimizer, size = made(rule), batch
    if scheduled:
        rates, sizes, lengths = zip(*pieces, strict=True)
        beyond = "error" if ends else "hold"
        optimizer = optimizer.with_values(lr=nqm.Schedule(rates, lengths, beyond))
        size = nqm.Schedule(sizes, lengths, beyond) if len(set(sizes)) > 1 else batch
    return given, optimizer, size, risks, some_targets(risks, problem, unstable and steps > 0, rng)


@pytest.mark.filterwarnings("ignore:the target is reached after the schedule's end")
@pytest.mark.parametrize("seed", every(3, range(12)))
def test_crossings_are_those_of_a_scan(seed):
    """Twelve random problems each, some eight targets for each, first and last; none takes a second."""
    rng, compared = np.random.default_rng(seed), 0
    for _ in range(12):
        case = scanned_case(rng)
        if case is None:
            continue
        problem, optimizer, batch, risks, targets = case
        for target in targets:
            with soon():
                found = crossings(problem, optimizer, batch, target)
            assert found == scanned(risks, target), (problem.__getstate__(), optimizer, batch, target)
            compared += 1
    assert compared > 40


HARD_SHAPES = {
    "coordinates that rise": (SGD, Regression((1.0, 0.05, 0.02), (1.0, 30.0, 50.0), (0.0, 1.0, 0.0), 1.0), 4.0, 0.3),
    "falls, then rises": (SGD, Regression((1.0, 0.01), (1.0, 100.0), (1.0, 0.0), 0.1), 8.0, 0.1),
    "only rises": (HEAVY, Regression((1.0, 0.03), (1.0, 9.0), (0.0, 0.0), 1.0), 4.0, 0.9),
    "rises before it falls": (SGD, Regression((1.0, 0.1), (1.0, 1.0), (0.0, 300.0), 0.1), 2.0, 0.7),
    "underdamped": (Rule(1.0, 0.995), Regression((1.0, 0.3), (1.0, 2.0), (1.0, 1.0), 1e-3), 4096.0, 0.5),
    "underdamped average": (Rule(1.0, 0.995, True, 0.0, 0.9), Regression((1.0,), (1.0,), (1.0,), 1e-3), 4096.0, 0.3),
    "slow average": (Rule(1.0, decay=0.998), Regression((1.0, 0.3), (1.0, 2.0), (1.0, 1.0), 1.0), 1.0, 0.9),
    "below the limit": (SGD, Regression((1.0, 0.1), (1.0, 5.0), (3.0, 9.0), 1.0), 8.0, 0.99),
    "below the limit, momentum": (HEAVY, Regression((1.0, 0.1), (1.0, 5.0), (3.0, 9.0), 1.0), 8.0, 0.99),
    "above the limit": (SGD, Regression((1.0, 0.1), (1.0, 5.0), (0.0, 900.0), 1e-3), 1024.0, 1.0001),
    "above the limit, momentum": (HEAVY, Regression((1.0, 0.1), (1.0, 5.0), (0.0, 900.0), 1e-3), 1024.0, 1.0001),
}


@pytest.mark.parametrize("name", HARD_SHAPES)
def test_hard_shapes_are_those_of_a_scan(name):
    rule, problem, batch, share = HARD_SHAPES[name]
    rule = at_limit(rule, problem, batch, share)
    unstable = radius(rule, problem, batch) > 1.0
    risks = regression_course(rule, problem, [(rule.lr, batch, 60_000)])
    full, _, readout = moment_system(rule, problem, batch)
    steady = readout[:-1] @ np.linalg.solve(np.eye(len(full) - 1) - full[:-1, :-1], full[:-1, -1])
    assert unstable or risks[-1] == pytest.approx(steady, rel=1e-9, abs=0.0)
    rng = np.random.default_rng(0)
    levels = risks[np.unique(np.geomspace(1, 60_000, 30).astype(int))] * (1.0 + 1e-7 * rng.normal(size=None))
    targets = [*levels, risks.min() * (1.0 + 1e-8), risks.min() * (1.0 - 1e-8), risks.max() * (1.0 + 1e-6)]
    if not unstable:
        targets += [steady * (1.0 + 1e-7), steady * (1.0 - 1e-7)]
    for target in targets:
        if not np.abs(risks - target).min() > 1e-10 * target or (unstable and target >= risks[-1]):
            continue
        with soon():
            assert crossings(features_of(problem), made(rule), batch, target) == scanned(risks, target), target


def test_the_hard_shapes_are_what_they_are_called():
    """The oscillating one crosses dozens of times; the rising ones rise."""

    def course(name):
        rule, problem, batch, share = HARD_SHAPES[name]
        rule = at_limit(rule, problem, batch, share)
        return regression_course(rule, problem, [(rule.lr, batch, 20_000)])

    risks = course("underdamped")
    assert np.count_nonzero(np.diff(risks <= 0.05)) > 50
    risks = course("rises before it falls")
    assert risks.max() > 1.05 * risks[0]
    assert risks[-1] < 0.5 * risks[0]
    risks = course("falls, then rises")
    assert risks.min() < 0.9 * min(risks[0], risks[-1])
    assert np.all(np.diff(course("only rises")[:100]) > 0.0)


LONG_WAYS = {
    "SGD": (replace(SGD, lr=1e-7), 1e-3),
    "heavy ball": (Rule(1e-9, 0.99), 1e-3),
    "EMA": (Rule(1e-7, decay=0.9999), 1e-3),
    "slow EMA": (Rule(1e-4, decay=1.0 - 1e-7), 1e-2),
    "preconditioned": (Rule(1e-8, power=0.5), 1e-3),
}


@pytest.mark.parametrize("name", LONG_WAYS)
def test_long_ways(name):
    """More than 10^7 steps, over which the risk only falls: the crossing is where 60 digits say."""
    rule, target = LONG_WAYS[name]
    with soon():
        first, last = crossings(features_of(PROBLEM), made(rule), 8.0, target)
    assert first == last > 10**7
    before, after = regression_risks(rule, PROBLEM, [(rule.lr, 8.0, 1)], [int(first) - 1, int(first)], Decimal)
    slack = Decimal("1e-10")  # rounding errors of the risk itself
    assert before * (1 + slack) > Decimal(target) >= after * (1 - slack)


@pytest.mark.parametrize("rule", [replace(SGD, lr=0.05), replace(HEAVY, lr=0.005), Rule(0.05, decay=0.9)], ids=str)
def test_targets_at_the_ends(rule):
    problem, optimizer = features_of(PROBLEM), made(rule)
    steady = nqm.steady_state_risk(problem, optimizer, 4)
    first, last = crossings(problem, optimizer, 4, steady * (1.0 + 1e-9))
    assert 0 < first <= last < math.inf
    assert crossings(problem, optimizer, 4, steady * (1.0 - 1e-9)) == (math.inf, math.inf)
    assert crossings(problem, optimizer, 4, 1e-300) == (math.inf, math.inf)
    assert crossings(problem, optimizer, 4, 1e300) == (0, 0)
    assert crossings(problem, optimizer, 4, problem.initial_risk) == (0, 0)
    with soon():
        at = nqm.steps_to_target(problem, optimizer, 4, steady * (1.0 + 1e-12))
        assert at == math.inf or nqm.risk(problem, optimizer, 4, at) <= steady * (1.0 + 1e-12)


@pytest.mark.parametrize("lr", [0.1, 50.0])
def test_a_problem_that_starts_at_its_optimum_without_label_noise_is_there(lr):
    with soon():
        assert crossings(features([1.0, 0.1], 0.0, 1.0, 0.0), nqm.SGD(lr, 0.9), 8, 1e-6) == (0, 0)


@pytest.mark.parametrize("crossing", ["first", "last"])
def test_crossings_broadcast(crossing):
    problem, batch, target = features_of(PROBLEM), np.array([8.0, 64.0])[:, None], np.array([0.3, 0.05])[:, None, None]
    found = nqm.steps_to_target(problem, nqm.SGD([0.01, 0.1], momentum=0.5), batch, target, crossing)
    assert found.shape == (2, 2, 2)
    for i, j, k in np.ndindex(found.shape):
        alone = nqm.SGD([0.01, 0.1][k], momentum=0.5)
        assert found[i, j, k] == nqm.steps_to_target(problem, alone, batch[j, 0], target[i, 0, 0], crossing)


@pytest.mark.parametrize("share", [1.0 - 1e-3, 1.0 - 1e-12])
def test_near_the_stability_limit_the_start_is_already_there(share):
    problem = features([1.0, 0.3], 0.01)
    optimizer = nqm.SGD(share * nqm.max_stable_lr(problem, nqm.SGD(FREE), 1))
    assert nqm.risk(problem, optimizer, 1, 0) == problem.initial_risk
    assert nqm.steps_to_target(problem, optimizer, 1, problem.initial_risk) == 0


@pytest.mark.parametrize("case", ["falls below, then rises slowly", "slow fall and slow rise"])
def test_slow_coordinates_that_rise_take_no_walk(case):
    """10^8 steps of rise to the steady state; additive noise answers at once."""
    if case == "slow fall and slow rise":
        problem = features([1.0, 1e-8, 5e-9], [0.0, 1.0, 0.0], [1.0, 1e8, 2e8], 3.0)
        target, crossing, expected = 1.1 * 0.029242974, "first", 2.49e9
    else:
        problem, crossing, expected = features([1.0, 1e-9], [1.0, 0.0], [1.0, 1e9], 0.01), "last", math.inf
        target = 0.8 * nqm.steady_state_risk(problem, nqm.SGD(0.1), 8)
    with soon():
        assert nqm.steps_to_target(problem, nqm.SGD(0.1), 8, target, crossing) == pytest.approx(
            expected, rel=1e-3, abs=0.0
        )


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_schedule_that_ends_at_rest_takes_no_walk(momentum):
    """The learning rate 0 is held for ever."""
    optimizer = nqm.SGD(nqm.Schedule([0.1, 0.0], [100, 1]), momentum)
    with soon():
        last = nqm.steps_to_target(features([1.0, 0.1]), optimizer, 8, 0.1, "last")
        never = nqm.steps_to_target(features([1.0, 0.1]), optimizer, 8, 1e-3)
    assert last <= 100
    assert never == math.inf


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("share", [1.0 - 1e-12])
def test_gradient_descent_next_to_its_limit_takes_no_walk(momentum, share):
    """Above the limit the alternating part stays where it is for 10^8 steps, far above the target."""
    problem, optimizer = features([1.0, 0.1]), nqm.SGD(2.0 * (1.0 + momentum) * share, momentum)
    with soon():
        found = nqm.steps_to_target(problem, optimizer, math.inf, 1e-4)
    assert math.isfinite(found) == (share < 1.0)


STEADY = [
    (features([1.0, 0.1]), nqm.EMA(nqm.SGD(0.001, 0.9), 0.999), 0.0),
    (features(0.04, 9.0, 3500.0), nqm.SGD(2.6e-5, 0.9, nesterov=True), 1e-12),
]


@pytest.mark.parametrize(("problem", "optimizer", "share"), STEADY, ids=str)
def test_a_target_at_the_steady_state_takes_no_walk(problem, optimizer, share):
    """Whatever the answer: rounding errors of the risk, which remembers 10^4 steps, are as large."""
    with soon():
        nqm.steps_to_target(problem, optimizer, 1, (1.0 + share) * nqm.steady_state_risk(problem, optimizer, 1))


def test_a_target_just_above_the_steady_state():
    """Additive noise answers."""
    problem, optimizer = features(1.0), nqm.SGD(0.001)
    target = nqm.steady_state_risk(problem, optimizer, 1) * (1.0 + 1e-11)
    assert math.isfinite(nqm.steps_to_target(problem, optimizer, 1, target))
