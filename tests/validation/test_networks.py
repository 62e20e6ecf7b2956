"""The last rung on a toy network: predictions, curves and measured steps against their parts, and going on."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from toys import toy_task, unbounded_net

import nqm
from nqm.validation import (
    OPTIMIZERS,
    Measured,
    NetworkResult,
    Predicted,
    Trial,
    follow,
    load_data,
    measure,
    measure_steps,
    network,
    network_task,
    predict_steps,
    reference_point,
    train_until_first,
)
from nqm.validation.papers.zhang2019 import network_rung
from nqm.validation.papers.zhang2019.network_rung import FULL, QUICK, TARGETS, Effort
from nqm.validation.papers.zhang2019.steps import plot_curves, plot_predictions, plot_rates, plot_steps
from nqm.validation.search import measure_steps as search
from nqm.validation.search.records import read_results

EFFORT = Effort(
    batch_sizes=(4, 16), optimizers=("SGD", "momentum"), trials=3, seeds=2, growing=(4,), followed=(4, 16),
    max_examples=20_000, elsewhere=(1.0,),
)  # fmt: skip
SEARCH = {"trials": 3, "seeds": 2, "seed": 3, "max_examples": 20_000, "progress": False}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole rung, its results file, and what it said."""
    path, said = tmp_path_factory.mktemp("rung") / "new" / "toy.jsonl", []
    return network(toy_task(), EFFORT, seed=3, results=path, progress=False, say=said.append), path, said


def same(a, b):
    assert list(a) == list(b)
    for key, column in a.items():
        assert np.array_equal(column, b[key], equal_nan=column.dtype.kind == "f"), key
    return True


def alike(one: NetworkResult, other: NetworkResult):
    return all(
        same(*(getattr(result, part).table for result in (one, other))) for part in ("predicted", "growing", "measured")
    ) and same(one.curves, other.curves)


# --- parts ------------------------------------------------------------------------------------------------------------


def test_the_quadratic_is_that_of_the_reference_run(finished):
    result, _, _ = finished
    task = toy_task()
    point = reference_point(task, 0.25, seed=3)
    expected = measure(task.build(3), task.loss, task.data, at=point, device="cpu")
    np.testing.assert_allclose(result.quadratic.curvature, expected.curvature, rtol=1e-9)
    np.testing.assert_allclose(result.quadratic.noise, expected.noise, rtol=1e-9)
    assert result.quadratic.floor == pytest.approx(expected.floor)
    assert result.quadratic.loss_at <= 0.25
    assert result.name == "toy"


def test_tables_are_those_of_prediction_and_search(finished):
    result, path, _ = finished
    target = result.predicted.target
    assert target == pytest.approx(0.5)  # all 60 examples are evaluated
    assert same(result.predicted.table, predict_steps(result.quadratic, ["SGD", "momentum"], [4, 16], target).table)
    growing = predict_steps(result.quadratic, ["SGD"], [4], target, growing_noise=True)
    assert same(result.growing.rows("SGD"), growing.table)
    assert same(result.measured.table, measure_steps(toy_task(), ["SGD", "momentum"], [4, 16], **SEARCH).table)
    assert same(result.measured.table, Measured.load(path).table)


def test_ratios_by_hand(finished):
    result, _, _ = finished
    ratios, measured = result.ratios(), result.measured.table
    assert list(ratios) == [
        "net", "optimizer", "batch_size", "noise", "predicted", "measured", "low", "high", "ratio",
    ]  # fmt: skip
    cells = [(name, size, "measured") for name in ("SGD", "momentum") for size in (4, 16)]
    cells += [(name, 4, "growing") for name in ("SGD", "momentum")]
    assert list(zip(*(ratios[key].tolist() for key in ("optimizer", "batch_size", "noise")), strict=True)) == cells
    for place, (name, size, noise) in enumerate(cells):
        here = (measured["optimizer"] == name) & (measured["batch_size"] == size)
        here &= measured["metric"] == "training loss"
        table = (result.growing if noise == "growing" else result.predicted).table
        (steps,) = table["steps"][(table["optimizer"] == name) & (table["batch_size"] == size)]
        assert ratios["predicted"][place] == steps > 0
        for key, column in (("measured", "median"), ("low", "low"), ("high", "high")):
            assert ratios[key][place] == measured[column][here][0]
        assert ratios["ratio"][place] == steps / measured["median"][here][0]
    assert set(ratios["net"]) == {"toy"}


