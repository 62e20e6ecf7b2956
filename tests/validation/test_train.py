"""Recorded training: what is asked for, at the steps asked for, of runs that go on or end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional

import nqm
from nqm.validation import Data, Task, Trial, mlp
from nqm.validation.experiments.train import recorded, train
from nqm.validation.measurement.quantities import Accuracy, Loss, Quantity
from nqm.validation.training.batches import STREAMS, BatchDraws, generator
from nqm.validation.training.ensemble import EnsembleRun
from nqm.validation.training.gradients.penalties import Penalised
from nqm.validation.training.torch_optimizers import OPTIMIZERS


def task(**changes) -> Task:
    """Three classes in four dimensions, 30 examples and 12 held out, a net of 43 parameters in double precision."""
    numbers = torch.Generator().manual_seed(0)
    x = torch.randn(42, 1, 2, 2, generator=numbers, dtype=torch.float64)
    y = (x.flatten(1)[:, :3] + 0.3 * torch.randn(42, 3, generator=numbers, dtype=torch.float64)).argmax(1)
    net = lambda seed: mlp((1, 2, 2), 3, 5, seed=seed).double()  # noqa: E731
    built = Task(net, Data("toy", x[:30], y[:30], x[30:], y[30:]), functional.cross_entropy, {"training loss": 0.1})
    return replace(built, **changes)


def trials(*rates: float, batch_size: int = 5, seed: int = 3) -> list[Trial]:
    return [Trial("SGD", batch_size, seed, {"lr": lr}) for lr in rates]


def test_rows_are_the_steps_asked_for_and_the_last():
    found = train(task(), trials(0.1, 0.3), 13, record=["training loss", "held-out accuracy"], at=[0, 4, 9])
    assert list(found) == ["run", "step", "training loss", "held-out accuracy", "diverged"]
    assert found["run"].tolist() == [0] * 4 + [1] * 4
    assert found["step"].tolist() == [0, 4, 9, 13] * 2
    assert found["training loss"][0] == found["training loss"][4]  # one seed, one start
    assert found["training loss"][3] != found["training loss"][7]
    default = train(task(), trials(0.1), 25, record=["training loss"])
    assert default["step"].tolist() == [*range(21), 22, 24, 25]


def test_steps_may_come_from_an_array_or_a_generator():
    for at in (np.array([0, 4]), (step for step in (0, 4))):
        assert train(task(), trials(0.1), 6, record=["training loss"], at=at)["step"].tolist() == [0, 4, 6]


@pytest.mark.parametrize(("offset", "ended"), [(-5.0, [0, 0, 0]), (float("inf"), [0, 1])])
def test_losses_below_0_go_on_and_infinite_ones_end(offset, ended):
    def shifted(given, y):
        return functional.cross_entropy(given, y) + offset

    made = task(loss=shifted) if np.isfinite(offset) else replace(task(), loss=shifted)
    assert train(made, trials(0.1), 4, record=["training loss"], at=[0, 2])["diverged"].tolist() == ended


def test_what_is_recorded_is_the_run_of_a_plain_loop():
    steps, lr = 12, 0.2
    found = train(task(), trials(lr), steps, record={"loss": Loss("held-out"), "right": Accuracy()}, at=[steps])
    made = task()
    model, draws = made.build(3), EnsembleRun(made, trials(lr), OPTIMIZERS["SGD"]).draws[0]
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for step in range(1, steps + 1):
        chosen = draws.batch(step)
        optimizer.zero_grad()
        functional.cross_entropy(model(made.data.x[chosen]), made.data.y[chosen]).backward()
        optimizer.step()
    with torch.no_grad():
        loss = functional.cross_entropy(model(made.data.x_held), made.data.y_held)
        right = (model(made.data.x).argmax(1) == made.data.y).double().mean()
    np.testing.assert_allclose([found["loss"][0], found["right"][0]], [loss, right], rtol=1e-10)


def test_a_run_that_diverges_ends_there_and_the_others_go_on():
    found = train(task(), trials(0.1, 1e9, 0.2), 6, record=["training loss"], at=range(7))
    assert found.select(run=1)["diverged"].tolist() == [0, 1]
    assert np.isnan(found.select(run=1)["training loss"][-1])
    for run, rate in ((0, 0.1), (2, 0.2)):
        assert found.select(run=run)["step"].tolist() == list(range(7))
        alone = train(task(), trials(rate), 6, record=["training loss"], at=range(7))
        np.testing.assert_allclose(found.select(run=run)["training loss"], alone["training loss"], rtol=1e-9)
    assert train(task(), trials(1e9), 50, at=[0, 1, 50])["diverged"].tolist() == [0, 1]


def test_a_run_that_is_gone_on_with_is_the_one_without_a_stop():
    quantities = {"loss": Loss()}
    whole = train(task(), trials(0.1), 20, record=quantities, at=[0, 10, 20])
    run = EnsembleRun(task(), trials(0.1), OPTIMIZERS["SGD"])
    first, second = recorded(run, 10, quantities, [0, 10]), recorded(run, 20, quantities, [20])
    assert [*first["loss"], *second["loss"]] == whole["loss"].tolist()
    assert second["step"].tolist() == [20]
    net = run.net.module(run.theta[0])
    start = train(task(net=net), trials(0.1), 1, record=quantities, at=[0])
    assert start["loss"][0] == whole["loss"][-1]


@dataclass(frozen=True)
class Drawn(Quantity):
    """What the generator gives."""

    def __call__(self, net, theta, data, generator):
        return float(torch.rand((), generator=generator))


def test_what_is_recorded_changes_nothing_and_draws_its_own():
    bare = train(task(), trials(0.1), 8, record=["training loss"], at=[8], rule=Penalised("FP", 0.1))
    drawn = train(task(), trials(0.1, 0.1), 8, record={"a": Drawn(), "training loss": Loss(), "b": Drawn()}, at=[4, 8],
                  rule=Penalised("FP", 0.1))  # fmt: skip
    np.testing.assert_allclose(drawn.select(run=0, step=8)["training loss"], bare["training loss"], rtol=1e-9)
    assert drawn["a"].tolist() == drawn["b"].tolist()
    assert drawn["a"][0] != drawn["a"][1]
    assert drawn["a"][:2].tolist() == drawn["a"][2:].tolist()


def test_what_is_drawn_for_one_purpose_is_not_drawn_for_another():
    streams = [(name, number) for name in STREAMS for number in (0, 1)] + [("noise", 2**40)]
    drawn = {torch.rand((), generator=generator(3, *stream)).item() for stream in streams[1:]}
    assert len(drawn) == len(streams) - 1  # batches have the seed alone
    draws = BatchDraws(3, 10**6, 5, torch.device("cpu"))
    assert not set(draws.batch(1).tolist()) & set(draws.second(1).tolist())
    assert not set(draws.batch(2).tolist()) & set(draws.factored()[0].tolist())


def test_a_schedule_multiplies_the_rate():
    schedule = nqm.Schedule([1.0, 0.0], [3, 1])
    found = train(task(), trials(0.1), 6, record=["training loss"], at=range(7), schedule=schedule)
    assert len(set(found["training loss"][:4])) == 4
    assert len(set(found["training loss"][3:])) == 1
    half = train(task(), trials(0.2), 3, record=["training loss"], at=[3], schedule=nqm.Schedule(0.5, 1))
    assert half["training loss"][0] == pytest.approx(found["training loss"][3], rel=1e-12)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"record": ["loss"]}, "quantities: expected names among .*, got 'loss'"),
        ({"record": {"loss": 3.0}}, "expected a Quantity .* for 'loss', got 3.0"),
        ({"trials": trials(0.1, batch_size=31), "replacement": False}, "at most the 30 examples of an epoch, got 31"),
        ({"steps": 0}, "steps: expected a whole number of at least 1, got 0"),
        ({"trials": []}, "expected one optimizer and batch size for all"),
        ({"rule": "plain"}, "rule: expected a gradient rule such as Plain"),
        ({"trials": [Trial("SGD", 5, "a", {"lr": 0.1})]}, "seed: expected a whole number of at least 0, got 'a'"),
        ({"trials": trials(-0.1)}, "lr: expected a finite number of at least 0, got -0.1"),
        ({"trials": Trial("SGD", 5, 1, {"lr": 0.1})}, "trials: expected a list of Trial, got Trial"),
        ({"record": {"step": Loss("training")}}, "record: expected names other than .*, got 'step'"),
        ({"at": 2}, "at: expected whole numbers such as .*, got 2"),
        ({"at": [6]}, "at: expected steps from 0 to the last, 5, got 6"),
        ({"at": [-1]}, "at: expected steps from 0 to the last, 5, got -1"),
    ],
)
def test_bad_input_is_refused_before_any_training(given, said, monkeypatch):
    monkeypatch.setattr(EnsembleRun, "step", partial(pytest.fail, "trained"))
    arguments = {"trials": trials(0.1), "steps": 5, **given}
    with pytest.raises((ValueError, TypeError), match=said):
        train(task(), **arguments)
