"""Many runs of one optimizer side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from . import kfac
from .functional import Loss, Parameters, find_device, flatten, outputs, parameters_of, unflatten
from .task import Task
from .torch_optimizers import Numbers, TorchOptimizer
from .trials import Trial, check_trials

__all__ = ["BatchDraws", "EnsembleRun", "follow", "readings"]

CHUNK = 64  # steps whose batches are drawn in one go


def readings() -> Iterator[int]:
    """The steps after which runs are evaluated: every step up to 20, then every tenth of those so far.

    >>> from itertools import islice
    >>> list(islice(readings(), 19, 26))
    [20, 22, 24, 26, 28, 30, 33]
    """
    step = 0
    while True:
        step += max(1, step // 10)
        yield step


def follow(task: Task, trials: Sequence[Trial], steps: int) -> tuple[list[int], Tensor]:
    """Train the trials side by side for ``steps`` steps, whatever becomes of them.

    Returns the steps after which they were read (0, then :func:`readings`, then the last) and their training losses,
    (trials, readings), of all examples; NaN or infinite where one has diverged. Raises as
    :func:`nqm.validation.train_until_first`.
    """
    runs = EnsembleRun(replace(task, evaluated=None), trials, check_trials(trials, steps))
    read, losses = [0], [runs.read()["training loss"]]
    for number in runs.train(steps):
        read.append(number)
        losses.append(runs.read()["training loss"])
    return read, torch.stack(losses, dim=1).cpu()


class EnsembleRun:
    """The state of the runs that are still going; each tensor's first axis is the run.

    running: which of the trials they are. theta: parameters (runs, P). slots: what the optimizer carries. values:
    hyperparameters (runs, 1).
    """

    def __init__(self, task: Task, trials: Sequence[Trial], optimizer: TorchOptimizer) -> None:
        device = find_device(task.device)
        self.optimizer = optimizer
        self.data, batch = task.data.to(device), trials[0].batch_size
        starts = [parameters_of(task.build(trial.seed)) for trial in trials]
        self.like = starts[0]
        model = task.build(trials[0].seed)
        if optimizer.kfac:
            task.check_classes(model)
        model = model.to(device)
        self.theta = torch.stack([flatten(start) for start in starts]).to(device)
        self.slots = optimizer.begin(self.theta)
        self.values: Numbers = {
            name: torch.tensor([[t.hyperparameters[name]] for t in trials], dtype=self.theta.dtype, device=device)
            for name in optimizer.space
        }
        self.draws = [BatchDraws(trial.seed, len(self.data), batch, device) for trial in trials]
        self.running = list(range(len(trials)))
        self.gradients = vmap(
            grad(partial(_loss, model, self.like, task.loss)), chunk_size=max(1, kfac.TOGETHER // batch)
        )
        self.metrics = vmap(
            partial(task.metrics, model, self.like),
            in_dims=(0, None),
            chunk_size=max(1, kfac.TOGETHER // (task.evaluated or len(self.data))),
        )
        if optimizer.kfac:
            self.factors = kfac.many_factors(model, self.data.x[: min(kfac.FACTOR_EXAMPLES, len(self.data))])
            self.inverse: kfac.Factors = {}

    def train(self, steps: int) -> Iterator[int]:
        """Take up to ``steps`` steps; stops after each at which runs are to be read, and yields its number."""
        upcoming = readings()
        reading, last_read = next(upcoming), 0
        for number in range(1, steps + 1):
            self.step(number, refresh=number - 1 == last_read)
            if number in (reading, steps):
                reading = next(upcoming) if number == reading else reading
                last_read = number
                yield number

    def step(self, number: int, refresh: bool) -> None:
        """One step of every run; refresh: take K-FAC's factors anew."""
        if self.optimizer.kfac and refresh:
            self._refactor()
        indices = torch.stack([self.draws[i].batch(number) for i in self.running])
        gradient = self.gradients(self.theta, self.data.x[indices], self.data.y[indices])
        if self.optimizer.kfac:
            parts = kfac.precondition(unflatten(gradient, self.like), self.inverse)
            gradient = torch.cat([part.flatten(1) for part in parts.values()], dim=1)
        self.theta = self.optimizer.step(self.theta, gradient, self.slots, self.values, number)

    def _refactor(self) -> None:
        drawn = [self.draws[i].factored() for i in self.running]
        indices, u = (torch.stack(part) for part in zip(*drawn, strict=True))
        factors = self.factors(unflatten(self.theta, self.like), self.data.x[indices], u.to(self.theta.dtype))
        self.inverse = kfac.inverses(factors, self.values["damping"][:, 0])

    def read(self) -> dict[str, Tensor]:
        """The metrics of every run now."""
        shown = self.slots["average"] if self.optimizer.averaged else self.theta
        with torch.no_grad():
            found: dict[str, Tensor] = self.metrics(shown, self.data)
        return found

    def keep(self, places: Sequence[int]) -> None:
        """Go on with the runs at these places alone."""
        stay = list(places)
        self.running = [self.running[place] for place in stay]
        self.theta = self.theta[stay]
        for numbers in (self.slots, self.values):
            numbers.update({name: value[stay] for name, value in numbers.items()})
        if self.optimizer.kfac:
            self.inverse = {name: (a[stay], g[stay]) for name, (a, g) in self.inverse.items()}


class BatchDraws:
    """A run's batches, in chunks of steps, so that they do not depend on who asks when; and K-FAC's examples."""

    def __init__(self, seed: int, examples: int, batch: int, device: torch.device) -> None:
        self.examples, self.size, self.device = examples, batch, device
        self.batches = torch.Generator().manual_seed(seed)
        self.others = torch.Generator().manual_seed(seed + 2**32)
        self.chunk = torch.empty(0)

    def batch(self, number: int) -> Tensor:
        """Indices of the examples of this step, counted from 1; steps have to be asked for in order."""
        place = (number - 1) % CHUNK
        if place == 0:
            drawn = torch.randint(self.examples, (CHUNK, self.size), generator=self.batches)
            self.chunk = drawn.to(self.device)
        return self.chunk[place]

    def factored(self) -> tuple[Tensor, Tensor]:
        """Indices of examples and uniform numbers that draw their labels."""
        size = min(kfac.FACTOR_EXAMPLES, self.examples)
        indices = torch.randint(self.examples, (size,), generator=self.others)
        return indices.to(self.device), torch.rand(size, generator=self.others, dtype=torch.float64).to(self.device)


def _loss(model: nn.Module, like: Parameters, loss: Loss, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return loss(outputs(model, unflatten(theta, like), x), y)
