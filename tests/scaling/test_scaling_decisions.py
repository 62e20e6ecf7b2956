"""Decisions: the best allocation, the frontier, the critical batch size, on laws whose answers are known."""

from __future__ import annotations

import dataclasses
import itertools
import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

import nqm
from nqm import plotting
from nqm.scaling.decisions.allocation import best
from nqm.scaling.decisions.critical_batch_size import critical_batch_size
from nqm.scaling.decisions.frontier import frontier

RUNS = {"N": np.array([1e6, 1e9]), "B": np.array([32.0, 4096.0]), "K": np.array([1e3, 1e5]), "loss": np.ones(2)}
ALL = {"params_max": 1e9, "batch_max": 4096, "steps_max": 1e5}


class Law:
    """A fit with a loss that is given, and one for each draw."""

    def __init__(self, *losses: Callable, runs: dict = RUNS) -> None:
        self.functions, self.runs = losses, runs

    def losses(self, N, B, K, draws=None):
        count = len(self.functions) if draws is None else min(draws + 1, len(self.functions))
        return np.stack([f(N, B, K) for f in self.functions[:count]])


def chinchilla(alpha=0.34, beta=0.28):
    return lambda N, B, K: 1.7 + 400.0 * N**-alpha + 60.0 * (B * K) ** -beta


def tradeoff(critical=300.0, amplitude=20.0):
    """Steps count as K / (1 + critical / B): (S / S_min - 1) (E / E_min - 1) = 1 at every loss."""
    return lambda N, B, K: 1.5 + 300.0 * N**-0.35 + amplitude * (K / (1.0 + critical / B)) ** -0.5


def needed(N, loss, amplitude=20.0):
    """Steps of that law as B grows without end; inf where the size is too small for the loss."""
    room = loss - 1.5 - 300.0 * N**-0.35
    return np.where(room > 0.0, (amplitude / np.maximum(room, 1e-9)) ** 2.0, np.inf)


def bowl(center, shape=((1.0, 0.3, 0.2), (0.3, 1.0, 0.1), (0.2, 0.1, 1.0))):
    """Least at (N, B, K) = center, worse on all sides."""

    def loss(N, B, K):
        gap = np.stack(np.broadcast_arrays(*(np.log(v / c) for v, c in zip((N, B, K), center, strict=True))))
        return 2.0 + 0.1 * np.einsum("i...,ij,j...->...", gap, np.array(shape), gap)

    return loss


def quiet(*arguments, **named):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return best(*arguments, **named)


def test_compute_alone_against_the_closed_form():
    """Hoffmann et al. (2022), section 3.3: N = G (C / 6)^(beta / (alpha + beta)), D = C / 6 N."""
    alpha, beta, compute, length = 0.34, 0.28, 3e20, 1024
    found = best(Law(chinchilla(alpha, beta)), compute=compute, sequence_length=length)
    budget = compute / 6.0 / length
    size = (alpha * 400.0 / (beta * 60.0)) ** (1.0 / (alpha + beta)) * budget ** (beta / (alpha + beta))
    lowest = chinchilla(alpha, beta)(size, 1.0, budget / size)
    assert found.loss == pytest.approx(lowest, rel=1e-9)
    assert found.params == pytest.approx(size, rel=2e-3)
    assert found.examples == pytest.approx(budget / size, rel=2e-3)
    assert found.limits == ("compute",)
    assert not found.on_edge
    assert 32 <= found.batch_size <= 4096  # the law does not mind: not outside the data
    assert found.time is None
    assert math.isnan(found.params_interval[0])  # a law without draws


def test_limits_in_place_of_compute():
    found = best(Law(chinchilla()), **ALL)
    assert (found.params, found.batch_size, found.steps) == (10**9, 4096, 10**5)
    assert found.limits == ("steps_max", "batch_max", "params_max")
    found = best(Law(chinchilla()), params_max=1e9, batch_max=4096, time=1000.0, step_time=0.03)
    assert found.steps == 33333
    assert found.time == pytest.approx(999.99)
    assert found.limits == ("batch_max", "params_max", "time")


def test_inside_the_limits():
    """Where more of everything is worse, no limit binds."""
    found = best(Law(bowl((3e7, 500.0, 2e4))), **ALL, compute=1e30)
    assert (found.params, found.batch_size, found.steps) == (pytest.approx(3e7, rel=1e-4), 500, 20000)
    assert found.limits == ()


