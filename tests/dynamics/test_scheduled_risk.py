"""Risk, its gradient, crossings and simulations where learning rate and batch size change on the way."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from decimal import Decimal

import mpmath as mp
import numpy as np
import pytest
from building import optimizer_of
from cases import RULES, pieces_of
from reference import Rule, exact_decimal, exact_risk_along, filter_risk_along
from sizes import every

import nqm
from nqm import schedules
from nqm.backends.kernels import first_passage as leaps
from nqm.dynamics.additive import Additive
from nqm.schedules import Schedule
from nqm.search import first_passage

# Schedules that are held to see what a walk makes of that.
pytestmark = pytest.mark.filterwarnings("ignore:the target is reached after the schedule's end")

FAMILIES = ("SGD", "heavy ball", "Nesterov")
COMBINATIONS = list(itertools.product(FAMILIES, (0.0, 0.5), (False, True)))
combinations = pytest.mark.parametrize(("family", "power", "averaged"), COMBINATIONS)

SPECTRUM = nqm.NoisyQuadratic([1.0, 0.3, 0.02, 1e-3], [0.5, 1.0, 0.1, 1e-3], [1.0, 0.2, 3.0, 10.0])
LR = Schedule([0.0, 0.4, 0.9, 0.9, 0.05, 0.6, 1e-4], [2, 7, 40, 1, 90, 3, 60])
BATCH = Schedule([4.0, 4.0, 32.0, 2.0, 100.0], [20, 30, 45, 1, 50])


def rule_of(family, power=0.0, averaged=False, momentum=0.8, decay=0.9):
    return Rule(1.0, 0.0 if family == "SGD" else momentum, family == "Nesterov", power, decay if averaged else None)


def limit_of(rule):
    """The x = lr h^(1-p) at which a root of the optimizer reaches -1."""
    limit = 2.0 * (1.0 + rule.momentum)
    return limit / (1.0 + 2.0 * rule.momentum) if rule.nesterov else limit


def critical_of(rule):
    """Both x at which the roots of the optimizer meet."""
    root = math.sqrt(rule.momentum)
    if rule.nesterov:
        return ((1.0 - rule.momentum) / (1.0 + rule.momentum)) ** 2, 1.0
    return (1.0 - root) ** 2, (1.0 + root) ** 2


def scheduled(rule, lr):
    return optimizer_of(rule).with_values(lr=lr)


ALL = [replace(rule, lr=1.0) for rule in RULES.values() if rule.power in (0.0, 0.5)]


# --- 60 digits ---------------------------------------------------------------------------------------------

TOLERANCE = 1e-12


def relative_error(rule, h, c, init, lr, batch, steps):
    """Error of nqm.risk in units of what is allowed: 1 is just allowed; None below what a float64 can hold.

    No float64 knows a learning rate better than to one unit in its last place: what that does to the exact risk is
    allowed too, and ten times that where p > 0, since h^(1-p) cannot be told from its neighbours either.
    """
    pieces = pieces_of(lr, batch, steps)
    exact = exact_decimal(rule, pieces, h, c, init)
    if exact < 1e-280:
        return None
    found = nqm.risk(nqm.NoisyQuadratic([h], [c], init), scheduled(rule, lr), batch, steps)
    error = float(abs(Decimal(found) - exact) / exact)
    if error <= TOLERANCE:
        return error / TOLERANCE
    beside = [(float(np.nextafter(rate, 0.0)), size, count) for rate, size, count in pieces]
    moved = float(abs(exact_decimal(rule, beside, h, c, init) - exact) / exact)
    return error / max(TOLERANCE, (10.0 if rule.power else 1.0) * moved)


def assert_exact(points):
    errors = [relative_error(*point) for point in points]
    held = [i for i, error in enumerate(errors) if error is not None]
    assert len(held) > len(points) / 2
    worst = max(held, key=lambda i: errors[i])
    assert errors[worst] <= 1.0, f"{errors[worst]:.3g} times the allowed error at {points[worst]}"


def random_schedule(values, longest, rng):
    return Schedule(values, 10.0 ** rng.uniform(0.0, np.log10(longest), size=len(values)) // 1)


def random_point(family, power, averaged, i, rng):
    """One to five pieces of 1 to 10^5 steps with learning rates over 9 decades, some 0; batch sizes over 6."""
    momentum, decay = 1.0 - 10.0 ** -rng.uniform(0.0, 5.0, size=2)
    rule = rule_of(family, power, averaged, momentum, decay)
    h = 10.0 ** rng.uniform(-7.0, 0.0)
    x = limit_of(rule) * 10.0 ** -(rng.choice([1.0, 9.0]) * rng.uniform(size=rng.integers(1, 6)))
    x[rng.uniform(size=x.size) < 0.1] = 0.0
    lr = random_schedule(x / h ** (1.0 - power), 10 ** rng.integers(1, 6), rng)
    batch = random_schedule(10.0 ** rng.uniform(0.0, 6.0, size=rng.integers(1, 4)), lr.steps, rng)
    steps = int(lr.steps * rng.uniform(0.2, 1.5))
    if i % 3 == 0:
        batch = float(batch.values[0])
    elif i % 3 == 1:
        lr = float(lr.values.max() or 1.0)
    c = h * 10.0 ** rng.uniform(-2.0, 2.0) if i % 8 else 0.0
    init = 10.0 ** rng.uniform(-2.0, 1.0) if i % 8 != 1 or steps < 3 else 0.0
    return rule, h, c, init, lr, batch, steps


@combinations
def test_random_points(family, power, averaged):
    rng = np.random.default_rng(COMBINATIONS.index((family, power, averaged)))
    assert_exact([random_point(family, power, averaged, i, rng) for i in range(32)])


def hard_courses(rule):
    """x = lr h^(1-p) of successive pieces, and how long they are."""
    limit = limit_of(rule)
    near, half = limit * (1.0 - 1e-9), 0.5 * limit
    yield [near, 1e-8 * near, near], [1000, 10**5, 1000]  # down by 10^8 and up again
    yield [1e-8, near, 1e-8, 1e-16, 0.8], [10**5, 10, 10**5, 10**5, 10]
    yield [1e-8, 0.5], [10**5, 2]  # what is left in the buffer is noise of before
    yield [half, 0.0, half, 0.0], [50, 10**5, 50, 1]  # stops and goes on
    yield [0.0, 0.0, half, 0.0, 0.0, half], [3, 1, 2, 1, 1, 2]
    yield [1.7 * limit, 1e-3, 1.2 * limit, 0.1], [20, 1000, 10, 100]  # explodes and recovers
    yield [1.0, 1.0, 0.5], [1, 1, 1]  # where SGD forgets its start
    if rule.momentum:
        slow, fast = critical_of(rule)
        for offset in (0.0, 1e-15, -1e-15, 1e-11, -1e-8, 1e-5):
            yield [slow * (1.0 + offset), slow, 0.01, slow], [300, 10**4, 30, 300]
            if fast * (1.0 + offset) < limit:  # with much momentum the two are close
                yield [fast * (1.0 + offset), 0.01, fast, slow], [100, 10, 10**3, 10**4]
        yield [fast * (1.0 - 1e-4), near, 1e-3 * fast, fast * (1.0 - 1e-7)], [10**4, 10**4, 10, 10**4]


@combinations
@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.thorough)])
def test_hard_points(family, power, averaged, every):
    rng = np.random.default_rng(100)
    points = []
    for momentum in (0.5625, (1.0 - 2.0**-7) ** 2, 1.0 - 1e-5)[: 1 if family == "SGD" else 3]:
        rule = rule_of(family, power, averaged, momentum, 1.0 - 10.0 ** -rng.uniform(0.0, 5.0))
        for x, lengths in hard_courses(rule):
            # 2^-12: lr and h^(1-p) are exact, so that critical damping is met to the last bit; 0.3: both are rounded
            h = 2.0**-12 if rng.uniform() < 0.5 else 0.3
            lr = Schedule(np.array(x) / h ** (1.0 - power), lengths)
            batch = random_schedule(10.0 ** rng.uniform(0.0, 6.0, size=3), lr.steps, rng)
            points += [(rule, h, h, 1.0, lr, 100.0, lr.steps), (rule, h, 100.0 * h, 0.5, lr, batch, lr.steps - 1)]
    assert_exact(points[::every])


def test_what_has_exploded_stays_inf():
    for rule in (rule_of("SGD"), rule_of("heavy ball"), rule_of("Nesterov", averaged=True)):
        lr = Schedule([1.5 * limit_of(rule), 0.0, 0.1], [4000, 10, 10**6])
        found = nqm.risk(SPECTRUM, scheduled(rule, lr), 4, [0, 10, 3990, 4000, 4001, 4010, 4100, 10**6])
        assert np.all(np.isfinite(found[:2]))
        assert np.all(found[2:] == np.inf)


# --- step by step ------------------------------------------------------------------------------------------


def averaged_parts(parts, decay):
    """A linear filter with an average of what it reads out as one state more."""
    transition, gain, query, readout, start = parts
    k, fresh = len(gain), 1.0 - decay
    matrix = np.zeros((k + 1, k + 1))
    matrix[:k, :k], matrix[k, :k], matrix[k, k] = transition, fresh * readout @ transition, decay
    return matrix, np.append(gain, fresh * readout @ gain), np.append(query, 0.0), np.eye(k + 1)[k], \
        np.append(start, readout @ start)  # fmt: skip


@pytest.mark.parametrize(("states", "decay"), [(1, None), (2, None), (3, None), (1, 0.9), (2, 0.9)])
@pytest.mark.parametrize("power", [0.0, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_any_linear_filter(states, decay, power, seed):
    """Signs of their own everywhere. A new learning rate leaves the states of such a filter as they are."""
    rng = np.random.default_rng(10 * states + seed)
    transition = rng.normal(size=(states, states))
    transition *= rng.uniform(0.8, 0.99) / np.abs(np.linalg.eigvals(transition)).max()
    parts = transition, *rng.normal(size=(4, states))
    h, c, init = 10.0 ** rng.uniform(-2.0, 0.0, size=2), rng.exponential(size=2), rng.exponential(size=2)
    lr = Schedule([0.05, 0.0, 1e-3, 0.02], [20, 5, 100, 30])
    optimizer = nqm.Preconditioned(nqm.LinearOptimizer(lr, *parts), power)
    if decay is not None:
        parts, optimizer = averaged_parts(parts, decay), nqm.EMA(optimizer, decay)
    expected = filter_risk_along(pieces_of(lr, BATCH, 200), parts, h, c, init, power)
    found = nqm.risk(nqm.NoisyQuadratic(h, c, init), optimizer, BATCH, np.arange(201))
    np.testing.assert_allclose(found, expected, rtol=1e-11)


def test_a_million_pieces():
    lr, batch = schedules.cosine(1.9, 10**6), Schedule(np.linspace(1.0, 100.0, 10**6), 1)
    factors = np.square(1.0 - lr.values[:, None] * SPECTRUM.curvature)
    kicks = np.square(lr.values)[:, None] * SPECTRUM.noise / batch.values[:, None]
    risk = 0.0
    for h, second, *course in zip(SPECTRUM.curvature, SPECTRUM.init, factors.T.tolist(), kicks.T.tolist(), strict=True):
        for factor, kick in zip(*course, strict=True):
            second = factor * second + kick
        risk += 0.5 * h * second
    assert nqm.risk(SPECTRUM, nqm.SGD(lr), batch, 10**6) == pytest.approx(risk, rel=1e-12)


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_training_with_torch(momentum, nesterov):
    """Without noise the risk is the loss, and a new learning rate multiplies the buffer as torch does it."""
    torch = pytest.importorskip("torch")
    h, init, lr = 0.7, 2.0, LR
    parameter = torch.nn.Parameter(torch.tensor([math.sqrt(init)], dtype=torch.float64))
    optimizer = torch.optim.SGD([parameter], lr=0.25, momentum=momentum, nesterov=nesterov)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lr.to_torch(lr=0.25))
    losses = []
    for _ in range(lr.steps + 20):
        optimizer.zero_grad()
        loss = 0.5 * h * parameter.square().sum()
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        scheduler.step()
    found = nqm.risk(nqm.NoisyQuadratic(h, 0.0, init), nqm.SGD(lr, momentum, nesterov), 1, np.arange(len(losses)))
    assert losses[-1] < 0.1 * losses[0]
    np.testing.assert_allclose(found, losses, rtol=1e-11)


# --- what changes nothing ----------------------------------------------------------------------------------

SAME = 3e-14
STEPS = np.array([0, 1, 2, 10, 55, 203, 1000])


@pytest.mark.parametrize("rule", ALL, ids=str)
def test_noise_of_pieces_adds_up(rule):
    """With all but one piece noiseless, only that piece's noise is left."""
    optimizer, steps = scheduled(rule, LR), [10, 50, 100, 300]
    batches = np.full((BATCH.pieces, BATCH.pieces), 1e300)
    np.fill_diagonal(batches, BATCH.values)
    start = nqm.risk(SPECTRUM, optimizer, 1e300, steps)
    parts = [nqm.risk(SPECTRUM, optimizer, Schedule(row, BATCH.lengths), steps) - start for row in batches]
    together = nqm.risk(SPECTRUM, optimizer, BATCH, steps)
    np.testing.assert_allclose(start + sum(parts), together, rtol=SAME)
    assert np.all(parts[0] > 1e-6 * together)  # forgotten only in part


