"""What wen2020's jobs do: against single gradients and dense matrices, at small sizes."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional

from nqm.validation import NETS, load_data, mlp
from nqm.validation.papers.wen2020 import generalization, protocol, quadratic, runs
from nqm.validation.papers.wen2020.training import begun
from nqm.validation.training.functional import Net, flatten, parameters_of

SIZES = {"large": 64, "small": 8}


@pytest.fixture
def tiny(monkeypatch):
    """A network of 160 parameters."""
    monkeypatch.setitem(protocol.NETWORKS, "tiny", partial(mlp, width=2))
    return {"data": "digits", "net": "tiny", "seed": 1, **SIZES}


def gradients(net, seed, theta, data):
    """Of each training example alone, (n, P)."""
    model = net(seed=seed).double()
    found = Net(model, parameters_of(model), functional.cross_entropy)

    def loss(at, x, y):
        return functional.cross_entropy(found.outputs(at, x[None]), y[None])

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
    return each(theta.double(), data.x.double(), data.y).numpy()


def test_variances_are_those_of_single_gradients(tiny):
    found = runs.run("variance", **tiny, lr=0.1, updates=3, draws=200)
    data = load_data("digits", seed=1)
    run = begun(data, "tiny", "SB", 1, 0.1, **SIZES)
    for _ in range(3):
        run.step()
    each = gradients(protocol.NETWORKS["tiny"], 1, run.theta[0], data)
    c, squares, extra = each.var(axis=0), np.mean(each**2, axis=0), 1.0 / 8.0 - 1.0 / 64.0
    wanted = {"SB": c / 8.0, "LB": c / 64.0, "LB + full": c / 64.0 + extra * squares,
              "LB + diagonal": c / 64.0 + extra * squares, "LB + trace": c / 64.0 + extra * squares.mean()}  # fmt: skip
    ends = {"1": slice(0, 130), "3": slice(130, 160)}
    for regime, layer, count, exact, sampled in zip(*found.values(), strict=True):
        own = wanted[regime][ends[layer]]
        assert count == own.size
        assert exact == pytest.approx(own.mean(), rel=1e-4)
        assert sampled == pytest.approx(own.mean(), rel=0.25)
    assert found.rows == 10


def test_a_networks_quadratic_has_the_risk_of_dense_matrices(tiny, monkeypatch):
    monkeypatch.setattr(quadratic, "REFERENCE", 5)
    found = runs.run("model", **tiny, lr=0.1, updates=6, every=3)
    data = load_data("digits", seed=1)
    run = begun(data, "tiny", "LB", 1, 0.1, **SIZES)
    start = run.theta[0].double().numpy()
    for _ in range(5):
        run.step()
    theta = run.theta[0].double()
    each = gradients(protocol.NETWORKS["tiny"], 1, run.theta[0], data)
    mean, model = each.mean(axis=0), protocol.NETWORKS["tiny"](seed=1).double()
    net = Net(model, parameters_of(model), functional.cross_entropy)
    curvature = gauss_newton(net, theta, data.x.double())
    fisher = each.T @ each / len(each)
    noises = {"SB": None, "LB": 0.0 * fisher, "LB + full": fisher, "LB + diagonal": np.diag(np.diag(fisher)),
              "LB + trace": np.trace(fisher) / 160.0 * np.eye(160)}  # fmt: skip
    variance, extra = fisher - np.outer(mean, mean), 1.0 / 8.0 - 1.0 / 64.0
    moved = start - theta.numpy() + np.linalg.pinv(curvature, rcond=1e-8, hermitian=True) @ mean
    floor = float(net.mean_loss(theta, data.x.double(), data.y))
    floor -= 0.5 * mean @ np.linalg.pinv(curvature, rcond=1e-8, hermitian=True) @ mean
    for regime, noise in noises.items():
        covariance = variance / 8.0 if noise is None else variance / 64.0 + extra * noise
        moment, losses = np.outer(moved, moved), []
        for step in range(7):
            if step % 3 == 0:
                losses.append(floor + 0.5 * np.sum(curvature * moment))
            move = np.eye(160) - 0.1 * curvature
            moment = move @ moment @ move + 0.01 * covariance
        own = found.select(regime=regime)
        assert own["step"].tolist() == [0, 3, 6]
        assert np.allclose(own["training loss"], losses, rtol=1e-5)
    ratio = np.sum(curvature * fisher) / (np.diag(curvature) @ np.diag(fisher))
    assert found["ratio"] == pytest.approx(ratio, rel=1e-4)


def gauss_newton(net, theta, x):
    """By the Jacobian of all outputs."""
    slopes = torch.func.jacrev(lambda at: net.outputs(at, x))(theta)
    p = net.outputs(theta, x).softmax(-1)
    bends = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    return (slopes.flatten(0, 1).T @ (bends @ slopes).flatten(0, 1) / len(x)).numpy()


def test_softmax_regression_is_the_same_in_all_regimes_but_for_the_noise():
    found = runs.run("model", data="digits", net="softmax", seed=1, lr=0.3, **SIZES, updates=20, every=10)
    losses = {regime: found.select(regime=regime)["training loss"] for regime in quadratic.STRUCTURES}
    assert np.allclose(losses["LB + full"], losses["SB"], rtol=1e-12)
    assert np.allclose([loss[0] for loss in losses.values()], losses["SB"][0])
    assert losses["LB"][1] < losses["LB + trace"][1] < losses["LB + diagonal"][1] < losses["SB"][1]


def test_multiplicative_noise_is_full_noise(tiny):
    one, other = (
        runs.run("curve", **tiny, regime=regime, lr=0.1, updates=10, every=5)
        for regime in ("LB + full", "LB + multiplicative")
    )
    assert one["step"].tolist() == [0, 5, 10]
    for name in ("training loss", "training error"):
        assert np.allclose(one[name], other[name], rtol=1e-4)
    assert np.all((one["training error"] >= 0.0) & (one["training error"] <= 1.0))


@pytest.mark.parametrize("regime", protocol.REGIMES)
def test_each_regime_starts_at_the_same_network_and_goes_its_own_way(tiny, regime):
    lb, own = (runs.run("curve", **tiny, regime=name, lr=0.1, updates=4, every=4) for name in ("LB", regime))
    assert lb["training loss"][0] == own["training loss"][0]
    assert (lb["training loss"][1] == own["training loss"][1]) == (regime == "LB")


def test_an_end_is_read_after_equal_numbers_of_examples(tiny):
    given = {**tiny, "epochs": 2, "held": 0.75, "readings": 5, "eigenvalues": True}
    small, large = (runs.run("end", **given, regime=regime, lr=0.1) for regime in ("SB", "LB"))
    assert small["step"][[0, -1]].tolist() == [0, round(2 * 449 / 8)]
    assert large["step"][[0, -1]].tolist() == [0, round(2 * 449 / 64)]
    for name in ("largest Hessian eigenvalue", "largest Hessian eigenvalue, tempered"):
        assert np.isnan(small[name][:-1]).all()
        assert small[name][-1] > 0.0
    without = runs.run("end", **{**given, "eigenvalues": False}, regime="SB", lr=0.1)
    assert np.isnan(without["largest Hessian eigenvalue"]).all()
    assert np.array_equal(without["held-out accuracy"], small["held-out accuracy"])


def test_a_run_that_diverges_says_so(tiny):
    found = runs.run("end", **tiny, regime="SB", lr=1e4, epochs=2, held=0.75, readings=5, eigenvalues=True)
    assert found["diverged"].tolist()[-1] == 1
    assert math.isnan(found["largest Hessian eigenvalue"][-1])


def test_norms_along_training(tiny):
    given = {"data": "digits", "net": "tiny", "seed": 1}
    found = runs.run("norms", **given, lr=0.1, small=8, examples=40, vectors=400, at=[0, 2])
    data = load_data("digits", seed=1)
    run = begun(data, "tiny", "SB", 1, 0.1, 8, 8)
    each = gradients(protocol.NETWORKS["tiny"], 1, run.theta[0], data)
    fisher = each.T @ each / len(each)
    assert found["step"].tolist() == [0, 2]
    assert found["norm of F"][0] == pytest.approx(np.linalg.norm(fisher), rel=1e-4)
    assert found["norm of diag F"][0] == pytest.approx(np.linalg.norm(np.diag(fisher)), rel=1e-4)
    first = each[:40].T @ each[:40] / 40
    model = protocol.NETWORKS["tiny"](seed=1).double()
    net = Net(model, parameters_of(model), functional.cross_entropy)
    loss = partial(net.mean_loss, x=data.x[:40].double(), y=data.y[:40])
    hessian = torch.func.hessian(loss)(flatten(net.like)).numpy()
    assert found["Tr HF"][0] == pytest.approx(np.sum(hessian * first), rel=1e-3)
    assert found["Tr H diag F"][0] == pytest.approx(np.diag(hessian) @ np.diag(first), rel=0.2)
    assert found["Tr H Tr F / P"][0] == pytest.approx(np.trace(hessian) * np.trace(first) / 160, rel=0.3)


def test_costs_are_of_every_regime(tiny):
    found = runs.run("costs", **tiny, lr=0.01, repeats=2)
    assert found["regime"].tolist() == ["forward pass", *protocol.REGIMES]
    assert np.all(found["seconds"] > 0.0)


def test_mnist_from_a_file(tmp_path):
    draw = np.random.default_rng(0)
    np.savez(tmp_path / "small.npz", x=draw.integers(0, 256, (50, 28, 28)), y=draw.integers(0, 10, 50))
    for net in ("mnist mlp", "mnist lenet"):
        settings = {"net": net, "seed": 1, "regime": "LB + diagonal", "lr": 0.01, "large": 32, "small": 4, "epochs": 1}
        found = runs.run("end", data="mnist", data_root=str(tmp_path / "small.npz"), held=0.2, readings=3,
                         eigenvalues=False, **settings)  # fmt: skip
        assert np.isfinite(found["training loss"]).all()
        assert found["step"].tolist() == [0, 1]


def test_the_networks_are_those_that_the_settings_name():
    assert {net: protocol.NETWORKS[net] for net in NETS if net != "lenet"} == {
        net: build for net, build in NETS.items() if net != "lenet"
    }
    assert set(generalization.RATES) == set(generalization.SETTINGS) <= set(protocol.NETWORKS) == set(protocol.TITLES)
    assert all(set(rates) <= set(protocol.REGIMES) for rates in generalization.RATES.values())
