"""Exact moments of least squares against every course of batches there is, the models, and runs."""

from itertools import product

import numpy as np
import pytest

import nqm
from nqm.validation.ladder import least_squares_risk
from nqm.validation.ladder.linear import regression
from nqm.validation.ladder.task import train

OPTIMIZERS = [
    nqm.SGD(0.15),
    nqm.SGD(0.1, momentum=0.7),
    nqm.EMA(nqm.SGD(0.15), decay=0.6),
    nqm.EMA(nqm.SGD(0.1, momentum=0.5), decay=0.8),
]


def tiny(examples=3, dim=2, seed=0):
    generator = np.random.default_rng(seed)
    return generator.standard_normal((examples, dim)), generator.standard_normal(examples)


def every_course(x, y, start, lr, momentum, decay, batch_size, steps):
    """Mean excess loss over every sequence of batches there is."""
    optimum = np.linalg.lstsq(x, y, rcond=None)[0]
    losses = []
    for course in product(product(range(len(x)), repeat=batch_size), repeat=steps):
        theta, velocity, average = start.copy(), np.zeros_like(start), start.copy()
        for batch in course:
            gradient = np.mean([x[n] * (x[n] @ theta - y[n]) for n in batch], axis=0)
            velocity = momentum * velocity + gradient
            theta = theta - lr * velocity
            average = decay * average + (1.0 - decay) * theta
        losses.append(0.5 * np.mean((x @ (average - optimum)) ** 2))
    return np.mean(losses)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
@pytest.mark.parametrize(("batch_size", "steps"), [(1, 5), (2, 3)])
def test_moments_are_the_mean_over_every_course(optimizer, batch_size, steps):
    x, y = tiny()
    start = np.array([0.5, -1.0])
    values = optimizer.hyperparameters
    found = least_squares_risk(x, y, start, optimizer, batch_size, [0, steps])
    expected = [
        every_course(x, y, start, values["lr"], values["momentum"], values.get("decay", 0.0), batch_size, t)
        for t in (0, steps)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_moments_without_noise_are_the_models():
    x, y = tiny(20, 3)
    h, basis = np.linalg.eigh(x.T @ x / len(x))
    optimum = np.linalg.lstsq(x, y, rcond=None)[0]
    problem = nqm.NoisyQuadratic(h, init=(basis.T @ optimum) ** 2)
    for optimizer in OPTIMIZERS:
        found = least_squares_risk(x, y, np.zeros(3), optimizer, 10**15, [1, 7, 40])
        np.testing.assert_allclose(found, nqm.risk(problem, optimizer, np.inf, [1, 7, 40]), rtol=1e-9, atol=1e-14)


def test_moments_of_many_gaussian_examples_are_those_of_gaussian_features():
    generator = np.random.default_rng(1)
    x = generator.standard_normal((200_000, 2)) * np.sqrt([1.0, 0.3])
    y = x @ [1.0, -1.0] + generator.standard_normal(len(x))
    problem = nqm.NoisyQuadratic([1.0, 0.3], noise_model="gaussian-features", label_noise=1.0)
    found = least_squares_risk(x, y, np.zeros(2), nqm.SGD(0.2), 1, [1, 5, 20])
    np.testing.assert_allclose(
        found, nqm.risk(problem, nqm.SGD(0.2), 1, [1, 5, 20]), rtol=0.03
    )  # 1 / sqrt(N), times 10


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_moments_against_runs(optimizer):
    """5,000 runs; |z| < 4.5 at 8 steps, which chance alone breaks once in 20,000 times."""
    x, y = tiny(30, 4, seed=3)
    steps = np.array([1, 2, 3, 5, 8, 13, 21, 34])
    basis = np.linalg.eigh(x.T @ x)[1]
    task = regression(x @ basis, y)
    losses = train(task, optimizer, 2, steps, 5000, (0,))
    z = (losses.mean(axis=0) - task.exact(optimizer, 2, steps)) / (losses.std(axis=0, ddof=1) / np.sqrt(5000))
    assert np.abs(z).max() < 4.5


def test_divergence_is_inf():
    x, y = tiny(10, 2)
    assert least_squares_risk(x, y, np.zeros(2), nqm.SGD(1e10), 1, [100])[0] == np.inf


@pytest.mark.parametrize(
    ("optimizer", "batch_size", "message"),
    [
        (nqm.SGD(0.1, momentum=0.5, nesterov=True), 1, "heavy-ball"),
        (nqm.SGD(nqm.FREE), 1, "plain numbers"),
        (nqm.SGD([0.1, 0.2]), 1, "plain numbers"),
        (nqm.SGD(nqm.schedules.cosine(0.1, 10)), 1, "plain numbers"),
        (nqm.Preconditioned(nqm.SGD(0.1), power=0.5), 1, "heavy-ball"),
        (nqm.SGD(0.1), 0, "batch_size"),
    ],
)
def test_moments_refuse(optimizer, batch_size, message):
    x, y = tiny()
    with pytest.raises(ValueError, match=message):
        least_squares_risk(x, y, np.zeros(2), optimizer, batch_size, [1])


def test_moments_refuse_shapes():
    x, y = tiny()
    with pytest.raises(ValueError, match="expected features"):
        least_squares_risk(x, y[:-1], np.zeros(2), nqm.SGD(0.1), 1, [1])
