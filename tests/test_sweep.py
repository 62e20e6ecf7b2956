"""Sweeps: rows, failing cells, the definition of the critical batch size, printing; executors: test_executors.py."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import nqm

PROBLEM = nqm.NoisyQuadratic(1.0 / np.arange(1, 41))
OPTIMIZERS = {"SGD": nqm.SGD(nqm.FREE), "EMA": nqm.EMA(nqm.SGD(0.5), decay=nqm.FREE), "fixed": nqm.SGD(0.25)}
BATCHES = [4, 64, 1024]


@pytest.fixture(scope="module")
def result():
    return nqm.sweep(PROBLEM, OPTIMIZERS, BATCHES, [0.1, 0.3])


def same(a, b):
    return all(np.array_equal(a.table[k], b.table[k], equal_nan=a.table[k].dtype.kind == "f") for k in a.table)


def test_rows_are_those_of_tune_and_steps_to_target(result):
    table = result.table
    assert len(table["steps"]) == 3 * 2 * 3
    for i in range(len(table["steps"])):
        optimizer = OPTIMIZERS[table["optimizer"][i]]
        batch, target = table["batch_size"][i], table["target"][i]
        if optimizer.free:
            best = nqm.tune(PROBLEM, optimizer, batch, target)
            assert (table["steps"][i], table["lr"][i], table["risk"][i]) == (
                best.steps,
                best.optimizer.hyperparameters["lr"],
                best.risk,
            )
        else:
            assert table["steps"][i] == nqm.steps_to_target(PROBLEM, optimizer, batch, target)
        assert table["examples"][i] == table["steps"][i] * batch


class Fails(nqm.SGD):
    """An optimizer whose cells raise."""

    def step_map(self, values):
        raise RuntimeError("out of luck")


def test_a_failing_cell_says_why_and_sinks_no_other():
    table = nqm.sweep(PROBLEM, {"bad": Fails(0.1), "good": nqm.SGD(0.25)}, [64], 0.3).table
    assert table["status"].tolist() == ["failed: RuntimeError: out of luck", "fixed"]
    assert np.isnan(table["steps"][0])
    assert table["steps"][1] > 0


class Rambles(nqm.SGD):
    """An optimizer whose cells raise at length."""

    def step_map(self, values):
        raise RuntimeError("out of luck\n" * 1000)


def test_a_long_error_becomes_one_line_that_is_cut():
    status = nqm.sweep(PROBLEM, {"bad": Rambles(0.1)}, [64], 0.3).table["status"][0]
    assert status.startswith("failed: RuntimeError: out of luck out of luck ")
    assert status.endswith("...")
    assert len(status) < 250


def test_critical_batch_size_is_fewest_examples_over_fewest_steps(result):
    for target in (0.1, 0.3):
        found = result.critical_batch_size(target)
        for name, value in found.items():
            here = (result.table["optimizer"] == name) & (result.table["target"] == target)
            here &= np.isfinite(result.table["steps"])
            steps, batch = result.table["steps"][here], result.table["batch_size"][here]
            assert value == min(steps * batch) / min(steps)
    with pytest.raises(ValueError, match="expected one of"):
        result.critical_batch_size()
    with pytest.raises(ValueError, match="expected one of"):
        result.critical_batch_size(0.2)


def test_unreachable_is_a_status():
    result = nqm.sweep(PROBLEM, {"fixed": nqm.SGD(1.0)}, [1], 0.01)
    assert result.table["status"][0] == "unreachable"
    assert np.isinf(result.table["steps"][0])
    assert np.isnan(result.critical_batch_size()["fixed"])


def test_no_critical_batch_size_where_all_start_at_the_target():
    result = nqm.sweep(PROBLEM, {"SGD": nqm.SGD(0.25)}, BATCHES, 2.0 * PROBLEM.initial_risk)
    assert result.table["steps"].tolist() == [0.0, 0.0, 0.0]
    assert np.isnan(result.critical_batch_size()["SGD"])


def test_pandas_plot_print_and_pickle(result):
    frame = result.to_pandas()
    assert list(frame.columns) == list(result.table)
    assert len(frame) == 18
    ax = result.plot()
    lines = [line for line in ax.get_lines() if line.get_label() == "SGD, target 0.1"]
    here = (result.table["optimizer"] == "SGD") & (result.table["target"] == 0.1)
    assert np.array_equal(lines[0].get_ydata(), result.table["steps"][here])
    assert "SGD" in repr(result)
    assert same(result, pickle.loads(pickle.dumps(result)))


def test_a_long_table_prints_its_first_and_last_rows():
    batches = np.arange(1, 1001)
    result = nqm.sweep(PROBLEM, {"fixed": nqm.SGD(0.25)}, batches, 0.3)
    lines = str(result).splitlines()
    left_out = [i for i, line in enumerate(lines) if "left out" in line]
    assert len(lines) == 1 + 30 + 1
    assert left_out == [16]
    assert lines[16] == "... 970 of 1000 rows left out ..."
    shown = [float(line.split()[2]) for line in lines[1:16] + lines[17:]]
    assert shown == [*batches[:15], *batches[-15:]]
    assert repr(result).splitlines() == ["Sweep(1000 cells: fixed)", *lines]
    full = result.to_string().splitlines()
    assert [float(line.split()[2]) for line in full[1:]] == batches.tolist()
    assert result.to_string(max_rows=1000).splitlines() == full
    assert [line.split()[0] for line in result.to_string(max_rows=3).splitlines()] == [
        "optimizer", "fixed", "fixed", "...", "fixed",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="max_rows"):
        result.to_string(max_rows=1)


def test_a_table_that_fits_is_printed_whole(result):
    lines = str(result).splitlines()
    assert len(lines) == 1 + 18
    assert [line.split()[0] for line in lines[1:]] == result.table["optimizer"].tolist()


def test_repr_of_many_optimizers_names_some():
    result = nqm.sweep(PROBLEM, {f"lr {k}": nqm.SGD(k / 100) for k in range(1, 41)}, [64], 0.3)
    first = repr(result).splitlines()[0]
    assert "lr 8" in first
    assert "lr 9" not in first
    assert "40 optimizers" in first


def test_rows_of_unknown_names(result):
    for name in ("Adam", 3):
        with pytest.raises(ValueError, match="optimizer: expected one of"):
            result.rows(name, 0.1)


def test_progress_goes_to_stderr(capfd):
    nqm.sweep(PROBLEM, {"fixed": nqm.SGD(0.25)}, BATCHES, 0.3, progress=True)
    captured = capfd.readouterr()
    assert "cell" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"problem": [1.0]}, TypeError, "problem: expected a nqm.NoisyQuadratic"),
        ({"optimizers": nqm.SGD(0.1)}, TypeError, "optimizers: expected a dict"),
        ({"optimizers": {}}, ValueError, "at least one"),
        ({"optimizers": {"a": 0.1}}, TypeError, r"optimizers\['a'\]"),
        ({"optimizers": {"a": nqm.SGD([0.1, 0.2])}}, ValueError, "plain numbers"),
        ({"batch_sizes": []}, ValueError, "batch_sizes"),
        ({"batch_sizes": [[1, 2]]}, ValueError, "batch_sizes"),
        ({"batch_sizes": [0]}, ValueError, "batch_sizes"),
        ({"target": "low"}, TypeError, "target"),
        ({"target": float("nan")}, ValueError, "target"),
        ({"executor": 4}, TypeError, "executor"),
    ],
)
def test_bad_input(arguments, error, words):
    good = {"problem": PROBLEM, "optimizers": OPTIMIZERS, "batch_sizes": BATCHES, "target": 0.3}
    with pytest.raises(error, match=words):
        nqm.sweep(**{**good, **arguments})


def test_an_optimizer_in_the_place_of_a_target_is_told_where_to_stand():
    result = nqm.sweep(PROBLEM, {"SGD": nqm.SGD(0.25)}, [4, 64], 0.3)
    with pytest.raises(
        ValueError, match=r"target: expected one of \[0\.3\], got 'SGD' \(str\).*take \['SGD'\] of that"
    ):
        result.critical_batch_size("SGD")
