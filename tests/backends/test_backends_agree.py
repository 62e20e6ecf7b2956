"""The readable backend against the compiled one and 60 digits; and the same source on other array namespaces."""

from __future__ import annotations

import importlib
import math
from functools import cache

import mpmath as mp
import numpy as np
import pytest
from building import optimizer_of
from reference import Rule, exact_risk, exact_risk_along
from reference_rows import (
    COURSE,
    RAMP,
    ROWS,
    WARM_UP,
    assert_close,
    flat,
    long_momentum,
    nodes,
    pieces_of,
    rows_of,
    slope_arguments,
    some_optimizer,
    stable,
)
from sizes import every

import nqm
from nqm.backends import numba_backend, reference_backend

GPU = pytest.param("array_api_compat.cupy", marks=pytest.mark.gpu)


@pytest.fixture(params=["numpy", "array_api_strict", GPU])
def xp(request):
    """Namespaces of the array API: NumPy, one that refuses what is not in the standard, and a GPU's."""
    return namespace(request)


@pytest.fixture(params=["numpy", GPU])
def fast_xp(request):
    """Those that compute."""
    return namespace(request)


def namespace(request):
    if request.param.endswith("cupy"):
        cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
        if not cupy.cuda.is_available():
            pytest.skip("no GPU that CuPy can use")
    return importlib.import_module(request.param)


FAMILIES = [
    *("SGD", "momentum", "Nesterov", "EMA", "EMA of momentum", "EMA of Nesterov", "preconditioned"),
    *("linear 1", "linear 2", "linear 3"),
]


def some_rows(family, rng):
    h, c, init = nodes(rng)
    optimizer = some_optimizer(family, rng, ROWS)
    batch = np.where(rng.random(ROWS) < 0.2, np.inf, 10.0 ** rng.uniform(0.0, 5.0, size=ROWS))
    return rows_of(nqm.NoisyQuadratic(h, c, init), optimizer, batch, ROWS)


# --- risks against compiled code -----------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(2))
def test_risk(family, seed, xp):
    rng = np.random.default_rng(seed)
    row = some_rows(family, rng)
    steps = np.concatenate([[0, 1, 2**40], (2.0 ** rng.uniform(1.0, 40.0, size=ROWS - 3)).astype(np.int64)])
    for times in (rng.permutation(steps), np.full(ROWS, 300)):
        assert_close(reference_backend.risk(row, times, xp=xp), numba_backend.risk(row, times))


@pytest.mark.parametrize("family", FAMILIES)
def test_dyadic_risk(family, xp):
    row = some_rows(family, np.random.default_rng(5))
    assert_close(reference_backend.dyadic_risk(row, 41, xp=xp), numba_backend.dyadic_risk(row, 41))


SCHEDULES = {"warm-up": (WARM_UP, None), "ramp": (None, RAMP), "both": (WARM_UP, RAMP)}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("family", FAMILIES)
def test_risk_along(family, schedule, xp):
    row = some_rows(family, np.random.default_rng(6))
    parts = pieces_of(*SCHEDULES[schedule], [0, 1, 5, 100, 3000])
    row = row.in_units(parts.lr.max())
    assert_close(reference_backend.risk_along(row, parts, 5, xp=xp), numba_backend.risk_along(row, parts, 5))


@pytest.mark.parametrize("power", [0.0, 0.5])
def test_chains_of_pieces_are_one_run(power, xp):
    """Cut anywhere, with nothing changing, a run ends at the risk of the run in one piece."""
    rng = np.random.default_rng(7)
    momentum, decay = long_momentum(rng), long_momentum(rng)
    optimizer = nqm.EMA(nqm.Preconditioned(nqm.SGD(0.7, momentum), power), decay)
    row = rows_of(nqm.NoisyQuadratic(*nodes(rng)), optimizer, 100.0, 1)
    times = np.array([0, 1, 7, 1000, 2**20])
    chained = reference_backend.risk_along(row.in_units(1.0), pieces_of(None, None, times), times.size, xp=xp)[0]
    assert_close(chained, [reference_backend.risk(row, np.array([t]), xp=xp)[0] for t in times])


# --- 60 digits -------------------------------------------------------------------------------------------------


def exact(rule, h, c, init, pieces):
    return sum(exact_risk_along(rule, pieces, *map(float, node)) for node in zip(h, c, init, strict=True))


def random_rule(rng):
    momentum = float(rng.choice([0.0, rng.uniform(), long_momentum(rng)]))
    decay = rng.choice([None, rng.uniform(), long_momentum(rng)])
    nesterov = bool(rng.integers(2))
    lr = stable(momentum, nesterov) * rng.choice([rng.uniform(), 10.0 ** rng.uniform(-6.0, 0.0)])
    return Rule(float(lr), momentum, nesterov, 0.0, None if decay is None else float(decay))


