"""Quantities recorded along training against dense matrices, sums over all labels and batches, and plain autograd."""

from __future__ import annotations

import math
from itertools import product

import naive_gradients as naive
import pytest
import torch
from naive_gradients import NETS, setting
from torch import nn
from torch.nn import functional as F

from nqm.validation import Data, Task
from nqm.validation.measurement.curvature import ggn_matrix, hessian_matrix
from nqm.validation.measurement.quantities import (
    QUANTITIES,
    Accuracy,
    FisherNorm,
    GradientNorm,
    Loss,
    MeanGradientNorm,
    Quantity,
    Subset,
    TopEigenvalue,
    TraceF,
    TraceFBatch,
    TraceH,
    TraceHF,
    find,
    fisher,
)
from nqm.validation.measurement.quantities.hessian import products
from nqm.validation.measurement.quantities.temperature import fit_temperature, rescaled
from nqm.validation.training import per_example

Z = 4.5  # standard errors: one in 150,000 draws of a normal variable lies beyond


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def value(quantity: Quantity, name: str = "mlp", n: int = 12) -> float:
    return quantity(*setting(name, n), seeded())


def close(found: float, expected: float | torch.Tensor, rel: float = 1e-9) -> None:
    assert found == pytest.approx(float(expected), rel=rel)


def small_task(**options) -> Task:
    net, _, data = setting()
    return Task(**{"net": net.model, "data": data, "loss": F.cross_entropy, "targets": {"training loss": 0.1},
                   "device": "cpu", **options})  # fmt: skip


# --- gradients of single examples ------------------------------------------------------------------------------


@pytest.mark.parametrize("per_chunk", [2**22, 200], ids=["one chunk", "chunks"])
@pytest.mark.parametrize("name", NETS)
def test_gradients_of_single_examples(monkeypatch, name, per_chunk):
    monkeypatch.setattr(per_example, "PER_CHUNK", per_chunk)
    net, theta, data = setting(name)
    expected = naive.gradients(net, theta, data.x, data.y)
    torch.testing.assert_close(torch.cat(list(per_example.gradients(net, theta, data.x, data.y))), expected)
    torch.testing.assert_close(per_example.mean_squares(net, theta, data.x, data.y), expected.square().mean(0))
    mean, squares = per_example.moments(net, theta, data.x, data.y)
    torch.testing.assert_close(mean, expected.mean(0))
    torch.testing.assert_close(squares, expected.square().mean(0))
    torch.testing.assert_close(per_example.squared_norms(net, theta, data.x, data.y), expected.square().sum(1))
    assert (net.kept["layers"] is None) == (name in naive.ONE_BY_ONE)


@pytest.mark.parametrize("name", NETS)
def test_mean_squares_of_runs_side_by_side(name):
    net, theta, data = setting(name)
    thetas, x, y = torch.stack([theta, 0.5 * theta]), data.x.reshape(2, 6, *data.shape), data.y.reshape(2, 6)
    found = net.each(lambda *given: per_example.mean_squares(net, *given), thetas, x, y)
    for run in range(2):
        expected = naive.gradients(net, thetas[run], x[run], y[run]).square().mean(0)
        torch.testing.assert_close(found[run], expected)


# --- losses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["training", "held-out"])
def test_loss_and_gradient_of_all_examples(part):
    """More of them than are taken at once."""
    net, theta, data = setting(n=1100)
    x, y = (data.x, data.y) if part == "training" else (data.x_held, data.y_held)
    given = net.module(theta)(x).detach()
    close(value(Loss(part), n=1100), F.cross_entropy(given, y))
    assert value(Accuracy(part), n=1100) == pytest.approx(float((given.argmax(1) == y).double().mean()), abs=1e-12)
    close(value(GradientNorm(part), n=1100), naive.gradient(net, theta, x, y).norm())


@pytest.mark.parametrize("part", ["training", "held-out"])
def test_mean_gradient_norm(part):
    net, theta, data = setting()
    x, y = (data.x, data.y) if part == "training" else (data.x_held, data.y_held)
    close(value(MeanGradientNorm(part)), naive.gradients(net, theta, x, y).norm(dim=1).mean())