def test_of_two_valleys_the_deeper():
    def loss(N, B, K):
        one, two = bowl((2e6, 60.0, 2e3))(N, B, K), bowl((3e8, 2000.0, 5e4))(N, B, K)
        return np.minimum(one, two - 0.01)

    found = best(Law(loss), **ALL)
    assert (found.batch_size, found.steps) == (2000, 50000)
    found = best(Law(lambda N, B, K: np.minimum(loss(N, B, K), bowl((2e6, 60.0, 2e3))(N, B, K) - 0.02)), **ALL)
    assert (found.batch_size, found.steps) == (60, 2000)


SMALL = {"N": np.array([2.0, 9.0]), "B": np.array([2.0, 9.0]), "K": np.array([2.0, 9.0]), "loss": np.ones(2)}


@given(
    center=st.tuples(*[st.floats(0.5, 30.0)] * 3),
    most=st.tuples(*[st.integers(1, 14)] * 3) | st.tuples(*[st.integers(17, 30)] * 3),
    compute=st.floats(6.0, 20_000.0),
    slow=st.floats(0.0, 3.0),
    time=st.floats(2.0, 60.0),
    shape=st.tuples(*[st.floats(-0.45, 0.45)] * 3),
)
@settings(max_examples=60, deadline=None)
def test_no_worse_than_every_whole_number(center, most, compute, slow, time, shape):
    """All limits at once, on losses that fall and rise in all directions: kept exactly, and nothing better is."""
    a, b, c = shape
    law = Law(bowl(center, ((1.0, a, b), (a, 1.0, c), (b, c, 1.0))), runs=SMALL)

    def seconds(N, B):
        return 1.0 + slow * N * B / 50.0

    limits = {"params_max": most[0], "batch_max": most[1], "steps_max": most[2], "compute": compute, "time": time}
    if seconds(1, 1) > time:
        return
    found = quiet(law, **limits, step_time=seconds)
    N, B, K = (v.ravel() for v in np.meshgrid(*(np.arange(1.0, m + 1.0) for m in most)))
    flop, duration = 6.0 * N * B * K, K * seconds(N, B)
    allowed = (flop <= compute) & (duration <= time)
    assert found.loss <= law.losses(N[allowed], B[allowed], K[allowed])[0].min() * (1.0 + 1e-12)
    sizes = (found.params, found.batch_size, found.steps)
    assert all(type(v) is int and 1 <= v <= m for v, m in zip(sizes, most, strict=True))
    assert 6 * math.prod(sizes) <= compute
    assert found.steps * seconds(found.params, found.batch_size) <= time
    assert found.loss == law.losses(*(np.float64(v) for v in sizes))[0]


@given(compute=st.floats(1e13, 1e22), length=st.integers(1, 4096), steps=st.integers(1, 10**6), time=st.floats(10, 1e6))
@settings(max_examples=25, deadline=None)
def test_limits_hold_exactly(compute, length, steps, time):
    found = quiet(
        Law(tradeoff()), compute=compute, sequence_length=length, steps_max=steps, time=time,
        step_time=lambda N, B: 1e-3 + 1e-14 * N * B,
    )  # fmt: skip
    assert 6 * found.params * found.batch_size * found.steps * length <= compute
    assert found.steps <= steps
    assert found.steps * (1e-3 + 1e-14 * found.params * found.batch_size) <= time
    assert found.time == found.steps * (1e-3 + 1e-14 * found.params * found.batch_size)
    assert found.compute == pytest.approx(6 * found.params * found.batch_size * found.steps * length, rel=1e-14)


@pytest.mark.parametrize("time", [3e2, 3e3, 3e4])
@pytest.mark.parametrize("loss", [tradeoff(), bowl((1e8, 1e3, 3e4))], ids=["tradeoff", "bowl"])
def test_no_worse_than_a_fine_grid(loss, time):
    """Compute and a time that depends on both sizes: a bent edge, along which the best often lies."""
    law, compute = Law(loss), 1e16

    def seconds(N, B):
        return 2e-3 + 1e-11 * N * B**0.9 + 1e-10 * N

    found = quiet(law, compute=compute, time=time, step_time=seconds)
    sizes, batches = np.geomspace(1e4, 1e11, 300).round(), np.unique(np.geomspace(1, 4e5, 300).round())
    N, B, share = np.meshgrid(sizes, batches, np.geomspace(1e-3, 1.0, 12))
    K = np.floor(share * np.minimum(np.minimum(compute / (6.0 * N * B), time / seconds(N, B)), 1e7))
    kept = K >= 1.0
    assert found.loss <= law.losses(N[kept], B[kept], K[kept])[0].min() * (1.0 + 1e-6)


