"""Sweeps on executors: the same table from threads, processes and dask, also where workers are killed."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster
from sizes import every

import nqm
from nqm.backends import selection

PROBLEM = nqm.NoisyQuadratic(1.0 / np.arange(1, 41))
OPTIMIZERS = {"SGD": nqm.SGD(nqm.FREE), "EMA": nqm.EMA(nqm.SGD(0.5), decay=nqm.FREE), "fixed": nqm.SGD(0.25)}
BATCHES, TARGETS = [4, 64, 1024], [0.1, 0.3]
MANY = np.arange(1, 601)  # with two optimizers more cells than tasks


def same(a, b):
    return all(a.table[k].tobytes() == b.table[k].tobytes() for k in a.table)


def processes(workers=2):
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))


def dask_processes():
    """Two worker processes on ports that are free, without a dashboard. (Its address None would mean port 8787.)"""
    return LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": False},
        silence_logs=logging.CRITICAL,
    )


@pytest.fixture(scope="module")
def cluster():
    with dask_processes() as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with Client(cluster, timeout="20s") as client:
        yield client


class Inline(Executor):
    """Computes each task as it is submitted, on its pickled copy."""

    def __init__(self):
        self.sizes = []

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        future.set_result(pickle.loads(pickle.dumps(fn))(*args, **kwargs))
        self.sizes.append(len(future.result()))
        return future


@dataclass(frozen=True, eq=False, repr=False)
class Kills(nqm.SGD):
    """Away from the process ``home``, computing with this kills the process; if ``once``, then the first time only.

    ``mark``: a file that gets the ids of the killed.
    """

    mark: str = ""
    home: int = 0
    once: bool = True

    def step_map(self, values):
        if os.getpid() != self.home:
            try:
                with open(self.mark, "x" if self.once else "a") as file:
                    file.write(f"{os.getpid()}\n")
                os.kill(os.getpid(), signal.SIGKILL)
            except FileExistsError:
                pass
        return super().step_map(values)


def killed(mark: Path) -> list[int]:
    return [int(line) for line in mark.read_text().splitlines()]


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "killed"


def with_killer(mark, once=True):
    return {"SGD": nqm.SGD(0.5), "killer": Kills(0.25, mark=str(mark), home=os.getpid(), once=once)}


@pytest.mark.parametrize("pool", [ThreadPoolExecutor, processes])
def test_pools_give_the_same_table(pool):
    with pool(2) as executor:
        found = nqm.sweep(PROBLEM, OPTIMIZERS, BATCHES, TARGETS, executor=executor)
    assert same(found, nqm.sweep(PROBLEM, OPTIMIZERS, BATCHES, TARGETS))


def test_dask_gives_the_same_table(client):
    found = nqm.sweep(PROBLEM, OPTIMIZERS, BATCHES, TARGETS, executor=client.get_executor())
    assert same(found, nqm.sweep(PROBLEM, OPTIMIZERS, BATCHES, TARGETS))


@pytest.mark.parametrize(("nodes", "cells"), every(2, [(40, 1200), (150_000, 70)]))
def test_cells_travel_in_tasks_of_about_the_same_size(nodes, cells):
    problem = nqm.NoisyQuadratic(1.0 / np.arange(1, nodes + 1))
    optimizers, batches = {"SGD": nqm.SGD(0.5), "momentum": nqm.SGD(0.25, 0.5)}, np.arange(1, cells // 2 + 1)
    executor, target = Inline(), (0.9 if nodes < 1000 else 1.1) * problem.initial_risk  # many are there already
    found = nqm.sweep(problem, optimizers, batches, target, executor=executor)
    assert nodes > 1000 or same(found, nqm.sweep(problem, optimizers, batches, target))
    assert 64 <= len(executor.sizes) < cells
    assert sum(executor.sizes) == cells
    assert max(executor.sizes) - min(executor.sizes) == 1


def test_dask_runs_the_cells_of_a_killed_worker_again(client, mark):
    optimizers = with_killer(mark)
    workers = client.run(os.getpid).values()
    found = nqm.sweep(PROBLEM, optimizers, MANY, 0.3, executor=client.get_executor())
    (victim,) = killed(mark)
    assert victim in workers
    assert same(found, nqm.sweep(PROBLEM, optimizers, MANY, 0.3))


@pytest.mark.thorough
def test_cells_that_dask_gives_up_are_computed_here(mark):
    optimizers = {"killer": with_killer(mark, once=False)["killer"]}
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        dask_processes() as cluster,
        Client(cluster, timeout="20s") as client,
        pytest.warns(RuntimeWarning, match=r"executor: lost 2 of 2 cells.*KilledWorker"),
    ):
        found = nqm.sweep(PROBLEM, optimizers, [4, 64], 0.3, executor=client.get_executor())
    assert len(killed(mark)) == 2
    assert same(found, nqm.sweep(PROBLEM, optimizers, [4, 64], 0.3))


def test_cells_of_a_broken_pool_are_computed_here(mark):
    optimizers = with_killer(mark)
    with processes() as pool:
        with pytest.warns(RuntimeWarning, match=r"executor: lost \d+ of 1200 cells.*BrokenProcessPool") as warned:
            found = nqm.sweep(PROBLEM, optimizers, MANY, 0.3, executor=pool)
        with pytest.raises(BrokenProcessPool):
            pool.submit(os.getpid)
    assert len(killed(mark)) == 1
    assert len(warned) == 1
    assert same(found, nqm.sweep(PROBLEM, optimizers, MANY, 0.3))


class Loses(Inline):
    """Of its tasks one is cancelled, one fails on the way and, from the sixth on, none is taken."""

    def submit(self, fn, /, *args, **kwargs):
        future = super().submit(fn, *args, **kwargs)
        if len(self.sizes) == 2:
            future = Future()
            future.cancel()
            future.set_running_or_notify_cancel()
        elif len(self.sizes) == 3:
            future = Future()
            future.set_exception(OSError("gone"))
        elif len(self.sizes) == 6:
            raise BrokenProcessPool("no more")
        return future


class Bar:
    """What a progress bar is told."""

    def __init__(self, total, **settings):
        self.told = [total]
        Bar.last = self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def update(self, cells):
        self.told.append(cells)


def test_progress_is_counted_in_cells(monkeypatch):
    monkeypatch.setattr("tqdm.tqdm", Bar)
    executor = Inline()
    nqm.sweep(PROBLEM, {"SGD": nqm.SGD(0.5), "half": nqm.SGD(0.25)}, MANY, 0.3, executor=executor, progress=True)
    assert Bar.last.told[0] == 1200
    assert sorted(Bar.last.told[1:]) == sorted(executor.sizes)
    assert max(executor.sizes) == 2


def test_whatever_is_lost_is_counted_and_computed_here(monkeypatch):
    monkeypatch.setattr("tqdm.tqdm", Bar)
    batches = range(1, 11)
    executor = Loses()
    with pytest.warns(RuntimeWarning, match=r"lost 7 of 10 cells.*\((BrokenProcessPool: no more)\)") as warned:
        found = nqm.sweep(PROBLEM, {"SGD": nqm.SGD(nqm.FREE)}, batches, 0.3, executor=executor, progress=True)
    assert len(executor.sizes) == 6
    assert len(warned) == 1
    assert warned[0].filename == __file__
    assert Bar.last.told == [10] + 10 * [1]
    assert same(found, nqm.sweep(PROBLEM, {"SGD": nqm.SGD(nqm.FREE)}, batches, 0.3))


class Fails(nqm.SGD):
    def step_map(self, values):
        raise RuntimeError("out of luck")


@pytest.mark.parametrize("pool", [ThreadPoolExecutor, processes])
def test_a_cells_own_error_is_its_status(pool):
    with pool(2) as executor:
        found = nqm.sweep(PROBLEM, {"bad": Fails(0.1), "good": nqm.SGD(0.25)}, [64], 0.3, executor=executor)
    assert found.table["status"].tolist() == ["failed: RuntimeError: out of luck", "fixed"]


class Tells(nqm.SGD):
    def step_map(self, values):
        raise RuntimeError(f"{nqm.get_backend()} on {selection.threads()}")


@pytest.mark.parametrize("pool", [ThreadPoolExecutor, processes])
def test_workers_compute_as_the_caller_does(pool, monkeypatch):
    """Whatever the environment of theirs says."""
    with pool(2) as executor:
        monkeypatch.setenv("NQM_BACKEND", "gpu")
        monkeypatch.setenv("NQM_THREADS", "7")
        for name, threads in [("numpy", None), ("numba", 3)]:
            with nqm.use_backend(name, threads):
                found = nqm.sweep(PROBLEM, {"tells": Tells(0.1)}, [64, 128], 0.3, executor=executor)
            assert set(found.table["status"]) == {f"failed: RuntimeError: {name} on {threads or 7}"}


def test_what_a_worker_has_no_backend_for_is_computed_here(monkeypatch):
    """As on a GPU, which a forked process cannot use."""

    def use_backend(name, threads):
        raise RuntimeError("no CUDA device")

    expected = nqm.sweep(PROBLEM, OPTIMIZERS, BATCHES, 0.1)
    monkeypatch.setattr(sys.modules["nqm.search.cells"], "use_backend", use_backend)
    with ThreadPoolExecutor(2) as pool, pytest.warns(RuntimeWarning, match="lost 9 of 9 cells.*no CUDA device"):
        found = nqm.sweep(PROBLEM, OPTIMIZERS, BATCHES, 0.1, executor=pool)
    assert same(found, expected)


def test_what_cannot_be_pickled_is_computed_here():
    class Inner(nqm.SGD):
        pass

    optimizers = {"inner": Inner(0.5), "SGD": nqm.SGD(0.25)}
    with processes() as pool, pytest.warns(RuntimeWarning, match=r"lost 2 of 4 cells.*pickle"):
        found = nqm.sweep(PROBLEM, optimizers, [4, 64], 0.3, executor=pool)
    assert same(found, nqm.sweep(PROBLEM, optimizers, [4, 64], 0.3))


def test_a_dask_client_is_refused(client):
    with pytest.raises(TypeError, match=r"executor: .*distributed\.client\.Future.*client\.get_executor\(\)"):
        nqm.sweep(PROBLEM, OPTIMIZERS, BATCHES, TARGETS, executor=client)
    assert not client.futures


class Submits:
    """Not an executor: its ``submit`` returns what it is told to."""

    def __init__(self, make):
        self.make, self.made = make, []

    def submit(self, fn, /, *args, **kwargs):
        self.made.append(self.make())
        return self.made[-1]


async def never_awaited():
    pass


class Handle:
    cancelled = False

    def cancel(self):
        self.cancelled = True


@pytest.mark.parametrize(("make", "kind"), [(never_awaited, "coroutine"), (Handle, "Handle"), (lambda: 4, "int")])
def test_what_returns_no_futures_is_refused_at_the_first(make, kind):
    executor = Submits(make)
    with pytest.raises(TypeError, match=rf"executor: expected a concurrent\.futures\.Executor.*{kind}$"):
        nqm.sweep(PROBLEM, OPTIMIZERS, BATCHES, TARGETS, executor=executor)
    assert len(executor.made) == 1
    assert getattr(executor.made[0], "cancelled", True)


class Waits(nqm.SGD):
    """All cells but the first wait to be told to go on."""

    go_on = threading.Event()
    cells = 0

    def step_map(self, values):
        Waits.cells += 1
        assert Waits.cells == 1 or self.go_on.wait(60)
        raise RuntimeError("one call a cell")


class Interrupts(Bar):
    def update(self, cells):
        super().update(cells)
        raise KeyboardInterrupt  # as Ctrl-C does between two results


def test_an_interrupt_cancels_what_has_not_begun(monkeypatch):
    monkeypatch.setattr("tqdm.tqdm", Interrupts)
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(KeyboardInterrupt):
            nqm.sweep(PROBLEM, {"SGD": Waits(0.25)}, range(1, 33), 0.3, executor=pool, progress=True)
        Waits.go_on.set()
    assert Bar.last.told == [32, 1]
    assert Waits.cells <= 2  # the second may have begun


def test_any_error_cancels_what_has_not_begun():
    futures = [Future() for _ in range(3)]
    futures[1].set_exception(SystemExit("worker left"))
    waiting = iter(futures)
    with pytest.raises(SystemExit, match="worker left"):
        nqm.sweep(PROBLEM, {"SGD": nqm.SGD(0.25)}, [1, 2, 3], 0.3, executor=Submits(lambda: next(waiting)))
    assert [future.cancelled() for future in futures] == [True, False, True]


def test_an_interrupt_keeps_the_cells_that_are_done(monkeypatch):
    """Here and from threads: rows as the whole sweep has them."""
    monkeypatch.setattr("tqdm.tqdm", Interrupts)
    whole = nqm.sweep(PROBLEM, {"SGD": nqm.SGD(0.25)}, range(1, 33), 0.3)
    with ThreadPoolExecutor(1) as pool:
        for executor in (None, pool):
            with pytest.raises(KeyboardInterrupt, match=r"interrupted; \d+ of 32 cells are done") as stopped:
                nqm.sweep(PROBLEM, {"SGD": nqm.SGD(0.25)}, range(1, 33), 0.3, executor=executor, progress=True)
            kept = stopped.value.sweep.table
            assert 1 <= kept["steps"].size < 32
            assert np.isin(kept["batch_size"], whole.table["batch_size"]).all()
            at = np.searchsorted(whole.table["batch_size"], kept["batch_size"])
            assert all(np.array_equal(column, whole.table[name][at]) for name, column in kept.items())


class Endless(nqm.SGD):
    """A cell that asks for ever."""

    begun = threading.Event()

    def step_map(self, values):
        self.begun.set()
        while True:
            nqm.risk(PROBLEM, nqm.SGD(0.25), 4, 10)


def test_an_interrupt_stops_threads_within_a_cell(monkeypatch):
    """The second cell would never end."""

    class AfterTheFirst(Interrupts):
        def update(self, cells):
            assert Endless.begun.wait(60)
            super().update(cells)

    monkeypatch.setattr("tqdm.tqdm", AfterTheFirst)
    optimizers = {"SGD": nqm.SGD(0.25), "endless": Endless(0.25)}
    # the pool's end waits for its threads
    with pytest.raises(KeyboardInterrupt, match="1 of 2 cells") as stopped, ThreadPoolExecutor(2) as pool:
        nqm.sweep(PROBLEM, optimizers, 4, 0.3, executor=pool, progress=True)
    assert stopped.value.sweep.names == ["SGD"]
