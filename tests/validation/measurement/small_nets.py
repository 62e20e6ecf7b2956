"""A small network and its examples, and naive curvature: loops, torch.autograd.grad, explicit matrices."""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from nqm.validation.measurement.curvature import find_curvature
from nqm.validation.measurement.measure import measure
from nqm.validation.measurement.objective import Objective
from nqm.validation.training.functional import flatten, parameters_of, skeleton


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


def close(a, b, rtol=1e-9, atol=1e-12):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=atol)


def basis(method, model, loss, x, y):
    found = find_curvature(method, *objective(model, loss, x, y))
    return found.values, found.rotate(torch.eye(found.values.numel(), dtype=torch.float64))
