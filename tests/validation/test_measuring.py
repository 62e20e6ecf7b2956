"""Measured quadratics against loops over examples, explicit Jacobians and least squares in closed form."""

from __future__ import annotations

import copy
import json
import pickle

import matplotlib as mpl
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

import nqm  # noqa: E402
from nqm import SGD, NoisyQuadratic  # noqa: E402
from nqm.validation import NETS, load_data  # noqa: E402
from nqm.validation.measurement import curvature as curvatures  # noqa: E402
from nqm.validation.measurement import measure as measuring  # noqa: E402
from nqm.validation.measurement import objective as objectives  # noqa: E402
from nqm.validation.measurement.curvature import find_curvature, ggn_matrix, hessian_matrix  # noqa: E402
from nqm.validation.measurement.measure import CUTOFF, measure  # noqa: E402
from nqm.validation.measurement.objective import Objective  # noqa: E402
from nqm.validation.measurement.quadratic import MeasuredQuadratic, load  # noqa: E402
from nqm.validation.papers.zhang2019 import spectra as spectra_figures  # noqa: E402
from nqm.validation.training.functional import flatten, parameters_of, skeleton, unflatten  # noqa: E402

torch.set_num_threads(1)


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def examples(n=20, seed=1):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, 5, generator=draw), torch.randint(0, 3, (n,), generator=draw)


def objective(model, loss, x, y):
    double = skeleton(model).double()
    like = parameters_of(double)
    return Objective(double, loss, x.double(), y.double() if y.is_floating_point() else y, like), flatten(like)


def find(model, loss=F.cross_entropy, data=None, at=None, **options):
    return measure(model, loss, examples() if data is None else data, at, device="cpu", **options)


# --- naive references: loops, torch.autograd.grad, explicit matrices -------------------------------------------------


def naive_gradients(model, loss, x, y):
    """(n, P), one example at a time."""
    model = copy.deepcopy(model).double()
    rows = []
    for i in range(len(x)):
        value = loss(model(x[i : i + 1].double()), y[i : i + 1])
        rows.append(torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, list(model.parameters()))]))
    return torch.stack(rows)


def naive_jacobians(model, x):
    """(n, K, P), one output at a time."""
    model = copy.deepcopy(model).double()
    found = []
    for i in range(len(x)):
        z = model(x[i : i + 1].double()).reshape(-1)
        rows = [torch.autograd.grad(one, list(model.parameters()), retain_graph=True) for one in z]
        found.append(torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows]))
    return torch.stack(found)


def softmax_hessians(model, x):
    """diag(p) - p p^T, (n, K, K)."""
    p = torch.softmax(copy.deepcopy(model).double()(x.double()), 1).detach()
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


def naive_ggn(model, x):
    jacobians, bends = naive_jacobians(model, x), softmax_hessians(model, x)
    return sum(j.T @ s @ j for j, s in zip(jacobians, bends, strict=True)) / len(x)


def naive_hessian(model, loss, x, y):
    double = copy.deepcopy(model).double()
    like = parameters_of(double)

    def value(theta):
        return loss(torch.func.functional_call(double, unflatten(theta, like), (x.double(),)), y)

    return torch.autograd.functional.hessian(value, flatten(like))


def close(a, b, rtol=1e-9, atol=1e-12):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=atol)


# --- matrices --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffer", [1, 600, 2**22])
def test_ggn_is_the_sum_over_examples_however_it_is_cut(monkeypatch, buffer):
    monkeypatch.setattr(objectives, "BUFFER", buffer)
    x, y = examples()
    close(ggn_matrix(*objective(net(), F.cross_entropy, x, y)), naive_ggn(net(), x))


@pytest.mark.parametrize(("buffer", "rows"), [(1, 7), (2**22, 32)])
def test_hessian(monkeypatch, buffer, rows):
    monkeypatch.setattr(objectives, "BUFFER", buffer)
    monkeypatch.setattr(curvatures, "ROWS", rows)
    x, y = examples()
    found = hessian_matrix(*objective(net(), F.cross_entropy, x, y))
    close(found, naive_hessian(net(), F.cross_entropy, x, y))


