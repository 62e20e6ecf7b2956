"""The search for fewest steps goes on from its file, and elsewhere: the same table after any interruption."""

from __future__ import annotations

import multiprocessing
import warnings
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor

import pytest
from law import MOMENTUM, SGD, Counted, Law, failing_race, measure, optimizer, same

from nqm.validation import Measured
from nqm.validation.search.records import read_results
from nqm.validation.training.axes import Axis

# Going on


def test_an_interruption_at_any_batch_changes_nothing(finished, tmp_path):
    path, result, calls = finished
    for stop in range(len(calls)):
        goal = tmp_path / f"{stop}.jsonl"
        first, second = Counted(stop), Counted()
        with pytest.raises(KeyboardInterrupt, match=r"trials are kept in .*the same command goes on"):
            measure(results=goal, race=first)
        partial = Measured.load(goal)
        assert "unfinished" in partial.table["status"] or len(partial.table["status"]) < 8
        assert same(measure(results=goal, race=second), result)
        assert first.calls + second.calls == calls
        assert goal.read_bytes() == path.read_bytes()


def test_a_write_torn_within_a_batch_is_repeated(finished, tmp_path):
    path, result, calls = finished
    whole, goal, counted = path.read_bytes(), tmp_path / "torn.jsonl", Counted()
    lines = whole.splitlines(keepends=True)
    goal.write_bytes(b"".join(lines[:5]) + lines[5][:40])  # in the middle of the first batch of 8
    assert same(measure(results=goal, race=counted), result)
    assert counted.calls == calls
    assert goal.read_bytes() == whole


def test_a_finished_file_trains_nothing(finished):
    path, result, _ = finished
    assert same(measure(results=path, race=Counted(0)), result)


def test_more_batch_sizes_and_optimizers_extend_a_file(finished, tmp_path):
    _, _, calls = finished
    goal, counted = tmp_path / "grown.jsonl", Counted()
    measure(optimizers=[SGD], batch_sizes=[8], results=goal, race=counted)
    wider = optimizer("momentum", effective_lr=Axis(1e-3, 10.0), momentum=MOMENTUM)
    with pytest.raises(ValueError, match=r"optimizers\.momentum\.effective_lr\.low: expected 0\.001"):
        measure(optimizers=[SGD, wider], results=goal)  # the header holds the library's spaces of the others
    measure(optimizers=[SGD], batch_sizes=[8, 64], results=goal, race=counted)
    assert counted.calls == [call for call in calls if call[0][0][0] == "SGD"]
    grown = measure(optimizers=["SGD with EMA"], batch_sizes=[8], results=goal)
    assert grown.names == ["SGD with EMA"]
    assert Measured.load(goal).names == ["SGD", "SGD with EMA"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"trials": 9}, "trials: expected 9, found 8"),
        ({"seed": 1}, "seed: expected 1, found 0"),
        ({"task": Law(noise=0.1)}, r"task\.law: expected"),
        ({"optimizers": [optimizer("SGD", lr=Axis(1e-3, 3.0))]}, r"optimizers\.SGD\.lr\.low: expected 0\.001, found"),
    ],
)  # fmt: skip
def test_a_file_of_another_run_is_refused_before_any_training(finished, options, said):
    path, _, _ = finished
    with pytest.raises(ValueError, match=said):
        measure(results=path, race=Counted(0), **options)


def test_an_interruption_without_a_file_says_so():
    with pytest.raises(KeyboardInterrupt, match="give a results file"):
        measure(race=Counted(2))


def test_progress_is_shown_on_stderr_alone(capsys):
    measure(progress=True)
    shown = capsys.readouterr()
    assert "100%" in shown.err
    assert "trial/s" in shown.err
    assert shown.out == ""
    measure()
    assert capsys.readouterr().err == ""


# Elsewhere


def test_processes_give_the_same_table(finished, tmp_path):
    path, result, _ = finished
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        assert same(measure(results=tmp_path / "a", executor=pool), result)
        assert sorted((tmp_path / "a").read_bytes().splitlines()) == sorted(path.read_bytes().splitlines())
        with pytest.raises(
            RuntimeError, match=r"training failed: SGD at batch size 64, round 1, trial 0 to 7: ZeroDiv"
        ):
            measure(results=tmp_path / "b", executor=pool, race=failing_race, optimizers=[SGD])
        assert same(measure(results=tmp_path / "b", executor=pool), result)


def test_dask_gives_the_same_table(finished, tmp_path):
    distributed = pytest.importorskip("distributed")
    _, result, _ = finished
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="distributed|tornado|dask")
        options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
        with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
            assert same(measure(results=tmp_path / "a", executor=client.get_executor()), result)
            with pytest.raises(TypeError, match=r"of a dask Client take client.get_executor"):
                measure(executor=client, optimizers=[SGD], batch_sizes=[8])


class Backwards(ThreadPoolExecutor):
    """One thread that takes whichever batch was handed in last."""

    def __init__(self):
        super().__init__(1)
        self.waiting = []

    def submit(self, fn, /, *args, **kwargs):
        self.waiting.append((Future(), fn, args))
        future = self.waiting[-1][0]
        super().submit(self._end_last)
        return future

    def _end_last(self):
        future, fn, args = self.waiting.pop()
        future.set_result(fn(*args))


def test_the_order_in_which_batches_end_does_not_matter(finished):
    _, result, _ = finished
    with Backwards() as executor:
        assert same(measure(executor=executor), result)


def test_an_interruption_among_threads_continues_to_the_same_table(finished, tmp_path):
    _, result, calls = finished
    goal = tmp_path / "steps.jsonl"
    with ThreadPoolExecutor(1) as executor, pytest.raises(RuntimeError, match="finished heats are kept in"):
        measure(results=goal, executor=executor, race=Counted(9, OSError("unplugged")))
    kept = {(r.cell, r.round, r.first) for r in read_results(goal)[1]}
    assert len(kept) == 9
    counted = Counted()
    assert same(measure(results=goal, race=counted), result)
    assert len(counted.calls) == len(calls) - 9


def test_ctrl_c_while_others_work_keeps_finished_batches(finished, tmp_path):
    class Interrupted(ThreadPoolExecutor):
        left = 9

        def submit(self, fn, /, *args, **kwargs):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return super().submit(fn, *args, **kwargs)

    _, result, _ = finished
    goal = tmp_path / "steps.jsonl"
    with Interrupted(2) as executor, pytest.raises(KeyboardInterrupt, match="the same command goes on"):
        measure(results=goal, executor=executor)
    assert read_results(goal)[1]
    assert same(measure(results=goal), result)


def test_a_failure_here_names_the_cell_and_keeps_finished_batches(finished, tmp_path):
    _, result, _ = finished
    goal = tmp_path / "steps.jsonl"
    with pytest.raises(RuntimeError, match=r"SGD at batch size 64, round 1, trial 0 to 7: ZeroDivisionError: no luck;"):
        measure(results=goal, race=failing_race)
    assert {r.cell for r in read_results(goal)[1]} == {("SGD", 8)}
    assert same(measure(results=goal), result)
