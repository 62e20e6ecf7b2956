"""Curvature in a Kronecker-factored basis, for networks whose matrix is too large to hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vjp

from ..training.functional import Loss, outputs, unflatten
from ..training.kfac import inputs_at_places, slopes_at_places, tapped
from .objective import Curvature, Objective

__all__ = ["ekfac"]


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer, its trained parameters' names (weight, bias), the shape of its outputs for one example, and which of
    its inputs (the bias a last one, a 1) the trained parameters belong to."""

    module: nn.Module
    names: tuple[str, ...]
    shape: torch.Size
    inputs: slice


@dataclass(frozen=True, eq=False)
class _KroneckerBasis:
    """One layer's basis: directions left[:, i] right[:, j]^T of the weights (out, in), the bias their last column."""

    names: tuple[str, ...]
    left: Tensor
    right: Tensor

    def rotate(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Coordinates (n, out * in) of stacked parameters (n, out, ...)."""
        parts = [parameters[name] for name in self.names]
        matrix = torch.cat([part.reshape(*part.shape[:2], -1) for part in parts], dim=2)
        return (self.left.T @ matrix @ self.right).flatten(1)


def ekfac(objective: Objective, theta: Tensor) -> Curvature:
    """Eigenvalue-corrected K-FAC (George et al., 2018) of the generalised Gauss-Newton matrix G.

    With inputs a_p (a last one, 1, for the bias) and outputs s_p of a layer at place p (of an image; a linear layer has
    one), and R R^T the Hessian of the loss with respect to the network's outputs z, G is the mean over examples of
    sum_k J_k J_k^T, where J_k = sum_p d_kp a_p^T and d_kp = d(R[:, k] . z) / d s_p.

    Layer by layer, the basis is the Kronecker product of the eigenvectors of sum_p a_p a_p^T and of sum_kp d_kp d_kp^T,
    both summed over examples (Martens & Grosse, 2015; Grosse & Martens, 2016). Curvatures are the diagonal of G in
    that basis, v^T G v, exact, with no sampled labels; what G has off the diagonal is left out.

    Raises ValueError for losses other than cross entropy and squared loss, layers other than Linear and Conv2d, layers
    called more than once and outputs that are not (n, K).
    """
    root = _output_root(objective.loss)
    layers = _layers(objective)
    bases = _bases(objective, theta, layers, root)
    values = {name: theta.new_zeros(()) for name in layers}
    for inputs, all_slopes in _passes(objective, theta, layers, root):
        turned = {name: a @ bases[name].right for name, a in inputs.items()}
        for slopes in all_slopes:
            for name, d in slopes.items():
                rows = torch.einsum("npo,npi->noi", d @ bases[name].left, turned[name])
                values[name] = values[name] + rows.square().sum(0)
    like = objective.like

    def rotate(rows: Tensor) -> Tensor:
        parameters = unflatten(rows, like)
        return torch.cat([basis.rotate(parameters) for basis in bases.values()], dim=1)

    return Curvature(torch.cat([part.flatten() for part in values.values()]) / len(objective.x), rotate)


def _bases(
    objective: Objective, theta: Tensor, layers: Mapping[str, _Layer], root: Callable[[Tensor], Tensor]
) -> dict[str, _KroneckerBasis]:
    """Each layer's eigenvectors of its inputs' and of its output gradients' second moments."""
    sums = {name: [theta.new_zeros(()), theta.new_zeros(())] for name in layers}
    for inputs, all_slopes in _passes(objective, theta, layers, root):
        for name, a in inputs.items():
            sums[name][0] = sums[name][0] + a.flatten(0, 1).T @ a.flatten(0, 1)
        for slopes in all_slopes:
            for name, d in slopes.items():
                sums[name][1] = sums[name][1] + d.flatten(0, 1).T @ d.flatten(0, 1)
    bases: dict[str, _KroneckerBasis] = {}
    for name, layer in layers.items():
        right, left = (torch.linalg.eigh(moments).eigenvectors for moments in sums[name])
        bases[name] = _KroneckerBasis(layer.names, left, right)
    return bases


def _passes(
    objective: Objective, theta: Tensor, layers: Mapping[str, _Layer], root: Callable[[Tensor], Tensor]
) -> Iterator[tuple[dict[str, Tensor], Iterator[dict[str, Tensor]]]]:
    """For each part of the examples the layers' inputs a (b, places, in), and for each k their output gradients d_k
    (b, places, out)."""
    modules = {name: layer.module for name, layer in layers.items()}
    parameters = unflatten(theta, objective.like)

    def forward(shifts: dict[str, Tensor], x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        inputs: dict[str, Tensor] = {}
        with tapped(modules, shifts, inputs):
            return outputs(objective.model, parameters, x), inputs

    def slopes_of(pull: Callable[..., Any], columns: Tensor) -> Iterator[dict[str, Tensor]]:
        for column in columns.unbind(2):
            (slopes,) = pull(column)
            yield {name: slopes_at_places(module, slopes[name]) for name, module in modules.items()}

    for x, _ in objective.chunks(theta.numel()):
        shifts = {name: theta.new_zeros(len(x), *layer.shape) for name, layer in layers.items()}
        pulled: Any = vjp(partial(forward, x=x), shifts, has_aux=True)  # three, where torch's types say two
        z, pull, inputs = pulled
        found = {n: inputs_at_places(layer.module, inputs[n])[..., layer.inputs] for n, layer in layers.items()}
        yield found, slopes_of(pull, root(z))


def _output_root(loss: Loss) -> Callable[[Tensor], Tensor]:
    """The function z (n, K) -> R (n, K, K), with R R^T the Hessian of an example's loss with respect to its outputs;
    neither labels nor their smoothing change it."""
    if loss is nn.functional.cross_entropy or (isinstance(loss, nn.CrossEntropyLoss) and loss.weight is None):

        def root(z: Tensor) -> Tensor:  # of diag(p) - p p^T
            p = z.softmax(1)
            return torch.diag_embed(p.sqrt()) - p.unsqueeze(2) * p.sqrt().unsqueeze(1)

        return root
    if loss is nn.functional.mse_loss or isinstance(loss, nn.MSELoss):  # a mean over the outputs as well
        return lambda z: torch.diag_embed(torch.full_like(z, math.sqrt(2.0 / z.shape[1])))
    name = getattr(loss, "__name__", type(loss).__name__)
    raise ValueError(
        'curvature "ekfac": expected torch.nn.functional.cross_entropy, mse_loss, or CrossEntropyLoss or MSELoss '
        f'without weights, got {name}; "ggn" takes any loss'
    )


def _layers(objective: Objective) -> dict[str, _Layer]:
    """The layers that hold the trained parameters; what Kronecker factors would get wrong without a word is refused."""
    net = objective.model
    trained = {id(p) for name, p in net.named_parameters() if name in objective.like}
    found: dict[str, tuple[nn.Module, tuple[str, ...], slice]] = {}
    others: list[str] = []
    for name, module in net.named_modules():
        parts = [part for part, p in module.named_parameters(recurse=False) if id(p) in trained]
        names = tuple(f"{name}.{part}" if name else part for part in parts)
        if parts and type(module) not in (nn.Linear, nn.Conv2d):
            others += names
        elif parts:
            _check_plain(name, module)
            found[name] = module, names, _trained_inputs(module, parts)
    if others:
        raise ValueError(
            'curvature "ekfac": expected trained parameters in Linear and Conv2d layers only, got '
            f'{", ".join(others[:5])}; freeze them, or take "ggn"'
        )
    calls = _output_shapes(net, {name: module for name, (module, *_) in found.items()}, objective.x[:1])
    shared = len(trained) != sum(len(names) for _, names, _ in found.values())
    if shared or any(len(shapes) != 1 for shapes in calls.values()):
        raise ValueError('curvature "ekfac": expected each layer to be called once, with parameters of its own')
    return {name: _Layer(module, names, calls[name][0], part) for name, (module, names, part) in found.items()}


def _check_plain(name: str, module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d) and (module.groups != 1 or module.padding_mode != "zeros"):
        raise ValueError(f'curvature "ekfac": expected Conv2d with one group and zero padding, got {name}: {module}')


def _trained_inputs(module: nn.Module, parts: Sequence[str]) -> slice:
    """All inputs of the layer, or only those of its weight, or only the bias's 1."""
    if len(parts) == len(list(module.parameters(recurse=False))):
        return slice(None)
    return slice(-1) if "weight" in parts else slice(-1, None)


def _output_shapes(net: nn.Module, layers: Mapping[str, nn.Module], x: Tensor) -> dict[str, list[torch.Size]]:
    """Shapes of each layer's outputs for one example, one for each time it is called."""
    calls: dict[str, list[torch.Size]] = {name: [] for name in layers}
    with ExitStack() as stack, torch.no_grad():
        for name, module in layers.items():
            hook = module.register_forward_hook(lambda _, __, result, name=name: calls[name].append(result.shape[1:]))
            stack.callback(hook.remove)
        shape = tuple(net(x).shape)
    if len(shape) != 2:
        raise ValueError(f'curvature "ekfac": expected outputs of shape (n, K), got {shape} for one example')
    return calls
