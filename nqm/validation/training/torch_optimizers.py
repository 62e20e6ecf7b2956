"""The optimizers that are trained for real, each as one step of many runs at once.

Every tensor has the runs as its first axis: parameters and gradients are (runs, parameters), hyperparameters (runs, 1).
Conventions are torch.optim's (SGD with dampening 0, Adam with bias correction), so that one run is theirs to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .axes import Axis

__all__ = ["OPTIMIZERS", "Numbers", "TorchOptimizer", "heavy_ball"]

Numbers = dict[str, Tensor]
UpdateRule = Callable[[Tensor, Tensor, Numbers, Numbers, int], Tensor]
"""update(parameters, gradients, slots, hyperparameters, number of the step from 1) -> parameters; changes the slots."""


@dataclass(frozen=True)
class TorchOptimizer:
    """One optimizer and the box in which its hyperparameters are searched.

    space: an axis for each hyperparameter. step: one update. slots: what it carries from step to step, from zeros.
    averaged: what is evaluated is the slot "average", which starts at the parameters' start. kfac: gradients are
    preconditioned by K-FAC first (with the hyperparameter "damping").
    """

    name: str
    space: dict[str, Axis]
    step: UpdateRule = field(repr=False)
    slots: tuple[str, ...] = ()
    averaged: bool = False
    kfac: bool = False

    def begin(self, parameters: Tensor) -> Numbers:
        """The slots before the first step."""
        slots = {name: torch.zeros_like(parameters) for name in self.slots}
        return {**slots, "average": parameters.clone()} if self.averaged else slots


def _descend(theta: Tensor, gradient: Tensor, slots: Numbers, values: Numbers, number: int) -> Tensor:
    """theta' = theta - lr g."""
    return theta - values["lr"] * gradient


def heavy_ball(theta: Any, gradient: Any, velocity: Any, lr: Any, momentum: Any) -> tuple[Any, Any]:
    """theta' and v' of v' = momentum v + g, theta' = theta - lr v': of tensors, or of NumPy's arrays."""
    velocity = momentum * velocity + gradient
    return theta - lr * velocity, velocity


def _momentum(theta: Tensor, gradient: Tensor, slots: Numbers, values: Numbers, number: int) -> Tensor:
    """The heavy ball at lr = effective_lr (1 - momentum)."""
    momentum = values["momentum"]
    lr = values["effective_lr"] * (1.0 - momentum)
    result: Tensor
    result, slots["velocity"] = heavy_ball(theta, gradient, slots["velocity"], lr, momentum)
    return result


def _averaged_descent(theta: Tensor, gradient: Tensor, slots: Numbers, values: Numbers, number: int) -> Tensor:
    """theta' = theta - lr g, average' = decay average + (1 - decay) theta' (zhang2019 eq. 11)."""
    theta = theta - values["lr"] * gradient
    slots["average"] = torch.lerp(theta, slots["average"], values["decay"])
    return theta


def _adam(theta: Tensor, gradient: Tensor, slots: Numbers, values: Numbers, number: int) -> Tensor:
    """Kingma & Ba (2015), with epsilon 1e-8; momentum is their beta_1 (0 where it is not searched), decay beta_2."""
    square, decay = slots["square"], values["square_decay"]
    slots["square"] = decay * square + (1.0 - decay) * gradient**2
    if "velocity" in slots:
        momentum = values["momentum"]
        slots["velocity"] = momentum * slots["velocity"] + (1.0 - momentum) * gradient
        gradient = slots["velocity"] / (1.0 - momentum**number)
    return theta - values["lr"] * gradient / ((slots["square"] / (1.0 - decay**number)).sqrt() + 1e-8)


_RATE = Axis(3e-3, 3.0)
_MOMENTUM = Axis(0.0, 0.99, "log1m", limits=(0.0, 0.999), natural=0.0)
_DECAY = Axis(0.0, 0.995, "log1m", limits=(0.0, 0.9995), natural=0.0)
_SQUARES = Axis(0.7, 0.999, "log1m", limits=(0.0, 0.9999))
_DAMPING = Axis(1e-3, 3.0)

OPTIMIZERS: dict[str, TorchOptimizer] = {
    optimizer.name: optimizer
    for optimizer in (
        TorchOptimizer("SGD", {"lr": _RATE}, _descend),
        TorchOptimizer("momentum", {"effective_lr": _RATE, "momentum": _MOMENTUM}, _momentum, ("velocity",)),
        TorchOptimizer("SGD with EMA", {"lr": _RATE, "decay": _DECAY}, _averaged_descent, averaged=True),
        TorchOptimizer("Adam without momentum", {"lr": Axis(1e-4, 0.1), "square_decay": _SQUARES}, _adam, ("square",)),
        TorchOptimizer(
            "Adam",
            {"lr": Axis(1e-4, 0.1), "momentum": _MOMENTUM, "square_decay": _SQUARES},
            _adam,
            ("square", "velocity"),
        ),
        TorchOptimizer("K-FAC", {"lr": Axis(1e-3, 3.0), "damping": _DAMPING}, _descend, kfac=True),
        TorchOptimizer(
            "K-FAC with momentum",
            {"effective_lr": Axis(1e-3, 3.0), "damping": _DAMPING, "momentum": _MOMENTUM},
            _momentum,
            ("velocity",),
            kfac=True,
        ),
    )
}
