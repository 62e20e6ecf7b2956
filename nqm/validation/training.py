"""Training for real: many runs of one optimizer at once, until the first of them reaches the target."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from . import kfac
from .data import Data
from .functional import Loss, Parameters, find_device, flatten, outputs, parameters_of, skeleton, unflatten
from .optimizers import OPTIMIZERS, Numbers, Optimizer

METRICS = ("training loss", "training error", "held-out loss", "held-out error")
FACTORED = 256  # examples of which K-FAC takes its factors
CHUNK = 64  # steps whose batches are drawn in one go
EXPLODED = 10.0  # times the loss before the first step: such a run has diverged


@dataclass(frozen=True)
class Trial:
    """One training run: optimizer (a name in ``OPTIMIZERS``), examples a step, seed of weights and batches, and the
    optimizer's hyperparameters."""

    optimizer: str
    batch_size: int
    seed: int
    hyperparameters: dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    status: "reached" (every target), "diverged" (loss NaN, infinite or ten times what it was before the first step),
    "overtaken" (others had reached every target), "too slow" (not within the steps allowed). steps: for each metric the
    steps to its target, inf if it was not reached. trained: steps taken.
    """

    trial: Trial
    status: str
    steps: dict[str, float]
    trained: int


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
        if not isinstance(self.targets, Mapping):
            raise TypeError(f"targets: expected a dict such as {{'training loss': 0.1}}, got {self.targets!r}")
        if not self.targets:
            raise ValueError(f"targets: expected at least one of {', '.join(METRICS)}, got none")
        for metric, target in self.targets.items():
            if metric not in METRICS:
                raise ValueError(f"targets: expected metrics among {', '.join(METRICS)}, got {metric!r}")
            if not (isinstance(target, int | float) and 0.0 < target < math.inf):
                raise ValueError(f"targets: expected a positive number for {metric!r}, got {target!r}")
        if self.evaluated is not None and (not isinstance(self.evaluated, int) or self.evaluated < 1):
            raise ValueError(f"evaluated: expected a whole number of at least 1 or None, got {self.evaluated!r}")
        model = self.build(0)
        for module in model.modules():
            if isinstance(module, nn.Dropout | nn.Dropout2d | nn.AlphaDropout) and module.p > 0:
                raise ValueError(
                    "net: expected no dropout, got some: training runs in evaluation mode, where it does nothing; "
                    "take it out to see what is trained"
                )
        self._try(model)
        if not isinstance(self.net, nn.Module):
            untrained, others = (_untrained(self.build(seed)) for seed in (0, 1))
            if any(not torch.equal(tensor, others[name]) for name, tensor in untrained.items()):
                raise ValueError(
                    "net: expected frozen parameters and buffers that are the same for every seed, since runs that "
                    "train side by side share them; got ones that differ"
                )

    def _try(self, model: nn.Module) -> None:
        """The network and the loss on two examples, to say now what does not fit."""
        x, y = self.data.x[:2], self.data.y[:2]
        with torch.no_grad():
            try:
                found = self.loss(model(x), y)
            except (RuntimeError, ValueError, TypeError, IndexError) as error:
                raise ValueError(
                    f"net, loss: expected them to take inputs {tuple(x.shape)} of {x.dtype} and targets "
                    f"{tuple(y.shape)} of {y.dtype}, got {type(error).__name__}: {error}"
                ) from error
            singles = [self.loss(model(x[i : i + 1]), y[i : i + 1]) for i in range(len(x))]
        if not isinstance(found, Tensor) or found.shape != ():
            raise ValueError(f"loss: expected a scalar, the mean over the examples, got {found!r:.80}")
        mean = float(torch.stack(singles).mean())
        if math.isfinite(mean) and not math.isclose(float(found), mean, rel_tol=1e-3, abs_tol=1e-6):
            raise ValueError(
                f"loss: expected the mean over the examples, got {float(found):.6g} for two whose mean is {mean:.6g} "
                "(a sum, class weights, or outputs and targets of different shapes?)"
            )
        if any(metric.endswith("error") for metric in self.targets):
            self.check_classes(model)

    def check_classes(self, model: nn.Module) -> None:
        """A ValueError unless outputs are one number for each class and targets are class numbers."""
        with torch.no_grad():
            given = model(self.data.x[:2])
        if given.ndim != 2 or given.shape[1] < 2 or self.data.y.ndim != 1 or self.data.y.is_floating_point():
            raise ValueError(
                "expected outputs (n, classes) and whole numbers (n,) as targets, for errors and for K-FAC, got "
                f"outputs {tuple(given.shape)} and targets {tuple(self.data.y[:2].shape)} of {self.data.y.dtype}"
            )

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

    def read(self, model: nn.Module) -> dict[str, float]:
        """The metrics of a network that have targets, and the training loss, as they are read along a run."""
        own = parameters_of(model)
        data = self.data.to(next(iter(own.values())).device)
        with torch.no_grad():
            found = _metrics(model, own, self, flatten(own), data)
        return {metric: float(value) for metric, value in found.items()}

    def fingerprint(self) -> dict[str, Any]:
        """What the numbers depend on, for a results file to know its own."""
        model = self.build(0)
        with torch.no_grad():
            given = model(self.data.x[:16])
            losses = torch.stack([self.loss(given[i : i + 1], self.data.y[i : i + 1]) for i in range(len(given))])
        return {
            "name": self.name,
            "model": repr(model),
            "start": _digest(parameters_of(model).values()),
            "data": self.data.name,
            "examples": _digest([self.data.x, self.data.y, self.data.x_held, self.data.y_held]),
            "untrained": _digest(_untrained(model).values()),
            "losses of the start": [float(f"{loss:.4g}") for loss in losses.double().tolist()],
            "targets": dict(self.targets),
            "protocol": {"evaluated": self.evaluated, "kfac examples": FACTORED, "exploded": EXPLODED, "reading": 0.1},
        }


def _untrained(model: nn.Module) -> Parameters:
    """Frozen parameters and buffers by name."""
    trained = parameters_of(model)
    return {name: value for name, value in model.state_dict().items() if name not in trained}


def _digest(tensors: Any) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().double().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


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


def race(task: Task, trials: Sequence[Trial], max_steps: int, to_the_end: bool = False) -> list[Outcome]:
    """Train the trials side by side, step by step; stop once every target has been reached by one of them (with
    ``to_the_end``: every target by all), or after ``max_steps``. Outcomes in the order of the trials.

    All have the same optimizer and batch size. Batches are drawn with replacement, by each trial's own generator, so
    that a trial goes the same way whoever runs beside it (up to rounding: sums over a larger stack of runs may be
    taken in another order). Steps to a target are interpolated linearly between two readings, which lie a tenth of
    the steps apart (:func:`readings`). K-FAC's factors are taken anew at each reading, of 256 more examples whose
    labels are drawn from the model, without a running average; those examples are counted nowhere.

    Raises ValueError for no trials, unknown optimizers or hyperparameters, or trials of more than one kind.
    """
    optimizer = _checked(trials, max_steps)
    return _Race(task, trials, optimizer).run(max_steps, to_the_end)


def _checked(trials: Sequence[Trial], max_steps: int) -> Optimizer:
    kinds = {(trial.optimizer, trial.batch_size) for trial in trials}
    if len(kinds) != 1:
        raise ValueError(f"trials: expected one optimizer and batch size for all, got {sorted(kinds)}")
    name, batch = kinds.pop()
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer: expected one of {', '.join(OPTIMIZERS)}, got {name!r}")
    if not isinstance(batch, int) or batch < 1:
        raise ValueError(f"batch_size: expected a whole number of at least 1, got {batch!r}")
    if not isinstance(max_steps, int) or max_steps < 1:
        raise ValueError(f"max_steps: expected a whole number of at least 1, got {max_steps!r}")
    for trial in trials:
        if set(trial.hyperparameters) != set(OPTIMIZERS[name].space):
            expected = ", ".join(OPTIMIZERS[name].space)
            raise ValueError(f"{name}: expected hyperparameters {expected}, got {', '.join(trial.hyperparameters)}")
    return OPTIMIZERS[name]


def follow(task: Task, trials: Sequence[Trial], steps: int) -> tuple[list[int], Tensor]:
    """Train the trials side by side for ``steps`` steps, whatever becomes of them.

    Returns the steps after which they were read (0, then :func:`readings`, then the last) and their training losses,
    (trials, readings), of all examples; NaN or infinite where one has diverged. Raises as :func:`race`.
    """
    runs = _Race(replace(task, evaluated=None), trials, _checked(trials, steps))
    when = readings()
    seen, reading = [0], next(when)
    losses = [runs.read()["training loss"]]
    for number in range(1, steps + 1):
        runs.step(number, refresh=number - 1 == seen[-1])
        if number in (reading, steps):
            reading = next(when) if number == reading else reading
            seen.append(number)
            losses.append(runs.read()["training loss"])
    return seen, torch.stack(losses, dim=1).cpu()


class _Race:
    """The state of the runs that are still going; each tensor's first axis is the run."""

    def __init__(self, task: Task, trials: Sequence[Trial], optimizer: Optimizer) -> None:
        device = find_device(task.device)
        self.task, self.trials, self.optimizer = task, trials, optimizer
        self.data, self.batch = task.data.to(device), trials[0].batch_size
        starts = [parameters_of(task.build(trial.seed)) for trial in trials]
        self.like = starts[0]
        model = task.build(trials[0].seed)
        if optimizer.kfac:
            task.check_classes(model)
        self.model = model.to(device)
        self.theta = torch.stack([flatten(start) for start in starts]).to(device)
        self.slots = optimizer.begin(self.theta)
        self.values: Numbers = {
            name: torch.tensor([[t.hyperparameters[name]] for t in trials], dtype=self.theta.dtype, device=device)
            for name in optimizer.space
        }
        self.draws = [_Draws(trial.seed, len(self.data), self.batch, device) for trial in trials]
        self.running = list(range(len(trials)))
        self.outcomes: dict[int, Outcome] = {}
        self.steps: list[dict[str, float]] = [dict.fromkeys(task.targets, math.inf) for _ in trials]
        self.gradients = vmap(
            grad(partial(_loss, self.model, self.like, task.loss)), chunk_size=max(1, kfac.TOGETHER // self.batch)
        )
        self.evaluate = vmap(
            partial(_metrics, self.model, self.like, task),
            in_dims=(0, None),
            chunk_size=max(1, kfac.TOGETHER // (task.evaluated or len(self.data))),
        )
        if optimizer.kfac:
            self.factors = kfac.many_factors(self.model, self.data.x[: min(FACTORED, len(self.data))])
            self.inverse: kfac.Factors = {}

    def run(self, max_steps: int, to_the_end: bool = False) -> list[Outcome]:
        self.last_read, self.last = 0, self.read()
        self.start = self.last["training loss"].clone()
        when = readings()
        reading = next(when)
        for number in range(1, max_steps + 1):
            self.step(number, refresh=number - 1 == self.last_read)
            if number in (reading, max_steps):
                reading = next(when) if number == reading else reading
                self._judge(number)
                if not self.running or (self._decided() and not to_the_end):
                    break
        overtaken = self._decided() and not to_the_end
        self._retire("overtaken" if overtaken else "too slow", range(len(self.running)), number)
        return [self.outcomes[i] for i in range(len(self.trials))]

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
            found: dict[str, Tensor] = self.evaluate(shown, self.data)
        return found

    def _judge(self, number: int) -> None:
        """Read the metrics, note the targets that were crossed, retire what has arrived or diverged."""
        now = self.read()
        for metric, target in self.task.targets.items():
            before, after = self.last[metric].tolist(), now[metric].tolist()
            for place, run in enumerate(self.running):
                if after[place] <= target and self.steps[run][metric] == math.inf:
                    share = (before[place] - target) / (before[place] - after[place]) if before[place] > target else 0.0
                    self.steps[run][metric] = self.last_read + share * (number - self.last_read)
        loss = now["training loss"]
        exploded = ~(loss <= EXPLODED * self.start)
        self.last_read, self.last = number, now
        self._retire("diverged", exploded.nonzero().flatten().tolist(), number)
        arrived = [p for p, run in enumerate(self.running) if math.inf not in self.steps[run].values()]
        self._retire("reached", arrived, number)

    def _decided(self) -> bool:
        return all(min(steps[metric] for steps in self.steps) < math.inf for metric in self.task.targets)

    def _retire(self, status: str, places: Sequence[int], number: int) -> None:
        gone = set(places)
        if not gone:
            return
        for place in gone:
            run = self.running[place]
            self.outcomes[run] = Outcome(self.trials[run], status, self.steps[run], number)
        stay = [place for place in range(len(self.running)) if place not in gone]
        self.running = [self.running[place] for place in stay]
        self.theta, self.start = self.theta[stay], self.start[stay]
        for numbers in (self.slots, self.values, self.last):
            numbers.update({name: value[stay] for name, value in numbers.items()})
        if self.optimizer.kfac:
            self.inverse = {name: (a[stay], g[stay]) for name, (a, g) in self.inverse.items()}


class _Draws:
    """A trial's batches, in chunks of steps, so that they do not depend on who asks when; and K-FAC's examples."""

    def __init__(self, seed: int, examples: int, batch: int, device: torch.device) -> None:
        self.examples, self.size, self.device = examples, batch, device
        self.batches = torch.Generator().manual_seed(seed)
        self.others = torch.Generator().manual_seed(seed + 2**32)
        self.chunk = torch.empty(0)

    def batch(self, number: int) -> Tensor:
        place = (number - 1) % CHUNK
        if place == 0:
            drawn = torch.randint(self.examples, (CHUNK, self.size), generator=self.batches)
            self.chunk = drawn.to(self.device)
        return self.chunk[place]

    def factored(self) -> tuple[Tensor, Tensor]:
        """Indices of examples and uniform numbers that draw their labels."""
        size = min(FACTORED, self.examples)
        indices = torch.randint(self.examples, (size,), generator=self.others)
        return indices.to(self.device), torch.rand(size, generator=self.others, dtype=torch.float64).to(self.device)


def _loss(model: nn.Module, like: Parameters, loss: Loss, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return loss(outputs(model, unflatten(theta, like), x), y)


def _metrics(model: nn.Module, like: Parameters, task: Task, theta: Tensor, data: Data) -> dict[str, Tensor]:
    """The metrics that have targets, and the training loss."""
    found = {}
    parts = {"training": (data.x, data.y), "held-out": (data.x_held, data.y_held)}
    for part, (x, y) in parts.items():
        wanted = [m for m in METRICS if m.startswith(part) and (m in task.targets or m == "training loss")]
        if not wanted:
            continue
        given = outputs(model, unflatten(theta, like), x[: task.evaluated])
        for metric in wanted:
            if metric.endswith("loss"):
                found[metric] = task.loss(given, y[: task.evaluated])
            else:
                found[metric] = (given.argmax(-1) != y[: task.evaluated]).to(theta.dtype).mean()
    return found
