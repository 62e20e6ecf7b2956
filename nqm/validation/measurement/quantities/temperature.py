"""A network's temperature: what its outputs are divided by to fit other examples best (wen2020 figure 5b)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from ...training.functional import Net, flatten, parameters_of, unflatten
from .base import all_outputs

if TYPE_CHECKING:
    from ...training.task import Task

__all__ = ["check_last_layer", "fit_temperature", "rescaled"]

WIDEST = 100.0  # where all examples are put right, colder is always better


def fit_temperature(net: Net, theta: Tensor, x: Tensor, y: Tensor) -> float:
    """T of the least mean loss of outputs / T on these examples, from 1 / :data:`WIDEST` to :data:`WIDEST`.

    NaN where there are no finite outputs.
    """
    given = all_outputs(net, theta, x).double()
    if not bool(given.isfinite().all()):
        return math.nan
    limit = math.log(WIDEST)
    found = minimize_scalar(
        lambda log_t: float(net.loss(given * math.exp(-log_t), y)), bounds=(-limit, limit), method="bounded"
    )
    return math.exp(found.x)


def rescaled(net: Net, theta: Tensor, temperature: float) -> Tensor:
    """theta with weight and bias of the last layer divided by T, which divides the outputs by T."""
    parts = unflatten(theta, net.like)
    last = next(reversed(parts)).rpartition(".")[0]
    return flatten({name: p / temperature if name.rpartition(".")[0] == last else p for name, p in parts.items()})


def check_last_layer(task: Task) -> None:
    """A ValueError unless the outputs are those of the module that holds the last parameters, linear in these."""
    model = task.build(0)
    net = Net(model, parameters_of(model), task.loss)
    theta, x = flatten(net.like), task.data.x[:2]
    given, halved = (all_outputs(net, at, x) for at in (theta, rescaled(net, theta, 2.0)))
    if not torch.allclose(halved, given / 2.0, rtol=1e-4, atol=1e-6):
        last = next(reversed(net.like)).rpartition(".")[0]
        raise ValueError(f"temperature: expected outputs that are those of the last layer, got others than {last!r}'s")
