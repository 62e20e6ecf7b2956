"""A module as a function of its parameters: the form in which it is measured and trained."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

__all__ = ["Loss", "Parameters", "find_device", "flatten", "outputs", "parameters_of", "skeleton", "unflatten"]

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