def test_power_1_is_one_curvature():
    """Newton's method: every coordinate goes as if its curvature were 1."""
    problem = nqm.NoisyQuadratic(SPECTRUM.curvature, SPECTRUM.curvature**2, 1.0 / SPECTRUM.curvature)
    ones = nqm.NoisyQuadratic(1.0, SPECTRUM.curvature.sum(), 4.0)
    found = nqm.risk(problem, nqm.Preconditioned(nqm.SGD(LR, 0.9), 1.0), BATCH, STEPS)
    np.testing.assert_allclose(found, nqm.risk(ones, nqm.SGD(LR, 0.9), BATCH, STEPS), rtol=SAME)


# --- shapes of the answer ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ALL, ids=str)
def test_many_steps_in_one_walk(rule):
    """In any order and more than once; other steps cut the pieces elsewhere, so that the last digits may differ."""
    optimizer, steps = scheduled(rule, LR), np.array([[203, 0, 55, 1], [1, 10**6, 55, 7]])
    found = nqm.risk(SPECTRUM, optimizer, BATCH, steps)
    assert found.shape == steps.shape
    ordered = nqm.risk(SPECTRUM, optimizer, BATCH, np.unique(steps))
    assert np.array_equal(found, ordered[np.searchsorted(np.unique(steps), steps)])
    alone = [nqm.risk(SPECTRUM, optimizer, BATCH, t) for t in steps.flat]
    assert {type(value) for value in alone} == {float}
    np.testing.assert_allclose(found.ravel(), alone, rtol=SAME)


