"""Training that is recorded: what is asked for by name, at the steps that are asked for."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Mapping, Sequence

import torch

from ..._table import Table
from ...schedules import Schedule
from ..measurement.quantities import Quantity, find
from ..training.batches import generator
from ..training.ensemble import EnsembleRun, readings
from ..training.gradients.rule import PLAIN, GradientRule, check_rule
from ..training.task import EXPLODED, Task
from ..training.trials import Trial, check_trials

__all__ = ["recorded", "train"]


def train(
    task: Task,
    trials: Sequence[Trial],
    steps: int,
    *,
    record: Sequence[str] | Mapping[str, Quantity] = ("training loss", "held-out loss", "held-out accuracy"),
    at: Collection[int] | None = None,
    rule: GradientRule = PLAIN,
    schedule: Schedule | None = None,
    replacement: bool = True,
) -> Table:
    """Train trials of one optimizer and batch size side by side for ``steps`` steps, and record them on the way.

    A step is a gradient rule, then the optimizer's update. Batches, drawn labels, injected noise and measurements have
    generators of their own, from the trial's seed: trials of one seed see the same batches under any rule, and what is
    recorded changes nothing.

    Args:
        task: network, data and loss (its targets are not looked at).
        trials: one optimizer and batch size, any seeds and hyperparameters.
        record: quantities, by names of :data:`nqm.validation.QUANTITIES` or with names of your own.
        at: the steps after which to record, 0 for the start; None: 0, every step up to 20, then a tenth apart. The last
            step is always recorded.
        rule: :mod:`nqm.validation.training.gradients`. schedule: factors of the learning rate by step.
        replacement: each batch drawn from all examples, or else in epochs without replacement.

    Returns a table with the columns "run" (place among the trials), "step", the quantities, and "diverged": 1 in the
    row with which a run ended, since its training loss was NaN, infinite or ten times that of the start when it was
    recorded (its quantities are NaN there), else 0.

    Raises TypeError or ValueError, before any training, for what cannot be trained or recorded.

    >>> from nqm.validation import Penalised, Task, Trial, load_data, mlp
    >>> task = Task(mlp, load_data("digits"), torch.nn.functional.cross_entropy, {"training loss": 0.1})
    >>> trials = [Trial("SGD", batch_size=32, seed=seed, hyperparameters={"lr": 0.1}) for seed in (1, 2)]
    >>> found = train(task, trials, 20, record=["held-out accuracy"], at=[0], rule=Penalised("FP", 0.1, every=1))
    >>> bool(found.select(step=20)["held-out accuracy"].min() > 0.5)
    True
    """
    optimizer = check_trials(trials, steps, "steps")
    check_rule(rule)
    at = None if at is None else _checked_steps(at, steps)
    quantities = find(record)
    taken = [name for name in ("run", "step", "diverged") if name in quantities]
    if taken:
        raise ValueError(f"record: expected names other than those of the table's own columns, got {taken[0]!r}")
    for quantity in quantities.values():
        quantity.check(task)
    run = EnsembleRun(task, trials, optimizer, rule=rule, schedule=schedule, replacement=replacement)
    return recorded(run, steps, quantities, at)


def _checked_steps(at: Collection[int], steps: int) -> list[int]:
    """Steps to record after, as a list."""
    try:
        found = [operator.index(step) for step in at]
    except TypeError as error:
        raise TypeError(f"at: expected whole numbers such as [0, 10, 100], got {at!r:.200}") from error
    wrong = [step for step in found if not 0 <= step <= steps]
    if wrong:
        raise ValueError(f"at: expected steps from 0 to the last, {steps}, got {wrong[0]}")
    return found


def recorded(
    run: EnsembleRun, steps: int, quantities: Mapping[str, Quantity], at: Collection[int] | None = None
) -> Table:
    """Go on with a run up to step ``steps``, as :func:`train` does; the run can be looked at afterwards, and its
    networks (``run.net.module(run.theta[place])``) trained on."""
    rows: list[dict[str, float]] = []
    first = run.read()["training loss"]
    if at is None:
        at = {0, *_until(steps)}
    if run.number in at:
        _note(run, quantities, torch.ones_like(first, dtype=torch.bool), rows)
    for _ in run.train(steps, at):
        now = run.read()["training loss"]
        alive = now.isfinite() & (now - first <= (EXPLODED - 1.0) * first.abs())
        _note(run, quantities, alive, rows)
        if not bool(alive.all()):
            stay = torch.nonzero(alive)[:, 0]
            run.keep(stay.tolist())
            first = first[stay]
        if not run.running:
            break
    order = sorted(range(len(rows)), key=lambda i: (rows[i]["run"], rows[i]["step"]))
    return Table.from_rows([rows[i] for i in order], ("run", "step", *quantities, "diverged"))


def _until(steps: int) -> list[int]:
    found: list[int] = []
    for step in readings():
        if step >= steps:
            return [*found, steps]
        found.append(step)
    raise AssertionError("readings have no end")


def _note(
    run: EnsembleRun, quantities: Mapping[str, Quantity], alive: torch.Tensor, rows: list[dict[str, float]]
) -> None:
    """One row for each run that is still going."""
    for place, trial in enumerate(run.running):
        row: dict[str, float] = {"run": trial, "step": run.number}
        for name, quantity in quantities.items():
            draws = generator(run.draws[trial].seed, "measurement", run.number)
            row[name] = quantity(run.net, run.shown[place], run.data, draws) if alive[place] else math.nan
        rows.append({**row, "diverged": int(not alive[place])})
