"""The baseline: recovery, its published fit to real runs, the gradient, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from real_logs import DATA, real_logs

from nqm.scaling.fits.chinchilla import _Data, chinchilla

TRUTH = {"E": 1.7, "A": 400.0, "alpha": 0.34, "D": 60.0, "beta": 0.28}
PUBLISHED = {"E": 2.186, "A": 245.8, "alpha": 0.404, "D": 81.4, "beta": 0.353}  # fitted to the train rows


def law(N, B, K, E, A, alpha, D, beta):
    return E + A * N**-alpha + D * (B * K) ** -beta


def grid():
    N, B, K = np.meshgrid(10.0 ** np.arange(6, 10), [32.0, 64.0, 512.0, 2048.0], 10.0 ** np.arange(3, 6))
    return N.ravel(), B.ravel(), K.ravel()


@pytest.fixture(scope="module")
def noisy():
    N, B, K = grid()
    noise = np.exp(0.01 * np.random.default_rng(3).standard_normal(N.size))
    return chinchilla(N, B, K, law(N, B, K, **TRUTH) * noise)


def test_recovery_without_noise():
    N, B, K = grid()
    fit = chinchilla(N, B, K, law(N, B, K, **TRUTH))
    assert fit.parameters == pytest.approx(TRUTH, rel=1e-4)
    assert fit.agreeing == fit.starts == 32
    assert fit.cost < 1e-12
    assert fit.predict(3e7, 128, 3e4) == pytest.approx(law(3e7, 128, 3e4, **TRUTH), rel=1e-6)


def test_an_outlier_hardly_matters():
    N, B, K = grid()
    loss = law(N, B, K, **TRUTH)
    loss[5] *= 1.3
    assert chinchilla(N, B, K, loss).parameters == pytest.approx(TRUTH, rel=0.05)
    left_out = chinchilla(N, B, K, loss, exclude=np.arange(N.size) == 5)
    assert left_out.parameters == pytest.approx(TRUTH, rel=1e-4)
    assert left_out.runs["N"].size == N.size - 1


def test_intervals_cover(noisy):
    """New runs with the same noise fall within the 90% intervals; draws hold the truth."""
    N, B, K = grid()
    random = np.random.default_rng(4)
    low, high = noisy.interval(N, B, K)
    runs = law(N, B, K, **TRUTH) * np.exp(0.01 * random.standard_normal((400, N.size)))
    assert ((low <= runs) & (runs <= high)).mean() == pytest.approx(0.9, abs=0.05)
    narrow = noisy.interval(N, B, K, level=0.5)
    assert (low < narrow[0]).all()
    assert (narrow[1] < high).all()
    point = (1e8, 256.0, 2e4)
    losses = noisy.losses(*point)
    assert losses[1:].min() < law(*point, **TRUTH) < losses[1:].max()


def test_losses_shapes_and_draws(noisy):
    N, K = np.array([[1e7], [1e8]]), np.array([1e3, 1e4, 1e5])
    every = noisy.losses(N, 64, K)
    assert every.shape == (101, 2, 3)
    np.testing.assert_array_equal(noisy.losses(N, 64, K, draws=0), every[:1])
    np.testing.assert_array_equal(noisy.losses(N, 64, K, draws=7), every[:8])
    np.testing.assert_array_equal(noisy.predict(N, 64, K), every[0])
    assert isinstance(noisy.predict(1e8, 64, 1e4), float)
    assert all(isinstance(end, float) for end in noisy.interval(1e8, 64, 1e4))


def test_the_same_bits_again(noisy):
    runs = noisy.runs
    again = chinchilla(runs["N"], runs["B"], runs["K"], runs["loss"])
    assert again.parameters == noisy.parameters
    np.testing.assert_array_equal(again.draws, noisy.draws)
    other = chinchilla(runs["N"], runs["B"], runs["K"], runs["loss"], seed=1)
    assert other.parameters == noisy.parameters
    assert not np.array_equal(other.draws, noisy.draws)
    with pytest.raises(ValueError, match="read-only"):
        noisy.runs["N"][0] = 1.0


def test_gradient_against_complex_step(noisy):
    data, weights = _Data(noisy.runs), np.random.default_rng(0).exponential(size=noisy.runs["N"].size)
    theta = np.array([0.3, -0.5, 0.3, -0.8, 0.25])

    def cost(theta):
        e, a, alpha, b, beta = theta
        logs = np.log(np.exp(e) + np.exp(a - alpha * data.n) + np.exp(b - beta * data.d))
        residuals = logs - data.log_loss
        size = residuals * np.sign(residuals.real)
        return weights @ np.where(size.real <= 1e-3, 0.5 * size**2 / 1e-3, size - 0.5e-3)

    value, gradient = data.cost(theta, weights)
    assert value == pytest.approx(cost(theta.astype(complex)).real, rel=1e-12)
    exact = [cost(theta + 1e-30j * np.eye(5)[i]).imag / 1e-30 for i in range(5)]
    np.testing.assert_allclose(gradient, exact, rtol=1e-10)


@real_logs
def test_published_fit():
    """To the digits printed, from the same rows, or at no more cost."""
    rows = np.genfromtxt(DATA / "llm_runs.csv", delimiter=",", names=True, dtype=None, encoding="utf8")
    rows = rows[(rows["split"] == "train") & (rows["filtered"].astype(str) == "False")]
    N, B, K, loss = (rows[name].astype(float) for name in ("N", "B", "K", "loss"))
    assert N.size == 64
    fit = chinchilla(N, B, K, loss)
    residual = np.abs(np.log(law(N, B, K, **PUBLISHED) / loss))
    published = np.where(residual <= 1e-3, 0.5 * residual**2, 1e-3 * (residual - 0.5e-3)).sum()
    assert fit.cost <= published
    assert fit.agreeing == fit.starts
    for name, digits in (("E", 3), ("A", 1), ("alpha", 3), ("D", 1), ("beta", 3)):
        assert round(fit.parameters[name], digits) == PUBLISHED[name]


def test_prints(noisy):
    assert repr(noisy).startswith("ChinchillaFit(48 runs: loss = 1.")
    assert repr(noisy).endswith("32 of 32 starts agree)")


def test_far_from_the_data_it_warns(noisy):
    with pytest.warns(UserWarning, match=r"N is 100 times beyond the 1e\+06 to 1e\+09 of the runs"):
        noisy.predict(1e11, 64, 1e4)
    with pytest.warns(UserWarning, match=r"B is 32 times beyond .* B K is 32 times beyond"):
        noisy.interval(1e8, 1.0, [1e3, 1e4])


GOOD = dict(zip(("N", "B", "K", "loss"), (*grid(), law(*grid(), **TRUTH)), strict=True))


@pytest.mark.parametrize(
    ("changed", "error", "match"),
    [
        ({"loss": -GOOD["loss"]}, ValueError, "loss: expected finite real numbers"),
        ({"loss": np.where(np.arange(48) == 3, np.nan, 2.0)}, ValueError, r"loss: .* got nan at index \(3,\)"),
        ({"N": 0}, ValueError, "N: expected"),
        ({"K": "many"}, TypeError, "K: expected"),
        ({"B": [1.0, 2.0]}, ValueError, "broadcast"),
        ({"N": 1e6}, ValueError, "several N, got 1e.06 only: A, alpha cannot"),
        (
            {"N": np.geomspace(1e6, 1e9, 48), "B": 8.0, "K": 1000.0},
            ValueError,
            "several B K, got 8000 only: D, beta cannot",
        ),
        (
            {key: v[:4] for key, v in GOOD.items()},
            ValueError,
            "10 or more settings .* 5 parameters .* got 4: add 6",
        ),
        ({"exclude": np.arange(48) > 2}, ValueError, "got 3: add 7"),
        ({"exclude": [1, 2]}, ValueError, "exclude: expected True or False"),
        ({"seed": 0.5}, ValueError, "seed"),
    ],
)
def test_bad_runs(changed, error, match):
    with pytest.raises(error, match=match):
        chinchilla(**{**GOOD, **changed})


@pytest.mark.parametrize("bad", [{"N": -1.0}, {"B": math.inf}, {"K": [1.0, 2.0], "N": [1.0, 2.0, 3.0]}])
def test_bad_predictions(noisy, bad):
    with pytest.raises(ValueError, match="expected"):
        noisy.predict(**{"N": 1e8, "B": 64, "K": 1e4, **bad})
    with pytest.raises(ValueError, match="expected"):
        noisy.interval(**{"N": 1e8, "B": 64, "K": 1e4, **bad})


def test_bad_level(noisy):
    with pytest.raises(ValueError, match="level"):
        noisy.interval(1e8, 64, 1e4, level=1.5)
