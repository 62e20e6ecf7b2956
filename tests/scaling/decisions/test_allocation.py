"""The best allocation within limits, on laws whose answers are known, and what decisions say to what is no fit."""

from __future__ import annotations

import dataclasses
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import RUNS, Law, chinchilla, tradeoff

import nqm
from nqm.scaling.decisions.allocation import best
from nqm.scaling.decisions.critical_batch_size import critical_batch_size
from nqm.scaling.decisions.frontier import frontier

ALL = {"params_max": 1e9, "batch_max": 4096, "steps_max": 1e5}


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