def test_ggn_of_any_loss():
    """Of a loss torch does not know: log cosh, whose output Hessian is diag(1 / cosh^2) / K."""

    def logcosh(z, y):
        return torch.log(torch.cosh(z - y)).mean()

    x, _ = examples()
    y = torch.randn(20, 3, generator=torch.Generator().manual_seed(2))
    jacobians, z = naive_jacobians(net(), x), copy.deepcopy(net()).double()(x.double()).detach()
    bends = torch.cosh(z - y.double()) ** -2 / 3
    expected = sum(j.T @ (s[:, None] * j) for j, s in zip(jacobians, bends, strict=True)) / 20
    close(ggn_matrix(*objective(net(), logcosh, x, y)), expected)
    assert find(net(), logcosh, (x, y)).provenance["loss"] == "logcosh"


def test_outputs_of_any_shape():
    """A sequence of outputs for each example: cross entropy over (n, K, places)."""
    torch.manual_seed(0)
    model = nn.Conv1d(2, 3, 2)
    x, y = torch.randn(6, 2, 4), torch.randint(0, 3, (6, 3))
    jacobians = naive_jacobians(model, x)  # (n, 3 * 3, P), outputs as (K, places)
    p = torch.softmax(copy.deepcopy(model).double()(x.double()), 1).detach()
    expected = 0
    for j, q in zip(jacobians, p, strict=True):
        j = j.reshape(3, 3, -1)
        for place in range(3):
            s = torch.diag(q[:, place]) - torch.outer(q[:, place], q[:, place])
            expected = expected + j[:, place].T @ s @ j[:, place] / 3 / 6
    close(ggn_matrix(*objective(model, F.cross_entropy, x, y)), expected)


# --- Kronecker factors -----------------------------------------------------------------------------------------------


def basis(method, model, loss, x, y):
    found = find_curvature(method, *objective(model, loss, x, y))
    return found.values, found.rotate(torch.eye(found.values.numel(), dtype=torch.float64))


def naive_kronecker(model, x):
    """Sorted v^T GGN v over the Kronecker products of the factors' eigenvectors, layer by layer."""
    model = copy.deepcopy(model).double()
    first, second = model[0], model[2]
    ggn, bends = naive_ggn(model, x), softmax_hessians(model, x)
    hidden = torch.tanh(first(x.double())).detach()
    to_hidden = [second.weight.detach() * (1 - a**2) for a in hidden]  # dz / d(first layer's outputs)
    ones = torch.ones(len(x), 1, dtype=torch.float64)
    values, start = [], 0
    for inputs, slopes, (rows, columns) in (
        (x.double(), to_hidden, (4, 5)),
        (hidden, [torch.eye(3, dtype=torch.float64)] * len(x), (3, 4)),
    ):
        a = torch.cat([inputs, ones], 1)
        left = torch.linalg.eigh(sum(j.T @ s @ j for j, s in zip(slopes, bends, strict=True)) / len(x)).eigenvectors
        right = torch.linalg.eigh(a.T @ a / len(x)).eigenvectors
        size = rows * (columns + 1)
        block = ggn[start : start + size, start : start + size]
        for i in range(rows):
            for j in range(columns + 1):
                v = torch.outer(left[:, i], right[:, j])
                v = torch.cat([v[:, :-1].reshape(-1), v[:, -1]])
                values.append(float(v @ block @ v))
        start += size
    return np.sort(values)[::-1]


@pytest.mark.parametrize("most", [7, 256])
def test_ekfac_against_dense_factors(monkeypatch, most):
    monkeypatch.setattr(objectives, "MOST_EXAMPLES", most)
    x, y = examples()
    expected = naive_kronecker(net(), x)
    values, _ = basis("ekfac", net(), F.cross_entropy, x, y)
    close(np.sort(values.numpy())[::-1], expected)
    expected = expected[expected > CUTOFF * expected[0]]
    close(find(net(), curvature="ekfac").curvature, expected)


def small_conv(bias=True):
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(2, 3, 2, bias=bias, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3, bias=bias), nn.Tanh()
    )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("loss", [F.cross_entropy, F.mse_loss])
def test_ekfac_is_the_diagonal_in_an_orthonormal_basis(bias, loss):
    """Weights shared by places of an image; and that squared loss is averaged over the outputs too."""
    torch.manual_seed(4)
    x = torch.randn(9, 2, 4, 4)
    y = torch.randint(0, 3, (9,)) if loss is F.cross_entropy else torch.randn(9, 3)
    values, turn = basis("ekfac", small_conv(bias), loss, x, y)
    ggn = ggn_matrix(*objective(small_conv(bias), loss, x, y))
    close(turn.T @ turn, np.eye(len(turn)), atol=1e-10)
    close(values, torch.diagonal(turn.T @ ggn @ turn), atol=1e-11)
    close(values.sum(), torch.trace(ggn))


