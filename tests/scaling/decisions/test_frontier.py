"""The frontier of compute against steps or time, on laws whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from laws import Law, needed, tradeoff
from scipy.optimize import minimize_scalar

from nqm import plotting
from nqm.scaling.decisions.frontier import frontier


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
