"""Gradients of single examples, their squares and norms, without writing each gradient out where that can be helped.

A linear layer's gradient from one example is D a^T, of its inputs a and output gradients D, and its square D^2 (a^2)^T
(Goodfellow, 2015); a convolution's is a sum of such products over places. Networks with other layers, or with one that
is used twice, take one backward pass per example.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from . import kfac
from .functional import Net, Parameters, flatten, unflatten

__all__ = ["gradients", "mean_squares", "moments", "squared_norms"]

PER_CHUNK = 2**22  # numbers of per-example gradients at once
SAME = 1e-3  # of a gradient's largest number: above rounding in single precision, far below a forgotten share

Layers = dict[str, nn.Module]
Parts = dict[str, tuple[Tensor, Tensor]]
"""Layer -> inputs a (n, places, inputs [+ 1]) and output gradients D (n, places, outputs)."""


def moments(net: Net, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """1/n sum_i g_i and 1/n sum_i g_i^2, elementwise: (2, P), of one backward pass."""

    def of_layer(a: Tensor, d: Tensor) -> Tensor:
        if a.shape[1] == 1:
            a, d = a[:, 0], d[:, 0]
            return torch.stack([d.T @ a, d.square().T @ a.square()])
        return both(_products(a, d))

    def both(each: Tensor) -> Tensor:
        return torch.stack([each.sum(0), each.square().sum(0)])

    def summed(x: Tensor, y: Tensor) -> Tensor:
        parts = _parts(net, theta, x, y)
        if parts is None:
            return both(_one_by_one(net, theta, x, y))
        return _flattened(net, {name: of_layer(*part) for name, part in parts.items()})

    sums = _in_chunks(net, x, y, summed)
    return sum(sums[1:], start=sums[0]) / len(x)


def mean_squares(net: Net, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """1/n sum_i g_i^2, elementwise: the diagonal of the Fisher matrix with these labels, (P,)."""
    return moments(net, theta, x, y)[1]


def squared_norms(net: Net, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """||g_i||^2 of each example, (n,)."""

    def of_layer(a: Tensor, d: Tensor) -> Tensor:
        if a.shape[1] == 1:
            return d.square().sum((1, 2)) * a.square().sum((1, 2))
        return _products(a, d).square().sum((1, 2))

    def norms(x: Tensor, y: Tensor) -> Tensor:
        parts = _parts(net, theta, x, y)
        if parts is None:
            return _one_by_one(net, theta, x, y).square().sum(1)
        return torch.stack([of_layer(*part) for part in parts.values()]).sum(0)

    return torch.cat(_in_chunks(net, x, y, norms))


def gradients(net: Net, theta: Tensor, x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """g_i of each example, in as many parts (b, P) as memory asks for."""
    size = _chunk(net)
    for first in range(0, len(x), size):
        some, labels = x[first : first + size], y[first : first + size]
        parts = _parts(net, theta, some, labels)
        if parts is None:
            yield _one_by_one(net, theta, some, labels)
        else:
            yield _flattened(net, {name: _products(*part) for name, part in parts.items()})


def _chunk(net: Net) -> int:
    """Examples at once."""
    return max(1, PER_CHUNK // net.size)


def _in_chunks(net: Net, x: Tensor, y: Tensor, use: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
    size = _chunk(net)
    return [use(x[first : first + size], y[first : first + size]) for first in range(0, len(x), size)]


def _one_by_one(net: Net, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Gradients (n, P), by a backward pass each."""

    def one(x: Tensor, y: Tensor) -> Tensor:
        return grad(net.mean_loss)(theta, x.unsqueeze(0), y.unsqueeze(0))

    found: Tensor = vmap(one)(x, y)
    return found


def _parts(net: Net, theta: Tensor, x: Tensor, y: Tensor) -> Parts | None:
    """What the layers' gradients are made of; None where they do not make up the network's."""
    if "layers" not in net.kept:
        net.kept["layers"] = _find_layers(net, x)
    layers, shape = net.kept["layers"], tuple(x.shape)
    if layers is None:
        return None
    if shape not in net.kept:
        net.kept[shape] = kfac.output_shapes(net.model, layers, x)

    def total(given: Tensor) -> Tensor:
        return vmap(net.loss)(given.unsqueeze(1), y.unsqueeze(1)).sum()

    return kfac.layer_parts(net.model, layers, net.kept[shape], unflatten(theta, net.like), x, total)


def _products(a: Tensor, d: Tensor) -> Tensor:
    """Each example's D a^T, summed over places: (n, outputs, inputs [+ 1])."""
    return torch.einsum("npo,npi->noi", d, a)


def _flattened(net: Net, matrices: dict[str, Tensor]) -> Tensor:
    """The layers' matrices (..., outputs, inputs [+ 1]) as vectors (..., P) of weights and biases."""
    found: Parameters = {}
    for name, matrix in matrices.items():
        weight, bias = (f"{name}.{part}" if name else part for part in ("weight", "bias"))
        if bias in net.like:
            found[bias], matrix = matrix[..., -1], matrix[..., :-1]
        found[weight] = matrix.flatten(-2)
    return torch.cat([found[name] for name in net.like], dim=-1)


def _find_layers(net: Net, x: Tensor) -> Layers | None:
    """The layers, or None where their parts do not make up the network's gradient: where one is of another kind, is
    used twice or not at all, or lends its weight to another. Tried on made-up inputs of x's shape."""
    made, theta = _made_up(x[:2]), flatten(net.like).to(x.device)

    def total(given: Tensor) -> Tensor:
        return (given * _made_up(given)).sum()

    try:
        layers = kfac.layers_of(net.model)
        shapes = kfac.output_shapes(net.model, layers, made)
        parts = kfac.layer_parts(net.model, layers, shapes, unflatten(theta, net.like), made, total)
        found = _flattened(net, {name: _products(*part).sum(0) for name, part in parts.items()})
    except (KeyError, RuntimeError, ValueError):
        return None
    whole = grad(lambda theta: total(net.outputs(theta, made)))(theta)
    alone = all(len(a) == len(made) for a, _ in parts.values())
    return layers if alone and bool((found - whole).abs().max() <= SAME * whole.abs().max()) else None


def _made_up(like: Tensor) -> Tensor:
    """Numbers between -1 and 1 without a pattern, drawn by nobody."""
    places = torch.arange(like.numel(), dtype=torch.float64, device=like.device)
    return (12.9898 * (places + 1.0)).sin().to(like.dtype).reshape(like.shape)
