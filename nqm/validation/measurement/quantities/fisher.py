"""Mean squares of gradients: traces of the Fisher matrix, and gradient norms (jastrzebski2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...training.data import Data
from ...training.functional import Net, drawn_from
from ...training.per_example import squared_norms
from .base import CHUNK, OfFirst, OfPart, Quantity, all_outputs, check_choice, check_whole, in_chunks, mean_gradient

if TYPE_CHECKING:
    from ...training.task import Task

__all__ = ["GradientNorm", "MeanGradientNorm", "TraceF", "TraceFBatch"]

DRAWN = ("model", "data")


@dataclass(frozen=True)
class TraceF(OfFirst):
    """Tr(F), the mean of ||g(x, y)||^2 over examples, g the gradient of an example's loss; for classes.

        exact   mean_x sum_y p(y|x) ||g(x, y)||^2: under cross entropy the trace of the Gauss-Newton matrix
        model   one label for each example, drawn from the model: unbiased (jastrzebski2021 section 2)
        data    the examples' own labels: the empirical Fisher matrix's trace

    Args:
        labels: one of these.
        examples: the first so many to train on; None: all.
    """

    labels: str = "exact"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.labels, "labels", ("exact", *DRAWN))

    def __call__(self, net: Net, theta: Tensor, data: Data, generator: torch.Generator) -> float:
        x, y = self.of(data)
        if self.labels != "exact":
            labels = _labels(self.labels, net, theta, x, y, generator)
            return float(squared_norms(net, theta, x, labels).double().mean())
        p, total = all_outputs(net, theta, x).double().softmax(-1), 0.0
        classes = torch.arange(p.shape[1], device=x.device)
        for some, q in in_chunks(x, p, max(1, CHUNK // len(classes))):
            norms = squared_norms(net, theta, some.repeat_interleave(len(classes), 0), classes.repeat(len(some)))
            total += float((q.flatten() * norms).sum())
        return total / len(x)

    def check(self, task: Task) -> None:
        super().check(task)
        if self.labels != "data":
            task.check_classes(task.build(0))


@dataclass(frozen=True)
class TraceFBatch(Quantity):
    """Tr(F^B) = ||1/B sum_i g(x_i, y^_i)||^2, what the Fisher penalty takes (jastrzebski2021 eq. 5): the mean over some
    batches of B examples, drawn with replacement.

    With labels drawn from the model its mean is Tr(F) / B, since a score's mean is 0; with the examples' own labels
    (labels "data") |grad L|^2 + tr(C) / B, C the covariance of single gradients.
    """

    batch_size: int
    batches: int = 1
    labels: str = "model"

    def __post_init__(self) -> None:
        check_whole(self.batch_size, "batch_size")
        check_whole(self.batches, "batches")
        check_choice(self.labels, "labels", DRAWN)

    def __call__(self, net: Net, theta: Tensor, data: Data, generator: torch.Generator) -> float:
        total = 0.0
        for _ in range(self.batches):
            picked = torch.randint(len(data), (self.batch_size,), generator=generator).to(data.x.device)
            x, y = data.x[picked], data.y[picked]
            y = _labels(self.labels, net, theta, x, y, generator)
            total += float(mean_gradient(net, theta, x, y).double().square().sum())
        return total / self.batches

    def check(self, task: Task) -> None:
        if self.labels != "data":
            task.check_classes(task.build(0))


@dataclass(frozen=True)
class GradientNorm(OfPart):
    """||gradient of the mean loss|| of all examples of a part."""

    def __call__(self, net: Net, theta: Tensor, data: Data, generator: torch.Generator) -> float:
        return float(mean_gradient(net, theta, *self.of(data)).double().norm())


@dataclass(frozen=True)
class MeanGradientNorm(OfPart):
    """Mean of ||gradient of an example's loss|| over all examples of a part (jastrzebski2021 figure 5, middle)."""

    def __call__(self, net: Net, theta: Tensor, data: Data, generator: torch.Generator) -> float:
        return float(squared_norms(net, theta, *self.of(data)).double().sqrt().mean())


def _labels(kind: str, net: Net, theta: Tensor, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """The examples' own labels, or one drawn from the model for each."""
    if kind == "data":
        return y
    u = torch.rand(len(x), generator=generator, dtype=theta.dtype).to(theta.device)
    return drawn_from(all_outputs(net, theta, x), u)
