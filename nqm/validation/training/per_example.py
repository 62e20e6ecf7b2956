"""Gradients of single examples without writing each one out.

A linear layer's gradient from one example is D a^T, of its inputs a and output gradients D (Goodfellow, 2015); a
convolution's is a sum of such products over places. Other layers take one backward pass per example.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, vmap

from . import kfac
from .functional import Net, flatten, unflatten

__all__ = ["mean_squares", "squared_norms"]

PER_CHUNK = 2**22  # numbers of per-example gradients at once


def mean_squares(net: Net, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """1/n sum_i g_i^2, elementwise: the diagonal of the Fisher matrix with these labels, (P,)."""

    def summed(gradients: dict[str, Tensor]) -> Tensor:
        return flatten({name: gradients[name].square().sum(0) for name in net.like})

    return _over_examples(net, theta, x, y, summed, lambda parts: torch.stack(parts).sum(0)) / len(x)


def squared_norms(net: Net, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """||g_i||^2 of each example, (n,)."""

    def norms(gradients: dict[str, Tensor]) -> Tensor:
        return torch.stack([part.flatten(1).square().sum(1) for part in gradients.values()]).sum(0)

    return _over_examples(net, theta, x, y, norms, torch.cat)


def _over_examples(
    net: Net,
    theta: Tensor,
    x: Tensor,
    y: Tensor,
    use: Callable[[dict[str, Tensor]], Tensor],
    join: Callable[[list[Tensor]], Tensor],
) -> Tensor:
    """``use`` of the gradients by parameter (n, ...), on so many examples at a time as fit, joined."""
    gradients = _by_layer(net) or _one_by_one(net)
    size = max(1, PER_CHUNK // net.size)
    parts = [use(gradients(theta, x[i : i + size], y[i : i + size])) for i in range(0, len(x), size)]
    return parts[0] if len(parts) == 1 else join(parts)


def _one_by_one(net: Net) -> Callable[[Tensor, Tensor, Tensor], dict[str, Tensor]]:
    def one(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return grad(net.mean_loss)(theta, x.unsqueeze(0), y.unsqueeze(0))

    return lambda theta, x, y: unflatten(vmap(one, (None, 0, 0))(theta, x, y), net.like)


def _by_layer(net: Net) -> Callable[[Tensor, Tensor, Tensor], dict[str, Tensor]] | None:
    """None where a layer is of another kind."""
    if "layers" not in net.kept:
        try:
            net.kept["layers"] = kfac.layers_of(net.model)
        except ValueError:
            net.kept["layers"] = None
    layers = net.kept["layers"]
    if layers is None:
        return None

    def gradients(theta: Tensor, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        parameters = unflatten(theta, net.like)
        shape = tuple(x.shape)
        if shape not in net.kept:
            net.kept[shape] = kfac.output_shapes(net.model, layers, x)

        def total(logits: Tensor) -> Tensor:
            return vmap(net.loss)(logits.unsqueeze(1), y.unsqueeze(1)).sum()

        found: dict[str, Tensor] = {}
        for name, (a, d) in kfac.layer_parts(net.model, layers, net.kept[shape], parameters, x, total).items():
            weight, bias = (f"{name}.{part}" if name else part for part in ("weight", "bias"))
            products = torch.einsum("npo,npi->noi", d, a)
            if bias in net.like:
                found[bias], products = products[..., -1], products[..., :-1]
            found[weight] = products.reshape(len(x), *net.like[weight].shape)
        return found

    return gradients
