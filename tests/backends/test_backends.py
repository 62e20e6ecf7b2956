"""Which backend computes, on how many threads, and in how much memory. (That they agree: test_backends_agree.)"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sizes import every

import nqm
from nqm import EMA, FREE, SGD, Preconditioned, Schedule, _checks
from nqm.backends import numba_backend, selection
from nqm.backends.request_batching import BatchingBackend, together
from nqm.dynamics import additive
from nqm.dynamics.words import word_until

PROBLEM = nqm.NoisyQuadratic.power_law(300)
EXPLICIT = nqm.NoisyQuadratic(1.0 / np.arange(1.0, 101.0))


# --- the choice ----------------------------------------------------------------------------------------------


def test_compiled_code_unless_asked_otherwise():
    assert nqm.get_backend() == "numba"
    with nqm.use_backend("numpy"):
        assert nqm.get_backend() == "numpy"
        with nqm.use_backend("numba", threads=1):
            assert (nqm.get_backend(), selection.threads()) == ("numba", 1)
        assert nqm.get_backend() == "numpy"
    assert nqm.get_backend() == "numba"


def test_a_block_that_fails_gives_the_choice_back():
    with pytest.raises(KeyError), nqm.use_backend("numpy"):
        raise KeyError
    assert nqm.get_backend() == "numba"


def test_set_for_good_and_for_all_threads():
    try:
        nqm.set_backend("numpy")
        assert nqm.get_backend() == "numpy"
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(nqm.get_backend).result() == "numpy"
    finally:
        nqm.set_backend("numba")


def test_blocks_are_of_their_own_thread():
    """Two that overlap, and end in the order in which they began."""
    entered, left = threading.Barrier(2), threading.Event()

    def first():
        with nqm.use_backend("numpy"):
            entered.wait(timeout=30)
            found = nqm.get_backend()
        left.set()
        return found, nqm.get_backend()

    def second():
        with nqm.use_backend("numba", threads=3):
            entered.wait(timeout=30)
            assert left.wait(timeout=30)
            return nqm.get_backend(), selection.threads()

    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(first), pool.submit(second)]
        assert found[0].result(timeout=60) == ("numpy", "numba")
        assert found[1].result(timeout=60) == ("numba", 3)
    assert nqm.get_backend() == "numba"


def test_the_backend_that_is_chosen_computes(monkeypatch):
    from nqm.backends import reference_backend

    asked = []

    def risk(row, steps):
        asked.append(steps.size)
        return np.zeros(steps.size)

    monkeypatch.setattr(reference_backend, "risk", risk)
    nqm.risk(EXPLICIT, SGD(0.1), 4, [1, 2, 3])
    assert asked == []
    with nqm.use_backend("numpy"):
        assert nqm.risk(EXPLICIT, SGD(0.1), 4, [1, 2, 3]).tolist() == [0.0, 0.0, 0.0]
    assert asked == [3]


@pytest.mark.parametrize("name", ["Numba", "", "cuda", "numpy:1", "cupy:", "cupy:x", "cupy:-1", None, 3, ["numba"]])
def test_unknown_names(name):
    with pytest.raises(ValueError, match='name: expected "numba", "numpy", "cupy" or "cupy:<index>", got'):
        nqm.set_backend(name)
    assert nqm.get_backend() == "numba"


@pytest.mark.parametrize("threads", [0, -1, 1.5, "two", True, [1, 2], np.nan, np.inf, 10**6])
def test_wrong_threads(threads):
    with pytest.raises(ValueError, match="threads: expected a whole number from 1 to 1024, got"):
        nqm.set_backend("numba", threads=threads)


def test_threads_are_for_compiled_code():
    with pytest.raises(ValueError, match='threads: expected a number with "numba" only, got 2'):
        nqm.set_backend("numpy", threads=2)


@pytest.mark.parametrize("threads", [np.int64(2), 2.0])
def test_threads_are_any_whole_number(threads):
    with nqm.use_backend("numba", threads=threads):
        assert selection.threads() == 2


def in_a_process(code, **environment):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


SHOW = """
import sys, nqm
assert "numba" not in sys.modules
print(nqm.get_backend(), nqm.risk(nqm.NoisyQuadratic([1.0]), nqm.SGD(0.5), 4, 2), "numba" in sys.modules)
"""


def test_the_environment_decides_without_a_call():
    assert in_a_process(SHOW, NQM_BACKEND="numpy").stdout.split() == ["numpy", "0.0703125", "False"]
    assert in_a_process(SHOW, NQM_THREADS="1").stdout.split() == ["numba", "0.0703125", "True"]
    assert in_a_process(SHOW, NQM_BACKEND="", NQM_THREADS="").stdout.split() == ["numba", "0.0703125", "True"]


def test_the_environment_may_be_wrong():
    assert "NQM_BACKEND: expected" in in_a_process(SHOW, NQM_BACKEND="gpu").stderr
    assert "NQM_THREADS: expected" in in_a_process(SHOW, NQM_THREADS="many").stderr


HIDDEN = """
import sys
sys.modules["cupy"] = None  # as if it were not installed
import nqm
try:
    nqm.set_backend("cupy")
