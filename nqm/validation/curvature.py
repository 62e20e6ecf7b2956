"""The curvature of a network's loss, exact or Kronecker-factored, with the basis in which it is diagonal.

Everything is in double precision: the gradient's share in a direction is read off where curvature is 1e-8 of the
largest, and single precision has no digits left there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad, jacrev, vjp, vmap

from .functional import Loss, Parameters, outputs, unflatten
from .kfac import inputs_at_places, slopes_at_places, tapped

METHODS = ("auto", "ggn", "hessian", "ekfac")
DENSE_LIMIT = 6000
"""Most parameters whose curvature "auto" holds as a dense matrix."""

BUFFER = 2**22  # numbers of a chunk of Jacobians: 32 MiB
MOST_EXAMPLES = 256  # at once, whatever the parameters: activations take memory as well
ROWS = 32  # of the Hessian at once


@dataclass(frozen=True, eq=False)
class Objective:
    """The mean loss over examples x (n, ...), y (n, ...), as a function of one vector (P,) of parameters.

    model: in evaluation mode, float64, on the device of x and y. like: its trained parameters, for names and shapes.
    """

    model: nn.Module
    loss: Loss
    x: Tensor
    y: Tensor
    like: Parameters

    def chunks(self, floats: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The examples in parts, where each example needs this many numbers."""
        size = max(1, min(MOST_EXAMPLES, BUFFER // max(floats, 1)))
        for first in range(0, len(self.x), size):
            yield self.x[first : first + size], self.y[first : first + size]

    def mean(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Mean loss over these examples."""
        return self.loss(outputs(self.model, unflatten(theta, self.like), x), y)

    def value(self, theta: Tensor) -> float:
        """Mean loss over all examples."""
        with torch.no_grad():
            parts = [self.mean(theta, x, y) * len(x) for x, y in self.chunks(1)]
        return float(sum(parts)) / len(self.x)

    def gradient(self, theta: Tensor) -> Tensor:
        """Gradient (P,) of the mean loss."""
        total = torch.zeros_like(theta)
        for x, y in self.chunks(1):
            total += grad(self.mean)(theta, x, y) * len(x)
        return total / len(self.x)

    def gradients(self, theta: Tensor) -> Iterator[Tensor]:
        """Gradients of single examples, in parts (b, P)."""

        def one(x: Tensor, y: Tensor) -> Tensor:
            return grad(self.mean)(theta, x.unsqueeze(0), y.unsqueeze(0))

        for x, y in self.chunks(theta.numel()):
            yield vmap(one)(x, y)

    def check(self, theta: Tensor) -> None:
        """Raise ValueError where the loss is not a mean over examples, or not finite."""
        x, y = self.x[:8], self.y[:8]
        with torch.no_grad():
            together = self.mean(theta, x, y)
            if together.ndim != 0:
                raise ValueError(f"loss: expected the mean over examples, a scalar, got shape {tuple(together.shape)}")
            alone = torch.stack([self.mean(theta, x[i : i + 1], y[i : i + 1]) for i in range(len(x))]).mean()
        if bool(torch.isfinite(alone)) and abs(float(together - alone)) > 1e-6 * abs(float(alone)) + 1e-12:
            raise ValueError(
                f"loss: expected the mean over examples, got {float(together):.6g} for {len(x)} examples whose single "
                f'losses have the mean {float(alone):.6g}; reduction="sum" or class weights?'
            )


@dataclass(frozen=True, eq=False)
class Curvature:
    """Curvatures h (P,) and their orthonormal basis: ``rotate`` takes vectors (n, P) to their coordinates V^T v."""

    values: Tensor
    rotate: Callable[[Tensor], Tensor]


def find_curvature(method: str, objective: Objective, theta: Tensor) -> Curvature:
    """The curvature by "ggn", "hessian" or "ekfac"."""
    if method == "ekfac":
        return ekfac(objective, theta)
    matrix = ggn_matrix(objective, theta) if method == "ggn" else hessian_matrix(objective, theta)
    values, vectors = torch.linalg.eigh(matrix)
    return Curvature(values, lambda rows: rows @ vectors)


def ggn_matrix(objective: Objective, theta: Tensor) -> Tensor:
    """Generalised Gauss-Newton matrix (P, P): 1/n sum_n J_n^T S_n J_n, where J_n (K, P) is the Jacobian of example n's
    outputs and S_n (K, K) the Hessian of its loss with respect to them. For cross entropy and squared loss it is the
    Fisher matrix (times a constant), and positive semidefinite (Martens, 2014)."""
    model, like = objective.model, objective.like

    def output(point: Tensor, x: Tensor) -> Tensor:
        return outputs(model, unflatten(point, like), x.unsqueeze(0)).squeeze(0)

    def of_output(z: Tensor, y: Tensor) -> Tensor:
        return objective.loss(z.unsqueeze(0), y.unsqueeze(0))

    with torch.no_grad():
        size = output(theta, objective.x[0]).numel()
    total = theta.new_zeros(theta.numel(), theta.numel())
    for x, y in objective.chunks(size * theta.numel()):
        slopes = vmap(jacrev(output), (None, 0))(theta, x).reshape(len(x), size, -1)
        z = vmap(output, (None, 0))(theta, x)
        bends = vmap(jacrev(grad(of_output)))(z, y).reshape(len(x), size, size)
        total.addmm_(slopes.flatten(0, 1).T, (bends @ slopes).flatten(0, 1))
    return (total + total.T) / (2 * len(objective.x))


def hessian_matrix(objective: Objective, theta: Tensor) -> Tensor:
    """Hessian (P, P) of the mean loss, a few rows at a time by reverse over reverse differentiation."""
    count = theta.numel()
    total = theta.new_zeros(count, count)
    for x, y in objective.chunks(ROWS * count):
        pull = vjp(partial(grad(objective.mean), x=x, y=y), theta)[1]
        for first in range(0, count, ROWS):
            last = min(first + ROWS, count)
            unit = theta.new_zeros(last - first, count)
            unit[torch.arange(last - first), torch.arange(first, last)] = 1.0
            total[first:last] += vmap(pull)(unit)[0] * (len(x) / len(objective.x))
    return (total + total.T) / 2


# --- Kronecker factors --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer, its trained parameters' names (weight, bias), the shape of its outputs for one example, and which of
    its inputs (the bias a last one, a 1) the trained parameters belong to."""

    module: nn.Module
    names: tuple[str, ...]
    shape: torch.Size
    inputs: slice


@dataclass(frozen=True, eq=False)
class _Block:
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
    sums = {name: [theta.new_zeros(()), theta.new_zeros(())] for name in layers}
    for inputs, all_slopes in _passes(objective, theta, layers, root):
        for name, a in inputs.items():
            sums[name][0] = sums[name][0] + a.flatten(0, 1).T @ a.flatten(0, 1)
        for slopes in all_slopes:
            for name, d in slopes.items():
                sums[name][1] = sums[name][1] + d.flatten(0, 1).T @ d.flatten(0, 1)
    blocks: dict[str, _Block] = {}
    for name, layer in layers.items():
        right, left = (torch.linalg.eigh(moments).eigenvectors for moments in sums[name])
        blocks[name] = _Block(layer.names, left, right)
    values = {name: theta.new_zeros(()) for name in layers}
    for inputs, all_slopes in _passes(objective, theta, layers, root):
        turned = {name: a @ blocks[name].right for name, a in inputs.items()}
        for slopes in all_slopes:
            for name, d in slopes.items():
                rows = torch.einsum("npo,npi->noi", d @ blocks[name].left, turned[name])
                values[name] = values[name] + rows.square().sum(0)
    like = objective.like

    def rotate(rows: Tensor) -> Tensor:
        parameters = unflatten(rows, like)
        return torch.cat([block.rotate(parameters) for block in blocks.values()], dim=1)

    return Curvature(torch.cat([part.flatten() for part in values.values()]) / len(objective.x), rotate)


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
            if isinstance(module, nn.Conv2d) and (module.groups != 1 or module.padding_mode != "zeros"):
                raise ValueError(
                    f'curvature "ekfac": expected Conv2d with one group and zero padding, got {name}: {module}'
                )
            whole = len(parts) == len(list(module.parameters(recurse=False)))
            found[name] = module, names, slice(None) if whole else slice(-1) if "weight" in parts else slice(-1, None)
    if others:
        raise ValueError(
            'curvature "ekfac": expected trained parameters in Linear and Conv2d layers only, got '
            f'{", ".join(others[:5])}; freeze them, or take "ggn"'
        )
    calls: dict[str, list[torch.Size]] = {name: [] for name in found}
    with ExitStack() as stack, torch.no_grad():
        for name, (module, *_) in found.items():
            hook = module.register_forward_hook(lambda _, __, result, name=name: calls[name].append(result.shape[1:]))
            stack.callback(hook.remove)
        shape = tuple(net(objective.x[:1]).shape)
    if len(shape) != 2:
        raise ValueError(f'curvature "ekfac": expected outputs of shape (n, K), got {shape} for one example')
    shared = len(trained) != sum(len(names) for _, names, _ in found.values())
    if shared or any(len(shapes) != 1 for shapes in calls.values()):
        raise ValueError('curvature "ekfac": expected each layer to be called once, with parameters of its own')
    return {name: _Layer(module, names, calls[name][0], part) for name, (module, names, part) in found.items()}
