"""What is trained, and to which targets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .data import Data, digest_of
from .functional import Loss, Parameters, find_device, flatten, outputs, parameters_of, skeleton, unflatten
from .kfac import FACTOR_EXAMPLES

__all__ = ["EXPLODED", "Task"]

METRICS = ("training loss", "training error", "held-out loss", "held-out error")
EXPLODED = 10.0  # times the loss before the first step: such a run has diverged


@dataclass(frozen=True, eq=False)
class Task:
    """What is trained, and to which targets.

    net: a module whose parameters every run starts from, or a function of a keyword ``seed`` that builds one.
    data: examples, and held-out ones. loss: as torch.nn.functional's. targets: for each metric ("training loss",
    "training error", "held-out loss", "held-out error") the value to reach; the first metric decides. name: for tables
    and files. device: None for CUDA where there is one. evaluated: so many examples of each part, the first ones, are
    what metrics are taken of, again and again along each run; None: all.
    """

    net: nn.Module | Callable[..., nn.Module]
    data: Data
    loss: Loss
    targets: Mapping[str, float]
    name: str = "net"
    device: str | None = None
    evaluated: int | None = 256

    def __post_init__(self) -> None:
        find_device(self.device)
        if not isinstance(self.data, Data):
            raise TypeError(
                f"data: expected nqm.validation.Data (Data.from_loaders makes it), got {type(self.data).__name__}"
            )
        _check_targets(self.targets)
        if self.evaluated is not None and (not isinstance(self.evaluated, int) or self.evaluated < 1):
            raise ValueError(f"evaluated: expected a whole number of at least 1 or None, got {self.evaluated!r}")
        model = self.build(0)
        _check_no_dropout(model)
        self._check_loss(model)
        if any(metric.endswith("error") for metric in self.targets):
            self.check_classes(model)
        if not isinstance(self.net, nn.Module):
            _check_same_untrained(self.build(0), self.build(1))

    def _check_loss(self, model: nn.Module) -> None:
        """The network and the loss on two examples, and all labels, to say now what does not fit."""
        x, y = self.data.x[:2], self.data.y[:2]
        with torch.no_grad():
            with _telling(x, y):
                given = model(x)
            if _takes_classes(self.loss, given, y):
                _check_labels(self.data, given.shape[1])
            with _telling(x, y):
                found = self.loss(given, y)
            singles = [self.loss(model(x[i : i + 1]), y[i : i + 1]) for i in range(len(x))]
        if not isinstance(found, Tensor) or found.shape != ():
            raise ValueError(f"loss: expected a scalar, the mean over the examples, got {found!r:.80}")
        mean = float(torch.stack(singles).mean())
        if math.isfinite(mean) and not math.isclose(float(found), mean, rel_tol=1e-3, abs_tol=1e-6):
            raise ValueError(
                f"loss: expected the mean over the examples, got {float(found):.6g} for two whose mean is {mean:.6g} "
                "(a sum, class weights, or outputs and targets of different shapes?)"
            )

    def check_classes(self, model: nn.Module) -> None:
        """A ValueError unless outputs are one number for each class and targets are numbers of these classes."""
        with torch.no_grad():
            given = model(self.data.x[:2])
        if given.ndim != 2 or given.shape[1] < 2 or self.data.y.ndim != 1 or self.data.y.is_floating_point():
            raise ValueError(
                "expected outputs (n, classes) and whole numbers (n,) as targets, which errors, K-FAC, traces of F and "
                f"penalties by drawn labels take, got outputs {tuple(given.shape)} and targets "
                f"{tuple(self.data.y[:2].shape)} of {self.data.y.dtype}"
            )
        _check_labels(self.data, given.shape[1])

    def build(self, seed: int) -> nn.Module:
        """The network at the start of the run with this seed.

        Raises TypeError for what is neither a module nor a function of a keyword ``seed`` that gives one, ValueError
        for batch norm and recurrent layers.
        """
        if isinstance(self.net, nn.Module):
            return skeleton(self.net)
        try:
            built = self.net(seed=seed)
        except TypeError as error:
            raise TypeError(f"net: expected a module or a function of a keyword 'seed', got {error}") from error
        return skeleton(built)

    def metrics(self, model: nn.Module, like: Parameters, theta: Tensor, data: Data) -> dict[str, Tensor]:
        """The metrics that have targets, and the training loss, of the model at parameters theta (P,), whose names and
        shapes are those of ``like``; data: the task's, on the device of theta."""
        found = {}
        parts = {"training": (data.x, data.y), "held-out": (data.x_held, data.y_held)}
        for part, (x, y) in parts.items():
            wanted = [m for m in METRICS if m.startswith(part) and (m in self.targets or m == "training loss")]
            if not wanted:
                continue
            given = outputs(model, unflatten(theta, like), x[: self.evaluated])
            for metric in wanted:
                if metric.endswith("loss"):
                    found[metric] = self.loss(given, y[: self.evaluated])
                else:
                    found[metric] = (given.argmax(-1) != y[: self.evaluated]).to(theta.dtype).mean()
        return found

    def read(self, model: nn.Module) -> dict[str, float]:
        """The metrics of a network that have targets, and the training loss, as they are read along a run."""
        own = parameters_of(model)
        data = self.data.to(next(iter(own.values())).device)
        with torch.no_grad():
            found = self.metrics(model, own, flatten(own), data)
        return {metric: float(value) for metric, value in found.items()}

    def fingerprint(self) -> dict[str, Any]:
        """What the numbers depend on, for a results file to know its own."""
        model = self.build(0)
        with torch.no_grad():
            given = model(self.data.x[:16])
            losses = torch.stack([self.loss(given[i : i + 1], self.data.y[i : i + 1]) for i in range(len(given))])
        protocol = {
            "evaluated": self.evaluated, "kfac examples": FACTOR_EXAMPLES, "exploded": EXPLODED, "reading": 0.1,
        }  # fmt: skip
        return {
            "name": self.name,
            "model": repr(model),
            "start": digest_of(parameters_of(model).values()),
            "data": self.data.name,
            "examples": self.data.digest,
            "untrained": digest_of(_untrained(model).values()),
            "losses of the start": [float(f"{loss:.4g}") for loss in losses.double().tolist()],
            "targets": dict(self.targets),
            "protocol": protocol,
        }