def test_some_examples_alone():
    net, theta, data = setting()
    mask = torch.arange(12) % 3 == 0
    given = net.module(theta)(data.x[mask]).detach()
    close(value(Subset(Loss(), mask)), F.cross_entropy(given, data.y[mask]))
    close(
        value(Subset(MeanGradientNorm(), mask)),
        naive.gradients(net, theta, data.x[mask], data.y[mask]).norm(dim=1).mean(),
    )
    assert 12 * value(Accuracy()) == pytest.approx(
        4 * value(Subset(Accuracy(), mask)) + 8 * value(Subset(Accuracy(), ~mask))
    )


def test_a_subset_is_told_from_others():
    masks = [torch.arange(3000) % 3 == i for i in range(3)]
    assert len({repr(Subset(Accuracy(), mask)) for mask in masks}) == 3
    assert repr(Subset(Accuracy(), masks[0])) == repr(Subset(Accuracy(), masks[0].clone()))


# --- the Fisher matrix -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_exact_trace_is_that_of_the_gauss_newton_matrix(name):
    net, theta, data = setting(name)
    close(value(TraceF(), name), ggn_matrix(naive.objective(net, data.x, data.y), theta).trace())
    close(value(TraceF(examples=5), name), ggn_matrix(naive.objective(net, data.x[:5], data.y[:5]), theta).trace())


def test_trace_with_drawn_and_own_labels():
    net, theta, data = setting()
    draw = seeded()
    found = torch.tensor([TraceF("model")(net, theta, data, draw) for _ in range(500)])
    assert abs(float(found.mean()) - value(TraceF())) < Z * float(found.std()) / math.sqrt(500)
    close(value(TraceF("data")), naive.fisher(net, theta, data.x, data.y).trace())


def test_trace_of_a_batch_over_all_labels(monkeypatch):
    """E Tr(F^B) = Tr(F) / B, by a sum over all labels of two examples with their probabilities."""
    net, theta, data = setting(n=2)
    p = naive.probabilities(net, theta, data.x)
    monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.tensor([0, 1]))
    mean = 0.0
    for labels in product(range(3), repeat=2):
        monkeypatch.setattr(fisher, "drawn_from", lambda *_, labels=labels: torch.tensor(labels))
        mean += float(p[0, labels[0]] * p[1, labels[1]]) * TraceFBatch(2)(net, theta, data, seeded())
    close(mean, TraceF()(net, theta, data, seeded()) / 2)
    close(mean, naive.true_fisher(net, theta, data.x).trace() / 2)


def test_trace_of_a_batch_over_all_batches(monkeypatch):
    """E = |grad L|^2 + tr(C) / B with the examples' own labels."""
    net, theta, data = setting(n=4)
    found = []
    for batch in product(range(4), repeat=2):
        monkeypatch.setattr(torch, "randint", lambda *_, batch=batch, **__: torch.tensor(batch))
        found.append(TraceFBatch(2, labels="data")(net, theta, data, seeded()))
    each = naive.gradients(net, theta, data.x, data.y)
    covariance = torch.cov(each.T, correction=0)
    close(sum(found) / len(found), each.mean(0).square().sum() + covariance.trace() / 2)


def test_trace_of_many_batches():
    net, theta, data = setting()
    draw = seeded()
    found = torch.tensor([TraceFBatch(4, 5)(net, theta, data, draw) for _ in range(200)])
    assert abs(float(found.mean()) - value(TraceF()) / 4) < Z * float(found.std()) / math.sqrt(200)


@pytest.mark.parametrize("per_chunk", [2**22, 200], ids=["one chunk", "chunks"])
@pytest.mark.parametrize("name", ["mlp", "conv", "norm"])
def test_norms(monkeypatch, name, per_chunk):
    monkeypatch.setattr(per_example, "PER_CHUNK", per_chunk)
    net, theta, data = setting(name)
    dense = naive.fisher(net, theta, data.x, data.y)
    close(value(FisherNorm("full"), name), dense.norm())
    close(value(FisherNorm("diagonal"), name), dense.diagonal().norm())


# --- the Hessian -----------------------------------------------------------------------------------------------