def test_critical_by_hand(finished):
    result, _, _ = finished
    critical = result.critical()
    for place, name in enumerate(("SGD", "momentum")):
        predicted, rows = result.predicted.rows(name), result.measured.rows(name)
        values = [np.min(s * [4, 16]) / np.min(s) for s in (predicted["steps"], rows["median"])]
        assert critical["optimizer"][place] == name
        assert [critical[key][place] for key in ("predicted", "measured")] == pytest.approx(values)
        assert critical["ratio"][place] == pytest.approx(values[0] / values[1])
        assert critical["low"][place] <= critical["measured"][place] <= critical["high"][place]


def test_other_points_of_measuring(finished):
    result, _, _ = finished
    columns, task = result.elsewhere, toy_task()
    assert sorted(set(columns["share"].tolist())) == [0.5, 1.0]
    assert np.array_equal(columns["ratio"], columns["predicted"] / columns["measured"])
    half = columns["share"] == 0.5
    assert columns["predicted"][half].tolist() == result.predicted.table["steps"].tolist()
    point = reference_point(task, 0.5, seed=3)
    other = measure(task.build(3), task.loss, task.data, at=point, device="cpu")
    expected = predict_steps(other, ["SGD", "momentum"], [4, 16], result.predicted.target).table["steps"]
    assert columns["predicted"][~half].tolist() == expected.tolist()


def test_what_is_said(finished):
    said = finished[2]
    assert all(line.startswith("toy: ") for line in said)
    assert [word for word in ("reference", "predictions", "curves", "search") if word in " ".join(said)] == [
        "reference", "predictions", "curves", "search",
    ]  # fmt: skip


# --- curves -----------------------------------------------------------------------------------------------------------


def curve(result, name, size):
    here = (result.curves["optimizer"] == name) & (result.curves["batch_size"] == size)
    return {key: column[here] for key, column in result.curves.items()}


@pytest.mark.parametrize("size", [4, 16])
@pytest.mark.parametrize("name", ["SGD", "momentum"])
def test_predicted_curves_are_the_models_risk_and_the_floor(finished, name, size):
    result, _, _ = finished
    found, rows = curve(result, name, size), result.predicted.rows(name)
    place = [4, 16].index(size)
    momentum = 0.0 if name == "SGD" else rows["momentum"][place]
    optimizer = nqm.SGD(rows["lr"][place], momentum=momentum)
    quadratic = result.quadratic
    expected = nqm.risk(quadratic, optimizer, size, found["step"]) + quadratic.floor
    np.testing.assert_allclose(found["predicted"], expected, rtol=1e-12)
    assert np.all(found["lr"] == rows["lr"][place])
    problem, growth = quadratic.with_growing_noise()
    expected = nqm.risk(problem, optimizer, size / growth, found["step"]) + quadratic.floor
    np.testing.assert_allclose(found["predicted_growing"], expected, rtol=1e-9)
    assert found["predicted"][0] == pytest.approx(quadratic.floor + quadratic.initial_risk)
    # where the model says that the target is reached, its curve crosses it
    reached = rows["steps"][place]
    assert nqm.risk(quadratic, optimizer, size, reached) + quadratic.floor <= result.predicted.target * (1 + 1e-5)
    assert nqm.risk(quadratic, optimizer, size, reached - 1) + quadratic.floor > result.predicted.target * (1 - 1e-5)
    assert found["step"][-1] == math.ceil(1.5 * reached)


def test_measured_curves_are_runs_at_the_predicted_hyperparameters(finished):
    result, _, _ = finished
    for name, key in (("SGD", "lr"), ("momentum", "effective_lr")):
        found, rows = curve(result, name, 16), result.predicted.rows(name)
        values = {"lr" if name == "SGD" else key: float(rows[key][1])}
        if name == "momentum":
            values["momentum"] = float(rows["momentum"][1])
        steps, losses = follow(toy_task(), [Trial(name, 16, seed, values) for seed in (3, 4)], int(found["step"][-1]))
        losses = losses.double().numpy()
        assert steps == found["step"].tolist()
        np.testing.assert_array_equal(found["mean"], losses.mean(axis=0))
        np.testing.assert_array_equal(found["low"], losses.min(axis=0))
        np.testing.assert_array_equal(found["high"], losses.max(axis=0))


