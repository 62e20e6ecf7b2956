"""Many tunings side by side: optimizers x batch sizes x targets."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from . import _checks
from ._parallel import check_executor
from ._risk import ARRAYS
from ._statistics import critical_batch_size
from ._status import Status
from ._table import Table
from .optimizers import STANDARD, Optimizer
from .problems.quadratic import NoisyQuadratic
from .search.cells import Numbers, Row, columns, computed, spread

__all__ = ["Sweep", "SweepInterrupted", "sweep"]

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from .plotting import Drawn

PRINTED = 30  # rows of a table, at most


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
        executor: any ``concurrent.futures.Executor`` (threads, processes, dask, MPI, ...); None computes here. The
            table is the same, to the bit. Where the executor loses cells, because it breaks, its workers die or the
            cells do not get to them, a RuntimeWarning says how many and why, and they are computed here.
        progress: show a bar on stderr; None: only where stderr is a terminal.

    A cell that fails does not sink the others: its ``status`` says why, and its numbers are NaN.

    Raises:
        TypeError, ValueError: for wrong arguments, before any work.
        SweepInterrupted: a KeyboardInterrupt, with the cells that are done in its ``sweep``. What the executor has not
            begun is cancelled; its threads stop within the cell they are at, other processes finish what they have.

    Processes of this machine::

        if __name__ == "__main__":  # processes that are spawned import the script
            with concurrent.futures.ProcessPoolExecutor() as pool:
                result = nqm.sweep(problem, optimizers, batch_sizes, target, executor=pool)

    Dask, whose scheduler gives the cells of a worker that has died to another::

        if __name__ == "__main__":  # as above, if the cluster is a LocalCluster
            with distributed.Client(address_or_cluster) as client:
                result = nqm.sweep(problem, optimizers, batch_sizes, target, executor=client.get_executor())

    MPI, by ``mpiexec -n 8 python -m mpi4py.futures script.py``: one process for the script and seven that compute::

        if __name__ == "__main__":  # those seven import the script
            with mpi4py.futures.MPIPoolExecutor() as pool:
                result = nqm.sweep(problem, optimizers, batch_sizes, target, executor=pool)

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
            shape = f"arrays of shape {optimizer.shape}"
            raise ValueError(f"optimizers[{name!r}]: expected plain numbers, got {shape}{ARRAYS}")
    batches = np.atleast_1d(_checks.reals(batch_sizes, "batch_sizes", low=0.0, high=np.inf, closed="high", ndim=1))
    targets = np.atleast_1d(_checks.reals(target, "target", low=0.0, ndim=1))
    check_executor(executor)
    cells = [
        (name, optimizer, float(t), float(b))
        for name, optimizer in optimizers.items()
        for t in targets
        for b in batches
    ]
    numbers = _numbers(optimizers)
    rows: list[Row | None] = [None] * len(cells)
    try:
        with _bar(len(cells), progress) as advance:
            if executor is not None:
                spread(executor, problem, cells, numbers, rows, advance)
            left = [index for index, row in enumerate(rows) if row is None]
            for index, row in computed(problem, cells, numbers, left):
                rows[index] = row
                advance(1)
    except KeyboardInterrupt as stop:
        raise SweepInterrupted(_table(rows, numbers), len(rows)) from stop
    result = _table(rows, numbers)
    late = result.table["status"] == Status.AFTER_END
    if late.any():
        names = ", ".join(result.table.where(late).distinct("optimizer"))
        warnings.warn(
            f"{late.sum()} of {late.size} cells have status {Status.AFTER_END!r} ({names}): the schedule's last value "
            'was held for more steps than it has. Take a longer one, or beyond="error" for "unreachable"',
            UserWarning,
            stacklevel=2,
        )
    return result


class SweepInterrupted(KeyboardInterrupt):
    """Ctrl-C during a sweep: ``sweep`` has the cells that were done."""

    def __init__(self, done: Sweep, cells: int) -> None:
        super().__init__(done, cells)
        self.sweep, self.cells = done, cells

    def __str__(self) -> str:
        return f"interrupted; {self.sweep.table.rows} of {self.cells} cells are done, in this exception's sweep"


def _numbers(optimizers: Mapping[str, Optimizer]) -> Numbers:
    """The hyperparameters that the table has columns for: the standard ones, and what others some optimizer has."""
    others = [one for optimizer in optimizers.values() for one in optimizer.described.values()]
    return tuple({one.name: one for one in (*STANDARD, *others)}.values())


def _table(rows: list[Row | None], numbers: Numbers) -> Sweep:
    """Of the rows that are there; threads of an interrupted sweep may still be adding some."""
    there = [row for row in rows if row]
    return Sweep(Table({name: np.array([row[i] for row in there]) for i, name in enumerate(columns(numbers))}))


@contextmanager
def _bar(total: int, progress: bool | None) -> Iterator[Callable[[int], object]]:
    """What to tell how many cells are done."""
    if not (sys.stderr.isatty() if progress is None else progress):
        yield lambda cells: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="cell", leave=False) as bar:
        yield bar.update


@dataclass(frozen=True, eq=False)
class Sweep:
    """Results of :func:`sweep`, one row per cell.

    table: columns of equal length by name: optimizer, target, batch_size, steps, examples (steps * batch_size), risk
    (at that step), lr, momentum, power, decay (0 where the optimizer has none), other hyperparameters that some
    optimizer has (their default, or NaN, where another has none), status ("tuned", "fixed" for an optimizer without
    free values, "already there", "unreachable", "reached after the schedule's end" at the rate that
    a schedule has come down to by then, "failed: ..."). Printing shows the first and last rows of a long one.
    """

    table: Table

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", Table(self.table))

    @property
    def names(self) -> list[str]:
        """The optimizers' names, in the order given."""
        return self.table.distinct("optimizer")

    def rows(self, optimizer: str, target: float | None = None) -> Table:
        """The rows of one optimizer, and of one target where there are several."""
        here = self.table.select(optimizer=str(optimizer))
        if not here.rows:
            raise ValueError(f"optimizer: expected one of {self.names}, got {_checks.describe(optimizer)}")
        targets = np.unique(here["target"]).tolist()  # all optimizers have the same
        if target is None and len(targets) == 1:
            target = targets[0]
        if target not in targets:
            optimizer_given = isinstance(target, str) and target in self.names
            hint = f"; all optimizers are told at once, take [{target!r}] of that" if optimizer_given else ""
            raise ValueError(f"target: expected one of {targets}, got {_checks.describe(target)}{hint}")
        return here.select(target=target)

    def to_pandas(self) -> pd.DataFrame:
        """The table as a pandas DataFrame; imports pandas."""
        return self.table.to_pandas("Sweep")

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write the table as CSV, numbers with all their digits; the file appears whole or not at all."""
        return self.table.to_csv(path)

    def critical_batch_size(self, target: float | None = None) -> dict[str, float]:
        """E_min / S_min of each optimizer: fewest examples at any batch size over fewest steps at any batch size.

        McCandlish et al. (2018): where steps and examples trade off as (S / S_min - 1) (E / E_min - 1) = 1, training
        at this batch size takes twice both minima. Below it doubling the batch size nearly halves the steps; above,
        it hardly does. Only as good as the range of batch sizes: it must reach both regimes. NaN where no cell
        reached the target, or all started there. ``target`` is needed where the sweep has several.
        """
        found = {}
        for name in self.names:
            rows = self.rows(name, target)
            found[name] = critical_batch_size(rows["batch_size"], rows["steps"])
        return found

    def plot(self, ax: Axes | None = None) -> Drawn:
        """Steps against batch size on logarithmic axes, one line for each optimizer and target."""
        from .plotting import plot_sweep

        return plot_sweep(self.table, ax)

    def to_string(self, max_rows: int | None = None) -> str:
        """The table as text; of more than ``max_rows`` rows the first and last, and how many are left out between."""
        return self.table.to_string(self._shown, max_rows=max_rows)

    @property
    def _shown(self) -> list[str]:
        return [name for name in self.table if name not in ("examples", "risk")]

    def _repr_html_(self) -> str:
        return self.table.to_html(self._shown)

    def __repr__(self) -> str:
        names = self.names
        shown = ", ".join(names if len(names) <= 8 else [*names[:8], f"... ({len(names)} optimizers)"])
        return f"Sweep({self.table.rows} cells: {shown})\n{self}"

    def __str__(self) -> str:
        return self.to_string(PRINTED)
