"""Two early phases, and what the same later training makes of each (jastrzebski2021 section 5)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor, nn

from ...._table import Table
from ...measurement.quantities import QUANTITIES, Quantity, TraceF, TraceH
from ...training.batches import generator
from ...training.data import Data, load_data
from ...training.ensemble import EnsembleRun
from ...training.task import EXPLODED
from ...training.trials import check_trials
from .protocol import HELD, task_of, trial_of
from .training import FISHER_EXAMPLES, begun, readings

__all__ = ["LONGEST", "continued"]

LONGEST = 2000  # steps of an early phase at most
EVERY = 25  # steps between readings of a continuation's accuracy, at most: its early ones lie closer
AFTER = 1000  # of an early run's seed and a continuation's: those of an early run's continuations differ


class Best(NamedTuple):
    """Where a run had its largest held-out accuracy."""

    accuracy: float
    step: int
    theta: Tensor


def continued(
    data: str, net: str, seed: int, early_rate: float, early_batch: int, rate: float, batch_size: int, until: float,
    steps: int, continuations: int, data_root: str | None = None,
) -> Table:  # fmt: skip
    """An early run, until its training loss first crosses ``until``, then ``continuations`` of it, of seeds of their
    own, under other settings; the momentum starts anew.

    One row for each. Columns continuation, early step, early Tr F; at the step of the largest held-out accuracy: step,
    held-out accuracy, training loss, Tr H (Hutchinson, 30 vectors, all training examples). NaN where a run diverged
    or where the loss was not crossed in :data:`LONGEST` steps.
    """
    given = load_data(data, data_root, held=HELD, seed=seed)
    early = begun(net, given, early_rate, seed, early_batch)
    crossed = _train_until(early, until)
    fisher = _value(TraceF(examples=FISHER_EXAMPLES), early, early.theta[0], seed) if crossed else math.nan
    start = early.net.module(early.theta[0])
    rows = []
    for number in range(continuations):
        row = {"continuation": number, "early step": early.number, "early Tr F": fisher}
        own = AFTER * (seed + 1) + number
        found = _continue(given, start, own, rate, batch_size, steps) if crossed else {}
        rows.append({**row, **found})
    return Table.from_rows(rows, ("continuation", "early step", "early Tr F", "step", "held-out accuracy",
                                  "training loss", "Tr H"))  # fmt: skip


def _train_until(run: EnsembleRun, loss: float) -> bool:
    """Whether the training loss has fallen to this."""
    return any(float(run.read()["training loss"][0]) <= loss for _ in run.train(LONGEST, range(LONGEST)))


def _continue(data: Data, start: nn.Module, seed: int, rate: float, batch_size: int, steps: int) -> dict[str, float]:
    trial = trial_of(batch_size, seed, rate)
    run = EnsembleRun(task_of(start, data), [trial], check_trials([trial], steps))
    best = _best(run, {*readings(1, EVERY), *range(EVERY, steps + 1, EVERY)}, steps)
    if best is None:
        return {}
    names = ("held-out accuracy", "training loss")
    found = {name: _value(QUANTITIES[name], run, best.theta, seed) for name in names}
    return {"step": best.step, **found, "Tr H": _value(TraceH(), run, best.theta, seed)}


def _best(run: EnsembleRun, at: Iterable[int], steps: int) -> Best | None:
    """The first of the largest held-out accuracies; None where the run diverges: its loss is not finite or ten times
    log(classes), that of knowing nothing."""
    best, measure = Best(-1.0, 0, run.theta[0]), QUANTITIES["held-out accuracy"]
    most = EXPLODED * math.log(run.data.classes)
    for number in run.train(steps, set(at)):
        if not float(run.read()["training loss"][0]) <= most:
            return None
        accuracy = _value(measure, run, run.theta[0], 0)
        if accuracy > best.accuracy:
            best = Best(accuracy, number, run.theta[0].clone())
    return best


def _value(quantity: Quantity, run: EnsembleRun, theta: Tensor, seed: int) -> float:
    return quantity(run.net, theta, run.data, generator(seed, "measurement", run.number))
