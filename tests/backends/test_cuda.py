"""The backend "cupy" against compiled code, row by row: on a stand-in that compiles the CUDA source for the CPU, and on
a GPU where there is one (-m gpu)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cuda_rows import FAMILIES, a_problem, assert_same, put, rows_of, some_rows, stand_in, word_of

import nqm
from nqm.backends import cupy_backend as cuda
from nqm.backends import numba_backend
from nqm.backends.types import Word


def some_steps(rng, count):
    steps = np.array([0, 1, 2, 3, 7, 100, 1000, 123_456, 2**30, 2**40])
    return np.concatenate([steps, rng.choice(steps, size=count - steps.size)])


def some_pieces(rng, count, asked, steps=(0, 1, 1, 2, 5, 100, 1000)):
    """Random pieces, the risk asked for after some of them, twice into the same column."""
    column = np.full(count, -1)
    column[rng.permutation(count)[:asked]] = np.arange(asked)
    if asked > 2:
        column[column == 1] = 0
    lengths = rng.choice(steps, size=count).astype(np.int64)
    lr, inverse_batch_size = 10.0 ** rng.uniform(-2.0, 0.0, (2, count))
    return Word(np.zeros(count, dtype=np.int64), lr, inverse_batch_size, lengths, column)


# --- against compiled code ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("nodes", [1, 100, 1300])
def test_risk(device, family, nodes):
    rng = np.random.default_rng(nodes)
    row = some_rows(family, rng, nodes=nodes, wild=40.0)
    steps = some_steps(rng, row.lr.size)
    assert_same(cuda.risk(row, steps), numba_backend.risk(row, steps), both_kinds=nodes > 1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("nodes", [100, 1300])
def test_dyadic_risk(device, family, nodes):
    row = some_rows(family, np.random.default_rng(nodes + 1), nodes=nodes, wild=40.0)
    assert_same(cuda.dyadic_risk(row, 41), numba_backend.dyadic_risk(row, 41), both_kinds=True)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("count", "asked"), [(1, 1), (5, 3), (40, 40), (200, 150)])
def test_risk_along(device, family, count, asked):
    """Fewer and more pieces and risks than a block holds at once."""
    rng = np.random.default_rng(count)
    row, parts = some_rows(family, rng, count=6, nodes=150), some_pieces(rng, count, asked)
    row = row.in_units(parts.lr.max())
    assert_same(cuda.risk_along(row, parts, asked), numba_backend.risk_along(row, parts, asked))


@pytest.mark.parametrize("family", ["sgd", "momentum", "ema of momentum"])
def test_risk_along_diverges(device, family):
    rng = np.random.default_rng(7)
    row = some_rows(family, rng, count=20, wild=1e4)
    parts = some_pieces(rng, 10, 5, steps=(100, 1000, 2**40))
    row = row.in_units(parts.lr.max())
    assert_same(cuda.risk_along(row, parts, 5), numba_backend.risk_along(row, parts, 5), both_kinds=True)


def test_risk_nowhere_asked_for(device):
    rng = np.random.default_rng(0)
    row, parts = some_rows("momentum", rng, count=3), some_pieces(rng, 4, 0)
    np.testing.assert_array_equal(cuda.risk_along(row.in_units(parts.lr.max()), parts, 2), np.zeros((3, 2)))


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [None, 0.9])
def test_far_end_of_critical_damping(device, nesterov, decay):
    """lr h = (1 + sqrt(momentum))^2: in the coordinates of the update rule it loses six digits."""
    m = 0.9
    problem = nqm.NoisyQuadratic([1.0, 0.3], [1.0, 0.2], [1.0, 3.0])
    lr = (1.0 + math.sqrt(m)) ** 2 * np.array([1.0, 1.0 - 1e-9, 1.0 - 1e-5])
    if nesterov:
        lr = np.array([1.0, 1.0 - 1e-9, 1.0 + 1e-9]) * (1.0 - math.sqrt(m)) ** 2
    optimizer = nqm.SGD(lr, m, nesterov)
    row = rows_of(problem, optimizer if decay is None else nqm.EMA(optimizer, decay), 8.0)
    for steps in (1, 10, 100, 1000, 10**6):
        assert_same(cuda.risk(row, np.full(3, steps)), numba_backend.risk(row, np.full(3, steps)))
    parts = Word(
        np.zeros(3, dtype=np.int64),
        np.array([1.0, 0.5, 1.0]),
        np.ones(3),
        np.array([1000, 3, 1000]),
        np.array([0, 1, 2]),
    )
    row = row.in_units(parts.lr.max())
    assert_same(cuda.risk_along(row, parts, 3), numba_backend.risk_along(row, parts, 3))


def test_no_steps_at_all(device):
    problem = a_problem(np.random.default_rng(2))
    row = rows_of(problem, nqm.SGD(np.array([0.1, 100.0]), 0.9), 1.0)
    start = 0.5 * np.sum(problem.multiplicity * problem.curvature * problem.init)
    np.testing.assert_allclose(cuda.risk(row, np.zeros(2, dtype=np.int64)), start, rtol=1e-14)


def test_what_carries_no_weight_may_overflow(device):
    """A node that diverges, without start and noise, next to one that does not."""
    problem = nqm.NoisyQuadratic([1.0, 100.0], [0.5, 0.0], [1.0, 0.0])
    row = rows_of(problem, nqm.SGD(np.array([0.1, 0.5]), 0.9), 4.0)
    found = cuda.risk(row, np.array([2**20, 2**20]))
    assert np.all(np.isfinite(found))
    assert_same(found, numba_backend.risk(row, np.array([2**20, 2**20])))


@pytest.mark.parametrize("family", ["sgd", "momentum", "ema", "ema of momentum"])
def test_an_infinite_batch_adds_no_noise_even_to_an_overflow(device, family):
    """The first coordinate starts at its optimum and M^t overflows; the second alone is what is left, by compiled code
    and by CUDA's."""
    make = FAMILIES[family]
    optimizer = make(np.array([5.0, 0.1]), 0.5, 0.5, 0.0)
    both, alone = nqm.NoisyQuadratic([1.0, 0.1], init=[0.0, 1.0]), nqm.NoisyQuadratic([0.1])
    row, other = (rows_of(problem, optimizer, math.inf) for problem in (both, alone))
    steps = np.array([5000, 5000])
    assert_same(cuda.risk(row, steps), numba_backend.risk(other, steps))
    assert_same(cuda.dyadic_risk(row, 20), numba_backend.dyadic_risk(other, 20))
    parts = word_of([0.5, 1.0], [3, 2000])
    assert_same(cuda.risk_along(row.in_units(1.0), parts, 2), numba_backend.risk_along(other.in_units(1.0), parts, 2))
    for last in (False, True):
        found = cuda.first_passage(row, np.array([1e-3, 1e-3]), last)
        assert np.array_equal(found, numba_backend.first_passage(other, np.array([1e-3, 1e-3]), last))


