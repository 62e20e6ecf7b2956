"""Rows of many optimizers, and a stand-in for a GPU that computes them, for the tests of the backend "cupy"."""

from __future__ import annotations

import numpy as np
import pytest
from fake_cupy import COMPILER, FakeCupy

import nqm
from nqm.backends import cupy_backend as cuda
from nqm.backends.types import Word
from nqm.dynamics import additive

FAMILIES = {
    "sgd": lambda lr, m, d, p: nqm.SGD(lr),
    "momentum": lambda lr, m, d, p: nqm.SGD(lr, m),
    "nesterov": lambda lr, m, d, p: nqm.SGD(lr, m, nesterov=True),
    "ema": lambda lr, m, d, p: nqm.EMA(nqm.SGD(lr), d),
    "ema of momentum": lambda lr, m, d, p: nqm.EMA(nqm.SGD(lr, m), d),
    "preconditioned": lambda lr, m, d, p: nqm.Preconditioned(nqm.SGD(lr, m), p),
    "preconditioned ema": lambda lr, m, d, p: nqm.EMA(nqm.Preconditioned(nqm.SGD(lr, m, nesterov=True), p), d),
    "one state": lambda lr, m, d, p: nqm.LinearOptimizer(lr, [[0.999]], [1.0], [0.9], [1.1], [-1.2]),
    "two states": lambda lr, m, d, p: nqm.LinearOptimizer(
        lr, [[1.0, 0.7], [-0.05, 0.6]], [1.0, 0.8], [1.0, 0.3], [0.9, 0.2], [1.0, -0.4]
    ),
    "three states": lambda lr, m, d, p: nqm.LinearOptimizer(
        lr, [[0.98, 0.1, 0.05], [-0.02, 0.5, 0.2], [-0.05, 0.0, 0.8]], [1.0, 0.5, 0.2], [1.0, 0.1, 0.0], [0.9, 0.0, 0.3]
    ),
}


def stand_in(**settings):
    if COMPILER is None:
        pytest.skip("no C++ compiler: the CUDA source cannot be compiled for the CPU")
    return FakeCupy(**settings)


def put(cupy, monkeypatch):
    monkeypatch.setattr(cuda, "_cupy", lambda: cupy)
    monkeypatch.setattr(cuda, "_kept", {})


def a_problem(rng, nodes=100):
    """Some nodes without a start, some without noise, and padding without either."""
    h = 10.0 ** rng.uniform(-4.0, 0.0, size=nodes)
    c, init = rng.exponential(size=nodes) * h, rng.exponential(size=nodes)
    c[::7] = 0.0
    init[::5] = 0.0
    return nqm.NoisyQuadratic(h, c, init)


def rows_of(problem, optimizer, batch):
    shape = np.broadcast_shapes(optimizer.shape, np.shape(batch))
    values = {name: np.broadcast_to(v, shape) for name, v in optimizer.hyperparameters.items()}
    return additive.rows(problem, optimizer, values, np.broadcast_to(batch, shape), shape[0])


def some_rows(family, rng, count=30, nodes=100, wild=0.0):
    """Several powers at once, batch sizes up to infinity; wild: a learning rate that diverges, for some rows."""
    lr = 10.0 ** rng.uniform(-3.0, 0.1, size=count)
    if wild:
        lr[5:10] = wild
    momentum, decay = rng.choice([0.0, 0.5, 0.9, 0.99], size=(2, count))
    momentum[0] = decay[0] = 0.0
    power = rng.choice([0.0, 0.3, 0.5], size=count)
    batch = rng.choice([1.0, 64.0, 1e5, np.inf], size=count)
    return rows_of(a_problem(rng, nodes), FAMILIES[family](lr, momentum, decay, power), batch)


def assert_same(found, expected, both_kinds=False):
    """To 1e-12, and diverged at the same places; both_kinds: some have, some have not."""
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(found[~finite], expected[~finite])
    np.testing.assert_allclose(found[finite], expected[finite], rtol=1e-12, atol=0.0)
    if both_kinds:
        assert finite.any()
        assert not finite.all()


def word_of(lr, repeat):
    """Letters of one map at these learning rates, the risk asked for after each."""
    count = len(lr)
    return Word(np.zeros(count, dtype=np.int64), np.array(lr), np.ones(count), np.array(repeat), np.arange(count))
