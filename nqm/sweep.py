"""Many tunings side by side: optimizers x batch sizes x targets."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _checks
from .optimizers import Optimizer
from .problem import NoisyQuadratic
from .risk import risk
from .search import steps_to_target, tune

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

COLUMNS = (
    "optimizer", "target", "batch_size", "steps", "examples", "risk", "lr", "momentum", "power", "decay", "status",
)  # fmt: skip


def sweep(
    problem: NoisyQuadratic,
    optimizers: Mapping[str, Optimizer],
    batch_sizes: ArrayLike,
    target: ArrayLike,
    executor: Executor | None = None,
    progress: bool | None = None,
) -> Sweep:
    """Fewest steps to the target for every optimizer at every batch size.

    Args:
        problem: the noisy quadratic.
        optimizers: by name; hyperparameters that are ``nqm.FREE`` are tuned for each cell, others stay.
        batch_sizes: one or more, > 0.
        target: risk to reach, one or more.
        executor: any ``concurrent.futures.Executor`` (threads, processes, dask, ...); None computes here.
        progress: show a bar on stderr; None: only where stderr is a terminal.

    A cell that fails does not sink the others: its ``status`` says why, and its numbers are NaN.

    Raises:
        TypeError, ValueError: for wrong arguments, before any work.

    >>> import nqm
    >>> problem = nqm.NoisyQuadratic.power_law(10_000)
    >>> result = nqm.sweep(problem, {"SGD": nqm.SGD(nqm.FREE)}, [16, 256, 4096, 65536], target=0.01)
    >>> result.table["steps"]
    array([378197.,  25778.,   7832.,   6887.])
    >>> round(result.critical_batch_size()["SGD"])
    879
    """
    _checks.instance(problem, NoisyQuadratic, "problem", "a nqm.NoisyQuadratic")
    _checks.instance(optimizers, Mapping, "optimizers", 'a dict such as {"SGD": nqm.SGD(nqm.FREE)}')
    if not optimizers:
        raise ValueError("optimizers: expected at least one, got an empty dict")
    for name, optimizer in optimizers.items():
        _checks.instance(name, str, "optimizers", "names that are strings")
        _checks.instance(optimizer, Optimizer, f"optimizers[{name!r}]", "an optimizer such as nqm.SGD(nqm.FREE)")
        if optimizer.shape != ():
            raise ValueError(f"optimizers[{name!r}]: expected plain numbers, got arrays of shape {optimizer.shape}")
    batches = np.atleast_1d(_checks.reals(batch_sizes, "batch_sizes", low=0.0, high=np.inf, closed="high", ndim=1))
    targets = np.atleast_1d(_checks.reals(target, "target", low=0.0, ndim=1))
    if executor is not None and (isinstance(executor, type) or not callable(getattr(executor, "submit", None))):
        raise TypeError(f"executor: expected a concurrent.futures.Executor or None, got {_checks.describe(executor)}")
    cells = [(name, float(t), float(b)) for name in optimizers for t in targets for b in batches]
    rows: list[dict[str, Any]] = [{}] * len(cells)
    for index, row in _bar(_rows(problem, optimizers, cells, executor), len(cells), progress):
        rows[index] = row
    columns = {column: np.array([row[column] for row in rows]) for column in COLUMNS}
    for column in columns.values():
        column.flags.writeable = False
    return Sweep(columns)


@dataclass(frozen=True, eq=False)
class Sweep:
    """Results of :func:`sweep`, one row a cell.

    table: columns of equal length by name: optimizer, target, batch_size, steps, examples (steps * batch_size), risk
    (at that step), lr, momentum, power, decay (0 where the optimizer has none), status ("tuned", "fixed" for an
    optimizer
    without free values, "already there", "unreachable", "failed: ...").
    """

    table: dict[str, NDArray[Any]]

    @property
    def names(self) -> list[str]:
        """The optimizers' names, in the order given."""
        return list(dict.fromkeys(self.table["optimizer"].tolist()))

    def rows(self, optimizer: str, target: float | None = None) -> dict[str, NDArray[Any]]:
        """The rows of one optimizer, and of one target where there are several."""
        if optimizer not in self.names:
            raise ValueError(f"optimizer: expected one of {self.names}, got {_checks.describe(optimizer)}")
        here = (self.table["optimizer"] == optimizer) & (self.table["target"] == self._target(target))
        return {key: column[here] for key, column in self.table.items()}

    def _target(self, target: float | None) -> float:
        targets = np.unique(self.table["target"]).tolist()
        if target is None and len(targets) == 1:
            return float(targets[0])
        if target not in targets:
            raise ValueError(f"target: expected one of {targets}, got {target}")
        return float(target)  # type: ignore[arg-type]

    def to_pandas(self) -> pd.DataFrame:
        """The table as a pandas DataFrame; imports pandas."""
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("Sweep.to_pandas needs pandas: pip install pandas") from error
        return pd.DataFrame(self.table)

    def critical_batch_size(self, target: float | None = None) -> dict[str, float]:
        """E_min / S_min of each optimizer: fewest examples at any batch size over fewest steps at any batch size.

        McCandlish et al. (2018): where steps and examples trade off as (S / S_min - 1) (E / E_min - 1) = 1, training
        at this batch size takes twice both minima. Below it doubling the batch size nearly halves the steps; above,
        it hardly does. Only as good as the range of batch sizes: it must reach both regimes. NaN where no cell
        reached the target. ``target`` is needed where the sweep has several.
        """
        found = {}
        for name in self.names:
            rows = self.rows(name, target)
            reached = np.isfinite(rows["steps"])
            steps, examples = rows["steps"][reached], rows["examples"][reached]
            found[name] = float(examples.min() / steps.min()) if steps.size else float("nan")
        return found

    def plot(self, ax: Axes | None = None) -> Axes:
        """Steps against batch size on logarithmic axes, one line for each optimizer and target."""
        from .plotting import plot_sweep

        return plot_sweep(self, ax)

    def __repr__(self) -> str:
        return f"Sweep({len(self.table['steps'])} cells: {', '.join(self.names)})\n{self}"

    def __str__(self) -> str:
        shown = ("optimizer", "target", "batch_size", "steps", "lr", "momentum", "power", "decay", "status")
        lines = [shown, *zip(*([_text(v) for v in self.table[column]] for column in shown), strict=True)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(shown))]
        return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines)


