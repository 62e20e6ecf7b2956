"""First and last crossings against a scan, step by step, with the naive recursion; and how few leaps they take."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import pytest
from building import optimizer_of
from reference import Rule, filter_risk, recursion_risk

import nqm
from nqm.backends import first_passage

# --- against a scan ----------------------------------------------------------------------------------------


def scanned(risks, target):
    """First and last crossing of a curve whose end stands for all that follows."""
    reached = np.flatnonzero(risks <= target)
    above = np.flatnonzero(risks > target)
    first = float(reached[0]) if reached.size else math.inf
    last = float(above[-1] + 1) if above.size else 0.0
    return first, (math.inf if last == len(risks) else last)


def crossings(problem, optimizer, batch, target):
    return tuple(nqm.steps_to_target(problem, optimizer, batch, target, crossing) for crossing in ("first", "last"))


def some_targets(risks, rng):
    """Levels that the curve crosses: of its start, its wildest part and its end; and one out of reach."""
    low, high, end = risks.min(), risks.max(), risks[-1]
    inside = low + (high - low) * rng.uniform(0.001, 0.999, size=3)
    return [*inside, end * 1.01, end * 0.99, low * 0.5]


def assert_like_scan(rule, h, c, init, batch, horizon, rng):
    """The curve must have settled at the horizon, so that what lies beyond cannot cross a target."""
    risks = recursion_risk(rule, h, c, init, batch, horizon)
    problem, optimizer = nqm.NoisyQuadratic(h, c, init), optimizer_of(rule)
    settled = nqm.steady_state_risk(problem, optimizer, batch)
    assert np.all(np.abs(risks[-horizon // 4 :] - settled) < 1e-3 * settled)
    for target in some_targets(risks, rng):
        assert crossings(problem, optimizer, batch, target) == scanned(risks, target), (rule, h, c, init, batch, target)


def random_rule(rng):
    """Stable for curvatures up to 1, and settled after 3000 steps for curvatures from 0.03 on."""
    momentum = rng.choice([0.0, rng.uniform(), 0.97])
    nesterov = bool(rng.integers(2))
    limit = 2.0 * (1.0 + momentum) / (1.0 + 2.0 * momentum * nesterov)
    lr = limit * rng.uniform(0.1, 0.99)
    power = float(rng.choice([0.0, 0.5]))
    decay = rng.choice([None, rng.uniform(), 0.99])
    return Rule(float(lr), float(momentum), nesterov, power, None if decay is None else float(decay))


@pytest.mark.parametrize("seed", range(60))
def test_random_problems(seed):
    rng = np.random.default_rng(seed)
    h = np.append(10.0 ** rng.uniform(-1.5, 0.0, size=2), 1.0)
    c, init = rng.exponential(size=3) * h, rng.exponential(size=3)
    assert_like_scan(random_rule(rng), h, c, init, 10.0 ** rng.uniform(0.0, 5.0), 3000, rng)


@pytest.mark.parametrize("states", [1, 2, 3])
@pytest.mark.parametrize("seed", range(15))
def test_any_linear_filter(states, seed):
    """Signs of their own everywhere, with and without noise."""
    rng = np.random.default_rng(100 * states + seed)
    transition = rng.normal(size=(states, states))
    transition *= rng.uniform(0.8, 0.99) / np.abs(np.linalg.eigvals(transition)).max()
    parts = transition, *rng.normal(size=(4, states))
    h, init = 10.0 ** rng.uniform(-2.0, 0.0, size=2), rng.exponential(size=2)
    c = rng.exponential(size=2) * h if seed % 2 else np.zeros(2)
    risks = filter_risk(0.01, parts, h, c, init, 1e5, 1500)
    problem, optimizer = nqm.NoisyQuadratic(h, c, init), nqm.LinearOptimizer(0.01, *parts)
    for target in np.geomspace(risks[-1], risks.max(), 6)[1:-1]:
        assert crossings(problem, optimizer, 1e5, target) == scanned(risks, target)


@pytest.mark.parametrize("roots", [(0.99, 0.9), (1.01, 0.9), (-0.99, -0.9), (-1.05, -0.9), (0.99, -0.9), (0.98, 0.97)])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (1e-3, 1.0), (-1e-3, 1.0), (-0.2, 1.0), (1.0, -0.5), (1.0, -1.5)])
@pytest.mark.parametrize("decay", [0.0, 0.8, 0.995])
def test_sums_of_two_powers(roots, weights, decay):
    """Without noise the mean is a sum of two powers, or its average: it falls, dips, turns round, or explodes."""
    mean = np.sum(np.array(weights) * np.array(roots) ** np.arange(4000)[:, None], axis=1)
    average = [mean[0]]
    for value in mean[1:]:
        average.append(decay * average[-1] + (1 - decay) * value)
    risks = 0.5 * np.square(average)
    powers = nqm.LinearOptimizer(1.0, np.diag(roots), [0, 0], readout=weights, start=[1, 1])
    problem, optimizer = nqm.NoisyQuadratic(1.0, 0.0), nqm.EMA(powers, decay)
    for target in np.geomspace(1.1 * max(risks.min(), 1e-8), risks[:300].max(), 8)[:-1]:
        assert crossings(problem, optimizer, 1.0, target) == scanned(risks, target)


SHAPES = {
    "monotone": (Rule(0.1), [1.0, 0.1], 1.0, 1.0, 100.0),
    "oscillating": (Rule(1.0, 0.99), [1.0, 0.3], 1.0, 1.0, 1e5),
    "oscillating average": (Rule(1.0, 0.99, decay=0.5), [1.0, 0.3], 1.0, 1.0, 1e5),
    "rising to the steady state": (Rule(0.5), [1.0, 0.1], 1.0, 1e-4, 2.0),
    "rising with momentum": (Rule(0.5, 0.95), [1.0, 0.1], 1.0, 1e-4, 2.0),
    "rising before falling": (Rule(0.5), [1.0, 0.01], [60.0, 1e-3], [0.0, 300.0], 10.0),
    "falling before rising": (Rule(0.02), [1.0, 0.1], [1.0, 30.0], [3.0, 0.0], 10.0),
    "the average waits": (Rule(1.5, decay=0.99), [1.0, 0.1], 1.0, 1.0, 100.0),
    "nearly critical": (Rule(0.25, 0.25), [1.0, 0.2], 1.0, 1.0, 1e4),
    "alternating": (Rule(1.99), [1.0, 0.5], 0.1, 1.0, 1e4),
    "Nesterov": (Rule(0.5, 0.98, nesterov=True), [1.0, 0.05], 1.0, 1.0, 1e4),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name):
    rule, h, c, init, batch = SHAPES[name]
    assert_like_scan(rule, h, c, init, batch, 6000, np.random.default_rng(0))


def test_the_shapes_are_what_they_are_called():
    """The hard cases are hard: between first and last crossing lie many others."""
    rule, h, c, init, batch = SHAPES["oscillating"]
    reached = recursion_risk(rule, h, c, init, batch, 6000) <= 0.01
    assert np.count_nonzero(np.diff(reached)) > 50
    risks = recursion_risk(*SHAPES["rising before falling"], 6000)
    assert risks[0] < 0.95 * risks.max()
    assert risks[-1] < 0.95 * risks[0]


@pytest.mark.parametrize("decay", [None, 0.9])
def test_divergence_may_come_after_the_crossing(decay):
    """The large start falls quickly, then the unstable coordinate takes over."""
    rule, h, c, init = Rule(2.001, decay=decay), [1.0, 0.5], [0.0, 0.0], [1e-3, 100.0]
    risks = recursion_risk(rule, h, c, init, 1.0, 6000)
    problem, optimizer = nqm.NoisyQuadratic(h, c, init), optimizer_of(rule)
    assert risks[-1] > 0.01 > risks.min()
    assert crossings(problem, optimizer, 1.0, 0.01) == (scanned(risks, 0.01)[0], math.inf)
    assert crossings(problem, optimizer, 1.0, 0.5 * risks.min()) == (math.inf, math.inf)


@pytest.mark.parametrize(
    "rule",
    [Rule(2.3), Rule(3.5, 0.5), Rule(1.7, 0.5, nesterov=True), Rule(2.3, decay=0.5), Rule(3.5, 0.5, decay=0.5)],
    ids=str,
)
@pytest.mark.parametrize("length", [10, 20, 60])
def test_a_short_visit_below_the_target(rule, length):
    """One coordinate falls slowly, the other explodes just after the target is reached: a leap must not pass it."""
    slow = recursion_risk(rule, [0.003], 0.0, 100.0, 1.0, 2000)
    reached = int(np.argmax(slow <= 0.01))
    explosion = recursion_risk(rule, [1.0], 0.0, 1.0, 1.0, reached + length)[-1]
    h, init = [1.0, 0.003], [0.01 / explosion, 100.0]
    risks = recursion_risk(rule, h, 0.0, init, 1.0, reached + 200)
    first, last = scanned(risks, 0.01)
    assert math.isfinite(first)
    assert last == math.inf
    assert crossings(nqm.NoisyQuadratic(h, 0.0, init), optimizer_of(rule), 1.0, 0.01) == (first, last)


def test_the_trap_of_the_papers_notebook():
    """Bisection finds that step 610 misses the target and step 611 hits it. So do others, long before."""
    problem = nqm.NoisyQuadratic.power_law(10**4).binned(100)
    optimizer = nqm.SGD(1.0, momentum=0.99)
    reached = nqm.risk(problem, optimizer, 2**16, np.arange(5000)) <= 0.01
    first, last = crossings(problem, optimizer, 2**16, 0.01)
    assert first == np.argmax(reached) == 585
    assert not reached[610]
    assert reached[611]
    assert last == np.flatnonzero(~reached)[-1] + 1


@pytest.mark.parametrize("optimizer", [nqm.SGD(1.0, 0.99), nqm.EMA(nqm.SGD(0.3, 0.98), 0.9)], ids=str)
@pytest.mark.parametrize("target", [0.5, 0.05, 0.01])
def test_power_laws_are_scanned_like_the_explicit_sum(optimizer, target):
    """The Gauss rule is refined until the crossing is the explicit sum's."""
    problem = nqm.NoisyQuadratic.power_law(2000)
    explicit = nqm.NoisyQuadratic(1.0 / np.arange(1.0, 2001.0))
    risks = nqm.risk(explicit, optimizer, 2**14, np.arange(2000))
    assert crossings(problem, optimizer, 2**14, target) == scanned(risks, target)
    assert crossings(explicit, optimizer, 2**14, target) == scanned(risks, target)


