"""The search for fewest steps, on a law instead of networks: budgets, edges, the table, bad arguments."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from law import BEST_RATE, CRITICAL, FAST, HEAVY_BALL, SGD, Counted, Law, measure, optimizer, race, same, search_records

from nqm.validation import Measured, Outcome
from nqm.validation.search.records import CONFIRMATION, read_results
from nqm.validation.training.axes import Axis

# What is found


@pytest.mark.parametrize(("optimizers", "off"), [([SGD], 1.01), ([HEAVY_BALL], 1.1)])
def test_finds_the_optimum(optimizers, off):
    found = measure(Law(noise=0.0), optimizers, [8, 64, 512], trials=32).table
    for metric, factor in (("loss", 1), ("error", 2)):
        here = found["metric"] == metric
        ideal = factor * FAST * (1 + CRITICAL / found["batch_size"][here])
        assert np.all(found["steps"][here] >= ideal)
        assert np.all(found["steps"][here] < off**factor * ideal)
    assert np.all(found["status"] == "reached")
    assert np.all(found["at_edge"] == "")
    assert np.array_equal(found["examples"], found["steps"] * found["batch_size"])


def test_learning_rates_of_heavy_balls_come_both_ways(finished):
    _, result, _ = finished
    ball, plain = result.rows("momentum"), result.rows("SGD")
    assert np.allclose(ball["lr"], ball["effective_lr"] * (1 - ball["momentum"]))
    assert np.array_equal(plain["lr"], plain["effective_lr"])
    assert np.all(np.isnan(plain["momentum"]))


def test_diverged_trials_do_not_count_towards_the_budget(tmp_path):
    path = tmp_path / "steps.jsonl"
    result = measure(Law(stable=1.2), [SGD], [8], trials=16, results=path)
    for number in (1, 2):
        statuses = [r.outcome.status for r in search_records(path, number)]
        assert len(statuses) - statuses.count("diverged") == 16
        assert statuses.count("diverged") > 0
    assert result.table["trials"][0] == len(search_records(path))
    assert result.table["diverged"][0] == sum(r.outcome.status == "diverged" for r in search_records(path))


def test_a_sequence_goes_on_where_its_diverged_points_are_replaced(tmp_path):
    """The first points are the same, whatever diverges and however large the budget."""
    points = {}
    for trials, stable in ((8, 1.0), (8, 100.0), (11, 1.0)):
        path = tmp_path / f"{trials} {stable}"
        measure(Law(stable=stable), [HEAVY_BALL], [8], trials=trials, rounds=1, results=path)
        points[trials, stable] = [r.outcome.trial.hyperparameters for r in search_records(path, 1)]
    assert len(points[8, 100.0]) == 8 < len(points[8, 1.0]) < len(points[11, 1.0])
    for fewer in points.values():
        assert fewer == points[11, 1.0][: len(fewer)]


def test_points_differ_between_cells_and_seeds(tmp_path):
    measure(results=tmp_path / "a")
    measure(results=tmp_path / "b", seed=1)
    rates = {
        (name, r.cell, r.outcome.trial.hyperparameters.get("lr", r.outcome.trial.hyperparameters.get("effective_lr")))
        for name in "ab"
        for r in search_records(tmp_path / name, 1)
        if r.index == 0
    }
    assert len({rate for *_, rate in rates}) == len(rates) == 8


def test_later_rounds_give_up_what_cannot_be_best(finished):
    """Round 2's allowance is the slowest metric's fewest steps; finals get three times the best's."""
    _, result, calls = finished
    batches = [(len(trials), limit) for trials, limit in calls if trials[0][:2] == ("SGD", 8)]
    assert batches[0] == (8, 10_000)
    assert batches[1][1] < 3_000
    assert batches[-1][0] == 12  # four candidates, three seeds
    assert batches[-1][1] <= 3 * 2.2 * result.rows("SGD")["steps"][0]