def test_a_step_that_cannot_be_done():
    """An infinite step time rules sizes out, as memory does."""
    found = quiet(Law(chinchilla()), compute=1e18, time=1e9, step_time=lambda N, B: math.inf if N * B > 1e9 else 1e-3)
    assert found.params * found.batch_size <= 1e9
    free = quiet(Law(chinchilla()), compute=1e18, params_max=10**6)
    assert free.params == 10**6
    assert "params_max" in free.limits


def test_intervals_over_draws():
    """Draws whose best are known: their quantiles, for N and B; K follows from compute."""
    random = np.random.default_rng(1)
    shifts = np.exp(0.5 * random.standard_normal((50, 2)))
    plain = np.eye(3) * [1.0, 1.0, 0.0]
    laws = [bowl((3e7 * a, 500.0 * b, 1.0), plain) for a, b in [(1.0, 1.0), *shifts]]
    found = quiet(Law(*laws), compute=1e15)
    for ends, middle, column in ((found.params_interval, 3e7, 0), (found.batch_size_interval, 500.0, 1)):
        expected = middle * np.quantile(shifts[:, column], [0.05, 0.95], method="weibull")
        np.testing.assert_allclose(ends, expected, rtol=0.02)
    steps = 1e15 / 6.0 / (3e7 * 500.0 * shifts.prod(axis=1))
    np.testing.assert_allclose(found.steps_interval, np.quantile(steps, [0.05, 0.95], method="weibull"), rtol=0.02)
    at = np.array([law(float(found.params), float(found.batch_size), float(found.steps)) for law in laws[1:]])
    assert found.loss_interval == tuple(np.quantile(at, [0.05, 0.95], method="weibull"))
    narrow = best(Law(*laws), compute=1e15, level=0.5)
    assert found.params_interval[0] < narrow.params_interval[0] < narrow.params_interval[1] < found.params_interval[1]


def test_far_from_the_data_it_warns_by_how_much():
    with pytest.warns(UserWarning, match="params 30 times, compute 30 times beyond the runs"):
        found = best(Law(chinchilla()), params_max=3e10, batch_max=4096, steps_max=1e5)
    assert not found.on_edge
    with pytest.warns(UserWarning, match=r"compute .* times.* beyond"):
        found = best(Law(chinchilla()), compute=1e27)
    assert found.on_edge
    assert "edge" in str(found)
    with pytest.warns(UserWarning, match="batch_size 32 times beyond"):
        found = best(Law(chinchilla()), params_max=1e9, batch_max=1, steps_max=1e5)
    assert not found.on_edge  # a limit, not the box


def test_the_same_bits_again_and_frozen():
    law = Law(tradeoff(), tradeoff(200.0), tradeoff(400.0))
    ask = {"compute": 1e17, "time": 1e4, "step_time": lambda N, B: 1e-3 + 1e-12 * N * B}
    found = best(law, **ask)
    assert found == best(law, **ask)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.params = 3
    text = str(found)
    assert all(word in text for word in ("params", "batch_size", "steps", "loss", "compute", "time", "limits"))
    assert " to " in text


@pytest.mark.parametrize(
    ("limits", "match"),
    [
        ({}, "params_max and batch_max and steps_max"),
        ({"params_max": 10, "steps_max": 5}, "batch_max"),
        ({"params_max": 10, "batch_max": 5}, r"steps_max \(or time\)"),
        ({"batch_max": 10, "time": 5.0, "step_time": 1.0}, "params_max"),
        ({"compute": 1e18, "time": 5.0}, "step_time: expected seconds a step"),
        ({"compute": 5.0}, "compute: expected at least 6 FLOP"),
        ({"compute": 50.0, "sequence_length": 10}, "compute: expected at least 60 FLOP"),
        ({"compute": 1e18, "time": 0.5, "step_time": 1.0}, "time: expected at least one step's, 1 s"),
        ({"compute": 1e18, "time": 0.5, "step_time": lambda N, B: -1.0}, "step_time: expected seconds > 0, got -1"),
        ({"compute": 1e18, "time": 0.5, "step_time": lambda N, B: math.nan}, "step_time: expected seconds > 0"),
        ({"compute": -1.0}, "compute"),
        ({"compute": math.nan}, "compute"),
        ({"compute": 1e18, "steps_max": 0.5}, "steps_max"),
        ({"compute": 1e18, "batch_max": 0}, "batch_max"),
        ({"compute": 1e18, "params_max": -3}, "params_max"),
        ({"compute": 1e18, "sequence_length": 0}, "sequence_length"),
        ({"compute": 1e18, "level": 1.0}, "level"),
        ({"compute": 1e18, "step_time": 0.0, "time": 3.0}, "step_time"),
        ({"compute": [1e18, 1e19]}, "compute: expected a single number"),
    ],
)
def test_bad_limits(limits, match):
    with pytest.raises(ValueError, match=match):
        best(Law(chinchilla()), **limits)


