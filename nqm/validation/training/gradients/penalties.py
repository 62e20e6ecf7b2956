"""Gradients with a penalty on another gradient's norm (jastrzebski2021 eq. 3, 5, 6 and section 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..batches import Batch
from ..functional import Net
from .labels import labels_of
from .rule import PLAIN, GradientRule, check_rule, non_negative

if TYPE_CHECKING:
    from ..task import Task

__all__ = ["PENALTIES", "Penalised"]

PENALTIES = {
    "FP": ("model", "batch", "parameters"),
    "FP, one example": ("model", "first", "parameters"),
    "GP": ("data", "batch", "parameters"),
    "GP_r": ("uniform", "batch", "parameters"),
    "GP_x": ("data", "batch", "inputs"),
}
"""Name -> whose labels, of which examples, and by what the mean loss is differentiated."""


@dataclass(frozen=True)
class Penalised(GradientRule):
    """The gradient of another rule + coefficient times that of a penalty, the squared norm of a mean gradient:

        FP                  ||1/B sum_i g(x_i, y^_i)||^2, labels y^ drawn from the model (eq. 3 and 5): Tr(F^B)
        FP, one example     ||g(x_1, y^_1)||^2 (eq. 6)
        GP                  the same with the examples' own labels
        GP_r                with labels drawn uniformly from the classes; g by the parameters (the paper prints by x)
        GP_x                || d(mean loss) / dx ||^2 over the whole batch's inputs, with their own labels

    Over labels drawn anew, E Tr(F^B) = Tr(F) / B, so that a coefficient means B times less at a batch of B. Labels
    that are drawn are constants to the derivative: its mean is the gradient of Tr(F) / B but for the share that goes
    through the labels' probabilities.

    Args:
        penalty: a name in :data:`PENALTIES`.
        coefficient: alpha, at least 0.
        every: the penalty's gradient is computed at every so many steps and taken again in between (the paper: 10;
            1 for eq. 6).
        start: steps before the penalty begins.
        examples: it is of the first so many of each batch (appendix E: 128 of a large one); None: of all.
        of: the rule it is added to.
    """

    penalty: str
    coefficient: float
    every: int = 10
    start: int = 0
    examples: int | None = None
    of: GradientRule = PLAIN

    def __post_init__(self) -> None:
        if self.penalty not in PENALTIES:
            raise ValueError(f"penalty: expected one of {', '.join(PENALTIES)}, got {self.penalty!r}")
        non_negative(self.coefficient, "coefficient of the penalty")
        some = () if self.examples is None else (("examples", self.examples, 1),)
        for name, value, low in (("every", self.every, 1), ("start", self.start, 0), *some):
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ValueError(f"{name}: expected a whole number of at least {low}, got {value!r}")
        check_rule(self.of)

    def check(self, task: Task, batch_size: int) -> None:
        if PENALTIES[self.penalty][0] != "data":
            task.check_classes(task.build(0))
        if self.examples is not None and self.examples > batch_size:
            raise ValueError(f"examples: expected at most the {batch_size} of a batch, got {self.examples}")
        self.of.check(task, batch_size)

    def __call__(self, net: Net, thetas: Tensor, batch: Batch, carried: dict[str, Tensor]) -> Tensor:
        gradient = self.of(net, thetas, batch, carried)
        passed = batch.number - 1 - self.start
        if passed < 0:
            return gradient
        if passed % self.every == 0:
            carried[repr(self)] = self.gradient(net, thetas, batch)  # a name of its own: of may be a penalty too
        return gradient + self.coefficient * carried[repr(self)]

    def gradient(self, net: Net, thetas: Tensor, batch: Batch) -> Tensor:
        """The penalty's own gradient (R, P), without the coefficient."""
        kind, which, _ = PENALTIES[self.penalty]
        y, count = labels_of(kind, net, thetas, batch), 1 if which == "first" else self.examples or batch.size
        return net.slopes(self.value(net), thetas, batch.x[:, :count], y[:, :count])

    def value(self, net: Net) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """The penalty as a function of theta (P,), x (n, ...) and labels (n,)."""
        by = 1 if PENALTIES[self.penalty][2] == "inputs" else 0
        slope = torch.func.grad(net.mean_loss, argnums=by)
        return lambda theta, x, y: slope(theta, x, y).square().sum()