# --- special targets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_targets_at_and_around_the_steady_state(momentum, decay):
    problem = nqm.NoisyQuadratic([1.0, 0.1])
    optimizer = nqm.EMA(nqm.SGD(0.01, momentum), decay)
    steady = nqm.steady_state_risk(problem, optimizer, 4)
    first, last = crossings(problem, optimizer, 4, steady * (1 + 1e-9))
    assert first <= last < math.inf
    assert crossings(problem, optimizer, 4, steady * (1 - 1e-9)) == (math.inf, math.inf)
    # the risk stays above its steady state, but the difference fades below the last digit: never, or not before that
    at = nqm.steps_to_target(problem, optimizer, 4, steady)
    assert at == math.inf or nqm.risk(problem, optimizer, 4, at - 1) <= steady * (1 + 1e-14)


def test_a_coordinate_that_starts_at_its_steady_state_stays():
    """x = 1: every step forgets the last one, so risk = steady state from step 1 on, to the last bit."""
    problem = nqm.NoisyQuadratic(1.0)
    assert crossings(problem, nqm.SGD(1.0), 4, 0.125) == (1, 1)
    assert crossings(problem, nqm.SGD(1.0), 4, np.nextafter(0.125, 0)) == (math.inf, math.inf)


def test_without_noise_every_target_is_reached():
    problem = nqm.NoisyQuadratic(1.0, noise=0.0)
    # 1/2 (1 - lr)^(2t) <= target
    assert nqm.steps_to_target(problem, nqm.SGD(0.5), 1, 0.5**101) == 50
    assert nqm.steps_to_target(problem, nqm.SGD(0.5), 1, np.nextafter(0.5**101, 0)) == 51


