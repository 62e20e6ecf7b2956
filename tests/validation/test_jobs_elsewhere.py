"""Jobs of an experiment on executors: the same tables, each job on one thread, and nothing lost that has ended."""

from __future__ import annotations

import math
import multiprocessing
import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial

import pytest
import torch
from job_toys import called, counted, failing, run, same

from nqm.validation.experiments.jobs import read_jobs


@pytest.fixture(scope="module")
def tables():
    return run()


class AtOnce(Executor):
    """Runs what it is handed at once; after ``stop`` jobs nothing, or it raises the error."""

    def __init__(self, stop=math.inf, error=None):
        self.stop, self.error, self.futures = stop, error, []

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        if len(self.futures) >= self.stop:
            if self.error:
                raise self.error
        else:
            try:
                future.set_result(fn(*args, **kwargs))
            except Exception as error:
                future.set_exception(error)
        self.futures.append(future)
        return future


@pytest.fixture(scope="module")
def processes():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def test_processes_give_the_same_tables(tmp_path, tables, processes):
    assert same(run(results=tmp_path / "a", executor=processes), tables)
    assert same([table for _, table in sorted(read_jobs(tmp_path / "a")[1], key=lambda j: j[0]["seed"])], tables)
    with pytest.raises(RuntimeError, match="job failed: seed=2, name='toy': ZeroDivisionError: no luck"):
        run(failing, results=tmp_path / "b", executor=processes)
    assert same(run(results=tmp_path / "b", executor=processes), tables)
    with pytest.raises(RuntimeError, match=r"seed=0, .*other processes get the function by pickle: give functions"):
        run(lambda seed, name: {}, executor=processes)


class Backwards(ThreadPoolExecutor):
    """One thread, which runs the jobs in the opposite order as soon as it has all."""

    def __init__(self, count):
        super().__init__(1)
        self.count, self.waiting = count, []

    def submit(self, fn, /, *args, **kwargs):
        self.waiting.append((Future(), fn, args))
        if len(self.waiting) == self.count:
            super().submit(self._run_all)
        return self.waiting[-1][0]

    def _run_all(self):
        for future, fn, args in self.waiting[::-1]:
            future.set_result(fn(*args))


def test_the_order_in_which_jobs_end_does_not_matter(tables):
    with Backwards(5) as executor:
        assert same(run(executor=executor), tables)


def test_a_failure_cancels_what_has_not_begun_and_keeps_what_has_ended(tmp_path):
    path, executor = tmp_path / "jobs.jsonl", AtOnce(stop=4)
    with pytest.raises(RuntimeError, match="job failed: seed=2, name='toy': ZeroDivisionError"):
        run(failing, results=path, executor=executor)
    assert [settings["seed"] for settings, _ in read_jobs(path)[1]] == [0, 1, 3]
    assert [future.cancelled() for future in executor.futures] == [False] * 4 + [True]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyboardInterrupt(), "3 jobs are kept in .*: the same command goes on"),
        (RuntimeError("cannot schedule new futures"), "job failed: seed=3, .*cannot schedule new futures; finished"),
    ],
)
def test_an_interruption_loses_nothing_that_has_ended(tmp_path, tables, error, said):
    path, calls = tmp_path / "jobs.jsonl", tmp_path / "calls"
    with pytest.raises(type(error), match=said):
        run(counted(calls), results=path, executor=AtOnce(3, error))
    assert same(run(counted(calls), results=path), tables)
    assert called(calls) == [0, 1, 2, 3, 4]


# Threads of torch


def threads(number, barrier=None):
    if barrier is not None:
        barrier.wait(60)
    found = torch.get_num_threads()
    if barrier is not None:
        barrier.wait(60)
    return {"number": [number], "threads": [found]}


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_each_job_has_one_thread_of_torch_which_is_put_back(processes):
    settings = [{"number": number} for number in range(4)]
    assert [table["threads"].tolist() for table in run(threads, settings)] == [[1]] * 4
    assert torch.get_num_threads() == 2
    both = partial(threads, barrier=threading.Barrier(2))  # two jobs at a time
    for _ in range(2):
        with ThreadPoolExecutor(2) as pool:
            for _ in range(2):
                assert [table["threads"].tolist() for table in run(both, settings, executor=pool)] == [[1]] * 4
                with ThreadPoolExecutor(1) as other:
                    assert other.submit(torch.get_num_threads).result() == 2
    with pytest.raises(RuntimeError, match="job failed"):
        run(failing)
    assert torch.get_num_threads() == 2
    ours = processes.submit(torch.get_num_threads).result()
    assert [table["threads"].tolist() for table in run(threads, settings, executor=processes)] == [[1]] * 4
    assert processes.submit(torch.get_num_threads).result() == ours