@pytest.mark.parametrize("seed", range(20))
def test_risk_is_exact(seed):
    rng = np.random.default_rng(seed)
    rule, (h, c, init) = random_rule(rng), nodes(rng, 3)
    steps = np.array([1, int(2.0 ** rng.uniform(1.0, 20.0)), int(2.0 ** rng.uniform(20.0, 40.0))])
    row = rows_of(nqm.NoisyQuadratic(h, c, init), optimizer_of(rule), 64.0, steps.size)
    risks = [float(exact(rule, h, c, init, [(rule.lr, 64.0, int(t))])) for t in steps]
    assert_close(reference_backend.risk(row, steps), risks, 1e-14)


@pytest.mark.parametrize("seed", range(10))
def test_risk_along_is_exact(seed):
    rng = np.random.default_rng(seed)
    rule, (h, c, init) = random_rule(rng), nodes(rng, 2)
    parts = pieces_of(WARM_UP, RAMP, [700, 2000])
    course = [
        (rule.lr * float(lr), 64.0 / float(b), int(n))
        for lr, b, n in zip(parts.lr, parts.inverse_batch_size, parts.repeat, strict=True)
    ]
    row = rows_of(nqm.NoisyQuadratic(h, c, init), optimizer_of(rule), 64.0, 1).in_units(1.0)
    cuts = [np.flatnonzero(parts.output_column == column)[0] + 1 for column in (0, 1)]
    risks = [float(exact(rule, h, c, init, course[:cut])) for cut in cuts]
    assert_close(reference_backend.risk_along(row, parts, 2)[0], risks, 1e-13)


@pytest.mark.parametrize("decay", [None, 0.999])
@pytest.mark.parametrize("momentum", [0.5, 0.99, 1.0 - 1e-4, 1.0 - 1e-6])
def test_the_far_end_of_critical_damping(momentum, decay, xp):
    """lr h = (1 + sqrt(m))^2: M^s = r^s (1 + s K) with K^2 = 0, which cancels s^3 of 10^32 in these coordinates."""
    rule = Rule((1.0 + math.sqrt(momentum)) ** 2, momentum, decay=decay)
    ways = [10, 1000, min(2**20, int(20.0 / (1.0 - momentum)))]
    noisy = nqm.NoisyQuadratic(1.0, 0.3, 2.0)
    for c, steps in [(0.0, ways), (0.3, [*ways, 2**40])]:
        problem = nqm.NoisyQuadratic(1.0, c, 2.0) if c == 0.0 else noisy
        times = np.array(steps)
        row = rows_of(problem, optimizer_of(rule), 64.0, times.size)
        risks = reference_backend.risk(row, times, xp=xp)
        assert_close(risks, [float(exact_risk(rule, 1.0, c, 2.0, 64.0, t)) for t in steps])
        assert_close(risks, numba_backend.risk(row, times))


# --- overflow ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [nqm.SGD(1e4), nqm.SGD(1e4, 0.9), nqm.EMA(nqm.SGD(1e4, 0.9), 0.9)], ids=str)
@pytest.mark.parametrize("batch", [1.0, np.inf])
def test_what_diverges_is_inf(optimizer, batch, fast_xp):
    xp = fast_xp
    problem = nqm.NoisyQuadratic([1.0, 1e-5])
    row = rows_of(problem, optimizer, batch, 3)
    steps = np.array([10, 10**4, 2**53])
    risks = reference_backend.risk(row, steps, xp=xp)
    assert np.isfinite(risks[0])
    assert np.all(risks[1:] == np.inf)
    assert reference_backend.dyadic_risk(row, 54, xp=xp)[0, -1] == np.inf
    parts = pieces_of(None, None, [10, 10**4, 10**9])
    assert np.array_equal(np.isinf(reference_backend.risk_along(row, parts, 3, xp=xp)[0]), [False, True, True])
    assert np.all(reference_backend.first_passage(row, np.full(3, 1e-9), True, xp=xp) == np.inf)


def test_nodes_without_weight_add_nothing_to_an_overflow(xp):
    """Curvature 4 diverges, but starts at the optimum and has no noise."""
    problem = nqm.NoisyQuadratic([4.0, 1.0, 0.1], [0.0, 1.0, 1.0], [0.0, 1.0, 1.0])
    alone = nqm.NoisyQuadratic([1.0, 0.1], 1.0, 1.0)
    steps, parts = np.array([10, 10**5]), pieces_of(None, None, [10, 10**5])
    row, other = (rows_of(p, nqm.SGD(0.9, 0.1), 10.0, 2) for p in (problem, alone))
    assert_close(reference_backend.risk(row, steps, xp=xp), numba_backend.risk(other, steps))
    chained = [reference_backend.risk_along(r, parts, 2, xp=xp) for r in (row, other)]
    assert_close(*chained, 1e-15)
    targets = np.array([0.5, 0.12])
    assert np.array_equal(*(reference_backend.first_passage(r, targets, False, xp=xp) for r in (row, other)))
    course = np.array([0.9]), np.array([0.1]), [10**5]
    sloped = [
        flat(reference_backend.risk_and_gradient(*slope_arguments(p, nqm.SGD(0.9, 0.1), [], *course), xp=xp))
        for p in (problem, alone)
    ]
    assert_close(*sloped, 1e-13)