@pytest.mark.parametrize("rule", ALL, ids=str)
def test_ends_of_pieces_to_the_last_bit(rule):
    optimizer = scheduled(rule, LR)
    found = nqm.risk(SPECTRUM, optimizer, 4.0, LR.ends)
    assert found.tolist() == [nqm.risk(SPECTRUM, optimizer, 4.0, end) for end in LR.ends]


@pytest.mark.parametrize("lr", [LR, np.array([0.1, 0.7])], ids=["schedule", "numbers"])
@pytest.mark.parametrize("ramp", [BATCH, np.array([4.0, 100.0])[:, None]], ids=["schedule", "numbers"])
@pytest.mark.parametrize("momentum", [0.9, np.array([0.0, 0.5, 0.9])[:, None, None]], ids=["number", "numbers"])
def test_one_call_is_a_loop(lr, ramp, momentum):
    """A momentum of exactly 0 saves a state only when it stands alone: the last digits may differ."""
    if not isinstance(lr, Schedule) and not isinstance(ramp, Schedule):
        pytest.skip("no schedule")
    decay, steps = np.array([0.5, 0.9])[:, None, None, None], np.array([0, 3, 150])[:, None, None, None, None]
    found = nqm.risk(SPECTRUM, nqm.EMA(nqm.SGD(lr, momentum), decay), ramp, steps)
    numbers = [np.zeros(()) if isinstance(given, Schedule) else given for given in (lr, ramp)]
    rates, sizes, momenta, decays, times = np.broadcast_arrays(*numbers, momentum, decay, steps)
    assert found.shape == times.shape
    for at in np.ndindex(found.shape):
        rate, size = lr if isinstance(lr, Schedule) else rates[at], ramp if isinstance(ramp, Schedule) else sizes[at]
        alone = nqm.risk(SPECTRUM, nqm.EMA(nqm.SGD(rate, momenta[at]), decays[at]), size, times[at])
        assert found[at] == pytest.approx(alone, rel=SAME)


