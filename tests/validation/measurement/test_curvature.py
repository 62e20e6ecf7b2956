"""Curvature matrices against explicit Jacobians, example by example."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from small_nets import close, examples, find, naive_ggn, naive_jacobians, net, objective
from torch import nn

from nqm.validation.measurement import curvature as curvatures
from nqm.validation.measurement import objective as objectives
from nqm.validation.measurement.curvature import ggn_matrix, hessian_matrix
from nqm.validation.training.functional import flatten, parameters_of, unflatten


def naive_hessian(model, loss, x, y):
    double = copy.deepcopy(model).double()
    like = parameters_of(double)

    def value(theta):
        return loss(torch.func.functional_call(double, unflatten(theta, like), (x.double(),)), y)

    return torch.autograd.functional.hessian(value, flatten(like))


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
