"""A module as a function of its parameters: the form in which it is measured and trained."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

__all__ = [
    "TOGETHER",
    "Loss",
    "Net",
    "Parameters",
    "drawn_from",
    "find_device",
    "flatten",
    "outputs",
    "parameters_of",
    "skeleton",
    "unflatten",
]

TOGETHER = 4096  # examples in one call, of as many runs as that makes: more would not fit into the cache
Parameters = dict[str, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]
"""loss(outputs (n, ...), targets (n, ...)): the mean over the examples, a scalar; as ``torch.nn.functional``'s."""


def parameters_of(model: nn.Module) -> Parameters:
    """Copies of the parameters that are trained, by name, in the module's order."""
    found = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    if not found:
        raise ValueError(f"model: expected parameters that require gradients, got none in {type(model).__name__}")
    return found


def flatten(parameters: Mapping[str, Tensor]) -> Tensor:
    """All parameters as one vector, in their order."""
    return torch.cat([p.reshape(-1) for p in parameters.values()])


def unflatten(vector: Tensor, like: Mapping[str, Tensor]) -> Parameters:
    """The inverse of :func:`flatten`; a leading shape of ``vector`` is kept."""
    parts = torch.split(vector, [p.numel() for p in like.values()], dim=-1)
    return {
        name: part.reshape((*vector.shape[:-1], *p.shape)) for (name, p), part in zip(like.items(), parts, strict=True)
    }


def outputs(model: nn.Module, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """What the model gives for inputs x (n, ...) with these parameters in place of its own."""
    result: Tensor = functional_call(model, dict(parameters), (x,))
    return result


def drawn_from(logits: Tensor, u: Tensor) -> Tensor:
    """Classes (...) drawn from softmax(logits) (..., K) by uniform numbers u (...); constants to every derivative."""
    steps = logits.detach().softmax(-1).cumsum(-1)
    return (u.unsqueeze(-1) > steps[..., :-1]).sum(-1)


def skeleton(model: Any) -> nn.Module:
    """A copy of the model in evaluation mode, refused where one example's gradient depends on the other examples.

    Raises TypeError for what is no module, ValueError for batch norm, and for torch's recurrent layers, which
    torch.func cannot take one example at a time.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ValueError(
                f"model: expected no batch norm, got {type(module).__name__} at {name or 'the top'!r}. With it one "
                "example's gradient depends on its batch, so that there is no noise C / B, and the loss that is "
                "trained differs from batch size to batch size. Take GroupNorm or LayerNorm, or no norm"
            )
        if isinstance(module, nn.RNNBase):
            raise ValueError(
                f"model: expected layers that torch.func can take one example at a time, got {type(module).__name__} "
                f"at {name or 'the top'!r}; write the recurrence out, of nn.Linear layers"
            )
    return copy.deepcopy(model).eval()


def find_device(name: str | torch.device | None = None) -> torch.device:
    """The named device, or CUDA where there is one, else the CPU; a ValueError where it is not there."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        there = ", ".join(["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))])
        raise ValueError(f"device: expected one that is here ({there}), got {str(name)!r}") from error
    return device


@dataclass(frozen=True, eq=False)
class Net:
    """A network and its loss as functions of flat parameters, theta (P,) of one run or thetas (R, P) of R runs.

    model: in evaluation mode, where one example's outputs do not depend on the others (:func:`skeleton`). like: its
    trained parameters, for names and shapes.
    """

    model: nn.Module
    like: Parameters
    loss: Loss
    kept: dict[Any, Any] = field(default_factory=dict, repr=False)
    """What others have found out about the module, to be kept with it."""

    @property
    def size(self) -> int:
        """Trained parameters, P."""
        return sum(p.numel() for p in self.like.values())

    def module(self, theta: Tensor) -> nn.Module:
        """A module of its own with the parameters theta (P,)."""
        model = copy.deepcopy(self.model)
        with torch.no_grad():
            for name, value in unflatten(theta, self.like).items():
                model.get_parameter(name).copy_(value)
        return model

    def outputs(self, theta: Tensor, x: Tensor) -> Tensor:
        """What the network gives for x (n, ...) at theta (P,)."""
        return outputs(self.model, unflatten(theta, self.like), x)

    def mean_loss(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Mean loss of the examples at theta (P,), a scalar."""
        return self.loss(self.outputs(theta, x), y)

    def losses(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The loss of each example at theta (P,): (n,)."""
        each: Tensor = vmap(self.loss)(self.outputs(theta, x).unsqueeze(1), y.unsqueeze(1))
        return each

    def gradients(self, thetas: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Gradients (R, P) of the runs' mean losses of their own examples x (R, B, ...), y (R, B, ...)."""
        return self.each(grad(self.mean_loss), thetas, x, y)

    def slopes(self, function: Callable[..., Tensor], thetas: Tensor, *given: Tensor) -> Tensor:
        """Gradients (R, P) by theta of ``function(theta, *given)``, a scalar, of each run, as constants; the rest as
        :meth:`each`.

        Of a single run by autograd itself, which takes a fifth less time than ``torch.func.grad``, a third less where
        the function is of gradients.
        """
        if len(thetas) > 1:
            found: Tensor = self.each(grad(function), thetas, *given)
            return found
        theta = thetas[0].detach().requires_grad_()
        with torch.enable_grad():
            value = function(theta, *(part[0] for part in given))
        if not value.requires_grad:
            return torch.zeros_like(thetas)
        return torch.autograd.grad(value, theta, materialize_grads=True)[0].unsqueeze(0)

    def each(self, function: Callable[..., Any], thetas: Tensor, *given: Tensor) -> Any:
        """``function(theta, *given)``, a tensor or a dict of them, of each run; every tensor's first axis is the run.

        Nothing may be drawn inside. Runs go side by side, as many as fit into the cache; a single one goes as it is.
        """
        if len(thetas) == 1:
            found = function(thetas[0], *(part[0] for part in given))
            if isinstance(found, Tensor):
                return found.unsqueeze(0)
            return {name: part.unsqueeze(0) for name, part in found.items()}
        examples = given[0].shape[1] if given and given[0].ndim > 1 else 1
        return vmap(function, chunk_size=max(1, TOGETHER // examples))(thetas, *given)