@pytest.mark.parametrize("rule", ALL, ids=str)
def test_power_laws_like_the_explicit_sum(rule):
    explicit = nqm.NoisyQuadratic(1.0 / np.arange(1.0, 2001.0))
    lr = schedules.cosine(0.6 * limit_of(rule), 1000).coarsened(300).then(Schedule(0.01, 10))
    arguments = scheduled(rule, lr), Schedule([16.0, 256.0], 700), [3, 300, 1000, 10**4]
    found = nqm.risk(nqm.NoisyQuadratic.power_law(2000), *arguments)
    np.testing.assert_allclose(found, nqm.risk(explicit, *arguments), rtol=1e-10)
    assert found[-1] < 0.1 * explicit.initial_risk


# --- gradients ---------------------------------------------------------------------------------------------


def exact_slopes(rule, names, h, c, init, lr, inverse_batch, lengths):
    """The risk and its derivatives by log lr, log inverse batch and `names`, from central differences in 60 digits."""

    def total(rates, shares, changed):
        pieces = [(rate, 1 / share, steps) for rate, share, steps in zip(rates, shares, lengths, strict=True)]
        return sum(exact_risk_along(changed, pieces, *node) for node in zip(h, c, init, strict=True))

    def slope(f):
        return (f(delta) - f(-delta)) / (2 * delta)

    def bent(values, j, d):
        return [value * mp.exp(d) if i == j else value for i, value in enumerate(values)]

    delta = mp.mpf("1e-20")
    rates, shares = [mp.mpf(x) for x in lr], [mp.mpf(x) for x in inverse_batch]
    count = range(len(lengths))
    by_lr = [slope(lambda d, j=j: total(bent(rates, j, d), shares, rule)) for j in count]
    by_batch = [slope(lambda d, j=j: total(rates, bent(shares, j, d), rule)) for j in count]
    by_value = [slope(lambda d, n=n: total(rates, shares, replace(rule, **{n: getattr(rule, n) + d}))) for n in names]
    return [np.array(x, dtype=float) for x in (total(rates, shares, rule), by_lr, by_batch, by_value)]