def test_hessian_products_of_more_examples_than_are_taken_at_once():
    net, theta, data = setting(n=300)
    found = products(net, theta, data.x, data.y, torch.eye(len(theta), dtype=torch.float64))
    torch.testing.assert_close(found, hessian_matrix(naive.objective(net, data.x, data.y), theta))


@pytest.mark.parametrize("name", ["mlp", "conv", "norm"])
def test_trace_of_the_hessian(name):
    net, theta, data = setting(name)
    dense = hessian_matrix(naive.objective(net, data.x, data.y), theta)
    estimate, error = TraceH(400).with_error(net, theta, data, seeded())
    assert abs(estimate - float(dense.trace())) < Z * error
    assert error == pytest.approx(math.sqrt(2.0 / 400) * float(dense.norm()), rel=0.25)
    assert value(TraceH(400), name) == estimate


@pytest.mark.parametrize("name", ["mlp", "conv", "norm"])
def test_largest_eigenvalue(name):
    net, theta, data = setting(name)
    dense = hessian_matrix(naive.objective(net, data.x, data.y), theta)
    close(value(TopEigenvalue(tolerance=1e-9), name), torch.linalg.eigvalsh(dense)[-1])
    close(value(TopEigenvalue(), name), torch.linalg.eigvalsh(dense)[-1], rel=2e-3)
    assert value(TopEigenvalue(), name) == value(TopEigenvalue(), name)


def test_largest_eigenvalue_is_not_the_largest_in_size():
    """Of a saddle, whose most negative curvature is larger."""
    net, theta, data = setting()
    net = type(net)(net.model, net.like, lambda z, y: -F.cross_entropy(z, y))
    dense = torch.linalg.eigvalsh(hessian_matrix(naive.objective(net, data.x, data.y), theta))
    assert -float(dense[0]) > 1.3 * float(dense[-1]) > 0.0
    close(TopEigenvalue(tolerance=1e-9)(net, theta, data, seeded()), dense[-1], rel=1e-6)


def test_largest_eigenvalue_where_there_is_no_curvature():
    net, theta, data = setting()
    sure = torch.zeros_like(theta)
    sure[-3] = 1e4  # the bias of the first class
    flat = Data("flat", data.x, torch.zeros_like(data.y), data.x_held, data.y_held)
    assert TopEigenvalue()(net, sure, flat, seeded()) == 0.0


@pytest.mark.parametrize("name", ["mlp", "conv", "norm"])
def test_largest_eigenvalue_at_the_temperature_that_fits(name):
    """Near 2 for labels drawn at 2."""
    net, theta, data = setting(name, 400)
    given = net.module(3.0 * theta)(data.x_held).detach()
    labels = torch.multinomial((given / 2.0).softmax(1), 1, generator=seeded())[:, 0]
    data, theta = Data("drawn", data.x[:12], data.y[:12], data.x_held, labels), 3.0 * theta
    t = fit_temperature(net, theta, data.x_held, labels)
    assert 1.4 < t < 2.8
    losses = [float(F.cross_entropy(given / (t * factor), labels)) for factor in (0.99, 1.0, 1.01)]
    assert losses[1] < min(losses[0], losses[2])
    at = rescaled(net, theta, t)
    torch.testing.assert_close(net.module(at)(data.x), net.module(theta)(data.x) / t)
    dense = hessian_matrix(naive.objective(net, data.x, data.y), at)
    found = TopEigenvalue(tolerance=1e-9, temperature=True)(net, theta, data, seeded())
    close(found, torch.linalg.eigvalsh(dense)[-1], rel=1e-6)


@pytest.mark.parametrize("name", ["mlp", "conv", "norm"])
def test_the_hessian_against_the_fisher_matrix(monkeypatch, name):
    """Tr(HF), Tr(H diag F), Tr(H) Tr(F) / P."""
    monkeypatch.setattr(per_example, "PER_CHUNK", 200)
    net, theta, data = setting(name)
    hessian = hessian_matrix(naive.objective(net, data.x, data.y), theta)
    dense = naive.fisher(net, theta, data.x, data.y)
    close(value(TraceHF("full"), name), (hessian @ dense).trace())
    traces = {
        "diagonal": hessian.diagonal() @ dense.diagonal(),
        "trace": hessian.trace() * dense.trace() / len(theta),
    }
    for kind, expected in traces.items():
        estimate, error = TraceHF(kind, 400).with_error(net, theta, data, seeded())
        assert abs(estimate - float(expected)) < Z * error
        assert error < 0.2 * float(expected)


