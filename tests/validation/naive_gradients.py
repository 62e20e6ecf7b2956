"""Networks of some dozens of parameters in double precision; their gradients by torch.autograd, one at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nqm.validation import Data
from nqm.validation.measurement.objective import Objective
from nqm.validation.training.functional import Net, flatten, parameters_of


class Twice(nn.Module):
    """A layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(torch.tanh(self.first(x)))))


class Lent(Twice):
    """A layer that lends its weight to another."""

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(F.linear(torch.tanh(self.first(x)), self.first.weight.T)))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.Tanh(), nn.Conv2d(2, 3, 2, bias=False), nn.Flatten(),
        nn.Linear(3, 3),
    )  # fmt: skip


def norm() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 4), nn.GroupNorm(2, 4), nn.Tanh(), nn.Linear(4, 3))


BY_LAYER = {"mlp": mlp, "conv": conv}
ONE_BY_ONE = {"norm": norm, "twice": Twice, "lent": Lent}
NETS = {**BY_LAYER, **ONE_BY_ONE}


def data_of(n: int = 12, shape: tuple[int, ...] = (6,)) -> Data:
    """Three classes, the held-out part as large."""
    make = torch.Generator().manual_seed(1)
    x, held = (torch.randn(n, *shape, generator=make, dtype=torch.float64) for _ in range(2))
    labels = [torch.randint(3, (n,), generator=make) for _ in range(2)]
    return Data("naive", x, labels[0], held, labels[1])


def setting(name: str = "mlp", n: int = 12) -> tuple[Net, Tensor, Data]:
    """A network, its parameters, and examples."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = NETS[name]().double().eval()
    like = parameters_of(model)
    return Net(model, like, F.cross_entropy), 1.5 * flatten(like), data_of(n, (1, 4, 4) if name == "conv" else (6,))


def gradient(net: Net, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Of the mean loss, (P,)."""
    model = net.module(theta)
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(net.loss(model(x), y), list(model.parameters()))])


def gradients(net: Net, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Of each example's loss, (n, P)."""
    return torch.stack([gradient(net, theta, x[i : i + 1], y[i : i + 1]) for i in range(len(x))])


def fisher(net: Net, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """1/n sum_i g_i g_i^T, (P, P)."""
    found = gradients(net, theta, x, y)
    return found.T @ found / len(x)


def probabilities(net: Net, theta: Tensor, x: Tensor) -> Tensor:
    """The model's, (n, classes)."""
    return net.module(theta)(x).detach().softmax(1)


def true_fisher(net: Net, theta: Tensor, x: Tensor) -> Tensor:
    """1/n sum_i sum_y p(y|x_i) g g^T, (P, P)."""
    total, p = torch.zeros(len(theta), len(theta), dtype=theta.dtype), probabilities(net, theta, x)
    for label in range(p.shape[1]):
        found = gradients(net, theta, x, torch.full((len(x),), label))
        total += (p[:, label, None] * found).T @ found / len(x)
    return total


def objective(net: Net, x: Tensor, y: Tensor) -> Objective:
    """For the dense matrices of :mod:`nqm.validation.measurement.curvature`."""
    return Objective(net.model, net.loss, x, y, net.like)
