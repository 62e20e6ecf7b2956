"""The rung of linear regression, from its runs to its picture, and what all rungs refuse."""

import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

import nqm
from nqm import validation
from nqm.validation.ladder import Rung, linear_regression, linearised_network, plot_rung, softmax_regression
from nqm.validation.ladder.linear import pixels, regression
from nqm.validation.ladder.rung import verdict
from nqm.validation.ladder.task import recorded, train


@pytest.fixture(scope="module")
def first() -> Rung:
    return linear_regression(quick=True)


def test_state_dependent_noise_predicts_linear_regression(first):
    """In every cell, at every recorded step, within the simultaneous 95% band of 200 runs; so are the exact moments."""
    assert first.runs == 200
    assert len(first.cells) == 9
    assert 3.0 < first.z < 4.5
    assert all(first.inside("matched").values())
    assert all(first.inside("exact").values())


def test_additive_noise_does_not_at_batch_size_one(first):
    for cell, inside in first.inside("additive").items():
        if cell.endswith("batch size 1"):
            assert not inside, cell


def test_matched_noise_is_nearer_than_gaussian_than_additive(first):
    c = first.curves
    off = {
        model: np.abs(c[f"predicted_{model}"] / c["predicted_exact"] - 1.0).max()
        for model in ("matched", "gaussian", "additive")
    }
    assert off["matched"] < 0.06
    assert off["matched"] < off["gaussian"] < off["additive"]


def test_steps_and_critical_batch_sizes_of_linear_regression(first):
    assert np.all(np.abs(first.ratios["ratio"] - 1.0) < 0.2)
    assert np.all(np.abs(first.critical["ratio"] - 1.0) < 0.2)
    assert "critical" in first.verdict.lower()
    assert first.verdict in repr(first)


def test_pixels_are_uncorrelated_and_never_constant():
    x, y = pixels("parity")
    covariance = x.T @ x / len(x)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-12)
    assert np.diag(covariance).min() > 1e-6
    assert abs(y.mean()) < 1e-12
    with pytest.raises(ValueError, match="labels"):
        pixels("hue")


def test_gradient_of_regression_is_the_mean_over_the_batch():
    x, y = pixels()
    task, theta = regression(x, y), np.random.default_rng(0).standard_normal((2, x.shape[1]))
    chosen = np.array([[3, 3, 7], [0, 1, 2]])
    for run in range(2):
        batch = chosen[run]
        expected = np.mean([x[n] * (x[n] @ theta[run] - y[n]) for n in batch], axis=0)
        np.testing.assert_allclose(task.gradient(theta, chosen)[run], expected, rtol=1e-10)


@pytest.mark.parametrize("rung", [linear_regression, softmax_regression, linearised_network])
def test_rungs_refuse(rung):
    with pytest.raises(ValueError, match="runs: expected at least 2"):
        rung(runs=1)
    with pytest.raises(TypeError, match="runs: expected a whole number"):
        rung(runs=10.0)
    with pytest.raises(TypeError, match="quick"):
        rung(quick="yes")


def test_same_seed_same_bits():
    x, y = pixels()
    task, steps = regression(x, y), recorded(20)
    runs = [train(task, nqm.SGD(0.01, momentum=0.5), 4, steps, 10, (seed, 1)) for seed in (5, 5, 6)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.all(runs[0][:, -1] != runs[2][:, -1])


def test_plot(first):
    figure = plot_rung(first)
    assert len(figure.axes) == 10
    figure.canvas.draw()


def many_series(first):
    """The rung's curves with ratios of three tasks of two optimizers, at one batch size."""
    rows = list(product(("one", "two", "three"), ("SGD", "momentum"), ("same", "tuned")))
    ratios = {
        key: np.array(column)
        for key, column in zip(("cell", "optimizer", "learning_rate"), zip(*rows, strict=True), strict=True)
    }
    ratios |= {"batch_size": np.full(12, 64.0), "ratio": np.linspace(0.5, 2.0, 12), "measured": np.full(12, 9.0)}
    return replace(first, ratios=ratios | {"error": np.full(12, 0.1)})


def test_points_of_ratios_differ_and_stand_at_their_batch_size(first):
    points = [bars.lines[0] for bars in plot_rung(many_series(first)).axes[-1].containers]
    looks = {(line.get_color(), line.get_marker(), line.get_fillstyle()) for line in points}
    assert len(looks) == len(points) == 12
    places = [float(line.get_xdata()[0]) for line in points]
    assert 64.0 / 1.05 < min(places) < max(places) < 64.0 * 1.05


def test_a_prediction_that_diverges_is_told_and_drawn_to_the_edge(first):
    cell = first.cells[0]
    curves = {key: column.copy() for key, column in first.curves.items()}
    here = np.flatnonzero(curves["cell"] == cell)
    curves["predicted_gaussian"][here[-3:]] = [1e10, 1e25, np.inf]
    rung = replace(first, curves=curves)
    (line,) = (line for line in verdict(rung).splitlines() if line.startswith("gaussian"))
    assert "diverges (beyond 100 times the measured loss) in 1" in line
    numbers = [float(number) for number in re.findall(r"[\d.]+(?=%| standard)", line)]
    assert len(numbers) == 3
    assert max(numbers) < 1000.0
    ax = plot_rung(rung).axes[0]
    (drawn,) = (line for line in ax.get_lines() if line.get_label() == "gaussian")
    np.testing.assert_array_equal(drawn.get_ydata(), curves["predicted_gaussian"][here])
    assert ax.get_ylim()[1] == pytest.approx(10.0 * curves["high"][here].max())
    assert ax.get_title().endswith("(gaussian: up to inf)")


def test_rungs_go_by_their_letters_too():
    names = {"a": linear_regression, "b": softmax_regression, "c": linearised_network, "d": validation.network}
    for letter, rung in names.items():
        assert getattr(validation, f"rung_{letter}") is rung
    assert validation.race is validation.train_until_first
    assert all(hasattr(validation, name) for name in validation.__all__)
