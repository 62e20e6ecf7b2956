"""Risk, its gradient, steady states and simulations where learning rate and batch size change on the way."""

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
from reference import exact_decimal, exact_risk_along, filter_risk_along
from scheduled_cases import BATCH, FAMILIES, LR, SAME, SPECTRUM, limit_of, rule_of
from sizes import every

import nqm
from nqm import schedules
from nqm.dynamics.additive import Additive
from nqm.schedules import Schedule

COMBINATIONS = list(itertools.product(FAMILIES, (0.0, 0.5), (False, True)))
combinations = pytest.mark.parametrize(("family", "power", "averaged"), COMBINATIONS)


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