# --- long ways ---------------------------------------------------------------------------------------------


def closed_form_crossing(lr, h, c, init, batch, target):
    """zhang2019 eq. 4 solved for t."""
    lr, h, c, init, target = map(mp.mpf, (lr, h, c, init, target))
    steady = lr * c / (2 * batch * (2 - lr * h))
    left = (target - steady) / (h * init / 2 - steady)
    return int(mp.ceil(mp.log(left) / (2 * mp.log(1 - lr * h))))


@pytest.mark.parametrize("lr", [1e-3, 1e-6, 1e-9, 1e-12])
@pytest.mark.parametrize("target", [0.4, 0.01, 1e-5])
def test_sgd_crosses_where_equation_4_says(lr, target):
    problem = nqm.NoisyQuadratic(0.7, 0.3, 2.0)
    expected = closed_form_crossing(lr, 0.7, 0.3, 2.0, 1e4, target)
    assert crossings(problem, nqm.SGD(lr), 1e4, target) == (expected, expected)


@pytest.fixture
def leaps(monkeypatch):
    """Counts the leaps that searches try, in a list of one number; a search of more than a million fails."""
    count, march = [0], first_passage.kernel.first_passage

    def counting(*arguments):
        progress = arguments[2][-1]
        before = progress[3]
        status = march(*arguments)
        count[0] += int(progress[3] - before)
        assert count[0] < 1e6, f"a million leaps, and only step {progress[0]:.3g} is reached"
        return status

    monkeypatch.setattr(first_passage.kernel, "first_passage", counting)
    return count


