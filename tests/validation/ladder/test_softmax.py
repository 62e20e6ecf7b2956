"""The task of softmax regression against naive versions of itself."""

import numpy as np
import pytest

import nqm
from nqm.validation.ladder.softmax import (
    images,
    softmax_gradients,
    softmax_hessian,
    softmax_loss,
    softmax_optimum,
    softmax_task,
)
from nqm.validation.ladder.task import recorded, train


def softmax_example():
    generator = np.random.default_rng(0)
    return generator.standard_normal((40, 3)), generator.integers(0, 4, 40), 0.3 * generator.standard_normal((3, 4))


def naive_softmax_loss(weights, x, y, penalty):
    logits = x @ weights
    likelihood = [np.exp(row[label]) / np.exp(row).sum() for row, label in zip(logits, y, strict=True)]
    return -np.mean(np.log(likelihood)) + 0.5 * penalty * np.sum(weights**2)


def test_softmax_loss_gradient_and_hessian_against_differences():
    x, y, weights = softmax_example()
    assert softmax_loss(x, y, weights[None], 0.1)[0] == pytest.approx(naive_softmax_loss(weights, x, y, 0.1), rel=1e-12)

    def gradient(w):
        return softmax_gradients(x, y, w, 0.1).mean(axis=0)

    width = 1e-5
    for i in range(weights.size):
        move = np.zeros(weights.size)
        move[i] = width
        up, down = weights + move.reshape(weights.shape), weights - move.reshape(weights.shape)
        slope = (naive_softmax_loss(up, x, y, 0.1) - naive_softmax_loss(down, x, y, 0.1)) / (2.0 * width)
        assert gradient(weights)[i] == pytest.approx(slope, abs=1e-8)
        row = (gradient(up) - gradient(down)) / (2.0 * width)
        np.testing.assert_allclose(softmax_hessian(x, weights, 0.1)[i], row, atol=1e-8)


def test_softmax_optimum():
    x, y, _ = softmax_example()
    weights = softmax_optimum(x, y, 0.05)
    assert np.linalg.norm(softmax_gradients(x, y, weights, 0.05).mean(axis=0)) < 1e-10
    with pytest.raises(ValueError, match="penalty"):
        softmax_optimum(x, y, 0.0)


def test_softmax_task_starts_where_asked_and_descends_its_own_gradient():
    x, y = images(averaged=True)
    weights = softmax_optimum(x, y, 0.01)
    task = softmax_task(x, y, weights, 0.1)
    assert task.excess(task.start[None])[0] == pytest.approx(0.1, rel=1e-6)
    chosen = np.array([[5, 5, 9]])
    expected = softmax_gradients(x[chosen[0]], y[chosen[0]], task.start.reshape(weights.shape), 0.01).mean(axis=0)
    np.testing.assert_allclose(task.gradient(task.start[None], chosen)[0], expected, rtol=1e-10, atol=1e-14)


def test_softmax_prediction_is_exact_close_to_the_optimum():
    """At an excess of 1e-6, 400 runs: |z| < 4.5 at every step for additive noise, from the first step to the last."""
    x, y = images(averaged=True)
    task = softmax_task(x, y, softmax_optimum(x, y, 0.01), 1e-6)
    optimizer, steps = nqm.SGD(1e-3), recorded(40)
    losses = train(task, optimizer, 64, steps, 400, (0,))
    z = (task.models["additive"].risk(optimizer, 64, steps) - losses.mean(axis=0)) / losses.std(axis=0, ddof=1) * 20.0
    assert np.abs(z).max() < 4.5
