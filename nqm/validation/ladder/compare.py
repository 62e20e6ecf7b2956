"""Cells of a rung, each at its learning rate: predicted, trained, compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from ... import steps_to_target, sweep, tune
from ..._statistics import critical_batch_size
from ..._table import Table
from .moments import Floats, Plain, numbers_of
from .rung import MODELS, Rung, verdict
from .task import LadderTask, crossing, recorded, train

__all__ = ["Progress", "check_runs", "compare"]

Progress = Callable[[str], None] | None
Columns = dict[str, NDArray[Any]]
ERROR = 0.05
"""Chance that a true prediction leaves the band at any step of any cell."""
GRID = 2.0 ** np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
RESAMPLES = 200


def check_runs(runs: int, quick: bool) -> int:
    """The number of runs, which has to allow for a standard error."""
    if isinstance(runs, bool) or not isinstance(runs, int | np.integer):
        raise TypeError(f"runs: expected a whole number, got {runs!r}")
    if runs < 2:
        raise ValueError(f"runs: expected at least 2, for a standard error, got {runs}")
    if not isinstance(quick, bool | np.bool_):
        raise TypeError(f"quick: expected True or False, got {quick!r}")
    return int(runs)


def compare(
    name: str,
    title: str,
    tasks: Sequence[LadderTask],
    optimizers: Mapping[str, Plain],
    batch_sizes: Sequence[int],
    tuned_sizes: Sequence[int],
    *,
    runs: int,
    tuned_runs: int,
    seed: int,
    progress: Progress,
    scaled: bool = False,
) -> Rung:
    """All cells tasks x optimizers x batch sizes at the learning rates the headline model finds best; then each task's
    first optimizer at ``tuned_sizes`` over learning rates, for real. With ``scaled`` only the first optimizer, plain
    SGD, is tuned, and momentum m runs at 1 - m times its learning rate."""
    say = progress or (lambda _: None)
    curves: list[Columns] = []
    ratios: list[dict[str, Any]] = []
    critical: list[dict[str, Any]] = []
    for number, task in enumerate(tasks):
        label = next(iter(optimizers))
        for size in batch_sizes:
            plain = _tuned_optimizer(task, optimizers[label], size)
            for kind, (other, optimizer) in enumerate(optimizers.items()):
                say(f"{task.name} {other}, batch size {size}".strip())
                chosen = plain
                if kind > 0:
                    chosen = _scaled(plain, optimizer) if scaled else _tuned_optimizer(task, optimizer, size)
                curve, ratio = _cell(task, other, chosen, size, runs, (seed, number, kind, size))
                curves.append(curve)
                ratios.append(ratio)
        rows, batch = _tuned(task, label, optimizers[label], tuned_sizes, tuned_runs, (seed, number), say)
        ratios += rows
        critical.append(batch)
    joined = {key: np.concatenate([curve[key] for curve in curves]) for key in curves[0]}
    z = float(student.isf(ERROR / 2.0 / joined["step"].size, runs - 1))
    tables = Table(joined), Table.from_rows(ratios, ratios[0]), Table.from_rows(critical, critical[0])
    rung = Rung(name, title, tasks[0].headline, runs, z, *tables, "")
    return replace(rung, verdict=verdict(rung))


def _tuned_optimizer(task: LadderTask, optimizer: Plain, size: int) -> Plain:
    """The optimizer at the learning rate at which the headline model reaches the target first."""
    best = tune(task.model.problem, optimizer, size / task.model.spread, task.target)
    if not math.isfinite(best.steps):
        raise ValueError(f"target: expected one in reach of {optimizer} at batch size {size}, got {task.target:g}")
    return best.optimizer


def _scaled(plain: Plain, optimizer: Plain) -> Plain:
    """The optimizer at 1 - momentum times the learning rate of plain SGD: for small rates, the same pace and noise."""
    lr = numbers_of(plain)[0] * (1.0 - optimizer.hyperparameters["momentum"])
    found: Plain = optimizer.with_values(lr=lr)
    return found


def _cell(
    task: LadderTask, label: str, chosen: Plain, size: int, runs: int, seed: Sequence[int]
) -> tuple[Columns, dict[str, Any]]:
    """Curves of one cell, up to twice the steps that the model takes to the target, and the ratio of those steps."""
    model = task.model
    predicted = float(steps_to_target(model.problem, chosen, size / model.spread, task.target))
    steps = recorded(2 * int(predicted))
    losses = train(task, chosen, size, steps, runs, seed)
    mean = losses.mean(axis=0)
    name = ", ".join(part for part in (task.name, label, f"batch size {size}") if part)
    lr = numbers_of(chosen)[0]
    missing = np.full(steps.size, np.nan)
    curve: Columns = {
        "cell": np.repeat(name, steps.size), "optimizer": np.repeat(label, steps.size),
        "batch_size": np.repeat(size, steps.size), "lr": np.repeat(lr, steps.size), "step": steps,
        "predicted": model.risk(chosen, size, steps),
    }  # fmt: skip
    for key in MODELS:
        curve[f"predicted_{key}"] = task.models[key].risk(chosen, size, steps) if key in task.models else missing
    curve["predicted_exact"] = missing if task.exact is None else task.exact(chosen, size, steps)
    with np.errstate(invalid="ignore"):
        curve |= {"mean": mean, "standard_error": losses.std(axis=0, ddof=1) / math.sqrt(runs)}
        curve |= dict(zip(("low", "high"), np.quantile(losses, (0.05, 0.95), axis=0), strict=True))
    measured = float(crossing(steps, mean, task.target))
    error = _error(crossing(steps, _resampled([losses], seed)[:, 0], task.target))
    return curve, _ratio(task.name, label, size, "same", (lr, lr), predicted, measured, error)


def _ratio(
    cell: str, label: str, size: int, kind: str, rates: tuple[float, float], predicted: float, measured: float,
    error: float,
) -> dict[str, Any]:  # fmt: skip
    return {
        "cell": cell, "optimizer": label, "batch_size": size, "learning_rate": kind, "lr": rates[0],
        "measured_lr": rates[1], "predicted": predicted, "measured": measured, "error": error,
        "ratio": predicted / measured,
    }  # fmt: skip


def _error(values: Floats) -> float:
    """Standard deviation of resampled values; inf where some never arrive."""
    return float(np.std(values)) if np.all(np.isfinite(values)) else math.inf


def _resampled(losses: Sequence[Floats], seed: Sequence[int]) -> Floats:
    """Means (resamples, settings, times) over runs drawn with replacement, of losses (runs, times) at each setting."""
    generator = np.random.default_rng([*seed, 1])
    runs = len(losses[0])
    share = generator.multinomial(runs, np.full(runs, 1.0 / runs), RESAMPLES) / runs
    with np.errstate(invalid="ignore"):  # 0 times inf
        means = np.stack([share @ part for part in losses], axis=1)
    return np.where(np.isnan(means), np.inf, means)


def _tuned(
    task: LadderTask, label: str, optimizer: Plain, sizes: Sequence[int], runs: int, seed: Sequence[int], say: Any
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Steps to the target at the best learning rate, of the model and for real, and the critical batch sizes."""
    model, batches = task.model, np.array(sizes, dtype=float)
    found = sweep(model.problem, {label: optimizer}, batches / model.spread, task.target, progress=False)
    rows, drawn = [], []
    for size, steps, lr in zip(sizes, found.table["steps"], found.table["lr"], strict=True):
        say(f"{task.name} {label}, learning rates at batch size {size}".strip())
        best, rate, resampled = _best_rate(task, optimizer, size, float(lr), float(steps), runs, (*seed, size))
        rows.append(_ratio(task.name, label, size, "tuned", (float(lr), rate), float(steps), best, _error(resampled)))
        drawn.append(resampled)
    measured = np.array([row["measured"] for row in rows])
    predicted = found.critical_batch_size()[label] * model.spread
    critical = critical_batch_size(batches, measured)
    error = _error(np.array([critical_batch_size(batches, steps) for steps in np.stack(drawn, axis=1)]))
    row = {"cell": task.name, "optimizer": label, "predicted": predicted, "measured": critical, "error": error}
    return rows, {**row, "ratio": predicted / critical}


