"""The cells of a sweep: computed here, or by executors."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .._parallel import cancelled_at_the_end, submit
from .._risk import risk
from .._status import Status
from ..backends import on_device, use_backend
from ..backends.selection import current_choice, until
from ..optimizers import Hyperparameter, Optimizer
from ..problems.quadratic import NoisyQuadratic
from .first_passage import after_end, first_passage
from .tuning import tuned

__all__ = ["Numbers", "Row", "Task", "columns", "computed", "spread", "stopped_by_errors"]

Cell = tuple[str, Optimizer, float, float]  # name, optimizer, target, batch size
Row = tuple[Any, ...]  # in the order of the columns
Numbers = tuple[Hyperparameter, ...]  # that have a column


def columns(numbers: Numbers) -> tuple[str, ...]:
    """Names of what a row holds."""
    return "optimizer", "target", "batch_size", "steps", "examples", "risk", *(one.name for one in numbers), "status"


class Task:
    """Some cells of a sweep, as they travel to a worker, which calls this.

    An object rather than a function with arguments: dask looks through lists of arguments item by item, which takes
    many times as long as to pickle the whole.
    """

    def __init__(self, problem: NoisyQuadratic, cells: list[Cell], numbers: Numbers, here: _Here) -> None:
        choice = current_choice()
        self.problem, self.cells, self.numbers = problem, cells, numbers
        self.backend, self.threads = choice.name, choice.requested_threads
        self.here: _Here | None = here

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "here": None}  # what is in other processes is not

    def __call__(self) -> list[Row]:
        done = []
        with use_backend(self.backend, self.threads):  # as the caller has it; an error here is no cell's
            if self.here is None:
                return [_row(self.problem, *cell, self.numbers) for cell in self.cells]
            with until(self.here.stop):
                for index, cell in zip(self.here.indices, self.cells, strict=True):
                    row = self.here.rows[index] = _row(self.problem, *cell, self.numbers)
                    done.append(row)
        return done


class _Here(NamedTuple):
    """What a task shares with the sweep if it runs in the same process."""

    rows: list[Row | None]
    indices: range
    stop: threading.Event


def spread(
    executor: Executor,
    problem: NoisyQuadratic,
    cells: list[Cell],
    numbers: Numbers,
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
    with cancelled_at_the_end(futures), stopped_by_errors(stop):
        for first in range(count):
            try:
                here = _Here(rows, range(first, len(cells), count), stop)
                future = submit(executor, Task(problem, cells[first::count], numbers, here))
            except BrokenExecutor as error:
                losses.append(error)
                break
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
    if losses:
        warnings.warn(
            f"executor: lost {rows.count(None)} of {len(cells)} cells, which are computed in this process instead "
            f"({_line(losses[0])})",
            RuntimeWarning,
            stacklevel=3,
        )


def computed(
    problem: NoisyQuadratic, cells: list[Cell], numbers: Numbers, wanted: list[int]
) -> Iterator[tuple[int, Row]]:
    """(index, row) of each cell, here: one after another, or on a GPU together."""
    if on_device():
        from ..backends.request_batching import together

        searches = [partial(_row, problem, *cells[index], numbers) for index in wanted]
        yield from ((wanted[i], row) for i, row in together(searches))
    else:
        yield from ((index, _row(problem, *cells[index], numbers)) for index in wanted)


def _row(
    problem: NoisyQuadratic, name: str, optimizer: Optimizer, target: float, batch: float, numbers: Numbers
) -> Row:
    """Compute one cell."""
    steps = reached = float("nan")
    found, status = optimizer, ""
    try:
        if optimizer.free:
            best = tuned(problem, optimizer, batch, target)
            found, steps, reached, status = best.optimizer, best.steps, best.risk, best.status
        else:
            steps = float(first_passage(problem, optimizer, batch, target))
            schedule = optimizer.schedule
            end = 2.0**53 if schedule is None or schedule.beyond == "hold" else schedule.steps
            reached = float(risk(problem, optimizer, batch, min(steps, end)))
            status = Status.FIXED if np.isfinite(steps) else Status.UNREACHABLE
            if after_end(optimizer, steps):
                status = Status.AFTER_END
    except Exception as error:  # whatever it is, it is this cell's answer
        steps = reached = float("nan")
        status = f"failed: {_line(error)}"
    values = {key: value if isinstance(value, float) else np.nan for key, value in found.hyperparameters.items()}
    row = (values.get(one.name, np.nan if one.default is None else one.default) for one in numbers)
    return (name, target, batch, float(steps), float(steps) * batch, reached, *row, status)


def _line(error: BaseException) -> str:
    """An error in one line, not endless: the longest status sets the width of its column."""
    text = " ".join(f"{type(error).__name__}: {error}".rstrip(": ").split())
    return text if len(text) <= 200 else text[:197] + "..."


@contextmanager
def stopped_by_errors(stop: threading.Event) -> Iterator[None]:
    """Set ``stop`` where the block ends in an error, for whoever still computes."""
    try:
        yield
    except BaseException:
        stop.set()
        raise
