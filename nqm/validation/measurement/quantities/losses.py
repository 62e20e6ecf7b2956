"""Loss and accuracy on all examples of a part, and any quantity of some of the training examples alone."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...training.data import Data
from ...training.functional import Net
from .base import OfPart, Quantity, all_outputs, in_chunks

if TYPE_CHECKING:
    from ...training.task import Task

__all__ = ["Accuracy", "Loss", "Subset"]


@dataclass(frozen=True)
class Loss(OfPart):
    """Mean loss of all examples of a part."""

    def __call__(self, net: Net, theta: Tensor, data: Data, generator: torch.Generator) -> float:
        x, y = self.of(data)
        with torch.no_grad():
            sums = [float(net.mean_loss(theta, *some)) * len(some[0]) for some in in_chunks(x, y)]
        return sum(sums) / len(x)


@dataclass(frozen=True)
class Accuracy(OfPart):
    """Share of all examples of a part that are put into the class of their label, from 0 to 1."""

    def __call__(self, net: Net, theta: Tensor, data: Data, generator: torch.Generator) -> float:
        x, y = self.of(data)
        given = all_outputs(net, theta, x)
        if bool(given.isnan().any()):
            return math.nan  # where argmax would still name a class
        return float((given.argmax(-1) == y).double().mean())

    def check(self, task: Task) -> None:
        task.check_classes(task.build(0))


@dataclass(frozen=True, eq=False)
class Subset(Quantity):
    """A quantity of those training examples alone for which the mask (n,) is True.

    With what :func:`~nqm.validation.training.data.with_label_noise` returns, the accuracy on wrong labels is
    ``Subset(Accuracy("training"), redrawn)``, and on right ones ``Subset(Accuracy("training"), ~redrawn)``
    (jastrzebski2021 figure 5).
    """

    quantity: Quantity
    mask: Tensor

    def __post_init__(self) -> None:
        if getattr(self.quantity, "part", "training") != "training":
            raise ValueError(f"quantity: expected one of the training part, got {self.quantity!r}")
        if self.mask.ndim != 1 or self.mask.dtype != torch.bool or not bool(self.mask.any()):
            raise ValueError(
                f"mask: expected truth values (n,), some of them True, got shape {tuple(self.mask.shape)} of "
                f"{self.mask.dtype}, {int(self.mask.sum())} of them"
            )

    def __repr__(self) -> str:
        digest = hashlib.sha256(self.mask.cpu().numpy().tobytes()).hexdigest()[:16]
        return f"Subset({self.quantity!r}, {int(self.mask.sum())} of {len(self.mask)} examples, {digest})"

    def __call__(self, net: Net, theta: Tensor, data: Data, generator: torch.Generator) -> float:
        return self.quantity(net, theta, self._chosen(data), generator)

    def check(self, task: Task) -> None:
        if len(self.mask) != len(task.data):
            raise ValueError(
                f"mask: expected a truth value for each of the {len(task.data)} examples, got {len(self.mask)}"
            )
        self.quantity.check(replace(task, data=self._chosen(task.data)))

    def _chosen(self, data: Data) -> Data:
        mask = self.mask.to(data.x.device)
        return replace(data, x=data.x[mask], y=data.y[mask])
