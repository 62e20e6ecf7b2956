"""What the tasks of the rungs share: models with the measured traces, crossings of runs, recorded steps."""

import numpy as np
import pytest

from nqm.validation.ladder.task import crossing, models_of, recorded


def test_models_have_the_measured_traces():
    generator = np.random.default_rng(0)
    h, start = np.array([2.0, 1.0, 0.1]), np.array([1.0, -1.0, 2.0])
    at = generator.standard_normal((50, 3)), 5.0 * generator.standard_normal((50, 3))
    models = models_of(h, *at, start)
    traces = [part.var(axis=0).sum() for part in at]
    for name in ("additive", "gaussian", "matched"):
        model = models[name]
        assert model.spread * model.problem.noise.sum() == pytest.approx(traces[0])
    matched = models["matched"]
    loss = 0.5 * h @ start**2
    at_start = h.sum() * (matched.problem.label_noise + 2.0 * loss) + (h * start) @ (h * start)
    assert matched.spread * at_start == pytest.approx(traces[1])


def test_noise_that_shrinks_has_no_matched_model():
    generator = np.random.default_rng(0)
    at = 5.0 * generator.standard_normal((50, 2)), generator.standard_normal((50, 2))
    assert set(models_of(np.ones(2), *at, np.ones(2))) == {"additive", "gaussian"}


def test_spread_of_elliptical_features_is_that_of_their_radius():
    """x = sqrt(u) g with E u = 1, E u^2 = 1.25: spread 1.25 within sampling errors of 400,000 examples."""
    generator = np.random.default_rng(0)
    h, optimum = np.ones(20), np.full(20, 0.5)
    x = generator.standard_normal((400_000, 20)) * np.sqrt(generator.choice([0.5, 1.5], 400_000))[:, None]
    errors = generator.standard_normal(len(x))
    models = models_of(h, x * errors[:, None], x * (errors - x @ optimum)[:, None], optimum)
    assert models["matched"].spread == pytest.approx(1.25, rel=0.02)


def test_crossing():
    steps = np.array([1, 2, 4, 8])
    losses = np.array([[8.0, 4.0, 2.0, 1.0], [8.0, 7.0, 6.0, 5.0], [0.5, 1.0, 1.0, 1.0], [8.0, np.inf, 1.0, 1.0]])
    np.testing.assert_array_equal(crossing(steps, losses, 1.5), [6.0, np.inf, 1.0, 4.0])
    np.testing.assert_array_equal(crossing(steps, losses[0], 2.0), 4.0)


def test_recorded():
    np.testing.assert_array_equal(recorded(5), [1, 2, 3, 4, 5])
    many = recorded(1000)
    assert many[0] == 1
    assert many[-1] == 1000
    assert np.all(np.diff(many) > 0)