def naive_factors(conv, rest, x):
    """Second moments of a first convolution's patches (with a 1), and of its output gradients: a loop over examples and
    places, zeros around the image written out."""
    conv, rest = copy.deepcopy(conv).double(), copy.deepcopy(rest).double()
    s = conv(x.double()).detach()
    _, _, high, wide = s.shape
    jacobians = [torch.autograd.functional.jacobian(lambda one: rest(one.unsqueeze(0))[0], each) for each in s]
    bends = softmax_hessians(nn.Sequential(conv, rest), x)
    (kh, kw), (dh, dw), (sh, sw) = conv.kernel_size, conv.dilation, conv.stride
    around = {"same": (dh * (kh - 1) // 2, dw * (kw - 1) // 2), "valid": (0, 0)}
    top, left = around.get(conv.padding, conv.padding)
    canvas = torch.zeros(*x.shape[:2], 40, 40, dtype=torch.float64)
    canvas[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x
    first, second = 0.0, 0.0
    for n in range(len(x)):
        for i in range(high):
            for j in range(wide):
                rows = [[i * sh + a * dh, j * sw + b * dw] for a in range(kh) for b in range(kw)]
                patch = torch.stack([canvas[n, c, r, q] for c in range(x.shape[1]) for r, q in rows])
                patch = torch.cat([patch, torch.ones(1, dtype=torch.float64)])
                first = first + torch.outer(patch, patch)
                slope = jacobians[n][:, :, i, j]
                second = second + slope.T @ bends[n] @ slope
    return first, second


@pytest.mark.parametrize(
    "how",
    [
        {"padding": 1, "stride": 2},
        {"padding": (0, 2), "dilation": (2, 1)},
        {"padding": "valid"},
        {"padding": "same", "kernel_size": 3},
        pytest.param({"padding": "same", "kernel_size": (2, 3), "dilation": (1, 2)}, marks=pytest.mark.filterwarnings(
            "ignore:Using padding='same' with even kernel")),  # torch's own
    ],
    ids=str,
)  # fmt: skip
def test_ekfac_basis_of_a_convolution_against_loops(how):
    """In the basis of the first layer both factors are diagonal, and curvatures are those of the dense matrix."""
    torch.manual_seed(5)
    conv = nn.Conv2d(2, 3, **{"kernel_size": 2, **how})
    draw = torch.Generator().manual_seed(6)
    x, y = torch.randn(4, 2, 4, 5, generator=draw), torch.randint(0, 3, (4,), generator=draw)
    model = nn.Sequential(conv, nn.Tanh(), nn.Flatten(), nn.Linear(conv(x)[0].numel(), 3))
    model[3].requires_grad_(False)
    values, turn = basis("ekfac", model, F.cross_entropy, x, y)
    close(values, torch.diagonal(turn.T @ ggn_matrix(*objective(model, F.cross_entropy, x, y)) @ turn), atol=1e-12)
    size = conv.weight[0].numel() + 1
    weights, bias = turn[: 3 * (size - 1)].reshape(3, size - 1, -1), turn[3 * (size - 1) :].reshape(3, 1, -1)
    v = torch.cat([weights, bias], 1)  # (out, in + 1, direction): the outer product of two eigenvectors
    inputs, slopes = naive_factors(conv, model[1:], x)
    for turned in (torch.einsum("oik,oj,jil->kl", v, slopes, v),
                   torch.einsum("oik,ij,ojl->kl", v, inputs, v)):  # fmt: skip
        close(turned - torch.diag(torch.diagonal(turned)), np.zeros((3 * size, 3 * size)), atol=1e-9 * turned.max())


@pytest.mark.parametrize(
    "name", ["cnn", *(pytest.param(net, marks=pytest.mark.thorough) for net in ("mlp", "resnet8"))]
)
def test_ekfac_of_the_networks_of_the_ladder(name):
    """Residual connections, strides and pooling: v^T G v with the dense matrix in all 2,146 to 5,058 directions."""
    data = load_data("digits")
    model, x, y = NETS[name](data.shape, data.classes), data.x[:40], data.y[:40]
    values, turn = basis("ekfac", model, F.cross_entropy, x, y)
    ggn = ggn_matrix(*objective(model, F.cross_entropy, x, y))
    close(values, (turn * (ggn @ turn)).sum(0), rtol=1e-9, atol=1e-13 * float(values.max()))
    close(values.sum(), torch.trace(ggn))


@pytest.mark.parametrize(("frozen", "left"), [("weight", 4 + 15), ("bias", 20 + 15)])
def test_ekfac_with_frozen_parts(frozen, left):
    model = net()
    getattr(model[0], frozen).requires_grad_(False)
    x, y = examples()
    values, turn = basis("ekfac", model, F.cross_entropy, x, y)
    assert len(values) == left
    close(values, torch.diagonal(turn.T @ ggn_matrix(*objective(model, F.cross_entropy, x, y)) @ turn), atol=1e-11)


class Odd(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 5)
        self.scale = nn.Parameter(torch.ones(1), requires_grad=how == "other")
        self.how = how
        if how == "tied":
            self.b.weight = self.a.weight

    def forward(self, x):
        if self.how == "twice":
            return self.b(self.a(self.a(x)))
        out = self.b(self.a(x)) * self.scale
        return out.unsqueeze(1) if self.how == "shape" else out


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("twice", "called once"),
        ("tied", "own"),
        ("other", "got scale; freeze"),
        ("shape", r"outputs of shape \(n, K\)"),
    ],
)
def test_ekfac_refuses_what_it_would_get_wrong(how, words):
    x, _ = examples()
    y = torch.zeros(20, 1, 5) if how == "shape" else torch.zeros(20, 5)
    with pytest.raises(ValueError, match=words):
        find(Odd(how), F.mse_loss, (x, y), curvature="ekfac")


def test_ekfac_refuses_other_losses_and_convolutions():
    with pytest.raises(ValueError, match=r"cross_entropy, mse_loss.*got l1_loss"):
        find(net(), F.l1_loss, (examples()[0], torch.zeros(20, 3)), curvature="ekfac")
    grouped = nn.Sequential(nn.Conv2d(2, 2, 2, groups=2), nn.Flatten())
    with pytest.raises(ValueError, match="one group and zero padding"):
        find(grouped, F.mse_loss, (torch.randn(4, 2, 3, 3), torch.zeros(4, 8)), curvature="ekfac")


def test_label_smoothing_leaves_ekfac_curvature_alone():
    smooth = find(net(), nn.CrossEntropyLoss(label_smoothing=0.1), curvature="ekfac")
    close(smooth.curvature, find(net(), nn.CrossEntropyLoss(), curvature="ekfac").curvature)


# --- the measured quadratic ------------------------------------------------------------------------------------------


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


# --- inputs ----------------------------------------------------------------------------------------------------------


def test_examples_are_drawn_without_replacement(monkeypatch):
    full, again = find(net()), find(net(), examples=20, seed=7)
    close(again.curvature, full.curvature)
    seen = []
    real = measuring.find_curvature
    monkeypatch.setattr(measuring, "find_curvature", lambda m, o, t: seen.append(o.x) or real(m, o, t))
    for seed in (1, 1, 2):
        find(net(), examples=9, seed=seed)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    assert len(torch.unique(seen[0], dim=0)) == 9


def test_at_takes_modules_and_mappings_and_changes_nothing():
    start, there = net(0), net(1)
    before = [copy.deepcopy(m.state_dict()) for m in (start, there)]
    found = [find(start, at=at) for at in (there, there.state_dict(), parameters_of(there), there.double())]
    assert all(np.array_equal(one.curvature, found[0].curvature) for one in found)
    for model, kept in zip((start, there), before, strict=True):
        assert all(torch.equal(model.state_dict()[name], value) for name, value in kept.items())
        assert all(p.grad is None for p in model.parameters())


def test_dropout_is_off():
    model = nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.Linear(4, 3))
    assert np.array_equal(find(model).curvature, find(model).curvature)
    assert model.training


