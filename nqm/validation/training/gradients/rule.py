"""What a gradient rule is, and the two that everything stands on."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..batches import Batch
from ..functional import Net

if TYPE_CHECKING:
    from ..task import Task

__all__ = ["PLAIN", "GradientRule", "Plain", "WeightDecay", "check_rule", "non_negative"]


class GradientRule(ABC):
    """A gradient (R, P) of R runs from their parameters and a batch.

    A frozen dataclass whose fields say all there is to say of it: its ``repr`` tells one experiment from another. What
    it draws comes from the batch's streams, and what it keeps from step to step from ``carried``, a dict of tensors
    (R, ...) that is empty before the first step. To write one:

    >>> @dataclass(frozen=True)
    ... class Clipped(GradientRule):
    ...     most: float
    ...
    ...     def __call__(self, net, thetas, batch, carried):
    ...         gradient = net.gradients(thetas, batch.x, batch.y)
    ...         return gradient * (self.most / gradient.norm(dim=1, keepdim=True)).clamp_max(1.0)
    """

    @abstractmethod
    def __call__(self, net: Net, thetas: Tensor, batch: Batch, carried: dict[str, Tensor]) -> Tensor:
        """The gradient at thetas (R, P)."""

    def check(self, task: Task, batch_size: int) -> None:
        """Refuse, before any training, a task or batch size that it cannot take: ValueError."""
        return  # most take all


@dataclass(frozen=True)
class Plain(GradientRule):
    """The gradient of the batch's mean loss."""

    def __call__(self, net: Net, thetas: Tensor, batch: Batch, carried: dict[str, Tensor]) -> Tensor:
        return net.slopes(net.mean_loss, thetas, batch.x, batch.y)


PLAIN = Plain()


@dataclass(frozen=True)
class WeightDecay(GradientRule):
    """The gradient of another rule + coefficient theta: L2 regularization as in torch.optim.SGD, of all parameters."""

    coefficient: float
    of: GradientRule = PLAIN

    def __post_init__(self) -> None:
        non_negative(self.coefficient, "weight decay")
        check_rule(self.of)

    def __call__(self, net: Net, thetas: Tensor, batch: Batch, carried: dict[str, Tensor]) -> Tensor:
        return self.of(net, thetas, batch, carried) + self.coefficient * thetas

    def check(self, task: Task, batch_size: int) -> None:
        self.of.check(task, batch_size)


def check_rule(rule: Any) -> None:
    """A TypeError for what is no gradient rule."""
    if not isinstance(rule, GradientRule):
        raise TypeError(f"rule: expected a gradient rule such as Plain(), got {rule!r}")


def non_negative(value: Any, name: str) -> None:
    """A ValueError for what is not a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < math.inf:
        raise ValueError(f"{name}: expected a finite number of at least 0, got {value!r}")
