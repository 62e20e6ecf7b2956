"""Many tunings side by side: optimizers x batch sizes x targets."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _checks
from ._risk import ARRAYS, risk
from .backends import on_device, use_backend
from .backends.selection import current_choice, until
from .optimizers import Optimizer
from .problems.quadratic import NoisyQuadratic
from .search.first_passage import AFTER_END, after_end, crossings
from .search.tune import tuned

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from .plotting import Drawn

COLUMNS = (
    "optimizer", "target", "batch_size", "steps", "examples", "risk", "lr", "momentum", "power", "decay", "status",
)  # fmt: skip

Cell = tuple[str, Optimizer, float, float]  # name, optimizer, target, batch size
Row = tuple[Any, ...]  # in the order of COLUMNS
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
    if executor is not None and (isinstance(executor, type) or not callable(getattr(executor, "submit", None))):
        raise TypeError(f"executor: expected a concurrent.futures.Executor or None, got {_checks.describe(executor)}")
    cells = [
        (name, optimizer, float(t), float(b))
        for name, optimizer in optimizers.items()
        for t in targets
        for b in batches
    ]
    rows: list[Row | None] = [None] * len(cells)
    try:
        with _bar(len(cells), progress) as advance:
            if executor is not None:
                _spread(executor, problem, cells, rows, advance)
            left = [index for index, row in enumerate(rows) if row is None]
            for index, row in _computed(problem, cells, left):
                rows[index] = row
                advance(1)
    except KeyboardInterrupt as stop:
        raise SweepInterrupted(_table(rows), len(rows)) from stop
    result = _table(rows)
    columns = result.table
    late = columns["status"] == AFTER_END
    if late.any():
        names = ", ".join(dict.fromkeys(columns["optimizer"][late].tolist()))
        warnings.warn(
            f"{late.sum()} of {late.size} cells have status {AFTER_END!r} ({names}): the schedule's last value was "
            'held for more steps than it has. Take a longer one, or beyond="error" for "unreachable"',
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
        return (
            f"interrupted; {len(self.sweep.table['steps'])} of {self.cells} cells are done, in this exception's sweep"
        )


def _table(rows: list[Row | None]) -> Sweep:
    """Of the rows that are there; threads of an interrupted sweep may still be adding some."""
    there = [row for row in rows if row]
    columns = {column: np.array([row[i] for row in there]) for i, column in enumerate(COLUMNS)}
    for column in columns.values():
        column.flags.writeable = False
    return Sweep(columns)


@dataclass(frozen=True, eq=False)
class Sweep:
    """Results of :func:`sweep`, one row a cell.

    table: columns of equal length by name: optimizer, target, batch_size, steps, examples (steps * batch_size), risk
    (at that step), lr, momentum, power, decay (0 where the optimizer has none), status ("tuned", "fixed" for an
    optimizer without free values, "already there", "unreachable", "reached after the schedule's end" at the rate that
    a schedule has come down to by then, "failed: ..."). Printing shows the first and last rows of a long one.
    """

    table: dict[str, NDArray[Any]]

    @property
    def names(self) -> list[str]:
        """The optimizers' names, in the order given."""
        return list(dict.fromkeys(self.table["optimizer"].tolist()))

    def rows(self, optimizer: str, target: float | None = None) -> dict[str, NDArray[Any]]:
        """The rows of one optimizer, and of one target where there are several."""
        here = self.table["optimizer"] == str(optimizer)
        if not here.any():
            raise ValueError(f"optimizer: expected one of {self.names}, got {_checks.describe(optimizer)}")
        targets = np.unique(self.table["target"][here]).tolist()  # all optimizers have the same
        if target is None and len(targets) == 1:
            target = targets[0]
        if target not in targets:
            optimizer_given = isinstance(target, str) and target in self.names
            hint = f"; all optimizers are told at once, take [{target!r}] of that" if optimizer_given else ""
            raise ValueError(f"target: expected one of {targets}, got {_checks.describe(target)}{hint}")
        here &= self.table["target"] == target
        return {key: column[here] for key, column in self.table.items()}

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
        reached the target, or all started there. ``target`` is needed where the sweep has several.
        """
        found = {}
        for name in self.names:
            rows = self.rows(name, target)
            reached = np.isfinite(rows["steps"]) & (rows["steps"] > 0.0)
            steps, examples = rows["steps"][reached], rows["examples"][reached]
            found[name] = float(examples.min() / steps.min()) if steps.size else float("nan")
        return found

    def plot(self, ax: Axes | None = None) -> Drawn:
        """Steps against batch size on logarithmic axes, one line for each optimizer and target."""
        from .plotting import plot_sweep

        return plot_sweep(self, ax)

    def to_string(self, max_rows: int | None = None) -> str:
        """The table as text; of more than ``max_rows`` rows the first and last, and how many are left out between."""
        count = len(self.table["steps"])
        most = count if max_rows is None else min(count, _checks.whole(max_rows, "max_rows", low=2))
        head, tail = most - most // 2, most // 2
        at = np.concatenate([np.arange(head), np.arange(count - tail, count)])
        shown = ("optimizer", "target", "batch_size", "steps", "lr", "momentum", "power", "decay", "status")
        lines = [shown, *zip(*([_text(v) for v in self.table[column][at]] for column in shown), strict=True)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(shown))]
        text = ["  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines]
        if most < count:
            text.insert(1 + head, f"... {count - most} of {count} rows left out ...")
        return "\n".join(text)

    def __repr__(self) -> str:
        names = self.names
        shown = ", ".join(names if len(names) <= 8 else [*names[:8], f"... ({len(names)} optimizers)"])
        return f"Sweep({len(self.table['steps'])} cells: {shown})\n{self}"

    def __str__(self) -> str:
        return self.to_string(PRINTED)


class _Task:
    """Some cells of a sweep, as they travel to a worker, which calls this.

    An object rather than a function with arguments: dask looks through lists of arguments item by item, which takes
    many times as long as to pickle the whole.
    """

    def __init__(self, problem: NoisyQuadratic, cells: list[Cell], here: _Here) -> None:
        choice = current_choice()
        self.problem, self.cells, self.backend, self.threads = problem, cells, choice.name, choice.requested_threads
        self.here: _Here | None = here

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "here": None}  # what is in other processes is not

    def __call__(self) -> list[Row]:
        done = []
        with use_backend(self.backend, self.threads):  # as the caller has it; an error here is no cell's
            if self.here is None:
                return [_row(self.problem, *cell) for cell in self.cells]
            with until(self.here.stop):
                for index, cell in zip(self.here.indices, self.cells, strict=True):
                    row = self.here.rows[index] = _row(self.problem, *cell)
                    done.append(row)
        return done


class _Here(NamedTuple):
    """What a task shares with the sweep if it runs in the same process."""

    rows: list[Row | None]
    indices: range
    stop: threading.Event


def _spread(
    executor: Executor,
    problem: NoisyQuadratic,
    cells: list[Cell],
    rows: list[Row | None],
    advance: Callable[[int], object],
) -> None:
    """Fill in the rows that the executor computes; warn of those it loses, which stay None.

    A cell's own errors are rows too, so that any other error is a loss. Each task takes every n-th cell, so that all
    take about as long. There are up to 1024 of them: enough to keep some hundred workers busy to the end, and few
    enough for a task's overhead of milliseconds. Each carries the problem and prepares it anew, so that a problem of
    more than 10^4 nodes is worth fewer tasks, but no less than 64.
    """
    count = min(len(cells), max(64, min(1024, 10**7 // problem.curvature.size)))
    futures: dict[Future[list[Row]], int] = {}
    losses: list[BaseException] = []
    stop = threading.Event()
    try:
        for first in range(count):
            try:
                here = _Here(rows, range(first, len(cells), count), stop)
                future = executor.submit(_Task(problem, cells[first::count], here))
            except BrokenExecutor as error:
                losses.append(error)
                break
            _require_future(future)
            futures[future] = first
        for future in as_completed(futures):
            try:
                done = future.result()
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                losses.append(error)
            else:
                rows[futures[future] :: count] = done
                advance(len(done))
    except BaseException:
        stop.set()
        raise
    finally:
        for future in futures:
            future.cancel()
    if losses:
        warnings.warn(
            f"executor: lost {rows.count(None)} of {len(cells)} cells, which are computed in this process instead "
            f"({_line(losses[0])})",
            RuntimeWarning,
            stacklevel=3,
        )


def _require_future(future: Any) -> None:
    if isinstance(future, Future):
        return
    stop = getattr(future, "cancel", None) or getattr(future, "close", None)  # a future's, or a coroutine's
    if callable(stop):
        stop()
    kind = type(future)
    hint = "; of a dask Client take client.get_executor()" if kind.__module__.startswith("distributed.") else ""
    raise TypeError(
        "executor: expected a concurrent.futures.Executor, whose submit returns a concurrent.futures.Future, got one "
        f"whose submit returns a {kind.__module__}.{kind.__qualname__}{hint}"
    )


def _computed(problem: NoisyQuadratic, cells: list[Cell], wanted: list[int]) -> Iterator[tuple[int, Row]]:
    """(index, row) of each cell, here: one after another, or on a GPU together."""
    if on_device():
        from .backends.request_batching import together

        searches = [partial(_row, problem, *cells[index]) for index in wanted]
        yield from ((wanted[i], row) for i, row in together(searches))
    else:
        yield from ((index, _row(problem, *cells[index])) for index in wanted)


def _row(problem: NoisyQuadratic, name: str, optimizer: Optimizer, target: float, batch: float) -> Row:
    """Compute one cell."""
    steps = reached = float("nan")
    found = optimizer
    try:
        if optimizer.free:
            best = tuned(problem, optimizer, batch, target)
            found, steps, reached, status = best.optimizer, best.steps, best.risk, best.status
        else:
            steps = float(crossings(problem, optimizer, batch, target))
            schedule = optimizer.schedule
            end = 2.0**53 if schedule is None or schedule.beyond == "hold" else schedule.steps
            reached = float(risk(problem, optimizer, batch, min(steps, end)))
            status = "fixed" if np.isfinite(steps) else "unreachable"
            if after_end(optimizer, steps):
                status = AFTER_END
    except Exception as error:  # whatever it is, it is this cell's answer
        steps = reached = float("nan")
        status = f"failed: {_line(error)}"
    values = {key: value if isinstance(value, float) else np.nan for key, value in found.hyperparameters.items()}
    numbers = (values["lr"], values.get("momentum", 0.0), values.get("power", 0.0), values.get("decay", 0.0))
    return (name, target, batch, float(steps), float(steps) * batch, reached, *numbers, status)


@contextmanager
def _bar(total: int, progress: bool | None) -> Iterator[Callable[[int], object]]:
    """What to tell how many cells are done."""
    if not (sys.stderr.isatty() if progress is None else progress):
        yield lambda cells: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="cell", leave=False) as bar:
        yield bar.update


def _line(error: BaseException) -> str:
    """An error in one line, not endless: the longest status sets the width of its column."""
    text = " ".join(f"{type(error).__name__}: {error}".rstrip(": ").split())
    return text if len(text) <= 200 else text[:197] + "..."


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