@pytest.mark.parametrize("fit", [None, 3, RUNS])
@pytest.mark.parametrize(
    "ask",
    [lambda f: best(f, compute=1e18), lambda f: frontier(f, 2.5), lambda f: critical_batch_size(f, 1e8, 2.5)],
    ids=["best", "frontier", "critical"],
)
def test_not_a_fit(fit, ask):
    with pytest.raises(TypeError, match="fit: expected a fit"):
        ask(fit)


def test_wrong_types():
    law = Law(chinchilla())
    with pytest.raises(TypeError, match="compute"):
        best(law, compute="much")
    with pytest.raises(TypeError, match="step_time"):
        best(law, compute=1e18, time=3.0, step_time="slow")
    with pytest.raises(TypeError, match="loss"):
        frontier(law, "low")


def test_frontier_of_one_size_is_the_hyperbola():
    size, loss, critical = 1e8, 2.2, 300.0
    found = frontier(Law(tradeoff(critical)), loss, params=size, sequence_length=128)
    least, table = needed(size, loss), found.table
    assert table["steps"].size == 16
    np.testing.assert_allclose(table["params"], size, rtol=1e-12)
    np.testing.assert_allclose(table["batch_size"], critical / (table["steps"] / least - 1.0), rtol=1e-5)
    product = 6.0 * size * table["batch_size"] * table["steps"] * 128
    np.testing.assert_allclose(table["compute"], product, rtol=1e-12)
    smallest = 6.0 * size * least * (1.0 + critical) * 128  # a batch size of 1
    assert found.least_compute == pytest.approx(smallest, rel=1e-4)
    assert found.fewest == pytest.approx(least * (1.0 + critical / 409600.0), rel=1e-6)
    assert np.isnan(table["time"]).all()
    assert np.isnan(table["low"]).all()


def test_frontier_over_sizes():
    loss, critical = 2.2, 300.0
    found = frontier(Law(tradeoff(critical)), loss)
    for steps, compute in zip(found.table["steps"], found.table["compute"], strict=True):

        def cost(n, steps=steps):
            ratio = steps / needed(math.exp(n), loss) - 1.0
            batch = critical / ratio if ratio > 0.0 else math.inf
            return math.log(6.0 * steps) + n + math.log(max(batch, 1.0)) if batch <= 409600.0 else 1e3 - n

        grid = np.linspace(math.log(1e7), math.log(1e11), 2000)
        start = grid[np.argmin([cost(n) for n in grid])]
        lowest = minimize_scalar(
            cost, bounds=(start - 0.01, min(start + 0.01, grid[-1])), method="bounded", options={"xatol": 1e-9}
        )
        assert math.log(compute) == pytest.approx(lowest.fun, abs=1e-5)
    best_size = minimize_scalar(lambda n: n + math.log(needed(math.exp(n), loss)), bounds=(17, 23), method="bounded")
    assert found.least_compute == pytest.approx(6.0 * (1.0 + critical) * math.exp(best_size.fun), rel=1e-3)
    assert found.fewest == pytest.approx(needed(1e11, loss) * (1.0 + critical / 409600.0), rel=1e-4)


