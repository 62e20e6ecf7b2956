"""Measured quadratics against loops over examples and least squares in closed form."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_nets import basis, close, examples, find, net
from torch import nn

import nqm
from nqm import SGD, NoisyQuadratic
from nqm.validation.measurement.measure import CUTOFF, measure
from nqm.validation.measurement.quadratic import MeasuredQuadratic, load
from nqm.validation.training.functional import flatten, parameters_of


def naive_gradients(model, loss, x, y):
    """(n, P), one example at a time."""
    model = copy.deepcopy(model).double()
    rows = []
    for i in range(len(x)):
        value = loss(model(x[i : i + 1].double()), y[i : i + 1])
        rows.append(torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, list(model.parameters()))]))
    return torch.stack(rows)


@pytest.mark.parametrize("method", ["ggn", "hessian", "ekfac"])
@pytest.mark.parametrize("given", [False, True])
def test_everything_in_the_basis(method, given):
    """c, g, s, floor and noise scales from loops over examples and the basis as a matrix."""
    x, y = examples()
    start, there = net(0), net(1) if given else net(0)
    h, turn = basis(method, there, F.cross_entropy, x, y)
    rows, rows_start = naive_gradients(there, F.cross_entropy, x, y), naive_gradients(start, F.cross_entropy, x, y)
    g, c = rows.mean(0) @ turn, (rows @ turn).square().mean(0) - (rows.mean(0) @ turn).square()
    order = torch.argsort(h, descending=True)
    order = order[h[order] > CUTOFF * h.abs().max()]
    moved = (flatten(parameters_of(start)).double() - flatten(parameters_of(there)).double()) @ turn
    s = (moved + g / h)[order]

    found = find(start, at=there if given else None, curvature=method)
    close(found.curvature, h[order])
    close(found.noise, c[order], rtol=1e-6, atol=1e-14)
    close(found.gradient**2, g[order] ** 2, rtol=1e-5, atol=1e-14)
    close(found.init, s**2, rtol=1e-5)
    loss_at = float(F.cross_entropy(copy.deepcopy(there).double()(x.double()), y).detach())
    close(found.loss_at, loss_at)
    close(found.loss_start, F.cross_entropy(copy.deepcopy(start).double()(x.double()), y).detach())
    close(found.floor, loss_at - 0.5 * float((g[order] ** 2 / h[order]).sum()))
    for scale, one in ((found.noise_scale, rows), (found.noise_scale_start, rows_start)):
        close(scale, float(one.var(0, correction=0).sum() / one.mean(0).square().sum()))

    lost = found.provenance["dropped"]
    rest = torch.ones_like(h, dtype=torch.bool)
    rest[order] = False
    assert lost["directions"] == int(rest.sum()) == 39 - found.dim
    close(lost["of curvature"], h[rest].abs().sum() / h.abs().sum(), rtol=1e-3, atol=1e-13)
    close(lost["of gradient"], g[rest].square().sum() / g.square().sum(), rtol=1e-3, atol=1e-13)
    close(lost["of noise"], c[rest].sum() / c.sum(), rtol=1e-3, atol=1e-13)
    assert (lost["negative"] > 0) == (method == "hessian")
    close(found.noise.sum() / (1 - lost["of noise"]), rows.var(0, correction=0).sum())


def test_the_null_directions_of_the_gauss_newton_matrix_carry_nothing():
    found = find(net(), data=examples(6))  # rank at most 6 * (3 - 1)
    lost = found.provenance["dropped"]
    assert found.dim == 12
    assert lost["directions"] == 27
    assert max(lost["of curvature"], lost["of gradient"], lost["of noise"]) < 1e-12


def test_the_quadratic_of_the_start_has_its_loss():
    for method in ("ggn", "hessian", "ekfac"):
        found = find(net(), curvature=method)
        close(found.initial_risk + found.floor, found.loss_start)


@pytest.mark.parametrize("given", [False, True])
def test_linear_regression_in_closed_form(given):
    """h of 2 X^T X / n, the floor the residual of least squares, s the distance to its solution, from anywhere."""
    draw = torch.Generator().manual_seed(5)
    x, y = torch.randn(30, 6, generator=draw).double(), torch.randn(30, 1, generator=draw).double()
    start, other = (nn.Linear(6, 1, bias=False) for _ in range(2))
    found = find(start, F.mse_loss, (x, y), other if given else None)
    a, v = torch.linalg.eigh(2 * x.T @ x / 30)
    solution = torch.linalg.lstsq(x, y).solution
    s = (start.weight.detach().double().reshape(-1) - solution.reshape(-1)) @ v
    close(found.curvature, a.flip(0))
    close(found.init, s.flip(0) ** 2)
    close(found.floor, (x @ solution - y).square().mean())
    close(found.initial_risk, found.loss_start - found.floor)
    for method in ("hessian", "ekfac"):
        again = find(start, F.mse_loss, (x, y), other if given else None, curvature=method)
        close(again.curvature, found.curvature)
        close(again.init, found.init)


def test_prediction_is_what_full_batch_descent_does():
    """On a quadratic loss the prediction is the training: gradient descent without noise."""
    draw = torch.Generator().manual_seed(6)
    x, y = torch.randn(40, 5, generator=draw).double(), torch.randn(40, 1, generator=draw).double()
    model = nn.Linear(5, 1).double()
    found = find(copy.deepcopy(model), F.mse_loss, (x, y))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    for step in range(20):
        assert float(nqm.risk(found, SGD(0.1, 0.5), np.inf, step)) + found.floor == pytest.approx(
            float(F.mse_loss(model(x), y).detach()), rel=1e-9
        )
        optimizer.zero_grad()
        F.mse_loss(model(x), y).backward()
        optimizer.step()


def test_stands_wherever_a_noisy_quadratic_does(tmp_path):
    found = find(net(), at=net(1))
    plain = NoisyQuadratic(found.curvature, found.noise, found.init)
    steps = [0, 1, 100, 10_000]
    assert np.array_equal(nqm.risk(found, SGD(0.3, 0.9), 16, steps), nqm.risk(plain, SGD(0.3, 0.9), 16, steps))
    target = found.initial_risk / 2
    assert nqm.tune(found, SGD(nqm.FREE), 64, target) == nqm.tune(plain, SGD(nqm.FREE), 64, target)
    assert nqm.sweep(found, {"SGD": SGD(nqm.FREE)}, [64], target).table["steps"].size == 1
    for other in (found.compressed(1e-3), found.binned(8), MeasuredQuadratic.power_law(100)):
        assert type(other) is NoisyQuadratic
        assert "NoisyQuadratic(" in repr(other)
    assert found._finer() is None
    assert found._additive() is found
    again = pickle.loads(pickle.dumps(found))
    assert type(again) is MeasuredQuadratic
    assert (again.floor, again.provenance) == (found.floor, found.provenance)
    assert not again.gradient.flags.writeable
    assert not again.curvature.flags.writeable


def test_save_and_load_to_the_last_bit(tmp_path):
    found = find(net(), at=net(1), examples=10, seed=3)
    path = found.save(tmp_path / "deep" / "measured.npz")
    again = load(path)
    for name in ("curvature", "noise", "init", "gradient"):
        assert np.array_equal(getattr(again, name), getattr(found, name))
    for name in ("loss_at", "loss_start", "floor", "noise_scale", "noise_scale_start", "provenance"):
        assert getattr(again, name) == getattr(found, name)
    assert np.array_equal(again.noise_growth, found.noise_growth, equal_nan=True)
    assert json.loads(json.dumps(found.provenance)) == found.provenance
    assert [p.name for p in path.parent.iterdir()] == ["measured.npz"]


def test_load_refuses_other_files(tmp_path):
    np.savez(tmp_path / "other.npz", curvature=np.ones(3))
    np.save(tmp_path / "array.npy", np.ones(3))
    np.savez(tmp_path / "pickled.npz", kind=np.array([{}], dtype=object))
    (tmp_path / "text.npz").write_text("no such thing")
    (tmp_path / "empty.npz").touch()
    cut = find(net()).save(tmp_path / "cut.npz")
    cut.write_bytes(cut.read_bytes()[:-100])
    for name in ("other.npz", "array.npy", "pickled.npz", "text.npz", "empty.npz", "cut.npz"):
        with pytest.raises(ValueError, match=r"expected a file written by MeasuredQuadratic.save"):
            load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "absent.npz")


def test_risk_at():
    found = find(net())
    assert found.risk_at(found.loss_start) == pytest.approx(found.initial_risk)
    for loss in (found.floor, found.floor - 1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="below what is reachable: expected more than"):
            found.risk_at(loss)


def test_power_law_fit():
    def of(h):
        zero = np.zeros(len(h))
        return MeasuredQuadratic(h, zero, zero, gradient=zero, loss_at=1.0, loss_start=1.0, noise_scale=1.0,
                                 noise_scale_start=1.0, provenance={})  # fmt: skip

    h = 3.0 * np.arange(1, 401) ** -1.25
    fit = of(h).power_law_fit()
    close(fit[:3], (1.25, 3.0, 0.0), atol=1e-12)
    assert fit.nodes == np.searchsorted(np.cumsum(h), 0.99 * h.sum()) + 1
    tail = of(np.concatenate([h, np.full(300, 1e-9)])).power_law_fit()  # is not looked at
    close(tail[:3], fit[:3], atol=1e-12)
    assert of([4.0, 2.0, 1e-6]).power_law_fit().nodes == 3
    with pytest.raises(ValueError, match="at least 3"):
        of([1.0, 2.0]).power_law_fit()
    with pytest.raises(ValueError, match="share"):
        of(h).power_law_fit(0.0)


def test_says_where_it_comes_from():
    found = find(net(), data=[examples(8), examples(12)], at=net(1), examples=15, seed=4)
    assert found.provenance["at"] == "given"
    assert (found.provenance["examples"], found.provenance["available"], found.provenance["seed"]) == (15, 20, 4)
    for word in ("Sequential", "cross_entropy", "floor", "noise scale", "power law", "dropped", "torch"):
        assert word in found.summary()
    assert repr(found).startswith("MeasuredQuadratic(Sequential, ggn, dim=")
    assert len(found.summary().splitlines()) < 25


def test_gradient_must_fit():
    numbers = {"loss_at": 1.0, "loss_start": 1.0, "noise_scale": 1.0, "noise_scale_start": 1.0, "provenance": {}}
    for gradient in ([1.0], [1.0, np.nan]):
        with pytest.raises(ValueError, match="gradient: expected 2 finite numbers"):
            MeasuredQuadratic([1.0, 2.0], [1.0, 1.0], [1.0, 1.0], gradient=gradient, **numbers)


@pytest.mark.parametrize("outputs", [1, 4])
def test_noise_grows_with_the_loss(outputs):
    """Least squares on Gaussian features with k outputs: the noise's trace grows 1 / k as fast as with one."""
    make = torch.Generator().manual_seed(3)
    x = torch.randn(20_000, 6, generator=make, dtype=torch.float64)
    true = torch.randn(6, outputs, generator=make, dtype=torch.float64)
    y = x @ true + 0.1 * torch.randn(20_000, outputs, generator=make, dtype=torch.float64)
    start, optimum = (nn.Linear(6, outputs, bias=False).double() for _ in range(2))
    with torch.no_grad():
        start.weight.zero_()
        optimum.weight.copy_(true.T)

    def half(given, wanted):
        return 0.5 * ((given - wanted) ** 2).sum(-1).mean()

    found = measure(start, half, (x, y), at=optimum, device="cpu")
    # each output's noise is that of one regression: tr(C) = sum_k tr(H_1) (s + 2 L_k) + |G_k|^2, tr(H) = k tr(H_1)
    moved = float((true**2).sum())
    expected = (6.0 * moved + moved) / (outputs * 6.0 * moved + moved)
    assert found.noise_growth == pytest.approx(expected, rel=0.03)
    problem, growth = found.with_growing_noise()
    assert growth == found.noise_growth
    rise = problem.label_noise + 2.0 * (found.loss_at - found.floor)
    trace = growth * (problem.curvature.sum() * rise + (found.gradient**2).sum())
    assert trace == pytest.approx(found.noise.sum())
    assert measure(start, half, (x, y), device="cpu", examples=100).noise_growth == 1.0