def _check_targets(targets: Any) -> None:
    if not isinstance(targets, Mapping):
        raise TypeError(f"targets: expected a dict such as {{'training loss': 0.1}}, got {targets!r}")
    if not targets:
        raise ValueError(f"targets: expected at least one of {', '.join(METRICS)}, got none")
    for metric, target in targets.items():
        if metric not in METRICS:
            raise ValueError(f"targets: expected metrics among {', '.join(METRICS)}, got {metric!r}")
        if not (isinstance(target, int | float) and 0.0 < target < math.inf):
            raise ValueError(f"targets: expected a positive number for {metric!r}, got {target!r}")


@contextmanager
def _telling(x: Tensor, y: Tensor) -> Iterator[None]:
    """What torch raises, with what the network and the loss were given."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ValueError(
            f"net, loss: expected them to take inputs {tuple(x.shape)} of {x.dtype} and targets "
            f"{tuple(y.shape)} of {y.dtype}, got {type(error).__name__}: {error}"
        ) from error


def _takes_classes(loss: Loss, given: Any, y: Tensor) -> bool:
    """Whether targets are class numbers to the loss: then it refuses one beyond the outputs (n, classes)."""
    if not isinstance(given, Tensor) or given.ndim != 2 or given.shape[1] < 2:
        return False
    if y.ndim != 1 or y.is_floating_point():
        return False
    try:  # not on a GPU, whose kernels would fail for good
        loss(given[:1].cpu(), torch.full_like(y[:1], given.shape[1], device="cpu"))
    except (RuntimeError, ValueError, TypeError, IndexError):
        return True
    return False


def _check_labels(data: Data, classes: int) -> None:
    for part, y in (("training", data.y), ("held-out", data.y_held)):
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= classes:
            raise ValueError(
                f"data: expected labels from 0 to {classes - 1}, for a network of {classes} outputs, got {low} to "
                f"{high} in the {part} part"
            )


def _check_no_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if (isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0) or isinstance(module, nn.RReLU):
            raise ValueError(
                f"net: expected no layers that draw, such as dropout, got {type(module).__name__}: training runs in "
                "evaluation mode, where it draws nothing; take it out to see what is trained"
            )


def _check_same_untrained(one: nn.Module, other: nn.Module) -> None:
    others = _untrained(other)
    if any(not torch.equal(tensor, others[name]) for name, tensor in _untrained(one).items()):
        raise ValueError(
            "net: expected frozen parameters and buffers that are the same for every seed, since runs that "
            "train side by side share them; got ones that differ"
        )


def _untrained(model: nn.Module) -> Parameters:
    """Frozen parameters and buffers by name."""
    trained = parameters_of(model)
    return {name: value for name, value in model.state_dict().items() if name not in trained}