def _rows(
    problem: NoisyQuadratic,
    optimizers: Mapping[str, Optimizer],
    cells: list[tuple[str, float, float]],
    executor: Executor | None,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(index, row) of each cell, as they get done."""
    if executor is None:
        for index, (name, target, batch) in enumerate(cells):
            yield index, _cell(problem, name, optimizers[name], target, batch)
        return
    futures: dict[Future[dict[str, Any]], int] = {
        executor.submit(_cell, problem, name, optimizers[name], target, batch): index
        for index, (name, target, batch) in enumerate(cells)
    }
    for future in as_completed(futures):
        index = futures[future]
        name, target, batch = cells[index]
        error = future.exception()
        yield index, future.result() if error is None else _failed(name, optimizers[name], target, batch, error)


def _cell(problem: NoisyQuadratic, name: str, optimizer: Optimizer, target: float, batch: float) -> dict[str, Any]:
    try:
        if optimizer.free:
            best = tune(problem, optimizer, batch, target)
            return _row(name, best.optimizer, target, batch, best.steps, best.risk, best.status)
        steps = float(steps_to_target(problem, optimizer, batch, target))
        schedule = optimizer.schedule
        end = 2.0**53 if schedule is None or schedule.beyond == "hold" else schedule.steps
        reached = float(risk(problem, optimizer, batch, min(steps, end)))
        return _row(name, optimizer, target, batch, steps, reached, "fixed" if np.isfinite(steps) else "unreachable")
    except Exception as error:  # whatever it is, it is this cell's answer
        return _failed(name, optimizer, target, batch, error)


def _row(
    name: str, optimizer: Optimizer, target: float, batch: float, steps: float, reached: float, status: str
) -> dict[str, Any]:
    values = {key: value if isinstance(value, float) else np.nan for key, value in optimizer.hyperparameters.items()}
    return {
        "optimizer": name, "target": target, "batch_size": batch, "steps": float(steps), "examples": steps * batch,
        "risk": reached, "lr": values["lr"], "momentum": values.get("momentum", 0.0), "power": values.get("power", 0.0),
        "decay": values.get("decay", 0.0), "status": status,
    }  # fmt: skip


def _failed(name: str, optimizer: Optimizer, target: float, batch: float, error: BaseException) -> dict[str, Any]:
    status = f"failed: {type(error).__name__}: {error}"
    return _row(name, optimizer, target, batch, float("nan"), float("nan"), status)


def _bar(rows: Iterator[Any], total: int, progress: bool | None) -> Iterator[Any]:
    if not (sys.stderr.isatty() if progress is None else progress):
        return rows
    from tqdm import tqdm

    return iter(tqdm(rows, total=total, unit="cell", leave=False))


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