def _best_rate(
    task: LadderTask, optimizer: Plain, size: int, lr: float, steps: float, runs: int, seed: Sequence[int]
) -> tuple[float, float, Floats]:
    """Fewest steps over learning rates lr 2^(k/2), the lr that takes them, and resampled fewest steps (resamples,).

    k = -2 ... 2, and on towards the better end until the best is inside."""
    times = recorded(3 * int(steps) + 2)
    rates = list(lr * GRID)
    losses = [train(task, optimizer.with_values(lr=rate), size, times, runs, seed) for rate in rates]
    for _ in range(6):
        counts = [float(crossing(times, part.mean(axis=0), task.target)) for part in losses]
        best = int(np.argmin(counts))
        if 0 < best < len(rates) - 1 or not math.isfinite(counts[best]):
            break
        end = 0 if best == 0 else len(rates)
        rates.insert(end, rates[best] * (GRID[0] if best == 0 else GRID[-1]) ** 0.5)
        losses.insert(end, train(task, optimizer.with_values(lr=rates[end]), size, times, runs, seed))
    counts = [float(crossing(times, part.mean(axis=0), task.target)) for part in losses]
    best = int(np.argmin(counts))
    resampled = crossing(times, _resampled(losses, seed), task.target).min(axis=1)
    return counts[best], float(rates[best]), resampled