def test_auto_takes_ekfac_beyond_the_limit(monkeypatch):
    assert find(net()).provenance["curvature"] == "ggn"
    monkeypatch.setattr(measuring, "DENSE_LIMIT", 38)
    assert find(net()).provenance["curvature"] == "ekfac"


def test_bad_inputs():
    x, y = examples()
    good = net()
    names = {"0.weight", "0.bias", "2.weight", "2.bias"}
    state = good.state_dict()
    assert set(state) == names
    nan = {name: torch.full_like(value, torch.nan) for name, value in state.items()}
    cases = [
        (TypeError, "torch.nn.Module", lambda: find("net")),
        (ValueError, "no batch norm", lambda: find(nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3)))),
        (ValueError, "expected one of auto, ggn, hessian, ekfac, got 'kfac'", lambda: find(good, curvature="kfac")),
        (ValueError, "empty loader", lambda: find(good, data=[])),
        (TypeError, "data: expected", lambda: find(good, data=3)),
        (ValueError, "device: expected one that is here", lambda: measure(good, F.cross_entropy, (x, y), device="abc")),
        (ValueError, "at least 2 and at most the 20", lambda: find(good, examples=21)),
        (ValueError, "at least 2 and at most the 20", lambda: find(good, examples=1)),
        (ValueError, "at least 2 and at most the 1 ", lambda: find(good, data=(x[:1], y[:1]))),
        (TypeError, "whole number", lambda: find(good, examples=2.5)),
        (TypeError, "whole number", lambda: find(good, examples=True)),
        (ValueError, "got no '2.bias'", lambda: find(good, at={k: v for k, v in state.items() if k != "2.bias"})),
        (ValueError, "got 'more' as well", lambda: find(good, at={**state, "more": x})),
        (
            ValueError,
            r"shape \(3,\) for '2.bias', got \(4,\)",
            lambda: find(good, at={**state, "2.bias": torch.ones(4)}),
        ),
        (ValueError, "got no", lambda: find(good, at=nn.Linear(5, 3))),
        (TypeError, "expected a tensor", lambda: find(good, at={**state, "2.bias": 1.0})),
        (TypeError, "at: expected a module", lambda: find(good, at=1.0)),
        (ValueError, "at: expected a finite loss there, got nan", lambda: find(good, at=nan)),
        (ValueError, "mean over examples, a scalar", lambda: find(good, lambda z, t: z.sum(1))),
        (ValueError, 'reduction="sum"', lambda: find(good, lambda z, t: F.cross_entropy(z, t, reduction="sum"))),
        (ValueError, "positive curvature", lambda: find(good, lambda z, t: z.mean())),
    ]
    for kind, words, call in cases:
        with pytest.raises(kind, match=words):
            call()
    broken = net()
    broken.load_state_dict(nan)
    with pytest.raises(ValueError, match="the start: expected a finite loss"):
        find(broken)

    def rooted(z, t):  # finite, with an infinite slope at 0
        return (z.square().sum(1) * 0.0).sqrt().mean() + z.square().mean()

    with pytest.raises(ValueError, match="the start: expected a finite gradient"):
        find(good, rooted)


