"""A real network as a noisy quadratic: curvature, gradient noise and start, measured in one basis."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn

from ..training.data import Data, as_examples
from ..training.functional import Loss, Parameters, find_device, flatten, parameters_of, skeleton
from .curvature import DENSE_LIMIT, METHODS, find_curvature
from .objective import Curvature, Objective
from .quadratic import MeasuredQuadratic

__all__ = ["CUTOFF", "measure"]

CUTOFF = 1e-8
"""Directions with h at or below this share of the largest |h| are dropped (see :func:`measure`)."""


def measure(
    model: nn.Module,
    loss: Loss,
    data: Any,
    at: nn.Module | Mapping[str, Tensor] | None = None,
    *,
    curvature: str = "auto",
    examples: int | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> MeasuredQuadratic:
    """The noisy quadratic that stands for training ``model`` on ``data``.

    At theta_at, with curvature matrix A = V diag(h) V^T of the mean loss, per-example gradients g_n and their mean G:

        h_i,   c_i = mean_n (v_i . g_n)^2 - (v_i . G)^2,   g_i = v_i . G,
        s_i = v_i . (theta_start - theta_at) + g_i / h_i,  init_i = s_i^2,

    where s is the start's displacement from the quadratic's minimum theta_at - A^-1 G (zhang2019 section 3.5 assumes
    h_i = 1/i, c = h, s_i^2 = 1). With ``at=None`` it is the Newton displacement of the start itself.

    Directions with h_i <= 1e-8 max |h| are dropped, as a quadratic needs h > 0. For the Gauss-Newton matrix of cross
    entropy or squared loss that loses next to nothing: g_i^2 <= h_i D with D = mean_n r_n . S_n^+ r_n (residuals r_n,
    output Hessians S_n; Cauchy-Schwarz), so where h_i vanishes g_i does. What float64 leaves of them is rounding:
    eigenvalues are off by about 1e-14 h_1, and g_i by 1e-14 h_1 / h_i of its bound, so 1e-6 of it at the cutoff; an
    optimizer within its stability limit lr < 2 / h_1 would need 5e7 steps to move there. Neither holds for the Hessian:
    its negative curvatures and their gradient are lost, and its small positive ones put the floor far down.
    The provenance tells the number dropped and their shares of sum |h|, of |G|^2 and of tr(C).

    noise_growth compares how much tr(C) rises from ``at`` to the middle between it and the start with what it would by
    least squares on Gaussian features, tr(C) = (label noise + 2 L) tr(H) + |G|^2. (To the start itself it may fall
    again: a network that knows nothing has small gradients.) Without ``at`` it is 1; where tr(C) or the loss does not
    rise, NaN.

    Args:
        model: its trained parameters are the start; dropout is switched off, as in evaluation mode.
        loss: loss(outputs (n, ...), targets (n, ...)), the mean over examples, in units of loss.
        data: :class:`Data`, a pair of tensors (x, y), or an iterable of batches; its training examples.
        at: where to measure: None (the start), a module of the same architecture, or tensors by parameter name, such
            as a ``state_dict``. Frozen parameters and buffers are the model's own.
        curvature: "ggn": generalised Gauss-Newton, exact and dense; "hessian": exact and dense; "ekfac":
            its diagonal in a Kronecker-factored basis (:func:`nqm.validation.measurement.ekfac.ekfac`), for larger
            networks; "auto": "ggn" up to 6,000 parameters (a minute or two), else "ekfac".
        examples: measure on so many, drawn without replacement with ``seed``; None: on all.
        device: such as "cuda"; None: a GPU where there is one. All is computed in float64.

    Raises:
        TypeError: for what is no module, no data, or examples that are no whole number.
        ValueError: for batch norm, an empty loader, fewer than 2 examples or more than there are, unknown names, a
            device that is not here, parameters of ``at`` that do not match, a loss or gradient that is not finite, a
            loss that is no mean over examples, curvature that is nowhere positive.

    >>> x = torch.tensor([[2.0], [0.0], [1.0], [-1.0]])
    >>> line = nn.Linear(1, 1, bias=False)
    >>> with torch.no_grad():
    ...     _ = line.weight.fill_(5.0)
    >>> measured = measure(line, nn.functional.mse_loss, (x, 3.0 * x + 1.0), device="cpu")
    >>> measured.curvature, measured.init.round(6), round(measured.floor, 6)  # h = 2 mean x^2, minimum at 10/3
    (array([3.]), array([2.777778]), 0.833333)
    """
    if curvature not in METHODS:
        raise ValueError(f"curvature: expected one of {', '.join(METHODS)}, got {curvature!r}")
    net = skeleton(model).to(find_device(device), torch.float64)
    start = parameters_of(net)
    point = start if at is None else _matched(at, net, start)
    x, y, available = _drawn(data, examples, seed)
    where = next(iter(start.values())).device
    objective = Objective(net, loss, _double(x, where), _double(y, where), start)
    theta_start, theta = flatten(start), flatten(point)
    objective.check(theta_start)

    loss_start, gradient_start = _finite(objective, theta_start, "the start")
    loss_at, gradient = (loss_start, gradient_start) if at is None else _finite(objective, theta, "at")
    method = curvature if curvature != "auto" else "ggn" if theta.numel() <= DENSE_LIMIT else "ekfac"
    h, rotate = _positive(find_curvature(method, objective, theta), method)
    g, moved = rotate(torch.stack([gradient, theta_start - theta]))
    c, spread = _noise(objective, theta, gradient, rotate)
    spread_start = spread if at is None else _noise(objective, theta_start, gradient_start)[1]
    order = torch.argsort(h, descending=True, stable=True)
    kept = order[h[order] > CUTOFF * h.abs().max()]
    provenance = {
        "model": type(model).__name__,
        "parameters": theta.numel(),
        "loss": getattr(loss, "__name__", type(loss).__name__),
        "data": data.name if isinstance(data, Data) else type(data).__name__,
        "examples": len(x),
        "available": available,
        "seed": None if examples is None else seed,
        "at": "the start" if at is None else "given",
        "curvature": method,
        "dropped": _dropped(kept, h, g, c),
        "dtype": "float64",
        "device": str(where),
        "versions": {name: _version(name) for name in ("nqm", "torch")},
    }
    init = (moved[kept] + g[kept] / h[kept]).square()
    growth = 1.0 if at is None else _growth(objective, theta, theta_start, float(h[kept].sum()))
    return MeasuredQuadratic(
        *(part.cpu().numpy() for part in (h[kept], c[kept], init)),
        gradient=g[kept].cpu().numpy(),
        loss_at=loss_at,
        loss_start=loss_start,
        noise_scale=_noise_scale(spread, gradient),
        noise_scale_start=_noise_scale(spread_start, gradient_start),
        noise_growth=growth,
        provenance=provenance,
    )


def _positive(found: Curvature, method: str) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    if not bool(found.values.max() > 0.0):
        largest = float(found.values.max())
        raise ValueError(f"model: expected some positive curvature, got at most {largest:.3g} ({method})")
    return found.values, found.rotate


def _noise(
    objective: Objective, theta: Tensor, gradient: Tensor, rotate: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, float]:
    """Variance of single examples' gradients in each direction (none without a basis), and tr(C)."""
    count, spread = len(objective.x), 0.0
    variance = torch.zeros_like(theta)
    for part in objective.gradients(theta):
        centred = part - gradient
        spread += float(centred.square().sum()) / count
        if rotate is not None:
            variance += rotate(centred).square().sum(0) / count
    return variance, spread


