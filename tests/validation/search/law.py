"""A law that stands for training networks, and races and measurements under it, for the tests beside this file."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from nqm.validation import Outcome, measure_steps
from nqm.validation.search.protocol import stable_seed
from nqm.validation.search.records import CONFIRMATION, read_results
from nqm.validation.training.axes import Axis
from nqm.validation.training.torch_optimizers import TorchOptimizer

FAST, CRITICAL, BEST_RATE, BEST_MOMENTUM = 100.0, 64.0, 0.3, 0.9
MOMENTUM = Axis(0.0, 0.99, "log1m", limits=(0.0, 0.999), natural=0.0)


def optimizer(name, **space):
    return TorchOptimizer(name, space, step=None)


SGD = optimizer("SGD", lr=Axis(3e-3, 3.0))
HEAVY_BALL = optimizer("momentum", effective_lr=Axis(3e-3, 3.0), momentum=MOMENTUM)


@dataclass(frozen=True)
class Law:
    """Stands for a task: steps follow a law, a bowl in the logarithms of rate and 1 - momentum.

    Rates above ``stable`` times the best diverge. The second metric takes twice the steps, and is best at twice the
    rate.
    """

    targets: dict[str, float] = field(default_factory=lambda: {"loss": 0.1, "error": 0.05})
    stable: float = 4.0
    best_rate: float = BEST_RATE
    best_momentum: float = BEST_MOMENTUM
    noise: float = 0.05
    unreachable: tuple[str, ...] = ()

    def fingerprint(self):
        return {"law": repr(self)}

    def steps(self, trial, metric):
        values = trial.hyperparameters
        rate = values.get("lr", values.get("effective_lr"))
        if metric in self.unreachable:
            return math.inf
        bowl = math.log(rate / self.best_rate / (1 if metric == "loss" else 2)) ** 2
        if "momentum" in values:
            bowl += math.log((1 - values["momentum"]) / (1 - self.best_momentum)) ** 2
        luck = 1 + self.noise * (stable_seed(trial.seed) / 2**31 - 0.5)
        return (1 if metric == "loss" else 2) * FAST * (1 + CRITICAL / trial.batch_size) * (1 + bowl) * luck

    def diverges(self, trial):
        values = trial.hyperparameters
        return values.get("lr", values.get("effective_lr")) > self.stable * self.best_rate


def race(task, trials, max_steps, to_the_end=False):
    """As the real one: ends once each target has been reached by one trial, or after max_steps."""
    alive = [trial for trial in trials if not task.diverges(trial)]
    first = {m: min((task.steps(trial, m) for trial in alive), default=math.inf) for m in task.targets}
    end = max_steps if to_the_end else min(max_steps, max(first.values()))
    outcomes = []
    for trial in trials:
        steps = {m: task.steps(trial, m) if task.steps(trial, m) <= end else math.inf for m in task.targets}
        if task.diverges(trial):
            outcomes.append(Outcome(trial, "diverged", dict.fromkeys(task.targets, math.inf), 1))
        elif math.inf not in steps.values():
            outcomes.append(Outcome(trial, "reached", steps, math.ceil(max(steps.values()))))
        else:
            status = "too slow" if to_the_end or max(first.values()) > end else "overtaken"
            outcomes.append(Outcome(trial, status, steps, math.ceil(end)))
    return outcomes


class Counted:
    """The race, with the batches of trials it was asked for; interrupted, or failing, at the batch of that number."""

    def __init__(self, stop=math.inf, error=KeyboardInterrupt):
        self.calls, self.stop, self.error = [], stop, error

    def __call__(self, task, trials, max_steps, to_the_end):
        if len(self.calls) >= self.stop:
            raise self.error
        self.calls.append(
            (tuple((t.optimizer, t.batch_size, t.seed, str(t.hyperparameters)) for t in trials), max_steps)
        )
        return race(task, trials, max_steps, to_the_end)


def failing_race(task, trials, max_steps, to_the_end):
    if trials[0].batch_size == 64:
        raise ZeroDivisionError("no luck")
    return race(task, trials, max_steps, to_the_end)


def measure(task=None, optimizers=(SGD, HEAVY_BALL), batch_sizes=(8, 64), **options):
    options = {"trials": 8, "seeds": 3, "progress": False, "race": race, **options}
    return measure_steps(Law() if task is None else task, optimizers, batch_sizes, **options)


def same(a, b):
    assert a.configuration == b.configuration
    assert list(a.table) == list(b.table)
    for key, column in a.table.items():
        assert column.dtype == b.table[key].dtype
        assert np.array_equal(column, b.table[key], equal_nan=column.dtype.kind == "f"), key
    return True


def search_records(path, number=None):
    return [r for r in read_results(path)[1] if r.round != CONFIRMATION and number in (None, r.round)]