def test_frontier_of_time():
    """Every row reaches the loss in its time, and no grid point does so with less compute."""
    loss = 2.3

    def seconds(N, B):
        return 0.02 + 1e-11 * N * B

    law = Law(tradeoff())
    found = frontier(law, loss, step_time=seconds)
    table = found.table
    assert found.axis == "time"
    reached = law.losses(table["params"], table["batch_size"], table["steps"])[0]
    assert (reached <= loss * (1.0 + 1e-9)).all()
    np.testing.assert_allclose(table["steps"] * seconds(table["params"], table["batch_size"]), table["time"], rtol=1e-9)
    assert (np.diff(table["time"]) > 0).all()
    assert (np.diff(table["compute"]) < 0).all()
    N, B = np.meshgrid(np.geomspace(1e7, 1e11, 400), np.geomspace(1, 409600, 400))
    K = needed(N, loss) * (1.0 + 300.0 / B)
    for time, compute in zip(table["time"], table["compute"], strict=True):
        cheap = (6.0 * N * B * K)[K * seconds(N, B) <= time]
        assert cheap.size == 0 or compute <= cheap.min() * (1.0 + 2e-3)
    assert found.fewest == pytest.approx((K * seconds(N, B)).min(), rel=5e-3)


def test_frontier_within_what_can_be_done():
    """Infinite step times, as for lack of memory, are kept away from."""
    law = Law(tradeoff(), tradeoff(280.0), tradeoff(310.0))
    table = frontier(law, 2.3, step_time=lambda N, B: 0.1 if N * B <= 3e10 else math.inf).table
    assert (table["params"] * table["batch_size"] <= 3e10).all()
    assert (law.losses(table["params"], table["batch_size"], table["steps"])[0] <= 2.3 * (1.0 + 1e-9)).all()
    assert (table["low"] <= table["high"]).all()


def test_with_a_real_fit():
    """Decisions from a fit with its bootstrap: intervals around the answers, and time without a limit on it."""
    N, B, K = np.meshgrid(10.0 ** np.arange(6, 10), [64.0, 512.0], 10.0 ** np.arange(3, 6))
    noise = np.exp(0.01 * np.random.default_rng(0).standard_normal(N.shape))
    fit = nqm.scaling.chinchilla(N, B, K, chinchilla()(N, B, K) * noise)
    found = best(fit, compute=1e17, steps_max=1e5, step_time=0.2)
    assert found.time == pytest.approx(0.2 * found.steps)
    assert found.params_interval[0] < found.params < found.params_interval[1]
    assert found.loss_interval[0] < found.loss < found.loss_interval[1]
    table = frontier(fit, 2.8, params=found.params).table
    late = np.isfinite(table["high"])
    assert late.any()
    assert (table["low"] <= table["compute"])[late].all()
    assert (table["compute"] <= table["high"])[late].all()


def test_frontier_intervals():
    """Draws that need c times the steps at every batch size: at fixed N, B follows from the hyperbola."""
    factors = np.linspace(0.8, 1.1, 41)
    laws = [tradeoff(300.0, 20.0 * math.sqrt(c)) for c in (1.0, *factors)]
    found = frontier(Law(*laws), 2.2, params=1e8)
    table, least = found.table, needed(1e8, 2.2)
    ratio = table["steps"] / (least * factors[:, None]) - 1.0  # (draws, rows)
    batch = np.maximum(np.where(ratio > 0.0, 300.0 / np.where(ratio > 0.0, ratio, 1.0), np.inf), 1.0)
    for i, column in ((1, "low"), (38, "high")):  # of 41 draws the ends lie at 2.1 and 39.9: between these and the next
        share = {"low": 0.1, "high": 0.9}[column]
        expected = 6e8 * table["steps"] * ((1.0 - share) * batch[i] + share * batch[i + 1])
        within = np.isfinite(expected) & (batch[i] > 2.0) & (batch[i + 1] < 10.0 * table["batch_size"])
        assert within.sum() > 5
        np.testing.assert_allclose(table[column][within], expected[within], rtol=0.06)
        assert np.isinf(table[column][~(ratio[i + 1] > 0.0)]).all()  # a draw that does not get there


def test_frontier_of_a_loss_out_of_reach():
    with pytest.raises(ValueError, match=r"at best 1\.5\d+, got 1\.5"):
        frontier(Law(tradeoff()), 1.5)
    with pytest.raises(ValueError, match=r"with 1e\+06 parameters, at best 3\.8"):
        frontier(Law(tradeoff()), 2.2, params=1e6)


@pytest.mark.parametrize(
    ("named", "match"),
    [({"loss": 0.0}, "loss"), ({"params": 0.5}, "params"), ({"level": 0.0}, "level"), ({"sequence_length": -1}, "seq")],
)
def test_frontier_bad_input(named, match):
    with pytest.raises(ValueError, match=match):
        frontier(Law(tradeoff()), **{"loss": 2.2, **named})