def _growth(objective: Objective, theta: Tensor, start: Tensor, trace: float) -> float:
    """Rise of tr(C) from theta half way to the start, over 2 (rise of the loss) tr(H) + rise of |G|^2."""

    def numbers(point: Tensor) -> tuple[float, float]:
        loss, gradient = _finite(objective, point, "half way to the start")
        return _noise(objective, point, gradient)[1], 2.0 * loss * trace + float(gradient.square().sum())

    (spread, expected), (low, least) = numbers(theta + 0.5 * (start - theta)), numbers(theta)
    return (spread - low) / (expected - least) if spread > low and expected > least else math.nan


def _dropped(kept: Tensor, h: Tensor, g: Tensor, c: Tensor) -> dict[str, Any]:
    """What is lost with the directions that are not kept."""
    lost = torch.ones_like(h, dtype=torch.bool)
    lost[kept] = False
    return {
        "directions": int(lost.sum()),
        "cutoff": CUTOFF,
        "negative": int((h < -CUTOFF * h.abs().max()).sum()),
        "of curvature": _share(h.abs(), lost),
        "of gradient": _share(g.square(), lost),
        "of noise": _share(c, lost),
    }


def _matched(at: Any, net: nn.Module, start: Parameters) -> Parameters:
    """The parameters ``at`` holds, checked against the model's."""
    if isinstance(at, nn.Module):
        found: Mapping[str, Any] = dict(at.named_parameters())
    elif isinstance(at, Mapping):
        found = at
    else:
        raise TypeError(f"at: expected a module, tensors by parameter name, or None, got {type(at).__name__}")
    missing = [name for name in start if name not in found]
    known = {*net.state_dict(), *dict(net.named_parameters())}
    unknown = [str(name) for name in found if name not in known]
    if missing or unknown:
        problem = f"no {missing[0]!r}" if missing else f"{unknown[0]!r} as well"
        raise ValueError(f"at: expected the model's parameters ({', '.join(start)}), got {problem}")
    for name, own in start.items():
        if not isinstance(found[name], Tensor):
            raise TypeError(f"at: expected a tensor for {name!r}, got {type(found[name]).__name__}")
        if found[name].shape != own.shape:
            raise ValueError(f"at: expected shape {tuple(own.shape)} for {name!r}, got {tuple(found[name].shape)}")
    return {name: found[name].detach().to(own) for name, own in start.items()}