def test_finals_are_fresh_seeds_common_to_all_cells(finished):
    path, result, _ = finished
    records = read_results(path)[1]
    seeds = {cell: [r.outcome.trial.seed for r in records if r.cell == cell and r.round == CONFIRMATION] for cell in
             {r.cell for r in records}}  # fmt: skip
    assert len(set(map(tuple, seeds.values()))) == 1
    assert len({*seeds["SGD", 8], *(r.outcome.trial.seed for r in search_records(path))}) == 4
    assert all(len(those) == 12 for those in seeds.values())
    for metric in result.metrics:
        rows = result.rows("SGD", metric)
        again = [r.outcome for r in records if r.cell == ("SGD", 8) and r.round == CONFIRMATION]
        each = [sorted(outcome.steps[metric] for outcome in again[k : k + 3]) for k in (0, 3, 6, 9)]
        assert [rows["low"][0], rows["median"][0], rows["high"][0]] == min(each, key=lambda steps: steps[1])
        assert rows["lr"][0] in {outcome.trial.hyperparameters["lr"] for outcome in again}
    assert np.all(result.table["finals"] == 3)


def test_an_optimum_outside_is_followed_and_found():
    found = measure(Law(noise=0.0), [optimizer("SGD", lr=Axis(1e-3, 0.2))], [64], trials=16)
    row = {key: column[0] for key, column in found.table.items()}
    assert row["at_edge"] == ""
    assert row["lr"] == pytest.approx(BEST_RATE, rel=0.1)
    assert row["trials"] - row["diverged"] in (32, 48)


def test_an_optimum_out_of_reach_is_reported():
    found = measure(Law(noise=0.0, best_rate=300.0), [SGD], [64], trials=8)
    row = {key: column[0] for key, column in found.table.items()}
    assert row["at_edge"] == "lr high"
    assert row["trials"] == 4 * 8  # two rounds, and two more
    assert row["lr"] > 10 * 3.0


def test_a_natural_edge_is_no_failure():
    found = measure(Law(noise=0.0, best_momentum=0.0), [HEAVY_BALL], [64], trials=32)
    row = {key: column[0] for key, column in found.table.items()}
    assert (row["at_edge"], row["natural_edge"]) == ("", "momentum low")
    assert row["trials"] - row["diverged"] == 64
    assert row["momentum"] >= 0.0


def test_a_limit_is_reported_but_not_searched_beyond():
    tight = optimizer("momentum", effective_lr=Axis(3e-3, 3.0), momentum=Axis(0.0, 0.99, "log1m", limits=(0.0, 0.99)))
    found = measure(Law(noise=0.0, best_momentum=0.9999), [tight], [64], trials=32)
    row = {key: column[0] for key, column in found.table.items()}
    assert row["at_edge"] == "momentum high"
    assert row["momentum"] <= 0.99
    assert row["trials"] - row["diverged"] == 64


def test_a_cell_whose_trials_all_diverge_is_an_answer():
    found = measure(Law(stable=0.0), [SGD], [8], trials=5)
    assert found.table["status"].tolist() == ["all diverged"] * 2
    assert np.all(found.table["steps"] == math.inf)
    assert np.all(found.table["trials"] == 15)
    assert np.all(np.isnan(found.table["median"]))
    assert math.isnan(found.critical_batch_size()["SGD"].value)


@pytest.mark.parametrize("unreachable", [("loss",), ("error",), ("loss", "error")])
def test_a_target_out_of_reach_is_an_answer(unreachable):
    found = measure(Law(unreachable=unreachable), [SGD], [8]).table
    expected = ["not reached" if metric in unreachable else "reached" for metric in ("loss", "error")]
    assert found["status"].tolist() == expected
    assert np.isfinite(found["steps"]).tolist() == [status == "reached" for status in expected]
    assert np.all(found["finals"] == (0 if "loss" in unreachable else 3))


def test_examples_limit_steps():
    counted = Counted()
    measure(optimizers=[SGD], batch_sizes=[8, 64], max_steps=500, max_examples=6400, race=counted, rounds=1)
    limits = {trials[0][1]: limit for trials, limit in counted.calls if len(trials) == 8}
    assert limits == {8: 500, 64: 100}


# The table


def test_critical_batch_size_is_fewest_examples_over_fewest_steps():
    sizes = [1, 4, 16, 64, 256, 1024, 4096, 2**14]
    result = measure(batch_sizes=sizes, trials=16, max_steps=100_000)
    for name, found in result.critical_batch_size().items():
        rows = result.rows(name)
        assert found.value == (rows["median"] * sizes).min() / rows["median"].min()
        assert found.low < found.value < found.high
        assert found.value == pytest.approx(CRITICAL, rel=0.15)


