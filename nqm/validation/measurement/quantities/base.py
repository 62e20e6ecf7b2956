"""What a quantity is, and the examples that it is taken of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...training.data import Data
from ...training.functional import Net

if TYPE_CHECKING:
    from ...training.task import Task

__all__ = [
    "CHUNK",
    "PARTS",
    "OfFirst",
    "OfPart",
    "Quantity",
    "all_outputs",
    "check_choice",
    "check_whole",
    "in_chunks",
    "mean_gradient",
    "part_of",
]

PARTS = ("training", "held-out")
CHUNK = 512  # examples at once, so that memory does not grow with their number


class Quantity(ABC):
    """A number that a network has at given parameters, to be recorded along its training.

    A frozen dataclass whose fields say all there is to say of it: its ``repr`` tells it from others. To write one:

    >>> @dataclass(frozen=True)
    ... class Distance(Quantity):
    ...     def __call__(self, net, theta, data, generator):
    ...         return float(theta.norm())
    """

    @abstractmethod
    def __call__(self, net: Net, theta: Tensor, data: Data, generator: torch.Generator) -> float:
        """The value at theta (P,), which is where the data is; NaN where theta has diverged.

        generator: the CPU's, for whatever is drawn.
        """

    def check(self, task: Task) -> None:
        """Refuse, before any training, a task that it cannot be taken of: ValueError."""
        return  # most take all


@dataclass(frozen=True)
class OfPart(Quantity):
    """A quantity of all examples of one part, "training" or "held-out"."""

    part: str = "training"

    def __post_init__(self) -> None:
        check_choice(self.part, "part", PARTS)

    def of(self, data: Data) -> tuple[Tensor, Tensor]:
        """Its examples x, y."""
        return part_of(data, self.part)


@dataclass(frozen=True)
class OfFirst(Quantity):
    """A quantity of the first so many training examples; None: of all."""

    examples: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.examples is not None:
            check_whole(self.examples, "examples")

    def of(self, data: Data) -> tuple[Tensor, Tensor]:
        """Its examples x, y."""
        return data.x[: self.examples], data.y[: self.examples]

    def check(self, task: Task) -> None:
        if self.examples is not None and self.examples > len(task.data):
            raise ValueError(f"examples: expected at most the {len(task.data)} to train on, got {self.examples}")


def part_of(data: Data, part: str) -> tuple[Tensor, Tensor]:
    """The examples x, y of one of :data:`PARTS`."""
    return (data.x, data.y) if part == "training" else (data.x_held, data.y_held)


def in_chunks(x: Tensor, y: Tensor, size: int = CHUNK) -> Iterator[tuple[Tensor, Tensor]]:
    """The examples, so many at a time."""
    for first in range(0, len(x), size):
        yield x[first : first + size], y[first : first + size]


def all_outputs(net: Net, theta: Tensor, x: Tensor) -> Tensor:
    """What the network gives for x (n, ...), without its derivatives."""
    with torch.no_grad():
        return torch.cat([net.outputs(theta, some) for some, _ in in_chunks(x, x)])


def mean_gradient(net: Net, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Gradient (P,) of the mean loss of any number of examples."""
    slope = torch.func.grad(net.mean_loss)
    return torch.stack([slope(theta, *some) * len(some[0]) for some in in_chunks(x, y)]).sum(0) / len(x)


def check_choice(value: Any, name: str, known: tuple[str, ...]) -> None:
    """A ValueError for what is none of these."""
    if value not in known:
        raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")


def check_whole(value: Any, name: str, low: int = 1) -> None:
    """A ValueError for what is no whole number of at least ``low``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"{name}: expected a whole number of at least {low}, got {value!r}")
