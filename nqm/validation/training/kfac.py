"""K-FAC for many runs at once: Kronecker factors of the Fisher matrix and the step they precondition.

A layer's outputs are s = W a (bias: a last input of 1), so its gradient is D a^T with D = dloss/ds, and with the
factors A = E[a a^T] and G = E[D D^T] its block of the Fisher is about A (x) G (zhang2019 appendix A). Convolutions are
linear layers shared by all places of an image: A sums over places, G averages (Grosse & Martens, 2016).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn import functional

from .functional import TOGETHER, Parameters, drawn_from, outputs

__all__ = [
    "FACTOR_EXAMPLES",
    "Factors",
    "factors_of",
    "inputs_at_places",
    "inverses",
    "layer_parts",
    "layers_of",
    "many_factors",
    "output_shapes",
    "precondition",
    "slopes_at_places",
    "tapped",
]

FACTOR_EXAMPLES = 256  # of which factors are taken
Factors = dict[str, tuple[Tensor, Tensor]]
"""Layer -> (A, G): (inputs [+ 1], same), (outputs, same)."""


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that hold the trained parameters; a ValueError where one is neither linear nor a plain convolution."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if not any(p.requires_grad for p in module.parameters(recurse=False)):
            continue
        plain = isinstance(module, nn.Conv2d) and module.groups == 1 and module.padding_mode == "zeros"
        if not (isinstance(module, nn.Linear) or plain):
            raise ValueError(
                f"K-FAC: expected parameters in Linear and (ungrouped, zero-padded) Conv2d layers only, got "
                f"{type(module).__name__} at {name!r}"
            )
        frozen = [part for part, p in module.named_parameters(recurse=False) if not p.requires_grad]
        if frozen:
            raise ValueError(f"K-FAC: expected layers that are trained whole, got a frozen {frozen[0]} at {name!r}")
        found[name] = module
    own = {id(p) for module in found.values() for p in module.parameters(recurse=False)}
    if len(own) < sum(len(list(module.parameters(recurse=False))) for module in found.values()):
        raise ValueError("K-FAC: expected parameters that belong to one layer each, got tied ones")
    return found


@contextmanager
def tapped(layers: dict[str, nn.Module], shifts: dict[str, Tensor], inputs: dict[str, Tensor]) -> Iterator[None]:
    """Record what goes into each layer and add ``shifts`` to what comes out, where they are given."""

    def tap(name: str) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def hook(module: nn.Module, arguments: Any, result: Tensor) -> Tensor:
            if name in inputs:
                raise ValueError(f"K-FAC: expected each layer to be used once, got {name!r} used again")
            inputs[name] = arguments[0]
            return result + shifts[name] if shifts else result

        return hook

    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(tap(name)).remove)
        yield


def output_shapes(model: nn.Module, layers: dict[str, nn.Module], x: Tensor) -> dict[str, torch.Size]:
    """Shapes of what comes out of the layers for inputs x."""
    shapes: dict[str, torch.Size] = {}
    with ExitStack() as stack, torch.no_grad():
        for name, layer in layers.items():

            def note(module: nn.Module, arguments: Any, result: Tensor, name: str = name) -> None:
                shapes[name] = result.shape

            stack.callback(layer.register_forward_hook(note).remove)
        model(x)
    return shapes


def inputs_at_places(layer: nn.Module, inputs: Tensor) -> Tensor:
    """What each place's outputs are linear in, (n, places, inputs [+ 1]): an image's patches, and a 1 for the bias."""
    if isinstance(layer, nn.Conv2d):
        around: tuple[int, ...] = (0, 0)
        if layer.padding == "same":  # its odd one goes to the end
            ends = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
            inputs = functional.pad(inputs, [ends[1] // 2, -(-ends[1] // 2), ends[0] // 2, -(-ends[0] // 2)])
        elif not isinstance(layer.padding, str):
            around = layer.padding
        inputs = functional.unfold(inputs, layer.kernel_size, layer.dilation, around, layer.stride).transpose(1, 2)
    else:
        inputs = inputs.reshape(len(inputs), -1, inputs.shape[-1])
    if layer.bias is not None:
        inputs = torch.cat([inputs, torch.ones_like(inputs[..., :1])], dim=-1)
    return inputs


def slopes_at_places(layer: nn.Module, slopes: Tensor) -> Tensor:
    """Output gradients of each place, (n, places, outputs)."""
    if isinstance(layer, nn.Conv2d):
        return slopes.flatten(2).transpose(1, 2)
    return slopes.reshape(len(slopes), -1, slopes.shape[-1])


def layer_parts(
    model: nn.Module,
    layers: dict[str, nn.Module],
    shapes: dict[str, torch.Size],
    parameters: Parameters,
    x: Tensor,
    total: Callable[[Tensor], Tensor],
) -> dict[str, tuple[Tensor, Tensor]]:
    """Inputs (n, places, inputs [+ 1]) and output gradients (n, places, outputs) of each layer, for the examples'
    summed loss ``total`` of the network's outputs. shapes: of the layers' outputs for x."""

    def shifted(shifts: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        inputs: dict[str, Tensor] = {}
        with tapped(layers, shifts, inputs):
            given = outputs(model, parameters, x)
        return total(given), inputs

    shifts = {name: torch.zeros(shape, dtype=x.dtype, device=x.device) for name, shape in shapes.items()}
    slopes, inputs = grad(shifted, has_aux=True)(shifts)
    return {
        name: (inputs_at_places(layer, inputs[name]), slopes_at_places(layer, slopes[name]))
        for name, layer in layers.items()
    }


def factors_of(model: nn.Module, x_like: Tensor, drawn: bool = True) -> Callable[[Parameters, Tensor, Tensor], Factors]:
    """The function (parameters, x (n, ...), u (n,)) -> factors at these parameters, for classes under cross entropy.

    The Fisher is the model's own: labels are drawn from its probabilities, by the uniform numbers u; or, not ``drawn``,
    the empirical one, with u as the labels. ``x_like``: inputs of the n examples' shape.
    """
    layers = layers_of(model)
    shapes = output_shapes(model, layers, x_like)

    def factors(parameters: Parameters, x: Tensor, u: Tensor) -> Factors:
        def total(logits: Tensor) -> Tensor:
            labels = drawn_from(logits, u) if drawn else u
            return functional.cross_entropy(logits, labels, reduction="sum")

        found: Factors = {}
        for name, (a, d) in layer_parts(model, layers, shapes, parameters, x, total).items():
            n, places = a.shape[0], a.shape[1]
            found[name] = (
                torch.einsum("npi,npj->ij", a, a) / n,
                torch.einsum("npi,npj->ij", d, d) / (n * places),
            )
        return found

    return factors


def inverses(factors: Factors, damping: Tensor) -> Factors:
    """Inverses of the damped factors, A + pi sqrt(damping) I and G + sqrt(damping) / pi I with
    pi^2 = (tr A / dim A) / (tr G / dim G) (Martens & Grosse, 2015, section 6.3). Leading axes are runs."""
    found: Factors = {}
    for name, (a, g) in factors.items():
        mean_a, mean_g = (m.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(1e-30) for m in (a, g))
        pi, root = (mean_a / mean_g).sqrt(), damping.sqrt()
        found[name] = _inverse(a, pi * root), _inverse(g, root / pi)
    return found


def _inverse(matrix: Tensor, shift: Tensor) -> Tensor:
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    damped = matrix + shift[..., None, None] * identity
    lower, failed = torch.linalg.cholesky_ex(damped)
    sound = ((failed == 0) & damped.isfinite().all(-1).all(-1))[..., None, None]
    inverse = torch.cholesky_inverse(torch.where(sound, lower, identity))
    return torch.where(sound, inverse, torch.nan)  # the others have diverged


def precondition(gradient: Parameters, inverse: Factors) -> Parameters:
    """G^-1 (gradient of W) A^-1 for each layer; leading axes are runs."""
    result = dict(gradient)
    for name, (a, g) in inverse.items():
        weight = f"{name}.weight" if name else "weight"
        bias = f"{name}.bias" if name else "bias"
        shape = gradient[weight].shape
        slope = gradient[weight].reshape(*a.shape[:-2], g.shape[-1], -1)
        if bias in gradient:
            slope = torch.cat([slope, gradient[bias].unsqueeze(-1)], dim=-1)
        step = g @ slope @ a
        if bias in gradient:
            result[bias], step = step[..., -1], step[..., :-1]
        result[weight] = step.reshape(shape)
    return result


def many_factors(model: nn.Module, x_like: Tensor) -> Callable[[Parameters, Tensor, Tensor], Factors]:
    """:func:`factors_of` for many runs at once: every argument with the runs as first axis."""
    return vmap(factors_of(model, x_like), chunk_size=max(1, TOGETHER // len(x_like)))
