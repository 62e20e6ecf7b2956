"""Predictions for real optimizers: damping against matrices, tuning against nqm.tune and grids, the reference run."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from toys import toy_net, toy_task, unbounded_net

import nqm
from nqm.validation import MeasuredQuadratic, load_data, measure, mlp
from nqm.validation.measurement import prediction
from nqm.validation.measurement.prediction import DAMPINGS, STAND_INS, Predicted, damped, predict_steps
from nqm.validation.training.functional import flatten, parameters_of
from nqm.validation.training.reference import checkpoints, reference_point

H = np.array([2.0, 0.5, 0.1, 0.02])
NOISE = np.array([3.0, 0.2, 0.3, 0.01])
START = np.array([1.0, 4.0, 9.0, 2.0])
FLOOR = 0.3


def explicit(noise_growth: float = 1.0) -> MeasuredQuadratic:
    """Four coordinates, measured at their minimum, where the loss is FLOOR."""
    return MeasuredQuadratic(
        H, NOISE, START, gradient=np.zeros(4), loss_at=FLOOR, loss_start=2.0, noise_scale=1.0, noise_scale_start=1.0,
        provenance={}, noise_growth=noise_growth,
    )  # fmt: skip


# --- damping ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damping", [0.0, 0.03, 5.0])
@pytest.mark.parametrize(
    "optimizer",
    [nqm.SGD(0.3), nqm.SGD(0.2, momentum=0.8), nqm.SGD(0.1, momentum=0.6, nesterov=True), nqm.EMA(nqm.SGD(0.4), 0.7)],
    ids=str,
)
def test_damped_against_matrices(optimizer, damping):
    generator = np.random.default_rng(3)
    basis = np.linalg.qr(generator.standard_normal((4, 4)))[0]
    hessian, covariance = basis @ np.diag(H) @ basis.T, basis @ np.diag(NOISE) @ basis.T
    dense = nqm.NoisyQuadratic.from_matrices(
        hessian, covariance, basis @ np.sqrt(START), preconditioner=hessian + damping * np.eye(4)
    )
    ours = damped(nqm.NoisyQuadratic(H, NOISE, START), damping)
    steps = [0, 1, 7, 100]
    expected = nqm.risk(dense, optimizer, 5, steps)
    np.testing.assert_allclose(nqm.risk(ours, optimizer, 5, steps), expected, rtol=1e-11)
    assert expected[0] == pytest.approx(0.5 * H @ START)


def test_damped_keeps_multiplicity():
    bundled = nqm.NoisyQuadratic([1.0, 0.2], [1.0, 0.5], [2.0, 3.0], [3, 2])
    apart = nqm.NoisyQuadratic([1.0] * 3 + [0.2] * 2, [1.0] * 3 + [0.5] * 2, [2.0] * 3 + [3.0] * 2)
    risks = [nqm.risk(damped(p, 0.1), nqm.SGD(0.5), 4, [0, 3, 50]) for p in (bundled, apart)]
    np.testing.assert_allclose(*risks, rtol=1e-12)


@pytest.mark.parametrize("damping", [-0.1, math.inf, math.nan])
def test_damped_refuses(damping):
    with pytest.raises(ValueError, match="damping: expected a finite number of at least 0"):
        damped(nqm.NoisyQuadratic([1.0]), damping)


# --- steps ------------------------------------------------------------------------------------------------------------

TARGET = 0.5  # a risk of 0.2


@pytest.mark.parametrize("name", [name for name in STAND_INS if not name.startswith("K-FAC")])
def test_steps_are_those_of_tuning_the_stand_in(name):
    measured = explicit()
    rows = predict_steps(measured, [name], [4, 64], TARGET).table
    for place, size in enumerate((4, 64)):
        best = nqm.tune(nqm.NoisyQuadratic(H, NOISE, START), STAND_INS[name], size, TARGET - FLOOR)
        assert rows["steps"][place] == pytest.approx(best.steps, rel=0.02)
        values = {key: rows[key][place] for key in STAND_INS[name].free}
        risk = nqm.risk(measured, STAND_INS[name].with_values(**values), size, rows["steps"][place])
        assert risk == pytest.approx(TARGET - FLOOR, rel=1e-4) or risk < TARGET - FLOOR
        momentum = rows["momentum"][place]
        expected = rows["lr"][place] / (1.0 - (0.0 if math.isnan(momentum) else momentum))
        assert rows["effective_lr"][place] == pytest.approx(expected)
        assert rows["examples"][place] == size * rows["steps"][place]
        assert math.isnan(rows["damping"][place])


def test_steps_of_plain_descent_against_a_grid():
    """20,000 learning rates, the recursion by hand."""
    rows = predict_steps(explicit(), ["SGD"], [16], TARGET).rows("SGD")
    rates = np.geomspace(1e-3, 1.0, 20_000)[:, None]
    second, steps = np.tile(START, (rates.size, 1)), 0
    while np.all(0.5 * second @ H > TARGET - FLOOR):
        second, steps = (1.0 - rates * H) ** 2 * second + rates**2 * NOISE / 16, steps + 1
    assert rows["steps"][0] == steps


def test_kfac_takes_the_best_damping():
    rows = predict_steps(explicit(), ["K-FAC", "K-FAC with momentum"], [2, 64], TARGET)
    for name in rows.names:
        table = rows.rows(name)
        for place, size in enumerate((2, 64)):
            each = [
                nqm.tune(damped(explicit(), d * H.max()), STAND_INS[name], size, TARGET - FLOOR).steps for d in DAMPINGS
            ]
            assert table["steps"][place] == min(each) < max(each)
            assert table["damping"][place] == pytest.approx(DAMPINGS[int(np.argmin(each))] * H.max())


def test_growing_noise_is_asked_about_a_batch_as_much_smaller():
    measured = explicit(noise_growth=4.0)
    problem, growth = measured.with_growing_noise()
    assert growth == 4.0
    assert problem.noise_model == "gaussian-features"
    rows = predict_steps(measured, ["SGD"], [8, 32], TARGET, growing_noise=True).rows("SGD")
    for place, size in enumerate((8, 32)):
        best = nqm.tune(problem, nqm.SGD(nqm.FREE), size / 4.0, TARGET - FLOOR)
        assert rows["steps"][place] == best.steps
        assert rows["lr"][place] == pytest.approx(best.optimizer.hyperparameters["lr"], rel=1e-6)
        assert rows["batch_size"][place] == size
        assert rows["examples"][place] == size * best.steps
        assert best.steps != nqm.tune(problem, nqm.SGD(nqm.FREE), size, TARGET - FLOOR).steps


def test_steps_under_growing_noise_that_no_rule_settles_are_not_told(monkeypatch):
    """The other cells are; with the measured noise everywhere it stays an error."""

    def tune(problem, optimizer, batch_size, risk):
        if batch_size == 8.0:
            raise nqm.Unresolved(812, 1e-11)
        return nqm.tune(problem, optimizer, batch_size, risk)

    whole = predict_steps(explicit(), ["SGD"], [8, 32], TARGET, growing_noise=True).rows("SGD")
    monkeypatch.setattr(prediction, "tune", tune)
    rows = predict_steps(explicit(), ["SGD"], [8, 32], TARGET, growing_noise=True).rows("SGD")
    for key in ("steps", "lr", "examples"):
        assert math.isnan(rows[key][0])
        assert rows[key][1] == whole[key][1]
    with pytest.raises(nqm.Unresolved):
        predict_steps(explicit(), ["SGD"], [8, 32], TARGET)


def test_a_target_above_the_start_takes_no_steps():
    found = predict_steps(explicit(), ["SGD"], [4, 16], FLOOR + 10.0)
    assert found.table["steps"].tolist() == [0, 0]
    assert math.isnan(found.critical_batch_size()["SGD"])


def test_bad_predictions_are_refused():
    measured = explicit()
    for names in (["Lion"], ["SGD", "Lion"], []):
        with pytest.raises(ValueError, match=r"optimizers: expected some of SGD, momentum, .*, got (\['Lion'\]|none)"):
            predict_steps(measured, names, [4], TARGET)
    for target in (FLOOR, FLOOR - 0.1, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"below what is reachable: expected more than 0\.3"):
            predict_steps(measured, ["SGD"], [4], target)
    with pytest.raises(ValueError, match="K-FAC's damping where noise grows"):
        predict_steps(measured, ["SGD", "K-FAC"], [4], TARGET, growing_noise=True)
    with pytest.raises(ValueError, match="batch_size"):
        predict_steps(measured, ["SGD"], [0], TARGET)


# --- the table --------------------------------------------------------------------------------------------------------


def table(steps_of):
    names = [(name, size) for name in steps_of for size in (4.0, 32.0, 256.0)]
    steps = np.concatenate([np.array(steps, dtype=float) for steps in steps_of.values()])
    sizes = np.array([size for _, size in names])
    columns = {"optimizer": np.array([name for name, _ in names]), "batch_size": sizes, "steps": steps}
    columns |= {"examples": steps * sizes, "lr": np.full(steps.size, 0.1), "effective_lr": np.full(steps.size, 0.1)}
    return Predicted(columns, 0.5)


def test_critical_batch_size_by_hand():
    found = table({"SGD": [100, 20, 10], "momentum": [80, 8, 5], "K-FAC": [math.inf] * 3, "Adam": [math.inf, 30, 10]})
    critical = found.critical_batch_size()
    assert critical["SGD"] == 400 / 10
    assert critical["momentum"] == 256 / 5
    assert math.isnan(critical["K-FAC"])
    assert critical["Adam"] == 960 / 10
    assert table({"SGD": [0, 20, 10]}).critical_batch_size()["SGD"] == 640 / 10  # a cell that starts there says nothing


def test_rows_and_words():
    found = table({"SGD": [100, 20, 10], "momentum": [80, 8, math.inf]})
    assert found.names == ["SGD", "momentum"]
    assert found.rows("momentum")["steps"].tolist() == [80, 8, math.inf]
    with pytest.raises(ValueError, match="optimizer: expected one of SGD, momentum, got 'Adam'"):
        found.rows("Adam")
    lines = repr(found).splitlines()
    assert lines[0] == "Predicted(target=0.5)"
    assert len(lines) == 8
    assert len({len(line) for line in lines[1:]}) == 1
    predicted = predict_steps(explicit(), ["SGD"], [4], TARGET)
    with pytest.raises(ValueError, match="read-only"):
        predicted.table["steps"][0] = 1


# --- the reference run ------------------------------------------------------------------------------------------------


def test_reference_run_reaches_the_loss_and_no_earlier_reading_does():
    task = toy_task()
    point = reference_point(task, 0.25)
    steps = range(0, 2000, 10)
    passed = checkpoints(task, steps)
    losses = [float(task.loss(passed[s](task.data.x), task.data.y).detach()) for s in steps]
    first = next(k for k, loss in enumerate(losses) if loss <= 0.25)
    assert torch.equal(flatten(parameters_of(point)), flatten(parameters_of(passed[steps[first]])))
    assert first > 3


def test_reference_run_is_plain_descent():
    """By torch.optim, with batches from a generator of the same seed."""
    task, draw = toy_task(), torch.Generator().manual_seed(2)
    model = toy_net(2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    passed = checkpoints(task, [0, 1, 25], seed=2)
    assert list(passed) == [0, 1, 25]
    for step in range(26):
        if step in passed:
            found = flatten(parameters_of(passed[step]))
            torch.testing.assert_close(found, flatten(parameters_of(model)), rtol=1e-5, atol=1e-7)
        picked = torch.randint(60, (256,), generator=draw)
        optimizer.zero_grad()
        F.cross_entropy(model(task.data.x[picked]), task.data.y[picked]).backward()
        optimizer.step()


def test_same_seed_same_bits():
    task = toy_task()
    a, b, c = (flatten(parameters_of(reference_point(task, 0.4, seed=seed))) for seed in (3, 3, 4))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_a_start_that_is_there_already_is_the_point():
    point = reference_point(toy_task(), 1e3, seed=5)
    assert torch.equal(flatten(parameters_of(point)), flatten(parameters_of(toy_net(5))))


def test_the_callers_module_and_random_state_are_left_alone():
    net = toy_net(1)
    task = toy_task(net=net)
    before = flatten(parameters_of(net)).clone(), torch.get_rng_state()
    point = reference_point(task, 0.4)
    passed = checkpoints(task, [3])
    assert not torch.equal(flatten(parameters_of(point)), before[0])
    assert not torch.equal(flatten(parameters_of(passed[3])), before[0])
    assert torch.equal(flatten(parameters_of(net)), before[0])
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), before[1])


def test_frozen_parameters_stay():
    net = toy_net(1)
    net[1].weight.requires_grad_(False)
    point = reference_point(toy_task(net=net), 0.6)
    assert torch.equal(point[1].weight, net[1].weight)
    assert not torch.equal(point[3].weight, net[3].weight)


def test_a_loss_out_of_reach_says_so():
    with pytest.raises(ValueError, match=r"0\.01 is below what is reachable in 30 steps of lr 0\.1, batch size 8"):
        reference_point(toy_task(), 0.01, max_steps=30, batch_size=8)


def test_a_run_that_diverges_says_so():
    deep = toy_task(net=unbounded_net)
    with pytest.raises(ValueError, match=r"diverged at step \d+: expected a lower lr, got 1e\+30"):
        reference_point(deep, 0.01, lr=1e30)


@pytest.mark.parametrize("steps", [[], [-1, 3], [2.5]])
def test_bad_checkpoints_are_refused(steps):
    with pytest.raises(ValueError, match=r"steps: expected whole numbers of at least 0, one or more, got \["):
        checkpoints(toy_task(), steps)


def test_measured_where_the_run_stopped_predicts_a_reachable_target():
    """The floor of the measured quadratic lies below the target, on real data too."""
    task = toy_task(data=load_data(), net=partial(mlp, width=4), targets={"training loss": 1.0})
    measured = measure(task.build(0), task.loss, task.data, at=reference_point(task, 0.5), examples=200, device="cpu")
    assert measured.floor < 1.0