@combinations
@pytest.mark.parametrize("seed", every(3, range(3)))
def test_gradients(family, power, averaged, seed):
    rng = np.random.default_rng(seed)
    rule = rule_of(family, power, averaged, *(1.0 - 10.0 ** -rng.uniform(0.1, 2.0, size=2)))
    h = np.append(10.0 ** rng.uniform(-2.0, 0.0, size=1), 1.0)
    c, init = rng.exponential(size=2) * h, rng.exponential(size=2)
    lr = limit_of(rule) * np.append(10.0 ** rng.uniform(-3.0, 0.0, size=3), 0.0)
    lengths, inverse_batch = rng.integers(1, 300, size=4), 10.0 ** rng.uniform(-3.0, 0.0, size=4)
    lr, lengths[seed % 2] = np.roll(lr, seed), 1
    optimizer = optimizer_of(rule)
    names = tuple(name for name in ("momentum", "decay") if optimizer.hyperparameters.get(name))
    risk, *expected = exact_slopes(rule, names, h, c, init, lr, inverse_batch, lengths.tolist())
    dynamics = Additive(nqm.NoisyQuadratic(h, c, init), optimizer)
    found = dynamics.risk_and_gradient(optimizer.hyperparameters, names, lr, inverse_batch, lengths)
    assert found.risk == pytest.approx(float(risk), rel=1e-11)
    for slopes, exact in zip(found[1:], expected, strict=True):
        np.testing.assert_allclose(slopes, exact, rtol=1e-11, atol=1e-14 * risk)