BINNED = nqm.NoisyQuadratic.power_law(10**4).binned(100)

SMOOTH_WAYS = {
    "SGD": (nqm.SGD(1e-9), 1e3, 0.5),
    "preconditioned": (nqm.Preconditioned(nqm.SGD(1e-8), 0.5), 1e3, 0.01),
    "EMA": (nqm.EMA(nqm.SGD(1e-8), 0.99), 1e3, 0.2),
    "slow EMA": (nqm.EMA(nqm.SGD(1e-8), 0.99999), 1e3, 0.2),
    "overdamped": (nqm.SGD(1e-9, 0.9), 1e4, 0.2),
    "overdamped Nesterov": (nqm.SGD(1e-8, 0.9, nesterov=True), 1e4, 0.2),
    "overdamped EMA": (nqm.EMA(nqm.SGD(1e-8, 0.9), 0.99), 1e4, 0.2),
}

OSCILLATING_WAYS = {
    "heavy ball": (nqm.SGD(1e-5, 1 - 1e-7), 1e6, 0.2),
    "Nesterov": (nqm.SGD(1e-6, 1 - 1e-7, nesterov=True), 1e6, 0.2),
}


def long_way(optimizer, batch, target, crossing):
    steps = nqm.steps_to_target(BINNED, optimizer, batch, target, crossing)
    around = nqm.risk(BINNED, optimizer, batch, [steps - 1, steps])
    assert around[1] <= target < around[0]
    assert steps > 10**7
    return steps


@pytest.mark.parametrize("crossing", ["first", "last"])
@pytest.mark.parametrize("name", SMOOTH_WAYS)
def test_long_smooth_ways_take_few_leaps(name, crossing, leaps):
    steps = long_way(*SMOOTH_WAYS[name], crossing)
    assert leaps[0] < 40 * math.log2(steps)


@pytest.mark.parametrize("crossing", ["first", "last"])
@pytest.mark.parametrize("name", OSCILLATING_WAYS)
def test_long_oscillating_ways_take_fewer_leaps_than_steps(name, crossing, leaps):
    steps = long_way(*OSCILLATING_WAYS[name], crossing)
    assert leaps[0] < steps / 50


@pytest.mark.parametrize("name", [*SMOOTH_WAYS, *OSCILLATING_WAYS])
def test_never_takes_few_leaps_too(name, leaps):
    optimizer, batch, _ = {**SMOOTH_WAYS, **OSCILLATING_WAYS}[name]
    assert crossings(BINNED, optimizer, batch, 1e-12) == (math.inf, math.inf)
    assert leaps[0] < 1000


def test_a_search_goes_on_where_its_budget_ended(monkeypatch):
    optimizer = nqm.SGD(1.0, momentum=0.99)
    expected = crossings(BINNED, optimizer, 2**16, 0.01)
    monkeypatch.setattr(first_passage, "LOOK", 1.0)
    assert crossings(BINNED, optimizer, 2**16, 0.01) == expected


# --- shapes of the answer ----------------------------------------------------------------------------------


def test_broadcasting():
    optimizer = nqm.SGD([0.1, 1.0], momentum=0.9)
    batch, target = np.array([64, 4096])[:, None], np.array([0.5, 0.02])[:, None, None]
    found = nqm.steps_to_target(BINNED, optimizer, batch, target)
    assert found.shape == (2, 2, 2)
    assert found.dtype == np.float64
    for i, j, k in np.ndindex(found.shape):
        alone = nqm.SGD(optimizer.lr[k], momentum=0.9)
        assert found[i, j, k] == nqm.steps_to_target(BINNED, alone, batch[j, 0], target[i, 0, 0])


def test_a_single_answer_is_an_int_or_inf():
    found = nqm.steps_to_target(BINNED, nqm.SGD(0.5), 4096, 0.1)
    assert type(found) is int
    assert nqm.steps_to_target(BINNED, nqm.SGD(0.5), 1, 0.01) is math.inf