def test_frontier_prints_and_draws():
    found = frontier(Law(tradeoff(), tradeoff(280.0), tradeoff(310.0)), 2.2, step_time=0.1)
    assert repr(found).startswith("Frontier(loss 2.2: at least ")
    assert len(repr(found).splitlines()) == 18
    with pytest.raises(ValueError, match="read-only"):
        found.table["compute"][0] = 1.0
    assert found.to_pandas().columns.tolist() == list(found.table)
    assert found._repr_html_().count("<tr>") == 17
    ax = found.plot(plotting.new_figure()[1])
    assert ax.get_xlabel() == "time (seconds)"
    x, y = ax.lines[0].get_data()
    np.testing.assert_array_equal(x, found.table["time"])
    np.testing.assert_array_equal(y, found.table["compute"])


def test_critical_batch_size_of_the_tradeoff():
    """E_min at B = 1, S_min at 100 times the largest batch size: (1 + B_c) / (1 + B_c / 409600) throughout."""
    N, loss = np.array([[3e7], [1e9]]), np.array([2.5, 3.0, 4.0])
    found = critical_batch_size(Law(tradeoff(300.0)), N, loss)
    assert found.value.shape == (2, 3)
    np.testing.assert_allclose(found.value, 301.0 / (1.0 + 300.0 / 409600.0), rtol=1e-6)
    np.testing.assert_allclose(found.steps, needed(N, loss) * (1.0 + 300.0 / 409600.0), rtol=1e-6)
    np.testing.assert_allclose(found.examples, needed(N, loss) * 301.0, rtol=1e-6)
    assert not found.on_edge.any()
    assert np.isnan(found.low).all()


def test_critical_batch_size_with_a_minimum_inside():
    """Examples that rise again at small batches, against a fine grid."""

    def loss(N, B, K):
        return 1.5 + 20.0 * (K / (1.0 + 300.0 / B + (20.0 / B) ** 2)) ** -0.5

    B = np.geomspace(1.0, 409600.0, 100_001)
    steps = 400.0 / (2.5 - 1.5) ** 2 * (1.0 + 300.0 / B + (20.0 / B) ** 2)
    found = critical_batch_size(Law(loss), 1e8, 2.5)
    assert isinstance(found.value, float)
    assert found.value == pytest.approx((B * steps).min() / steps.min(), rel=1e-6)
    assert not found.on_edge


def test_critical_batch_size_first_crossing():
    """A loss that rises again after its minimum counts from where it first comes down."""

    def loss(N, B, K):
        s = K / (1.0 + 300.0 / B)
        return 1.5 + 20.0 * s**-0.5 + 1e-4 * s**0.5

    s = min(np.roots([1e-4, -0.5, 20.0]).real) ** 2
    found = critical_batch_size(Law(loss), 1e8, 2.0)
    assert found.steps == pytest.approx(s * (1.0 + 300.0 / 409600.0), rel=1e-6)


def test_critical_batch_size_intervals():
    values = np.linspace(100.0, 900.0, 41)
    found = critical_batch_size(Law(tradeoff(300.0), *(tradeoff(v) for v in values)), 1e8, 2.5)
    ends = np.quantile(values, [0.05, 0.95], method="weibull")
    np.testing.assert_allclose([found.low, found.high], (1.0 + ends) / (1.0 + ends / 409600.0), rtol=0.05)


def test_critical_batch_size_out_of_reach_or_without_end():
    found = critical_batch_size(Law(tradeoff()), 1e8, [1.6, 2.5])
    assert np.isnan(found.value[0])
    assert np.isnan(found.low[0])
    assert np.isfinite(found.value[1])
    assert critical_batch_size(Law(chinchilla()), 1e9, 2.6).on_edge


@pytest.mark.parametrize(
    ("N", "loss", "match"),
    [(0.5, 2.0, "N"), (1e8, -1.0, "loss"), ([1e8, 1e9], [2.0, 2.1, 2.2], "broadcast"), (1e8, math.nan, "loss")],
)
def test_critical_batch_size_bad_input(N, loss, match):
    with pytest.raises(ValueError, match=match):
        critical_batch_size(Law(tradeoff()), N, loss)


def test_critical_batch_size_picture():
    found = critical_batch_size(Law(tradeoff(), tradeoff(250.0)), [[1e8], [1e9]], [2.0, 2.5, 3.0])
    ax = found.plot(plotting.new_figure()[1])
    assert len(ax.lines) == 2
    for line, row in zip(ax.lines, itertools.count()):
        np.testing.assert_array_equal(line.get_ydata(), found.value[row])
