"""Critical batch sizes of fits, on laws whose answers are known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from laws import Law, chinchilla, needed, tradeoff

from nqm import plotting
from nqm.scaling.decisions.critical_batch_size import critical_batch_size


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