def test_growing_noise_is_right_where_it_was_measured_off_the_minimum():
    """The trace with the term of the mean gradient, on Gaussian features far from the optimum; and none, no problem."""
    make = torch.Generator().manual_seed(4)
    x = torch.randn(20_000, 5, generator=make, dtype=torch.float64)
    y = x @ torch.randn(5, 1, generator=make, dtype=torch.float64)
    start, at = (nn.Linear(5, 1, bias=False).double() for _ in range(2))
    with torch.no_grad():
        start.weight.zero_()
        at.weight.copy_(torch.linalg.lstsq(x, y).solution.T)
        at.weight.mul_(0.7)

    def half(given, wanted):
        return 0.5 * ((given - wanted) ** 2).sum(-1).mean()

    found = measure(start, half, (x, y), at=at, device="cpu")
    assert found.noise_growth == pytest.approx(1.0, rel=0.05)
    noiseless = found.with_growing_noise().problem.label_noise
    excess = found.loss_at - found.floor
    assert noiseless == pytest.approx(0.0, abs=0.1 * excess)  # without the gradient's term 0.4 times the excess
    calm = MeasuredQuadratic([1.0], [1.0], [1.0], gradient=[0.0], loss_at=1.0, loss_start=2.0, noise_scale=1.0,
                             noise_scale_start=1.0, provenance={}, noise_growth=np.nan)  # fmt: skip
    with pytest.raises(ValueError, match="noise that grows"):
        calm.with_growing_noise()
