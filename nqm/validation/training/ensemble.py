"""The trainer: many runs of one optimizer side by side.

A step is a gradient rule (:mod:`.gradients`), then an update rule (:mod:`.torch_optimizers`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.func import vmap

from ...schedules import Schedule
from . import kfac
from .batches import Batch, BatchDraws
from .functional import TOGETHER, Net, find_device, flatten, parameters_of, unflatten
from .gradients.rule import PLAIN, GradientRule
from .task import Task
from .torch_optimizers import Numbers, TorchOptimizer
from .trials import Trial, check_trials

__all__ = ["EnsembleRun", "follow", "readings"]

RATES = ("lr", "effective_lr")  # what a schedule multiplies


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

    running: which of the trials they are. theta: parameters (runs, P). slots: what the optimizer carries; carried: what
    the gradient rule does. values: hyperparameters (runs, 1). schedule: factors of the learning rate by step.
    replacement: batches with replacement, or else in epochs.
    """

    def __init__(
        self,
        task: Task,
        trials: Sequence[Trial],
        optimizer: TorchOptimizer,
        *,
        rule: GradientRule = PLAIN,
        schedule: Schedule | None = None,
        replacement: bool = True,
    ) -> None:
        device = find_device(task.device)
        self.optimizer, self.rule, self.schedule = optimizer, rule, schedule
        self.data, batch = task.data.to(device), trials[0].batch_size
        starts = [parameters_of(task.build(trial.seed)) for trial in trials]
        model = task.build(trials[0].seed)
        if optimizer.kfac:
            task.check_classes(model)
        self.net = Net(model.to(device), starts[0], task.loss)
        rule.check(task, batch)
        self.theta = torch.stack([flatten(start) for start in starts]).to(device)
        self.slots = optimizer.begin(self.theta)
        self.carried: Numbers = {}
        self.values: Numbers = {
            name: torch.tensor([[t.hyperparameters[name]] for t in trials], dtype=self.theta.dtype, device=device)
            for name in optimizer.space
        }
        self.draws = [BatchDraws(trial.seed, len(self.data), batch, device, replacement) for trial in trials]
        self.running = list(range(len(trials)))
        self.number = 0
        self.metrics = vmap(
            partial(task.metrics, self.net.model, self.net.like),
            in_dims=(0, None),
            chunk_size=max(1, TOGETHER // (task.evaluated or len(self.data))),
        )
        if optimizer.kfac:
            self.factors = kfac.many_factors(self.net.model, self.data.x[: min(kfac.FACTOR_EXAMPLES, len(self.data))])
            self.inverse: kfac.Factors = {}
            self.refreshed = readings()
            self.refresh_at = 0

    def train(self, steps: int, at: Collection[int] | None = None) -> Iterator[int]:
        """Take up to ``steps`` steps; stops after each at which runs are to be read, and yields its number: those of
        ``at`` (None: :func:`readings`), and the last."""
        upcoming = readings()
        reading = next(upcoming)
        for number in range(self.number + 1, steps + 1):
            self.step()
            if number == steps or (number == reading if at is None else number in at):
                yield number
            while reading <= number:
                reading = next(upcoming)

    def step(self) -> None:
        """One step of every run."""
        if self.optimizer.kfac and self.number == self.refresh_at:
            self._refactor()
            self.refresh_at = next(self.refreshed)
        self.number += 1
        batch = Batch.of(self.number, [self.draws[i] for i in self.running], self.data, self.theta.dtype)
        gradient = self.rule(self.net, self.theta, batch, self.carried)
        if self.optimizer.kfac:
            parts = kfac.precondition(unflatten(gradient, self.net.like), self.inverse)
            gradient = torch.cat([part.flatten(1) for part in parts.values()], dim=1)
        self.theta = self.optimizer.step(self.theta, gradient, self.slots, self._values_now(), self.number)

    def _values_now(self) -> Numbers:
        if self.schedule is None:
            return self.values
        factor = float(self.schedule(self.number - 1))
        return {name: factor * value if name in RATES else value for name, value in self.values.items()}

    def _refactor(self) -> None:
        drawn = [self.draws[i].factored() for i in self.running]
        indices, u = (torch.stack(part) for part in zip(*drawn, strict=True))
        factors = self.factors(unflatten(self.theta, self.net.like), self.data.x[indices], u.to(self.theta.dtype))
        self.inverse = kfac.inverses(factors, self.values["damping"][:, 0])

    @property
    def shown(self) -> Tensor:
        """The parameters (runs, P) that are evaluated: the iterate, or its average."""
        return self.slots["average"] if self.optimizer.averaged else self.theta

    def read(self) -> dict[str, Tensor]:
        """The metrics of every run now."""
        with torch.no_grad():
            found: dict[str, Tensor] = self.metrics(self.shown, self.data)
        return found

    def keep(self, places: Sequence[int]) -> None:
        """Go on with the runs at these places alone."""
        stay = list(places)
        self.running = [self.running[place] for place in stay]
        self.theta = self.theta[stay]
        for numbers in (self.slots, self.carried, self.values):
            numbers.update({name: value[stay] for name, value in numbers.items()})
        if self.optimizer.kfac:
            self.inverse = {name: (a[stay], g[stay]) for name, (a, g) in self.inverse.items()}