# --- crossings ---------------------------------------------------------------------------------------------

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


# --- simulation --------------------------------------------------------------------------------------------

TRIALS = nqm.NoisyQuadratic([1.0, 0.3, 0.02], noise=[0.5, 1.0, 0.1], init=[1.0, 0.2, 3.0], multiplicity=[1, 2, 4])
QUICK_LR, QUICK_BATCH = Schedule([0.0, 0.5, 0.0, 0.05, 0.4], [1, 9, 3, 20, 10]), Schedule([1.0, 8.0, 2.0], [4, 20, 1])


def test_one_piece_is_simulated_like_a_number():
    number, piece = (
        nqm.simulate(TRIALS, nqm.SGD(lr, 0.5), batch, [0, 3, 40], runs=50, seed=2).losses
        for lr, batch in ((0.5, 4.0), (Schedule(0.5, 10), Schedule(4.0, 20)))
    )
    np.testing.assert_allclose(piece, number, rtol=SAME)


# --- steady states -----------------------------------------------------------------------------------------


def test_steady_states_broadcast():
    lr = Schedule([5.0, 0.7], 10)
    momentum, batch = np.array([0.0, 0.9]), np.array([4.0, 64.0, 100.0])[:, None]
    found = nqm.steady_state_risk(SPECTRUM, nqm.SGD(lr, momentum), batch)
    assert np.array_equal(found, nqm.steady_state_risk(SPECTRUM, nqm.SGD(0.7, momentum), batch))
    assert np.array_equal(found[2], nqm.steady_state_risk(SPECTRUM, nqm.SGD(lr, momentum), BATCH))
    assert nqm.steady_state_risk(SPECTRUM, nqm.SGD(Schedule([0.1, 5.0], 10)), 4) == math.inf


def test_stability_does_not_look_at_the_schedule():
    assert nqm.max_stable_lr(SPECTRUM, nqm.SGD(LR, 0.5)) == nqm.max_stable_lr(SPECTRUM, nqm.SGD(0.1, 0.5))


# --- bad input ---------------------------------------------------------------------------------------------

ENDS = Schedule([0.1, 0.01], [3, 2], beyond="error")
HOLDS = Schedule([0.1, 0.01], [3, 2])
STOPS = Schedule([0.1, 0.0], [3, 2])
SHOWN = "Schedule(2 pieces, 5 steps, 0.01 to 0.1)"


def risk(optimizer=nqm.SGD(HOLDS), batch_size=4, steps=5):  # noqa: B008 - immutable
    return nqm.risk(SPECTRUM, optimizer, batch_size, steps)


def steady(optimizer=nqm.SGD(HOLDS), batch_size=4):  # noqa: B008 - immutable
    return nqm.steady_state_risk(SPECTRUM, optimizer, batch_size)


def crossing(optimizer=nqm.SGD(HOLDS), batch_size=4, target=0.1):  # noqa: B008 - immutable
    return nqm.steps_to_target(SPECTRUM, optimizer, batch_size, target)


def simulate(optimizer=nqm.SGD(HOLDS), batch_size=4, steps=5):  # noqa: B008 - immutable
    return nqm.simulate(SPECTRUM, optimizer, batch_size, steps, runs=2)


ONLY = f"expected numbers, got {SHOWN}; only lr and batch_size can follow a schedule"
POSITIVE = "batch_size: expected a schedule of positive numbers, got Schedule(2 pieces, 5 steps, 0 to 0.1)"
SHORT = "steps: expected at most the 5 steps of the schedule, got 6"

