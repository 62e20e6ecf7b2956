"""Which examples a step takes, and whatever else is drawn on the way: from one generator for each purpose.

Runs of the same seed share their batches whatever their gradient rules draw, so that they can be compared in pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .data import Data
from .kfac import FACTOR_EXAMPLES

__all__ = ["STREAMS", "Batch", "BatchDraws", "generator"]

CHUNK = 64  # steps whose batches are drawn in one go

STREAMS = ("batches", "factors", "labels", "noise", "second batch", "measurement")
"""What is drawn from generators of their own: examples, K-FAC's examples, labels drawn from a model, injected noise,
a step's second batch, and what a measurement on the way draws."""


def generator(seed: int, stream: str, number: int = 0) -> torch.Generator:
    """The generator of one of :data:`STREAMS`; a step's own where its ``number`` is given.

    Batches have the seed itself; of other seeds torch reads the lowest 32 bits only, so they are mixed by NumPy.
    """
    place = STREAMS.index(stream)
    mixed = np.random.SeedSequence((seed, place, number)).generate_state(1)[0] if place else seed
    return torch.Generator().manual_seed(int(mixed))


class BatchDraws:
    """What one run draws. Batches come in chunks of steps, so that they do not depend on who asks when.

    replacement: each example of each batch is drawn from all; or else in epochs: all examples in random order, cut into
    batches, what is left over dropped.
    """

    def __init__(
        self, seed: int, examples: int, batch: int, device: torch.device, replacement: bool = True, to: str = "batches"
    ) -> None:
        if not replacement and batch > examples:
            raise ValueError(f"batch_size: expected at most the {examples} examples of an epoch, got {batch}")
        self.seed, self.examples, self.size, self.device, self.replacement = seed, examples, batch, device, replacement
        self.batches = generator(seed, to)
        self.generators: dict[str, torch.Generator] = {}
        self.chunk = torch.empty(0)
        self.chunks = CHUNK if replacement else examples // batch
        self.others: BatchDraws | None = None

    def batch(self, number: int) -> Tensor:
        """Indices of the examples of this step, counted from 1; steps have to be asked for in order."""
        place = (number - 1) % self.chunks
        if place == 0:
            if self.replacement:
                drawn = torch.randint(self.examples, (CHUNK, self.size), generator=self.batches)
            else:
                order = torch.randperm(self.examples, generator=self.batches)
                drawn = order[: self.chunks * self.size].reshape(self.chunks, self.size)
            self.chunk = drawn.to(self.device)
        return self.chunk[place]

    def second(self, number: int) -> Tensor:
        """Indices of a second, independent batch of this step."""
        if self.others is None:
            self.others = BatchDraws(
                self.seed, self.examples, self.size, self.device, self.replacement, to="second batch"
            )
        return self.others.batch(number)

    def stream(self, name: str) -> torch.Generator:
        """The run's generator for a purpose."""
        if name not in self.generators:
            self.generators[name] = generator(self.seed, name)
        return self.generators[name]

    def factored(self) -> tuple[Tensor, Tensor]:
        """Indices of examples for K-FAC's factors, and uniform numbers that draw their labels."""
        size, stream = min(FACTOR_EXAMPLES, self.examples), self.stream("factors")
        indices = torch.randint(self.examples, (size,), generator=stream)
        return indices.to(self.device), torch.rand(size, generator=stream, dtype=torch.float64).to(self.device)


@dataclass(frozen=True, eq=False)
class Batch:
    """The examples of one step, x and y (R, B, ...) of R runs, and what else a gradient rule may draw for them.

    number: of the step, from 1.
    """

    x: Tensor
    y: Tensor
    number: int
    draws: Sequence[BatchDraws]
    data: Data
    dtype: torch.dtype

    @classmethod
    def of(cls, number: int, draws: Sequence[BatchDraws], data: Data, dtype: torch.dtype) -> Batch:
        """The batch of a step. data: on the device where the runs are; dtype: of the parameters."""
        indices = torch.stack([one.batch(number) for one in draws])
        return cls(data.x[indices], data.y[indices], number, draws, data, dtype)

    @property
    def size(self) -> int:
        """Examples of one run, B."""
        return self.x.shape[1]

    def second(self) -> tuple[Tensor, Tensor]:
        """As many other examples, drawn independently: x and y."""
        indices = torch.stack([one.second(self.number) for one in self.draws])
        return self.data.x[indices], self.data.y[indices]

    def uniform(self, stream: str, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), (R, *shape), from each run's generator for this purpose."""
        return self._drawn(torch.rand, stream, shape)

    def normal(self, stream: str, *shape: int) -> Tensor:
        """Standard normal numbers (R, *shape), likewise."""
        return self._drawn(torch.randn, stream, shape)

    def _drawn(self, draw: Callable[..., Tensor], stream: str, shape: tuple[int, ...]) -> Tensor:
        drawn = [draw(shape, generator=one.stream(stream), dtype=self.dtype) for one in self.draws]
        return torch.stack(drawn).to(self.x.device)
