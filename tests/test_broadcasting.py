"""Arrays follow NumPy's rules, give what a loop gives to the last bit, and belong to the caller."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest

import nqm

PROBLEM = nqm.NoisyQuadratic([1.0, 0.3, 1e-3], [0.5, 0.1, 1e-3], [1.0, 2.0, 30.0])
LR = np.array([0.01, 0.5, 1.9, 50.0])
MOMENTUM = np.array([0.0, 0.9, 0.999])[:, None]
POWER = np.array([0.0, 0.25, 0.5])[:, None]
DECAY = np.array([0.0, 0.99])[:, None, None]
BATCH = np.array([1.0, 64.0])[:, None, None, None]
STEPS = np.array([0, 3, 10**6])[:, None, None, None, None]

OPTIMIZERS = [
    nqm.SGD(LR),
    nqm.SGD(LR, MOMENTUM),
    nqm.SGD(LR, MOMENTUM, nesterov=True),
    nqm.SGD(0.5, MOMENTUM),
    nqm.Preconditioned(nqm.SGD(LR), POWER),
    nqm.Preconditioned(nqm.SGD(0.5, MOMENTUM), POWER),
    nqm.EMA(nqm.SGD(LR), DECAY),
    nqm.EMA(nqm.SGD(0.5, MOMENTUM), DECAY),
    nqm.EMA(nqm.Preconditioned(nqm.SGD(LR, MOMENTUM), 0.5), DECAY),
    nqm.LinearOptimizer(LR, [[1, 0.9], [0, 0.9]], [1, 1]),
]


def single(optimizer, index, shape):
    """The optimizer of plain numbers that stands at an index of the result."""
    values = {k: np.broadcast_to(v, shape)[index] for k, v in optimizer.hyperparameters.items()}
    return optimizer.with_values(**values)


def same_bits(a, b):
    return np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_one_call_is_a_loop(optimizer):
    """A momentum or decay of exactly 0 saves a state variable only when it stands alone: the last digits may differ."""
    found = nqm.risk(PROBLEM, optimizer, BATCH, STEPS)
    shape = np.broadcast_shapes(optimizer.shape, BATCH.shape, STEPS.shape)
    batch, steps = np.broadcast_to(BATCH, shape), np.broadcast_to(STEPS, shape)
    assert found.shape == shape
    assert found.dtype == np.float64
    for index in np.ndindex(shape):
        one = single(optimizer, index, shape)
        expected = nqm.risk(PROBLEM, one, batch[index], steps[index])
        assert type(expected) is float
        if 0.0 in (one.hyperparameters.get("momentum", 1.0), one.hyperparameters.get("decay", 1.0)):
            assert found[index] == pytest.approx(expected, rel=1e-12, abs=0.0)
        else:
            assert found[index] == expected


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_steady_states_and_limits_too(optimizer):
    steady = nqm.steady_state_risk(PROBLEM, optimizer, BATCH)
    shape = np.broadcast_shapes(optimizer.shape, BATCH.shape)
    assert steady.shape == shape
    for index in np.ndindex(shape):
        one = single(optimizer, index, shape)
        expected = nqm.steady_state_risk(PROBLEM, one, np.broadcast_to(BATCH, shape)[index])
        assert steady[index] == pytest.approx(expected, rel=1e-12, abs=0.0)
    limits = np.broadcast_to(nqm.max_stable_lr(PROBLEM, optimizer), optimizer.shape)
    for index in np.ndindex(optimizer.shape):
        assert limits[index] == nqm.max_stable_lr(PROBLEM, single(optimizer, index, optimizer.shape))


SHAPES = [(), (1,), (3,), (2, 1), (2, 3), (4, 1, 1)]


@pytest.mark.parametrize(("of_lr", "of_batch", "of_steps"), list(itertools.product(SHAPES, repeat=3)))
def test_shapes_are_numpys(of_lr, of_batch, of_steps):
    found = nqm.risk(PROBLEM, nqm.SGD(np.full(of_lr, 0.1)), np.full(of_batch, 4.0), np.full(of_steps, 10))
    assert np.shape(found) == np.broadcast_shapes(of_lr, of_batch, of_steps)
    assert np.all(found == nqm.risk(PROBLEM, nqm.SGD(0.1), 4.0, 10))


def test_more_rows_than_fit_at_once():
    """Rows are cut into runs; the cuts must not show."""
    rng = np.random.default_rng(0)
    lr, steps = rng.uniform(0.01, 2.0, size=150_000), rng.integers(0, 1000, size=150_000)
    problem = nqm.NoisyQuadratic([1.0, 0.1])
    together = nqm.risk(problem, nqm.SGD(lr, momentum=0.5), 4, steps)
    for part in (slice(0, 10), slice(65_530, 65_540), slice(131_070, 131_075), slice(149_990, None)):
        assert same_bits(together[part], nqm.risk(problem, nqm.SGD(lr[part], momentum=0.5), 4, steps[part]))


def test_more_nodes_than_fit_in_a_block():
    """Blocks of nodes add up: the same sum as problem by problem, but for the order."""
    h = np.geomspace(1e-4, 1.0, 1001)
    parts = [nqm.risk(nqm.NoisyQuadratic(part), nqm.SGD(0.7, 0.9), 4, 1000) for part in np.split(h, [1, 128, 129, 800])]
    assert nqm.risk(nqm.NoisyQuadratic(h), nqm.SGD(0.7, 0.9), 4, 1000) == pytest.approx(sum(parts), rel=1e-13)


def test_the_callers_arrays_are_not_changed_and_need_not_be_writable():
    arrays = {name: np.array([0.3, 0.5]) for name in ("lr", "momentum", "power", "decay", "batch")}
    arrays["steps"] = np.array([10, 20])
    before = {name: array.copy() for name, array in arrays.items()}
    for array in arrays.values():
        array.flags.writeable = False
    sgd = nqm.SGD(arrays["lr"], arrays["momentum"])
    optimizer = nqm.EMA(nqm.Preconditioned(sgd, arrays["power"]), arrays["decay"])
    first = nqm.risk(PROBLEM, optimizer, arrays["batch"], arrays["steps"])
    nqm.steady_state_risk(PROBLEM, optimizer, arrays["batch"])
    nqm.steps_to_target(PROBLEM, optimizer, arrays["batch"], [5.0, 6.0])
    assert all(np.array_equal(arrays[name], before[name]) for name in arrays)
    # and what the caller does to them later does not reach the optimizer
    for array in arrays.values():
        array.flags.writeable = True
        array += 7
    assert same_bits(nqm.risk(PROBLEM, optimizer, before["batch"], before["steps"]), first)


def test_results_are_the_callers_to_change():
    found = nqm.risk(PROBLEM, nqm.SGD(LR), 4, 10)
    expected = found.copy()
    found[:] = -1.0
    assert same_bits(nqm.risk(PROBLEM, nqm.SGD(LR), 4, 10), expected)


def test_views_of_any_stride_and_type():
    lr = np.asfortranarray(np.linspace(0.1, 1.0, 12).reshape(3, 4))
    expected = nqm.risk(PROBLEM, nqm.SGD(lr.copy(order="C")), 4, 10)
    assert same_bits(nqm.risk(PROBLEM, nqm.SGD(lr), 4, 10), expected)
    assert same_bits(nqm.risk(PROBLEM, nqm.SGD(lr[::-1, ::2]), 4, 10), expected[::-1, ::2])
    assert same_bits(nqm.risk(PROBLEM, nqm.SGD(lr.tolist()), 4, 10), expected)
    assert same_bits(nqm.risk(PROBLEM, nqm.SGD(lr.astype(">f8")), 4, 10), expected)


@pytest.mark.parametrize("problem", [PROBLEM, nqm.NoisyQuadratic.power_law(10**4)], ids=str)
def test_the_same_inputs_give_the_same_bits(problem):
    """In one thread after another, and in many at once."""
    optimizer = nqm.EMA(nqm.SGD([0.1, 1.0, 3.0], momentum=0.99), 0.9)
    results = []

    def work():
        results.append(nqm.risk(problem, optimizer, 16, np.array([10, 1000, 10**5])[:, None]))

    work()
    work()
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 10
    assert all(same_bits(result, results[0]) for result in results)