SAYS = [
    # too short
    (lambda: risk(nqm.SGD(ENDS), steps=6), ValueError, SHORT),
    (lambda: risk(nqm.SGD(ENDS, 0.5), steps=[[6], [1]]), ValueError, SHORT),
    (lambda: risk(batch_size=ENDS, steps=[1, 6]), ValueError, SHORT),
    (lambda: risk(nqm.SGD(ENDS), batch_size=HOLDS, steps=6), ValueError, SHORT),
    (lambda: simulate(nqm.EMA(nqm.SGD(ENDS), 0.5), steps=[2, 6]), ValueError, SHORT),
    (lambda: simulate(batch_size=ENDS, steps=6), ValueError, SHORT),
    (lambda: steady(nqm.SGD(ENDS)), ValueError, "expected a schedule that holds its last value"),
    (lambda: steady(batch_size=ENDS), ValueError, "expected a schedule that holds its last value"),
    # 0 as batch size, or as the last learning rate where there is no steady state
    (lambda: risk(batch_size=STOPS), ValueError, POSITIVE),
    (lambda: steady(batch_size=STOPS), ValueError, POSITIVE),
    (lambda: crossing(batch_size=STOPS), ValueError, POSITIVE),
    (lambda: simulate(batch_size=STOPS), ValueError, POSITIVE),
    (lambda: steady(nqm.SGD(STOPS)), ValueError, "lr: expected a schedule that ends above 0 for a steady state, got"),
    # where numbers are needed
    (lambda: nqm.SGD(0.1, HOLDS), TypeError, f"momentum: {ONLY}"),
    (lambda: nqm.EMA(nqm.SGD(0.1), HOLDS), TypeError, f"decay: {ONLY}"),
    (lambda: nqm.Preconditioned(nqm.SGD(0.1), HOLDS), TypeError, f"power: {ONLY}"),
    (lambda: nqm.SGD(HOLDS).with_values(momentum=HOLDS), TypeError, f"momentum: {ONLY}"),
    (lambda: risk(steps=HOLDS), TypeError, "steps: expected"),
    (lambda: crossing(target=HOLDS), TypeError, "target: expected"),
    (lambda: risk(HOLDS), TypeError, "optimizer: expected an optimizer such as nqm.SGD(0.1), got Schedule("),
    (lambda: nqm.LinearOptimizer(0.1, HOLDS, [1.0]), TypeError, "transition: expected"),
    (lambda: nqm.NoisyQuadratic(HOLDS), TypeError, "curvature: expected"),
    # many schedules
    (lambda: nqm.SGD([HOLDS, HOLDS]), TypeError, "lr: expected finite real numbers in (0, inf), got [Schedule("),
    (lambda: risk(batch_size=[HOLDS]), TypeError, "batch_size: expected real numbers in"),
    (lambda: simulate(batch_size=(HOLDS, HOLDS)), TypeError, "batch_size: expected real numbers in (0, inf]"),
    # what no schedule can hold
    (lambda: nqm.SGD(Schedule([0.1, math.nan], 1)), ValueError, "values: expected finite real"),
    (lambda: nqm.SGD(Schedule([0.1, -0.1], 1)), ValueError, "values: expected finite real"),
    (lambda: risk(batch_size=Schedule([1, math.inf], 1)), ValueError, "values: expected finite real"),
    # the other arguments are checked as ever
    (lambda: risk(batch_size=-4), ValueError, "batch_size: expected real numbers in (0, inf], got -4"),
    (lambda: risk(steps=-1), ValueError, "steps: expected"),
    (lambda: crossing(target=-1.0), ValueError, "target: expected"),
    (lambda: risk(nqm.SGD(HOLDS, nqm.FREE)), TypeError, "momentum is nqm.FREE"),
    (lambda: nqm.tune(SPECTRUM, nqm.SGD(HOLDS), 4, 0.1), ValueError, "expected nqm.FREE for at least one of"),
]


@pytest.mark.parametrize(("call", "kind", "words"), SAYS, ids=[f"{i} {words}" for i, (_, _, words) in enumerate(SAYS)])
def test_what_was_expected_and_what_came(call, kind, words):
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_schedule_is_long_enough_up_to_its_end():
    assert math.isfinite(risk(nqm.SGD(ENDS), ENDS * 100.0, steps=5))
    assert simulate(nqm.SGD(ENDS), ENDS * 100.0, steps=5).losses.shape == (2, 1)
    assert risk(nqm.SGD(STOPS), steps=10**9) == pytest.approx(risk(nqm.SGD(STOPS), steps=3), rel=SAME)