@pytest.mark.gpu
def test_gradients_on_the_device(monkeypatch):
    """On a GPU as by compiled code."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed", exc_type=ImportError)
    if not cupy.cuda.is_available():
        pytest.skip("CuPy finds no CUDA device")
    rng = np.random.default_rng(0)
    row = rows_of(a_problem(rng), nqm.SGD(np.array([0.3]), 0.9), 64.0)
    lr, inverse_batch, lengths = rng.uniform(0.2, 0.5, 5), rng.uniform(0.01, 0.1, 5), np.array([3, 100, 1, 50, 1000])
    none = np.zeros(5, dtype=np.int64)
    row = row._replace(lr=np.ones(1), inverse_batch_size=np.ones(1))
    arguments = row, Word(none, lr, inverse_batch, lengths, none - 1), np.empty(0)
    risk, by_lr, by_batch, _ = numba_backend.risk_and_gradient(*arguments)
    found = cuda.risk_and_gradient(*arguments)
    np.testing.assert_allclose(found.risk, risk, rtol=1e-10)
    np.testing.assert_allclose(found.by_log_lr, by_lr, rtol=1e-7, atol=1e-9 * np.abs(by_lr).max())
    np.testing.assert_allclose(found.by_log_inverse_batch_size, by_batch, rtol=1e-7, atol=1e-9 * by_batch.max())


# --- pieces of rows and of nodes ---------------------------------------------------------------------------------


def all_sums(row, steps, parts):
    """Every sum over nodes that the backend offers."""
    asked = int(parts.output_column.max()) + 1
    return (
        cuda.risk(row, steps),
        cuda.dyadic_risk(row, 20),
        cuda.risk_along(row.in_units(parts.lr.max()), parts, asked),
    )


def an_example(family, nodes=1300):
    rng = np.random.default_rng(3)
    row = some_rows(family, rng, count=12, nodes=nodes)
    return row, some_steps(rng, 12), some_pieces(rng, 70, 66)


@pytest.mark.parametrize("family", ["sgd", "preconditioned", "ema of momentum"])
def test_bits_do_not_depend_on_memory(device, monkeypatch, family):
    """Row by row and with nodes copied in pieces, as if the device were tiny."""
    monkeypatch.setattr(cuda, "WINDOW", 2 * cuda.SEGMENT)
    example = an_example(family)
    roomy = all_sums(*example)
    assert cuda._kept
    monkeypatch.setattr(cuda, "SHARE", 1e-15)
    tight = all_sums(*example)
    assert not cuda._kept
    for a, b in zip(roomy, tight, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("family", ["sgd", "preconditioned", "ema of momentum"])
def test_a_row_does_not_depend_on_the_others(device, family):
    row, steps, parts = an_example(family)
    whole = all_sums(row, steps, parts)
    for i in (0, 5):
        one = slice(i, i + 1)
        alone = row.part(one)
        np.testing.assert_array_equal(cuda.risk(alone, steps[one]), whole[0][one])
        np.testing.assert_array_equal(cuda.dyadic_risk(alone, 20), whole[1][one])
        alone = row.in_units(parts.lr.max()).part(one)
        np.testing.assert_array_equal(cuda.risk_along(alone, parts, whole[2].shape[1]), whole[2][one])


@pytest.mark.parametrize("family", ["sgd", "preconditioned", "ema of momentum"])
def test_small_segments(device, monkeypatch, family):
    row, steps, parts = an_example(family)
    expected = all_sums(row, steps, parts)
    monkeypatch.setattr(cuda, "SEGMENT", 24)
    for window in (24, 240, 2**20):
        monkeypatch.setattr(cuda, "WINDOW", window)
        for found, one in zip(all_sums(row, steps, parts), expected, strict=True):
            assert_same(found, one)


@pytest.mark.parametrize("family", ["sgd", "momentum", "ema of momentum", "three states"])
def test_threads_of_a_block(monkeypatch, family):
    """Threads with a barrier between them; the same bits each time."""
    row, steps, parts = an_example(family, nodes=88)
    targets = 1.003 * numba_backend.risk(row, np.full(12, 50))
    put(stand_in(), monkeypatch)
    alone = (
        *all_sums(row, steps, parts),
        cuda.first_passage(row, targets, False),
        cuda.first_passage(row, targets, True),
    )
    put(stand_in(threads=5), monkeypatch)  # of which not all have a node at the end
    results = [
        (*all_sums(row, steps, parts), cuda.first_passage(row, targets, False), cuda.first_passage(row, targets, True))
        for _ in range(3)
    ]
    for a, b, again, more in zip(alone, *results, strict=True):
        assert_same(b, a)
        np.testing.assert_array_equal(again, b)
        np.testing.assert_array_equal(more, b)


def test_nodes_stay_on_the_device(monkeypatch):
    cupy = stand_in()
    put(cupy, monkeypatch)
    rng = np.random.default_rng(0)
    problem, steps = a_problem(rng, 1000), np.array([10])
    row = rows_of(problem, nqm.SGD(np.array([0.1])), 4.0)
    first = cuda.risk(row, steps)
    copied = cupy.copied
    again = cuda.risk(rows_of(problem, nqm.SGD(np.array([0.1])), 4.0), steps)
    assert again == first
    assert copied > row.curvature.nbytes + row.start_weight.nbytes + row.noise_weight.nbytes
    assert cupy.copied - copied < row.start_weight.nbytes
    for _ in range(20):  # others, that lie wherever there is room
        other = rows_of(a_problem(rng, 1000), nqm.SGD(np.array([0.1])), 4.0)
        assert_same(cuda.risk(other, steps), numba_backend.risk(other, steps))
        assert len(cuda._kept) == 6
        del other
        assert len(cuda._kept) == 3  # what is gone here is gone there
