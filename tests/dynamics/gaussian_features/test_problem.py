"""A problem of Gaussian features as an object, and bad input."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from features import HARMONIC, TUNED, features

import nqm


def test_pickle_repr_and_what_is_shown():
    problem = features([1.0, 0.1], 1.0, 2.0, 0.5)
    assert repr(problem) == ("NoisyQuadratic(dim=4, nodes=2, curvature 0.1 to 1, gaussian-features, label_noise=0.5)")
    assert problem.noise.tolist() == [0.5, 0.05]
    assert (problem.noise_model, problem.label_noise) == ("gaussian-features", 0.5)
    additive = nqm.NoisyQuadratic(1.0)
    assert (additive.noise_model, additive.label_noise) == ("additive", None)
    law = nqm.NoisyQuadratic.power_law(10_000, noise_model="gaussian-features", label_noise=0.5)
    for given in (problem, law, law.binned(50), features(HARMONIC[:300])):
        expected = nqm.risk(given, nqm.SGD(0.1, 0.5), 16, 100)
        copy = pickle.loads(pickle.dumps(given))
        assert repr(copy) == repr(given)
        assert nqm.risk(copy, nqm.SGD(0.1, 0.5), 16, 100) == expected
        assert (copy.noise_model, copy.label_noise) == (given.noise_model, given.label_noise)
        with pytest.raises(ValueError, match="read-only"):
            copy.noise[0] = 1.0


def test_without_labels_noise_the_noise_at_the_optimum_is_none():
    problem = features([1.0, 0.1], label_noise=0.0)
    assert problem.noise.tolist() == [0.0, 0.0]
    assert problem.label_noise == 0.0
    # and yet the steps are noisy
    assert nqm.risk(problem, nqm.SGD(0.5), 1, 1) > nqm.risk(problem, nqm.SGD(0.5), math.inf, 1)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"label_noise": None}, ValueError, "label_noise: expected a variance >= 0"),
        ({"label_noise": -1.0}, ValueError, "label_noise: expected finite real numbers"),
        ({"label_noise": math.nan}, ValueError, "label_noise: expected finite real numbers"),
        ({"label_noise": math.inf}, ValueError, "label_noise: expected finite real numbers"),
        ({"label_noise": [1.0]}, ValueError, "label_noise: expected a single number"),
        ({"label_noise": "1"}, TypeError, "label_noise: expected finite real numbers"),
        ({"noise": 1.0}, ValueError, "noise: expected None"),
        ({"noise_model": "gaussian"}, ValueError, 'noise_model: expected "additive" or "gaussian-features"'),
        ({"noise_model": None}, ValueError, "noise_model: expected"),
        ({"noise_model": "additive"}, ValueError, "label_noise: expected noise_model"),
    ],
    ids=str,
)
def test_bad_models(arguments, error, words):
    good = {"noise_model": "gaussian-features", "label_noise": 1.0}
    with pytest.raises(error, match=words):
        nqm.NoisyQuadratic([1.0], **{**good, **arguments})
    covariance = np.eye(2) if "noise" in arguments else None
    arguments = {k: v for k, v in arguments.items() if k != "noise"}
    with pytest.raises(error, match=words):
        nqm.NoisyQuadratic.from_matrices(np.eye(2), covariance, [1.0, 1.0], **{**good, **arguments})
    if covariance is None:
        with pytest.raises(error, match=words):
            nqm.NoisyQuadratic.power_law(100, **{**good, **arguments})


@pytest.mark.parametrize("batch", [2.5, 0.4, 1.0 + 1e-6, nqm.Schedule([2, 1.5], [3, 3])], ids=str)
def test_only_whole_batches_are_drawn(batch):
    with pytest.raises(ValueError, match="batch_size: expected whole numbers of examples"):
        nqm.simulate(features(1.0), nqm.SGD(0.1), batch, 5, runs=10)
    assert math.isfinite(nqm.risk(features(1.0), nqm.SGD(0.1), batch, 5))  # an expectation needs none


@pytest.mark.parametrize(
    "ask",
    [
        lambda problem: nqm.bounds.mle(problem, 100),
        lambda problem: nqm.bounds.bayes(problem, 100),
        lambda problem: nqm.bounds.examples_to_target(problem, 0.1),
        lambda problem: nqm.bounds.steady_state(problem, nqm.SGD(0.1), 8),
        lambda problem: nqm.bounds.momentum(problem, nqm.SGD(0.1, 0.9), 8, 100),
        lambda problem: nqm.bounds.ema(problem, nqm.EMA(nqm.SGD(0.1), 0.9), 8, 100),
        lambda problem: nqm.optimize_schedule(problem, batch_size=8, target=0.1, pieces=3),
        lambda problem: nqm.optimize_schedule(problem, batch_size=8, steps=100, pieces=3),
    ],
)
def test_what_is_about_additive_noise_refuses(ask):
    with pytest.raises(ValueError, match='problem: expected noise_model="additive"'):
        ask(TUNED)


@pytest.mark.parametrize("batch", [0.0, -1.0, math.nan, [8.0, 0.0]], ids=str)
def test_bad_batches(batch):
    for function in (nqm.max_stable_lr, nqm.steady_state_risk):
        with pytest.raises(ValueError, match="batch_size"):
            function(features(1.0), nqm.SGD(0.1), batch)