def test_states_that_are_not_read_may_overflow(xp):
    """The second state grows by 10 a step; its square has overflowed after 160, and it itself has not."""
    optimizer = nqm.LinearOptimizer(0.5, np.diag([1.0, 10.0, 0.5]), [1.0, 1.0, 1.0], start=[1.0, 1.0, 1.0])
    row = rows_of(nqm.NoisyQuadratic(1.0, 0.0), optimizer, np.inf, 1)
    assert_close(reference_backend.risk(row, np.array([160]), xp=xp), 0.5 * 0.25**160)


def test_no_steps_of_infinitely_much_noise(xp):
    row = rows_of(nqm.NoisyQuadratic(1.0), nqm.SGD(0.5, 0.9), 1e-310, 2)
    assert reference_backend.risk(row, np.array([0, 1]), xp=xp).tolist() == [0.5, np.inf]


# --- slopes ------------------------------------------------------------------------------------------------------

RULES = [Rule(1.0), Rule(1.0, 0.9), Rule(0.7, 0.95, nesterov=True), Rule(1.0, decay=0.99), Rule(1.0, 0.9, decay=0.99),
         Rule(0.7, 0.9, nesterov=True, decay=0.95)]  # fmt: skip


@cache
def exact_slopes(number):
    """Nodes, and the 60-digit risk of RULES[number] along COURSE with its central differences by all numbers."""
    rule, (rates, inverse_batch, lengths) = RULES[number], COURSE
    h, c, init = nodes(np.random.default_rng(1), 3, weightless=False)
    free = [name for name in ("momentum", "decay") if getattr(rule, name)]

    def risk_at(at):
        rates, shares, values = at[:3], at[3:6], dict(zip(free, at[6:], strict=True))
        changed = Rule(**{**vars(rule), **values})
        pieces = [(r, 1 / share, n) for r, share, n in zip(rates, shares, lengths, strict=True)]
        return exact(changed, h, c, init, pieces)

    numbers = [*(rule.lr * rates), *inverse_batch, *(getattr(rule, name) for name in free)]
    here = [mp.mpf(float(x)) for x in numbers]
    expected = [risk_at(here)]
    for i, value in enumerate(here):
        ends = [[*here[:i], value * (1 + sign * mp.mpf(10) ** -20), *here[i + 1 :]] for sign in (1, -1)]
        slope = (risk_at(ends[0]) - risk_at(ends[1])) / (2 * mp.mpf(10) ** -20)
        expected.append(slope if i < 6 else slope / value)
    return (h, c, init), free, np.array([float(x) for x in expected])


@pytest.mark.parametrize(
    "number",
    [0, 4, *(pytest.param(number, marks=pytest.mark.thorough) for number in (1, 2, 3, 5))],
    ids=lambda number: str(RULES[number]),
)
def test_gradients(number, xp):
    """Central differences of the 60-digit risk, and the compiled gradient, which is in doubles.

    Here M and b are known to 32 digits, and so are slopes by lr and batch size, up to the last rounding. The filters
    that stand for derivatives by momentum and decay come rounded to 16 digits of the value, hence of the span.
    """
    rule, (rates, inverse_batch, lengths) = RULES[number], COURSE
    spectrum, free, expected = exact_slopes(number)
    problem = nqm.NoisyQuadratic(*spectrum)
    arguments = slope_arguments(problem, optimizer_of(rule), free, rule.lr * rates, inverse_batch, lengths)
    found = flat(reference_backend.risk_and_gradient(*arguments, xp=xp))
    assert_close(found[:7], expected[:7], 1e-13)
    assert_close(found[7:], expected[7:])
    assert_close(flat(numba_backend.risk_and_gradient(*arguments)), found, 1e-11)


def test_gradients_by_batch_size_are_shares_of_the_noise(xp):
    """Together they are what noise does: the risk less that of an infinite batch."""
    problem, optimizer = nqm.NoisyQuadratic(*nodes(np.random.default_rng(2))), nqm.EMA(nqm.SGD(1.0, 0.9), 0.9)
    lr, inverse_batch, lengths = COURSE
    noisy, silent = (
        reference_backend.risk_and_gradient(*slope_arguments(problem, optimizer, [], lr, share, lengths), xp=xp)
        for share in (inverse_batch, 0.0 * inverse_batch)
    )
    assert np.all(noisy.by_log_inverse_batch_size > 0.0)
    assert_close(noisy.by_log_inverse_batch_size.sum(), noisy.risk - silent.risk)


