"""The curvature of a network's loss, exact or Kronecker-factored, with the basis in which it is diagonal.

Everything is in double precision: the gradient's share in a direction is read off where curvature is 1e-8 of the
largest, and single precision has no digits left there.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad, jacrev, vjp, vmap

from .functional import Loss, Parameters, outputs, unflatten

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
class _Block:
    """One layer's basis: directions left[:, i] right[:, j]^T of the weights (out, in), the bias their last column."""

    names: tuple[str, ...]
    left: Tensor
    right: Tensor | None
    values: Tensor

    def rotate(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Coordinates (n, out * in) of stacked parameters (n, out, ...)."""
        parts = [parameters[name] for name in self.names]
        matrix = torch.cat([part.reshape(*part.shape[:2], -1) for part in parts], dim=2)
        turned = self.left.T @ matrix
        return (turned if self.right is None else turned @ self.right).flatten(1)


def ekfac(objective: Objective, theta: Tensor) -> Curvature:
    """Eigenvalue-corrected K-FAC (George et al., 2018) of the generalised Gauss-Newton matrix G, by curvlinops.

    Layer by layer, the basis is the Kronecker product of the eigenvectors of two factors: the second moments of the
    layer's inputs (with a 1 for the bias) and of its output gradients. Curvatures are the diagonal of G in that basis,
    v^T G v, exact; what G has off the diagonal is left out.

    Raises ValueError for losses other than cross entropy and squared loss, layers other than Linear and Conv2d, layers
    called more than once and outputs that are not (n, K); RuntimeError where curvlinops is not installed.
    """
    EKFACLinearOperator, FisherType = _curvlinops()
    loss = _known_loss(objective.loss)
    net = copy.deepcopy(objective.model)
    trained = {name: p for name, p in net.named_parameters() if name in objective.like}
    with torch.no_grad():
        for name, value in unflatten(theta, objective.like).items():
            trained[name].copy_(value)
    _check_layers(net, trained, objective.x[:1])
    params = list(trained.values())
    operator = EKFACLinearOperator(
        net,
        loss,
        params,
        list(objective.chunks(theta.numel())),
        check_deterministic=False,
        fisher_type=FisherType.TYPE2,  # the outputs' exact Hessian, no sampled labels
        num_per_example_loss_terms=1,
        separate_weight_and_bias=False,
        num_data=len(objective.x),
    )
    _ = operator.trace  # computes what state_dict holds
    state = operator.state_dict()
    mapping = EKFACLinearOperator.compute_parameter_mapping(params, net)
    names = list(trained)
    blocks: list[_Block] = []
    for layer, values in state["corrected_eigenvalues"].items():
        left = state["gradient_covariances_eigenvectors"][layer]
        right = state["input_covariances_eigenvectors"].get(layer)
        places = mapping[layer]
        if isinstance(values, dict):  # a weight or a bias alone
            for kind, place in places.items():
                beside = right if kind == "weight" else None
                blocks.append(_Block((names[place],), left, beside, values[place].detach()))
        else:
            both = names[places["weight"]], names[places["bias"]]
            blocks.append(_Block(both, left, right, values.detach()))
    like = objective.like

    def rotate(rows: Tensor) -> Tensor:
        parameters = unflatten(rows, like)
        return torch.cat([block.rotate(parameters) for block in blocks], dim=1)

    return Curvature(torch.cat([block.values.reshape(-1) for block in blocks]), rotate)


def _curvlinops() -> tuple[Any, Any]:
    """Its EKFAC, imported late: a dense measurement does without."""
    try:
        with warnings.catch_warnings():  # a package beneath it compiles with torch.jit.script, which warns once
            warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
            from curvlinops import EKFACLinearOperator, FisherType
    except ImportError as error:
        raise RuntimeError("curvature 'ekfac' needs curvlinops: pip install 'nqm[validation]'") from error
    return EKFACLinearOperator, FisherType


def _known_loss(loss: Loss) -> nn.Module:
    """The loss as curvlinops knows it; label smoothing does not change the Hessian with respect to the outputs."""
    if loss is nn.functional.cross_entropy or (isinstance(loss, nn.CrossEntropyLoss) and loss.weight is None):
        return nn.CrossEntropyLoss()
    if loss is nn.functional.mse_loss or isinstance(loss, nn.MSELoss):
        return nn.MSELoss()
    name = getattr(loss, "__name__", type(loss).__name__)
    raise ValueError(
        'curvature "ekfac": expected torch.nn.functional.cross_entropy, mse_loss, or CrossEntropyLoss or MSELoss '
        f'without weights, got {name}; "ggn" takes any loss'
    )


def _check_layers(net: nn.Module, trained: Mapping[str, Tensor], x: Tensor) -> None:
    """Refuse what Kronecker factors would get wrong without a word."""
    known: dict[str, nn.Module] = {}
    for layer, module in net.named_modules():
        if type(module) in (nn.Linear, nn.Conv2d):
            known.update({f"{layer}.{name}" if layer else name: module for name, _ in module.named_parameters()})
            if isinstance(module, nn.Conv2d) and (module.groups != 1 or module.padding_mode != "zeros"):
                raise ValueError(
                    f'curvature "ekfac": expected Conv2d with one group and zero padding, got {layer}: {module}'
                )
    others = [name for name in trained if name not in known]
    if others:
        raise ValueError(
            'curvature "ekfac": expected trained parameters in Linear and Conv2d layers only, got '
            f'{", ".join(others[:5])}; freeze them, or take "ggn"'
        )
    ours = {id(p) for p in trained.values()}
    layers = {module for module in known.values() if any(id(p) in ours for p in module.parameters())}
    calls = dict.fromkeys(layers, 0)

    def count(module: nn.Module, *_: Any) -> None:
        calls[module] += 1

    hooks = [module.register_forward_hook(count) for module in layers]
    try:
        with torch.no_grad():
            shape = tuple(net(x).shape)
    finally:
        for hook in hooks:
            hook.remove()
    if len(shape) != 2:
        raise ValueError(f'curvature "ekfac": expected outputs of shape (n, K), got {shape} for one example')
    shared = len(ours) != sum(id(p) in ours for module in layers for p in module.parameters())
    if set(calls.values()) != {1} or shared:
        raise ValueError('curvature "ekfac": expected each layer to be called once, with parameters of its own')