def _drawn(data: Any, examples: Any, seed: int) -> tuple[Tensor, Tensor, int]:
    """The examples to measure on, and how many there are in all."""
    x, y = as_examples(data)
    if examples is not None and (isinstance(examples, bool) or not isinstance(examples, int)):
        raise TypeError(f"examples: expected a whole number or None, got {type(examples).__name__}")
    count = len(x) if examples is None else examples
    if not 2 <= count <= len(x):
        raise ValueError(f"examples: expected at least 2 and at most the {len(x)} there are, got {count}")
    if examples is not None:
        chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:count].to(x.device)
        return x[chosen], y[chosen.to(y.device)], len(x)
    return x, y, len(x)


def _double(part: Tensor, where: torch.device) -> Tensor:
    part = part.detach().to(where)
    return part.double() if part.is_floating_point() else part


def _finite(objective: Objective, theta: Tensor, name: str) -> tuple[float, Tensor]:
    """Loss and gradient, refused where they are not finite."""
    value = objective.value(theta)
    if not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite loss there, got {value}; had training diverged?")
    gradient = objective.gradient(theta)
    if not bool(torch.isfinite(gradient).all()):
        raise ValueError(f"{name}: expected a finite gradient there, got NaN or infinity")
    return value, gradient


def _share(amounts: Tensor, chosen: Tensor) -> float:
    whole = float(amounts.sum())
    return float(amounts[chosen].sum()) / whole if whole > 0.0 else 0.0


def _noise_scale(variance: float, gradient: Tensor) -> float:
    """tr(C) / |G|^2."""
    squared = float(gradient.square().sum())
    return variance / squared if squared > 0.0 else math.inf


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