def test_gradient_must_fit():
    numbers = {"loss_at": 1.0, "loss_start": 1.0, "noise_scale": 1.0, "noise_scale_start": 1.0, "provenance": {}}
    for gradient in ([1.0], [1.0, np.nan]):
        with pytest.raises(ValueError, match="gradient: expected 2 finite numbers"):
            MeasuredQuadratic([1.0, 2.0], [1.0, 1.0], [1.0, 1.0], gradient=gradient, **numbers)


# --- figures ---------------------------------------------------------------------------------------------------------


def test_figures():
    x, y = examples()
    checkpoints = {10: net(1), 0: net(0).state_dict()}
    spectra = spectra_figures.compute_spectra(net(), F.cross_entropy, (x, y), checkpoints, device="cpu")
    for step, at in checkpoints.items():
        found = find(net(), at=at, curvature="ekfac")
        here = spectra["step"] == step
        assert np.array_equal(spectra["curvature"][here], found.curvature)
        assert np.array_equal(spectra["index"][here], np.arange(1, found.dim + 1))
    variance = spectra_figures.compute_variance(found)
    close(variance["second_moment"], found.noise + found.gradient**2)
    law = spectra_figures.compute_power_law(found)
    assert law["inverse"][9] == pytest.approx(found.curvature[9])
    assert np.sum(np.isfinite(law["fitted"])) == found.power_law_fit().nodes
    for data, plot in (
        (spectra, spectra_figures.plot_spectra),
        (variance, spectra_figures.plot_variance),
        (law, spectra_figures.plot_power_law),
    ):
        assert len({len(column) for column in data.values()}) == 1
        picture = plot(data)
        picture.canvas.draw()
        assert all(ax.get_lines() for ax in picture.axes)
    darkness = [
        sum(mpl.colors.to_rgb(line.get_color())) for line in spectra_figures.plot_spectra(spectra).axes[0].lines
    ]
    assert darkness == sorted(darkness)  # the later, the brighter
    with pytest.raises(ValueError, match="at least one step"):
        spectra_figures.compute_spectra(net(), F.cross_entropy, (x, y), {})


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