def test_gradients_of_what_diverges(xp):
    lr, *others = COURSE
    arguments = slope_arguments(nqm.NoisyQuadratic([1.0, 0.1]), nqm.SGD(1.0, 0.5), [], 100.0 * lr, *others)
    assert reference_backend.risk_and_gradient(*arguments, xp=xp).risk == np.inf


# --- crossings ---------------------------------------------------------------------------------------------------


CROSSED = {
    "SGD": nqm.SGD(0.5),
    "alternating": nqm.SGD(1.99),
    "oscillating momentum": nqm.SGD(1.0, 0.95),
    "overdamped": nqm.SGD(1e-6, 0.9),
    "critical": nqm.SGD(0.25, 0.25),
    "Nesterov": nqm.SGD(0.5, 0.98, nesterov=True),
    "EMA": nqm.EMA(nqm.SGD(0.5), 0.99),
    "oscillating average": nqm.EMA(nqm.SGD(1.0, 0.95), 0.5),
    "slow average": nqm.EMA(nqm.SGD(1e-6, 0.9), 0.9999),
    "diverging": nqm.SGD(2.2),
    "linear 3": nqm.LinearOptimizer(
        0.1, [[0.9, 0.3, 0.0], [-0.3, 0.9, 0.1], [0.0, 0.0, 0.95]], [1.0, 0.1, 0.0], start=[1.0, 0.0, 2.0]
    ),
}


@pytest.mark.parametrize("crossing", ["first", "last"])
@pytest.mark.parametrize("name", CROSSED)
def test_first_passages(name, crossing, fast_xp):
    """Of many targets at once: out of reach, hard to reach, often crossed, and met at the start."""
    problem = nqm.NoisyQuadratic([1.0, 0.3, 0.03], [1.0, 0.3, 0.03], [1.0, 1.0, 2.0])
    optimizer = CROSSED[name]
    start = nqm.risk(problem, optimizer, 1e5, 0)
    targets = start * np.array([1e-14, 1e-4, 1e-3, 0.01, 0.1, 0.7, 2.0])
    found = reference_backend.first_passage(
        rows_of(problem, optimizer, 1e5, targets.size), targets, crossing == "last", xp=fast_xp
    )
    expected = nqm.steps_to_target(problem, optimizer, 1e5, targets, crossing)
    np.testing.assert_array_equal(found, expected)
    assert found[0] == np.inf
    assert crossing == "last" or found[-1] == 0.0


@pytest.mark.parametrize("crossing", ["first", "last"])
@pytest.mark.parametrize("family", every(2, FAMILIES[:-3]))
def test_first_passages_of_many_rows(family, crossing):
    rng = np.random.default_rng(8)
    h, c, init = nodes(rng, 8, weightless=False)
    problem, optimizer = nqm.NoisyQuadratic(np.maximum(h, 0.05), c, init), some_optimizer(family, rng, ROWS)
    row = rows_of(problem, optimizer, 1e4, ROWS)
    settled = reference_backend.dyadic_risk(row, 54)[:, -1]
    targets = np.where(np.isfinite(settled), settled + 0.1 * rng.random(ROWS) * problem.initial_risk, 0.1)
    found = reference_backend.first_passage(row, targets, crossing == "last")
    expected = nqm.steps_to_target(problem, optimizer, 1e4, targets, crossing)
    np.testing.assert_array_equal(found, expected)
    assert np.isfinite(found).sum() > ROWS // 2


def test_first_passages_are_where_a_walk_says(xp):
    """Step by step, with the risk itself."""
    problem, optimizer = nqm.NoisyQuadratic([1.0, 0.3]), nqm.SGD(1.0, 0.95)
    times = np.arange(1000)
    risks = reference_backend.risk(rows_of(problem, optimizer, 1e5, times.size), times)
    targets = 0.5 * (risks[[3, 20, 40]] + risks[[4, 21, 41]])
    row = rows_of(problem, optimizer, 1e5, targets.size)
    above = risks > targets[:, None]
    assert np.count_nonzero(np.diff(above[2])) > 5
    np.testing.assert_array_equal(
        reference_backend.first_passage(row, targets, False, xp=xp), np.argmax(~above, axis=1)
    )
    last = times.size - np.argmax(above[:, ::-1], axis=1)
    np.testing.assert_array_equal(reference_backend.first_passage(row, targets, True, xp=xp), last)
