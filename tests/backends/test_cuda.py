"""The backend "cupy" against compiled code, row by row: on a stand-in that compiles the CUDA source for the CPU, and on
a GPU where there is one (-m gpu)."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from fake_cupy import COMPILER, FakeCupy

import nqm
from nqm.backends import cupy_backend as cuda
from nqm.backends import numba_backend
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


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.gpu)])
def device(request, monkeypatch):
    """CuPy or its stand-in, with nothing on the device yet."""
    if request.param == "fake":
        cupy = stand_in()
    else:
        cupy = pytest.importorskip("cupy", reason="CuPy is not installed", exc_type=ImportError)
        if not cupy.cuda.is_available():
            pytest.skip("CuPy finds no CUDA device")
    put(cupy, monkeypatch)
    return cupy


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


def some_steps(rng, count):
    steps = np.array([0, 1, 2, 3, 7, 100, 1000, 123_456, 2**30, 2**40])
    return np.concatenate([steps, rng.choice(steps, size=count - steps.size)])


def assert_same(found, expected, both_kinds=False):
    """To 1e-12, and diverged at the same places; both_kinds: some have, some have not."""
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(found[~finite], expected[~finite])
    np.testing.assert_allclose(found[finite], expected[finite], rtol=1e-12, atol=0.0)
    if both_kinds:
        assert finite.any()
        assert not finite.all()


def some_pieces(rng, count, asked, steps=(0, 1, 1, 2, 5, 100, 1000)):
    """Random pieces, the risk asked for after some of them, twice into the same column."""
    column = np.full(count, -1)
    column[rng.permutation(count)[:asked]] = np.arange(asked)
    if asked > 2:
        column[column == 1] = 0
    lengths = rng.choice(steps, size=count).astype(np.int64)
    lr, inverse_batch_size = 10.0 ** rng.uniform(-2.0, 0.0, (2, count))
    return Word(np.zeros(count, dtype=np.int64), lr, inverse_batch_size, lengths, column)


def word_of(lr, repeat):
    """Letters of one map at these learning rates, the risk asked for after each."""
    count = len(lr)
    return Word(np.zeros(count, dtype=np.int64), np.array(lr), np.ones(count), np.array(repeat), np.arange(count))


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


def test_what_barely_grows_takes_few_leaps(device, monkeypatch):
    """By 2e-9 a step: 0.5 > 0.1 for good."""
    monkeypatch.setattr(cuda, "LEAPS", 200)
    row = rows_of(nqm.NoisyQuadratic(1.0), nqm.SGD(np.array([2.0 * (1.0 + 1e-9)])), math.inf)
    for last in (False, True):
        assert cuda.first_passage(row, np.array([0.1]), last).tolist() == [math.inf]


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


# --- crossings ---------------------------------------------------------------------------------------------------


def assert_crossings(problem, optimizer, batch, targets):
    """First and last, as those of the search along one row."""
    row = rows_of(problem, optimizer, np.broadcast_to(batch, targets.shape))
    found = []
    for last, name in ((False, "first"), (True, "last")):
        here = cuda.first_passage(row, targets, last)
        np.testing.assert_array_equal(here, nqm.steps_to_target(problem, optimizer, batch, targets, name))
        found.append(here)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_crossings(device, family):
    rng = np.random.default_rng(11)
    problem = a_problem(rng, 20)
    lr, momentum, decay = 10.0 ** rng.uniform(-2.0, 0.0, 24), rng.choice([0.5, 0.9], 24), rng.choice([0.5, 0.9], 24)
    optimizer = FAMILIES[family](lr, momentum, decay, np.full(24, 0.2))
    risks = nqm.risk(problem, optimizer, 1e4, rng.choice([3, 20, 300, 5000], size=24))
    assert np.isfinite(assert_crossings(problem, optimizer, 1e4, risks * rng.uniform(0.9, 1.1, 24))).any()


def test_crossings_of_a_risk_that_oscillates(device):
    """The mean swings through zero: it is below the target long before it stays there."""
    problem = nqm.NoisyQuadratic([1.0, 1e-3], [0.0, 0.0], [1.0, 1e-6])
    first, last = assert_crossings(problem, nqm.SGD(0.05, 0.99), 1.0, np.geomspace(0.4, 1e-3, 12))
    assert np.all(first < last)


def test_targets_out_of_reach_and_reached_at_once(device):
    problem = nqm.NoisyQuadratic([1.0, 0.1], [1.0, 0.1])
    steady = float(nqm.steady_state_risk(problem, nqm.SGD(0.1), 4.0))
    first, last = assert_crossings(problem, nqm.SGD(0.1), 4.0, np.array([steady * 0.999, 1e3, steady * 1.001]))
    assert first[0] == last[0] == np.inf
    assert first[1] == last[1] == 0.0
    assert 0.0 < first[2] <= last[2] < np.inf


def test_crossings_of_a_risk_that_diverges(device):
    problem = nqm.NoisyQuadratic([1.0, 0.1], [1.0, 0.1])
    first, last = assert_crossings(problem, nqm.SGD(2.5), 1e6, np.array([0.5, 0.05, 1e5]))
    np.testing.assert_array_equal(last, np.inf)
    assert first[2] == 0.0
    assert first[1] == np.inf


@pytest.mark.parametrize("optimizer", [nqm.SGD(5.0), nqm.SGD(5.0, 0.9), nqm.EMA(nqm.SGD(5.0, 0.9), 0.9)])
def test_a_mean_that_overflows_is_above_every_target(device, optimizer):
    problem = nqm.NoisyQuadratic([1.0], [0.0], [1.0])
    first, last = assert_crossings(problem, optimizer, 1.0, np.array([1e-3, 1e-200]))
    np.testing.assert_array_equal(first, np.inf)
    np.testing.assert_array_equal(last, np.inf)


def test_crossings_far_ahead(device):
    problem = nqm.NoisyQuadratic([1.0], [1.0])
    lr = np.array([1e-3, 1e-6, 1e-9, 1e-12])
    first, last = assert_crossings(problem, nqm.SGD(lr), 1.0, np.full(4, 0.1))
    np.testing.assert_array_equal(first, last)
    assert np.all(np.diff(first) > 0.0)


def test_more_rows_than_blocks(device, monkeypatch):
    rng = np.random.default_rng(5)
    problem, lr = a_problem(rng, 20), 10.0 ** rng.uniform(-2.0, 0.0, 17)
    row = rows_of(problem, nqm.EMA(nqm.SGD(lr, 0.9), 0.9), np.full(17, 1e5))
    targets = numba_backend.risk(row, rng.integers(50, 1000, size=17))
    expected = cuda.first_passage(row, targets, True)
    assert np.unique(expected).size > 3
    monkeypatch.setattr(cuda, "BLOCKS", 3)
    np.testing.assert_array_equal(cuda.first_passage(row, targets, True), expected)
    monkeypatch.setattr(cuda, "SHARE", 1e-15)  # one block, whatever it takes
    np.testing.assert_array_equal(cuda.first_passage(row, targets, True), expected)


def test_a_search_that_takes_too_long_says_so(device, monkeypatch):
    row = rows_of(nqm.NoisyQuadratic([1.0]), nqm.SGD(np.array([1e-6, 1.0])), np.inf)
    monkeypatch.setattr(cuda, "LEAPS", 8)
    found = cuda.in_few_leaps(row, np.array([0.1, 0.1]), False)
    assert math.isnan(found[0])
    assert found[1] == 1.0


# --- which device ------------------------------------------------------------------------------------------------


def missing(name):
    def fetch():
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    return fetch


def test_without_cupy(monkeypatch):
    monkeypatch.setattr(cuda, "_cupy", missing("cupy"))
    with pytest.raises(RuntimeError, match=r"CuPy is not installed: pip install 'nqm\[gpu\]'"):
        cuda.check(0)


def test_cupy_that_cannot_be_imported(monkeypatch):
    def fetch():
        try:
            raise ImportError("libcuda.so.1: cannot open shared object file")
        except ImportError as error:
            raise ImportError("=====\nFailed to import CuPy.\n\nSome advice.\n=====") from error

    monkeypatch.setattr(cuda, "_cupy", fetch)
    with pytest.raises(RuntimeError, match=r"its import fails: ImportError: libcuda\.so\.1: cannot") as caught:
        cuda.check(0)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(cuda, "_cupy", missing("fastrlock"))
    with pytest.raises(RuntimeError, match="its import fails: ModuleNotFoundError: No module named 'fastrlock'"):
        cuda.check(0)


@pytest.mark.parametrize("silent", [False, True])
def test_without_a_device(monkeypatch, silent):
    cupy = FakeCupy(devices=0)
    if silent:
        cupy.cuda.runtime.getDeviceCount = lambda: 0
    monkeypatch.setattr(cuda, "_cupy", lambda: cupy)
    with pytest.raises(RuntimeError, match=r"CuPy is installed, but finds no CUDA device .* driver"):
        cuda.check(0)


def test_a_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr(cuda, "_cupy", lambda: FakeCupy(devices=2))
    cuda.check(0)
    cuda.check(1)
    with pytest.raises(ValueError, match="expected an index from 0 to 1, of 2 CUDA devices here, got 2"):
        cuda.check(2)


def test_the_chosen_device_computes(monkeypatch):
    cupy = stand_in(devices=3)
    put(cupy, monkeypatch)
    row = rows_of(nqm.NoisyQuadratic([1.0]), nqm.SGD(np.array([0.1])), 4.0)
    monkeypatch.setattr(cuda, "get_backend", lambda: "cupy:2")
    on_the_second = cuda.risk(row, np.array([10]))
    assert {device for _, _, device in cupy.launches} == {2}
    assert cupy.current == 0
    monkeypatch.setattr(cuda, "get_backend", lambda: "cupy")
    assert cuda.risk(row, np.array([10])) == on_the_second
    assert {device for _, _, device in cupy.launches} == {0, 2}
    assert {device for device, *_ in cuda._kept} == {0, 2}


def test_free_bytes(device):
    free = cuda.free_bytes()
    assert 0 < free <= device.cuda.runtime.memGetInfo()[1]


def test_cupy_is_not_imported_before_it_is_needed():
    code = "import sys, nqm.backends.cupy_backend; print('cupy' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"


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


def test_momentum_of_zero_among_others_takes_few_leaps(device, monkeypatch):
    """A root of exactly 0, which rounding makes -1e-17, is no oscillation."""
    monkeypatch.setattr(cuda, "LEAPS", 200)
    problem, lr = nqm.NoisyQuadratic(1.0 / np.arange(1.0, 101.0)), np.geomspace(1e-3, 1.9, 30)
    row = rows_of(problem, nqm.SGD(lr), 1e5)
    mixed = rows_of(problem, nqm.SGD(lr, np.append(np.zeros(29), 0.5)), 1e5)
    assert len(row.start) == 1
    assert len(mixed.start) == 2
    found = cuda.first_passage(mixed, np.full(30, 0.01), False)
    np.testing.assert_array_equal(found[:-1], cuda.first_passage(row, np.full(30, 0.01), False)[:-1])


# --- whole questions on the device -------------------------------------------------------------------------------


@pytest.fixture
def on_the_device(device, monkeypatch):
    """The public functions, with the device chosen; the stand-in's arrays are NumPy's."""
    if isinstance(device, FakeCupy):
        monkeypatch.setattr(cuda, "namespace", lambda: np)
    with nqm.use_backend("cupy"):
        yield


SPECTRUM, TARGET = nqm.NoisyQuadratic.power_law(300), 0.05


def test_steps_to_target(on_the_device):
    optimizer, batch = nqm.SGD(np.geomspace(0.01, 1.9, 7)[:, None], [0.0, 0.9]), np.array([16.0, 1024.0])[:, None, None]
    for crossing in ("first", "last"):
        found = nqm.steps_to_target(SPECTRUM, optimizer, batch, TARGET, crossing)
        with nqm.use_backend("numba"):
            np.testing.assert_array_equal(found, nqm.steps_to_target(SPECTRUM, optimizer, batch, TARGET, crossing))
        assert 0 < np.isinf(found).sum() < found.size


def test_sweeps_of_tuned_cells(on_the_device):
    optimizers = {"SGD": nqm.SGD(nqm.FREE), "half": nqm.Preconditioned(nqm.SGD(nqm.FREE), 0.5), "fixed": nqm.SGD(0.3)}
    found = nqm.sweep(SPECTRUM, optimizers, [16.0, 1024.0], TARGET).table
    with nqm.use_backend("numba"):
        expected = nqm.sweep(SPECTRUM, optimizers, [16.0, 1024.0], TARGET).table
    np.testing.assert_array_equal(found["steps"], expected["steps"])
    np.testing.assert_allclose(found["risk"], expected["risk"], rtol=1e-9)


def test_schedules(on_the_device):
    courses = nqm.SGD(nqm.schedules.cosine(1.0, 500), np.linspace(0.0, 0.9, 5)[:, None])
    along = nqm.risk(SPECTRUM, courses, 64.0, [100, 500])
    best = nqm.optimize_schedule(SPECTRUM, 64.0, steps=50, pieces=4, restarts=0)
    with nqm.use_backend("numba"):
        np.testing.assert_allclose(along, nqm.risk(SPECTRUM, courses, 64.0, [100, 500]), rtol=1e-10)
        np.testing.assert_allclose(
            best.risk, nqm.optimize_schedule(SPECTRUM, 64.0, steps=50, pieces=4, restarts=0).risk, rtol=1e-8
        )


def test_simulations(on_the_device):
    """Five standard errors at three times: a correct program fails one seed in 500,000; the seed is fixed."""
    problem, times = nqm.NoisyQuadratic([1.0, 0.1, 0.01]), [1, 10, 50]
    trials = nqm.simulate(problem, nqm.SGD(0.5, 0.5), 4.0, times, runs=20_000, seed=0)
    assert np.all(np.abs(trials.mean - nqm.risk(problem, nqm.SGD(0.5, 0.5), 4.0, times)) <= 5 * trials.standard_error)


def test_a_large_explicit_spectrum(on_the_device):
    """Against the rule for the same power law, which knows nothing of the device's nodes."""
    explicit = nqm.NoisyQuadratic(1.0 / np.arange(1.0, 200_001.0))
    found = nqm.risk(explicit, nqm.SGD(0.5, 0.5), 16.0, [10, 1000])
    with nqm.use_backend("numba"):
        expected = nqm.risk(nqm.NoisyQuadratic.power_law(200_000), nqm.SGD(0.5, 0.5), 16.0, [10, 1000])
    np.testing.assert_allclose(found, expected, rtol=1e-8)