# --- all of them -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", QUANTITIES)
def test_every_quantity(name):
    """Finite, in single precision as well; drawn from its generator alone; NaN where the parameters are."""
    quantity, (net, theta, data) = QUANTITIES[name], setting(n=20)
    quantity.check(small_task())
    before = torch.get_rng_state()
    found = quantity(net, theta, data, seeded())
    assert math.isfinite(found)
    assert quantity(net, theta, data, seeded()) == found
    assert torch.equal(torch.get_rng_state(), before)
    assert math.isnan(quantity(net, math.nan * theta, data, seeded()))
    single = type(net)(net.module(theta).float(), {key: p.float() for key, p in net.like.items()}, net.loss)
    other = Data("single", data.x.float(), data.y, data.x_held.float(), data.y_held)
    close(quantity(single, theta.float(), other, seeded()), found, rel=0.8)  # other numbers are drawn


def test_names():
    assert len({repr(quantity) for quantity in QUANTITIES.values()}) == len(QUANTITIES)
    assert find(["Tr H", "Tr F"]) == {"Tr H": TraceH(), "Tr F": TraceF()}
    assert find("Tr H") == {"Tr H": TraceH()}
    assert find({"mine": TraceFBatch(8)}) == {"mine": TraceFBatch(8)}
    with pytest.raises(ValueError, match=r"expected names among training loss, .* got 'Tr G'"):
        find(["Tr G"])
    with pytest.raises(TypeError, match=r"expected a Quantity .* for 'mine'"):
        find({"mine": "Tr H"})


class Doubled(nn.Module):
    """Outputs that are not the last layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 3).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x).square()


def regression() -> Task:
    _, _, data = setting()
    part = Data("regression", data.x, data.x[:, :1], data.x_held, data.x_held[:, :1])
    return small_task(net=nn.Linear(6, 1).double(), data=part, loss=F.mse_loss)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Loss("test"), "part: expected one of training, held-out"),
        (lambda: TraceF("true"), "labels: expected one of exact"),
        (lambda: TraceF(examples=0), "examples: expected a whole number of at least 1"),
        (lambda: TraceF(examples=13).check(small_task()), "examples: expected at most the 12"),
        (lambda: TraceFBatch(0), "batch_size"),
        (lambda: TraceFBatch(8, 2.5), "batches"),
        (lambda: TraceH(1), "vectors"),
        (lambda: TopEigenvalue(tolerance=0.0), "tolerance"),
        (lambda: TopEigenvalue(0), "iterations"),
        (lambda: FisherNorm("trace"), "kind: expected one of full, diagonal"),
        (lambda: TraceHF("K-FAC"), "kind: expected one of full, diagonal, trace"),
        (lambda: Accuracy().check(regression()), "expected outputs"),
        (lambda: TraceF().check(regression()), "expected outputs"),
        (lambda: TraceFBatch(8).check(regression()), "expected outputs"),
        (lambda: TopEigenvalue(temperature=True).check(small_task(net=Doubled())), "those of the last layer"),
        (lambda: Subset(Loss("held-out"), torch.ones(12, dtype=torch.bool)), "of the training part"),
        (lambda: Subset(Loss(), torch.ones(12)), "truth values"),
        (lambda: Subset(Loss(), torch.zeros(12, dtype=torch.bool)), "some of them True"),
        (lambda: Subset(Loss(), torch.ones(11, dtype=torch.bool)).check(small_task()), "each of the 12"),
        (lambda: Subset(TraceF(examples=5), torch.arange(12) < 4).check(small_task()), "at most the 4"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_regression_has_what_needs_no_classes():
    task = regression()
    for name in ("training loss", "gradient norm", "mean gradient norm", "Tr H", "norm of F", "Tr F empirical"):
        QUANTITIES[name].check(task)