except RuntimeError as error:
    print(error)
print(nqm.get_backend(), nqm.risk(nqm.NoisyQuadratic([1.0]), nqm.SGD(0.5), 4, 2))
"""


def test_without_cupy_one_clear_error_and_nothing_else_notices():
    message, result = in_a_process(HIDDEN).stdout.splitlines()
    assert "CuPy" in message
    assert "pip install 'nqm[gpu]'" in message
    assert result == "numba 0.0703125"


# --- threads -------------------------------------------------------------------------------------------------


def columns(count=3000):
    generator = np.random.default_rng(0)
    lr, momentum, batch = generator.uniform(1e-3, 2.0, count), generator.uniform(0.0, 0.99, count), 4.0 ** np.arange(10)
    return SGD(lr, momentum), np.resize(batch, count)


def everything():
    """Results of every entry that spreads rows over threads."""
    optimizer, batch = columns()
    values, dynamics = optimizer.hyperparameters, additive.Additive(EXPLICIT, optimizer)
    word = word_until(Schedule([1.0, 0.3, 0.1], 70), None, np.array([100, 210]))
    few = {name: value[:500] for name, value in values.items()}
    return [
        dynamics.risk(values, batch, np.arange(3000)),
        dynamics.dyadic_risk(values, batch, 3000, 20),
        dynamics.risk_along(values, batch, 3000, word, 2),
        dynamics.first_passage(few, batch[:500], np.full(500, 0.1), last=False),
        dynamics.first_passage(few, batch[:500], np.full(500, 0.1), last=True),
    ]


@pytest.mark.parametrize("segment", every(2, [64, numba_backend.SEGMENT]))
def test_the_same_bits_for_any_number_of_threads(segment, monkeypatch):
    used = set()
    run = numba_backend.risk_rows

    def noting(*arguments):
        used.add(threading.current_thread().name)
        return run(*arguments)

    monkeypatch.setattr(numba_backend, "risk_rows", noting)
    monkeypatch.setattr(numba_backend, "WORTH", 1e4)
    monkeypatch.setattr(numba_backend, "SEGMENT", segment)
    with nqm.use_backend("numba", threads=1):
        alone = everything()
    assert used == {"MainThread"}
    for threads in (2, 3, 7):
        used.clear()
        with nqm.use_backend("numba", threads=threads):
            for one, many in zip(alone, everything(), strict=True):
                assert np.array_equal(one, many)
        assert "MainThread" not in used
        assert len(used) > 1


def test_segments_of_nodes_add_up(monkeypatch):
    whole = everything()
    monkeypatch.setattr(numba_backend, "SEGMENT", 64)
    for a, b in zip(whole, everything(), strict=True):
        assert np.array_equal(np.isinf(a), np.isinf(b))
        finite = np.isfinite(a)
        assert np.all(np.abs(a[finite] - b[finite]) <= 1e-14 * a[finite])


# --- many crossings at once ----------------------------------------------------------------------------------


@pytest.mark.parametrize("crossing", ["first", "last"])
@pytest.mark.parametrize("problem", [EXPLICIT, PROBLEM], ids=["explicit", "power law"])
def test_crossings_of_many_rows_are_those_of_each(problem, crossing):
    generator = np.random.default_rng(1)
    lr, momentum = generator.uniform(1e-3, 1.9, 40), generator.choice([0.0, 0.5, 0.9, 0.99], 40)
    batch, target = 4.0 ** generator.integers(1, 9, 40), generator.choice([0.5, 0.1, 0.01, 100.0], 40)
    found = nqm.steps_to_target(problem, SGD(lr, momentum), batch, target, crossing)
    assert {0.0, np.inf} < set(found)
    for i in range(40):
        assert found[i] == nqm.steps_to_target(problem, SGD(lr[i], momentum[i]), batch[i], target[i], crossing)


def test_rows_that_take_many_leaps_get_there(monkeypatch):
    optimizer, target = SGD([1e-5, 0.5], 1 - 1e-5), 0.2
    expected = nqm.steps_to_target(EXPLICIT, optimizer, 1e6, target)
    monkeypatch.setattr(numba_backend, "LEAPS", 5)
    monkeypatch.setattr("nqm.backends.first_passage.LOOK", 1.0)
    assert np.array_equal(nqm.steps_to_target(EXPLICIT, optimizer, 1e6, target), expected)


def test_momentum_of_zero_among_others_takes_few_leaps(monkeypatch):
    """A root of exactly 0, which rounding makes -1e-17, is no oscillation."""
    monkeypatch.setattr(
        "nqm.backends.first_passage.FirstPassageSearch.run", lambda *_: pytest.fail("more than 2000 leaps")
    )
    lr = np.geomspace(1e-3, 1.9, 200)
    found = nqm.steps_to_target(EXPLICIT, SGD(lr[:, None], [0.0, 0.5]), 1e5, 0.01)
    assert np.array_equal(found[:, 0], nqm.steps_to_target(EXPLICIT, SGD(lr), 1e5, 0.01))


# --- memory --------------------------------------------------------------------------------------------------


def peak(rows, backend):
    """Bytes that a call takes beside its result."""
    lr, batch = np.geomspace(1e-3, 1.9, rows // 256)[:, None], np.geomspace(1.0, 1e6, 256)
    with nqm.use_backend(backend):
        tracemalloc.start()
        try:
            found = nqm.risk(EXPLICIT, SGD(lr, 0.5), batch, 3)
            return tracemalloc.get_traced_memory()[1] - found.nbytes
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(("backend", "rows"), [("numba", 2**19), ("numpy", 2**13)])
def test_memory_does_not_grow_with_the_rows(backend, rows):
    small = peak(rows // 4, backend)
    assert peak(rows, backend) < 1.2 * small + 2**20
    assert small < 100 * 2**20


def test_many_powers_in_few_tables(monkeypatch):
    """Each power is a table of the size of the spectrum; here only two fit at a time."""
    rng = np.random.default_rng(2)
    optimizer = Preconditioned(SGD(rng.uniform(0.1, 0.5, 30), 0.5), rng.choice([0.0, 0.1, 0.2, 0.5, 1.0], 30))
    batch = rng.choice([4.0, 1e5], 30)
    course = Preconditioned(SGD(Schedule([0.5, 0.1], 20), 0.5), optimizer.power)

    def answers():
        return [
            nqm.risk(EXPLICIT, optimizer, batch, np.arange(30)),
            nqm.steady_state_risk(EXPLICIT, optimizer, batch),
            nqm.steps_to_target(EXPLICIT, optimizer, batch, 0.5),
            nqm.risk(EXPLICIT, course, batch, 30),
        ]

    together = answers()
    tables = []
    monkeypatch.setattr(additive, "TABLES", 200)
    rows = additive.rows

    def noting(*arguments):
        row = rows(*arguments)
        tables.append(len(row.curvature))
        return row

    monkeypatch.setattr(additive, "rows", noting)
    for a, b in zip(together, answers(), strict=True):
        assert np.array_equal(a, b)
    assert max(tables) == 2


TOO_LARGE = {
    "risk": lambda many: nqm.risk(PROBLEM, SGD(0.1 * many), np.ones(10**6), 10),
    "steps": lambda many: nqm.risk(PROBLEM, SGD(0.1), many, np.arange(10**6)),
    "steps_to_target": lambda many: nqm.steps_to_target(PROBLEM, SGD(0.1 * many), np.ones(10**6), 0.1),
    "steady_state_risk": lambda many: nqm.steady_state_risk(PROBLEM, SGD(0.1 * many), np.ones(10**6)),
    "simulate": lambda many: nqm.simulate(PROBLEM, SGD(0.1), 4, range(10**4), runs=10**8),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_results_too_large_for_memory_are_refused_with_their_size(name):
    many = np.ones((10**6, 1))
    tracemalloc.start()
    try:
        with pytest.raises(MemoryError, match=r"1e\+12 numbers, of shape \(\d+, \d+\): 7.45e\+03 GiB where .* GiB are"):
            TOO_LARGE[name](many)
        assert tracemalloc.get_traced_memory()[1] < 10 * many.nbytes
    finally:
        tracemalloc.stop()


def test_room_is_what_the_system_has_and_the_address_space_allows(monkeypatch):
    pytest.importorskip("resource", reason="no limits on the address space here")
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("no /proc to read free memory from")
    assert 0.0 < _checks._free_bytes() < np.inf
    monkeypatch.setattr(_checks, "_address_space", lambda: 0.0)
    with pytest.raises(MemoryError, match=r"got 1 numbers, of shape \(1,\): .* GiB where 0 GiB are free"):
        _checks.room_for((1,))


# --- searches together ---------------------------------------------------------------------------------------

CELLS = [
    (optimizer, batch)
    for optimizer in (SGD(FREE), Preconditioned(SGD(FREE), 0.5), EMA(SGD(0.5), FREE))
    for batch in (64.0, 512.0, 4096.0, 2.0**15)
]


@pytest.fixture
def calls(monkeypatch):
    """Rows of each call of the compiled backend for risks."""
    sizes, compute = [], numba_backend.risk

    def counting(row, steps):
        sizes.append(steps.size)
        return compute(row, steps)

    monkeypatch.setattr(numba_backend, "risk", counting)
    return sizes


def test_searches_together_find_what_each_finds_alone(calls):
    alone = [nqm.tune(PROBLEM, optimizer, batch, 0.05) for optimizer, batch in CELLS]
    before = len(calls)
    calls.clear()
    searches = [lambda cell=cell: nqm.tune(PROBLEM, *cell, 0.05) for cell in CELLS]
    found = dict(together(searches))
    assert [found[i].steps for i in range(len(CELLS))] == [best.steps for best in alone]
    assert [found[i].risk for i in range(len(CELLS))] == [best.risk for best in alone]
    assert all(repr(found[i]) == repr(alone[i]) for i in range(len(CELLS)))
    assert len(calls) < before / 2


def test_a_backend_that_fails_fails_all_who_asked():
    def broken(row, steps):
        raise ArithmeticError("no luck")

    class Broken:
        risk = staticmethod(broken)

    batching = BatchingBackend(selection.BackendChoice("numba", Broken, 1), 2)
    search = lambda: nqm.risk(EXPLICIT, SGD(0.1), 4, 10)  # noqa: E731
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(batching.run, search) for _ in range(2)]:
            assert isinstance(future.exception(timeout=30), ArithmeticError)


def test_a_search_that_fails_does_not_hold_up_the_others():
    def fails():
        raise KeyError("out of luck")

    batching = BatchingBackend(selection.current_choice(), 2)
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(batching.run, lambda: nqm.risk(EXPLICIT, SGD(0.1), 4, 10))
        assert isinstance(pool.submit(batching.run, fails).exception(timeout=30), KeyError)
        assert other.result(timeout=30) == nqm.risk(EXPLICIT, SGD(0.1), 4, 10)


def test_searches_that_are_interrupted_end_at_their_next_question():
    asked = []

    def endless():
        while True:
            asked.append(nqm.risk(EXPLICIT, SGD(0.1), 4, 10))

    def interrupted():
        if len(asked) > 10:
            raise KeyboardInterrupt
        return nqm.risk(EXPLICIT, SGD(0.1), 4, 10)

    with pytest.raises(KeyboardInterrupt):
        list(together([endless, lambda: [interrupted() for _ in range(100)]]))


def test_searches_that_cannot_all_begin_do_not_wait_for_each_other(monkeypatch):
    begun = []
    start = threading.Thread.start

    def few(thread):
        if len(begun) == 3:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", few)
    with pytest.raises(RuntimeError, match="new thread"):
        list(together([lambda: nqm.risk(EXPLICIT, SGD(0.1), 4, 10)] * 5))
    assert len(begun) == 3


def test_filters_that_differ_are_not_put_together():
    """An average and a filter of one's own with the same vectors: what the third state is tells them apart."""
    averaged = EMA(SGD(0.3, 0.5), 0.9)
    parts = averaged.step_map(averaged.hyperparameters).packed
    own = nqm.LinearOptimizer(0.3, np.diag([0.9, 0.8, 0.7]), [1.0, 0.5, 0.2], parts.query, parts.readout, parts.start)
    with nqm.use_backend("numpy"):
        alone = [nqm.risk(EXPLICIT, optimizer, 4, 10) for optimizer in (averaged, own)]
        for order in (1, -1):
            searches = [lambda o=o: nqm.risk(EXPLICIT, o, 4, 10) for o in (averaged, own)][::order]
            found = dict(together(searches))
            assert [found[0], found[1]] == alone[::order]


def test_a_sweep_on_a_device_puts_its_cells_together(calls, monkeypatch):
    """Pretend that the compiled backend is a device's."""
    optimizers, batches = {"SGD": SGD(FREE), "fixed": SGD(0.3, 0.5)}, [64.0, 512.0, 4096.0]
    expected = nqm.sweep(PROBLEM, optimizers, batches, 0.05).table
    before = len(calls)
    calls.clear()
    monkeypatch.setattr(sys.modules["nqm.search.cells"], "on_device", lambda: True)
    found = nqm.sweep(PROBLEM, optimizers, batches, 0.05).table
    assert len(calls) < before / 2
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