FOLLOWED = {
    "SGD": {"lr": 0.3},
    "SGD with EMA": {"lr": 0.3, "decay": 0.6},
    "Adam": {"lr": 0.02, "momentum": 0.5, "square_decay": 0.95},
    "K-FAC": {"lr": 0.05, "damping": 0.1},
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_a_followed_run_crosses_the_target_where_a_race_says(name):
    task = toy_task(targets={"training loss": 0.4})
    trials = [Trial(name, 8, seed, FOLLOWED[name]) for seed in range(3)]
    outcomes = train_until_first(task, trials, 200, True)
    read, losses = follow(task, trials, max(outcome.trained for outcome in outcomes))
    for outcome, course in zip(outcomes, losses.double().numpy(), strict=True):
        last = next(k for k, loss in enumerate(course) if loss <= 0.4)
        crossed = np.interp(-0.4, -course[last - 1 : last + 1], read[last - 1 : last + 1])
        assert outcome.status == "reached"
        assert outcome.trained == read[last]
        assert outcome.steps["training loss"] == pytest.approx(crossed, rel=1e-4)


def test_followed_runs_are_read_at_start_and_end_and_may_diverge():
    task = toy_task(net=unbounded_net)
    read, losses = follow(task, [Trial("SGD", 8, 0, {"lr": lr}) for lr in (0.1, 1e30)], 23)
    assert read == [*range(21), 22, 23]
    assert losses.shape == (2, 23)
    model = task.build(0)
    assert float(losses[0, 0]) == pytest.approx(float(F.cross_entropy(model(task.data.x), task.data.y).detach()))
    assert bool(losses[0].isfinite().all())
    assert not bool(losses[1, -1].isfinite())


def test_followed_runs_are_read_on_all_examples():
    """The model speaks of all; a task may judge by fewer."""
    task = toy_task()
    trials = [Trial("SGD", 8, 0, {"lr": 0.3})]
    few, every = (follow(replace(task, evaluated=n), trials, 5)[1] for n in (7, None))
    assert torch.equal(few, every)


def test_steps_of_training_at_the_predicted_rate_by_hand(finished):
    result, _, _ = finished
    curves = {key: column.copy() for key, column in result.curves.items()}
    assert set(curves["target"].tolist()) == {result.predicted.target}
    curves["mean"] = np.where(curves["optimizer"] == "momentum", 0.51, curves["predicted"])  # never; as predicted
    trained = replace(result, curves=curves).trained()
    assert trained["optimizer"].tolist() == ["SGD", "SGD", "momentum", "momentum"]
    assert trained["batch_size"].tolist() == [4, 16, 4, 16]
    assert trained["predicted"].tolist() == result.predicted.table["steps"].tolist()
    assert trained["measured"][2:].tolist() == [math.inf, math.inf]
    for size, predicted, measured in zip((4, 16), trained["predicted"], trained["measured"], strict=False):
        read = curve(result, "SGD", size)["step"]
        assert measured == read[read >= predicted][0]


def test_predictions_are_drawn_whole(finished):
    """Also above what real runs show, and inside the panel, without those that diverge."""
    result, _, _ = finished
    curves = {key: column.copy() for key, column in result.curves.items()}
    curves["predicted"] = curves["predicted"] * 30.0
    curves["predicted_growing"][curves["step"] > 3] = 1e30
    axes = plot_curves("toy", curves).axes
    assert len(axes) == 4
    for ax, (name, size) in zip(axes, [(n, s) for n in ("SGD", "momentum") for s in (4, 16)], strict=True):
        expected = curve(replace(result, curves=curves), name, size)["predicted"]
        (line,) = (line for line in ax.get_lines() if line.get_label() == "predicted")
        np.testing.assert_array_equal(line.get_ydata(), expected)
        low, high = ax.get_ylim()
        assert low < expected.min()
        assert expected.max() < high < 1e5


def test_no_two_optimizers_are_drawn_alike():
    """Neither their lines nor their points, in the picture or in the legend; lines of noise that grows are told."""
    names = list(OPTIMIZERS)
    columns = {
        "net": np.repeat("toy", 2 * len(names)), "optimizer": np.repeat(names, 2),
        "batch_size": np.tile([4.0, 8.0], len(names)), "noise": np.tile(["measured", "growing"], len(names)),
    }  # fmt: skip
    columns |= {key: np.full(2 * len(names), 3.0) for key in ("predicted", "measured", "low", "high")}
    (ax,) = plot_predictions(columns, {"toy": 0.0640145}, names).axes
    looks = [(line.get_color(), line.get_linestyle()) for line in ax.get_lines() if "predicted" in line.get_label()]
    points = [bars.lines[0] for bars in ax.containers]
    faces = [(line.get_marker(), line.get_color(), line.get_markerfacecolor()) for line in points]
    assert len(set(looks)) == len(set(faces)) == len(names)
    assert len([text for text in ax.get_legend().get_texts() if "grows with the loss" in text.get_text()]) == 1
    assert ax.get_ylabel() == "steps to training loss 0.064"


# --- again ------------------------------------------------------------------------------------------------------------


def test_same_seed_same_bits_and_resuming_trains_nothing(finished, monkeypatch):
    result, path, _ = finished
    before = path.read_bytes()

    def refuse(*parts):
        raise AssertionError("trained again")

    monkeypatch.setattr(search, "train_batch", refuse)
    again = network(toy_task(), EFFORT, seed=3, results=path, progress=False)
    assert alike(result, again)
    assert path.read_bytes() == before


SMALL = replace(EFFORT, batch_sizes=(16,), followed=(16,), growing=(16,), optimizers=("SGD",), elsewhere=())


def test_an_interrupted_rung_goes_on(tmp_path, monkeypatch):
    whole = network(toy_task(), SMALL, seed=3, results=tmp_path / "whole.jsonl", progress=False)
    goal, train_batch, batches = tmp_path / "toy.jsonl", search.train_batch, []

    def counted(*parts):
        if len(batches) == 2:
            raise KeyboardInterrupt
        batches.append(parts)
        return train_batch(*parts)

    monkeypatch.setattr(search, "train_batch", counted)
    with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
        network(toy_task(), SMALL, seed=3, results=goal, progress=False)
    kept = read_results(goal)[1]
    assert len(kept) == 6
    batches.append("no more stops")
    assert alike(whole, network(toy_task(), SMALL, seed=3, results=goal, progress=False))
    assert goal.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_another_seed_is_another_run(finished):
    a, b = (network(toy_task(), SMALL, seed=seed, progress=False) for seed in (3, 4))
    assert a.elsewhere is None
    assert a.kept is None
    assert not np.array_equal(a.quadratic.curvature, b.quadratic.curvature)
    assert a.curves["mean"][0] != b.curves["mean"][0]
    assert not np.array_equal(a.measured.table["median"], b.measured.table["median"])
    assert a.measured.rows("SGD")["median"][0] == finished[0].measured.rows("SGD")["median"][1]


def test_noise_that_does_not_grow_has_no_such_prediction(monkeypatch):
    def still(*parts, **options):
        quadratic = measure(*parts, **options)
        quadratic.noise_growth = math.nan
        return quadratic

    monkeypatch.setattr(network_rung, "measure", still)
    result = network(toy_task(), SMALL, seed=3, progress=False)
    assert result.growing.names == []
    assert set(result.ratios()["noise"]) == {"measured"}
    assert np.all(np.isnan(result.curves["predicted_growing"]))
    assert np.all(np.isfinite(result.curves["predicted"]))
    for picture in (plot_predictions(result.ratios(), {"toy": 0.5}, ["SGD"]), plot_curves("toy", result.curves)):
        picture.canvas.draw()


def test_a_risk_that_is_not_settled_is_left_out(monkeypatch):
    """As with noise that grows, momentum and the tens of thousands of eigenvalues of a network for MNIST."""

    def additive_alone(problem, *parts):
        if problem.noise_model != "additive":
            raise nqm.Unresolved(812, 1e-11)
        return nqm.risk(problem, *parts)

    monkeypatch.setattr(network_rung, "risk", additive_alone)
    curves = network(toy_task(), SMALL, seed=3, progress=False).curves
    assert np.all(np.isnan(curves["predicted_growing"]))
    assert np.all(np.isfinite(curves["predicted"]))


# --- cells that did not arrive ----------------------------------------------------------------------------------------


@pytest.fixture
def late(finished):
    """The rung's result, had momentum's finals at 4 not arrived (half of them, so that their median is infinite), and
    all trials at 16 diverged."""
    result, _, _ = finished
    table = {key: column.copy() for key, column in result.measured.table.items()}
    momentum = table["optimizer"] == "momentum"
    for key, at_4, at_16 in (("median", math.inf, math.nan), ("high", math.inf, math.nan), ("low", 50.0, math.nan),
                             ("error", math.nan, math.nan), ("effective_lr", 0.1, math.nan)):  # fmt: skip
        table[key][momentum & (table["batch_size"] == 4)] = at_4
        table[key][momentum & (table["batch_size"] == 16)] = at_16
    return replace(result, measured=Measured(table, result.measured.configuration))


def test_ratios_to_what_did_not_arrive_are_nan(late):
    ratios, critical = late.ratios(), late.critical()
    momentum = ratios["optimizer"] == "momentum"
    assert np.all(np.isnan(ratios["ratio"][momentum]))
    assert np.all(np.isfinite(ratios["ratio"][~momentum]))
    assert math.isnan(critical["ratio"][critical["optimizer"] == "momentum"][0])


def test_pictures_of_what_did_not_arrive(late):
    names = ["SGD", "momentum", "Adam"]
    tables = {"toy": late.measured, "again": late.measured}
    pictures = [plot_predictions(late.ratios(), {"toy": 0.5}, names), plot_rates(tables)]
    pictures += [plot_steps(tables, names, metric) for metric in late.measured.metrics]
    for picture in pictures:
        picture.canvas.draw()
        assert all(ax.get_xlabel() for ax in picture.axes)


def test_curves_of_runs_that_diverge_are_drawn(finished):
    result, _, _ = finished
    curves = {key: column.copy() for key, column in result.curves.items()}
    here = (curves["optimizer"] == "SGD") & (curves["step"] > 5)
    curves["mean"][here] = curves["high"][here] = math.inf
    curves["predicted_growing"][here] = math.inf
    plot_curves("toy", curves).canvas.draw()


def test_predictions_out_of_reach_are_told(finished):
    result, _, _ = finished
    table = {key: column.copy() for key, column in result.predicted.table.items()}
    table["steps"] = table["examples"] = np.full(table["steps"].shape, math.inf)
    lost = replace(result, predicted=Predicted(table, 0.5))
    ratios, critical = lost.ratios(), lost.critical()
    assert np.all(ratios["ratio"][ratios["noise"] == "measured"] == math.inf)
    assert np.all(np.isnan(critical["predicted"]))


# --- bad arguments ----------------------------------------------------------------------------------------------------


def test_the_training_loss_comes_first():
    for targets in ({"held-out error": 0.3, "training loss": 0.5}, {"training error": 0.1}):
        with pytest.raises(ValueError, match=r"expected 'training loss' first, got '(held-out|training) error'"):
            network(toy_task(targets=targets), EFFORT)


def test_a_target_that_cannot_be_reached_stops_before_the_search(tmp_path, monkeypatch):
    monkeypatch.setattr(network_rung, "reference_point", partial(reference_point, max_steps=20))
    with pytest.raises(ValueError, match=r"0\.01 is below what is reachable"):
        network(toy_task(targets={"training loss": 0.01}), EFFORT, results=tmp_path / "toy.jsonl", progress=False)
    assert not list(tmp_path.iterdir())


def test_networks_by_name():
    data = load_data()
    for net in ("mlp", "cnn", "resnet8"):
        task = network_task(net, data, "cpu")
        assert task.name == net
        assert task.targets == {"training loss": TARGETS[net], "held-out error": 0.05}
        assert not torch.equal(*(next(task.build(seed).parameters()) for seed in (0, 1)))
    with pytest.raises(ValueError, match="net: expected one of mlp, cnn, resnet8, got 'vgg'"):
        network_task("vgg", data)
    with pytest.raises(ValueError, match="device: expected one that is here"):
        network_task("mlp", data, "cuda:77")


@pytest.mark.parametrize("effort", [FULL, QUICK])
def test_efforts_ask_for_what_is_trained(effort):
    assert {*effort.growing, *effort.followed} <= {*effort.batch_sizes}
    assert {*effort.optimizers} <= {*OPTIMIZERS}
    assert list(effort.batch_sizes) == sorted(effort.batch_sizes)