def test_a_lucky_start_at_the_target_leaves_the_critical_batch_size_but_no_range(finished):
    """The rule is that of predictions and claims: a median above 0 counts, whatever its luckiest run."""
    _, result, _ = finished
    columns = {key: column.copy() for key, column in result.table.items()}
    columns["low"][:] = 0.0
    found = Measured(columns, result.configuration).critical_batch_size()
    for name, before in result.critical_batch_size().items():
        assert found[name] == (before.value, 0.0, math.inf)
    columns["median"][:] = 0.0
    assert math.isnan(Measured(columns, result.configuration).critical_batch_size()["SGD"].value)


def test_rows_names_pandas_and_csv(finished, tmp_path):
    _, result, _ = finished
    assert result.names == ["SGD", "momentum"]
    assert result.metrics == ["loss", "error"]
    assert result.rows("momentum", "error")["batch_size"].tolist() == [8, 64]
    assert result.to_pandas().shape == (8, len(result.table))
    text = result.save_csv(tmp_path / "steps.csv").read_text().splitlines()
    assert len(text) == 9
    assert text[0].startswith("optimizer,batch_size,metric,target,steps")
    assert "momentum" in str(result)
    with pytest.raises(ValueError, match=r"optimizer: expected one of SGD, momentum, got 'Adam'"):
        result.rows("Adam")
    with pytest.raises(ValueError, match=r"metric: expected one of loss, error, got 'accuracy'"):
        result.critical_batch_size("accuracy")
    with pytest.raises(ValueError, match="read-only"):
        result.table["steps"][0] = 1


def test_loading_a_file_gives_the_same_table(finished):
    path, result, _ = finished
    before = path.read_bytes()
    assert same(Measured.load(path), result)
    assert path.read_bytes() == before


# Bad arguments


class Immediate:
    def __init__(self, answer):
        self.answer = answer

    def submit(self, fn, *args):
        return self.answer


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"trials": 0}, ValueError, "trials: expected a whole number of at least 1, got 0"),
        ({"rounds": 1.5}, ValueError, "rounds: expected a whole number of at least 1, got 1.5"),
        ({"seeds": True}, ValueError, "seeds: expected"),
        ({"seed": -1}, ValueError, "seed: expected a whole number of at least 0, got -1"),
        ({"max_steps": 0}, ValueError, "max_steps: expected"),
        ({"max_examples": 0}, ValueError, "max_examples: expected"),
        ({"optimizers": []}, ValueError, "optimizers: expected a list of at least one of SGD, momentum, "),
        ({"optimizers": "SGD"}, ValueError, "optimizers: expected a list of at least one of SGD, "),
        ({"optimizers": ["Lion"]}, ValueError, "optimizers: expected some of SGD, momentum, .*, got 'Lion'"),
        ({"optimizers": ["SGD", SGD]}, ValueError, "optimizers: expected each one once, got 'SGD' twice"),
        ({"optimizers": [optimizer("SGD")]}, ValueError, "expected hyperparameters to search, got none for 'SGD'"),
        ({"batch_sizes": []}, ValueError, "batch_sizes: expected positive whole numbers, at least one"),
        ({"batch_sizes": [8, 0]}, ValueError, "batch_sizes: expected positive whole numbers"),
        ({"batch_sizes": [8.5]}, ValueError, "batch_sizes: expected positive whole numbers"),
        ({"batch_sizes": "64"}, ValueError, "batch_sizes: expected positive whole numbers"),
        ({"executor": 3}, TypeError, "executor: expected a concurrent.futures.Executor or None, got 3"),
        ({"executor": ThreadPoolExecutor}, TypeError, "executor: expected a concurrent.futures.Executor"),
        ({"executor": Immediate([])}, TypeError, "got one whose submit returns a builtins.list"),
        ({"task": "mlp"}, TypeError, "task: expected a nqm.validation Task with targets, got str"),
        ({"task": Law(targets={})}, TypeError, "task: expected a nqm.validation Task with targets"),
        ({"race": lambda *parts: None}, TypeError, "SGD at batch size 8.*the outcome of each trial"),
        ({"race": lambda *parts: race(*parts)[1:]}, TypeError, "SGD at batch size 8.*the outcome of each trial"),
        (
            {"race": lambda task, trials, *_: [Outcome(t, "bored", {}, 0) for t in trials]},
            ValueError, "expected a status among reached, diverged",
        ),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(options, error, said):
    with pytest.raises(error, match=said):
        measure(**options)
