"""Curvature in the basis of Kronecker factors, against dense factors and loops over examples and places."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_nets import basis, close, examples, find, naive_ggn, net, objective, softmax_hessians
from torch import nn

from nqm.validation import NETS, load_data
from nqm.validation.measurement import objective as objectives
from nqm.validation.measurement.curvature import ggn_matrix
from nqm.validation.measurement.measure import CUTOFF


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
