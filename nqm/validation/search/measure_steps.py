"""Measuring steps to target: quasi-random search of hyperparameters with a fixed budget, in every cell of optimizers x
batch sizes (zhang2019 section 4 and appendix F)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import asdict
from os import PathLike
from typing import Any

from ..._parallel import cancelled_at_the_end, check_executor, submit
from ..execution import error_of, failure, one_thread, progress_bar, way_back
from ..training.task import Task
from ..training.torch_optimizers import OPTIMIZERS, TorchOptimizer
from ..training.trials import Outcome, Trial
from ..training.until_first import train_until_first
from .protocol import CANDIDATES, Cell, Settings, TrialBatch, next_batches
from .records import CONFIRMATION, Record, Results
from .summary import Measured, make_cell, summarise

__all__ = ["check_results", "measure_steps", "train_batch"]

STATUSES = ("reached", "diverged", "overtaken", "too slow")
Train = Callable[[Task, Sequence[Trial], int, bool], list[Outcome]]


def measure_steps(
    task: Task,
    optimizers: Sequence[str | TorchOptimizer],
    batch_sizes: Sequence[int],
    *,
    trials: int = 32,
    rounds: int = 2,
    seeds: int = 5,
    seed: int = 0,
    max_steps: int = 10_000,
    max_examples: int | None = None,
    results: str | PathLike[str] | None = None,
    executor: Executor | None = None,
    progress: bool = True,
    race: Train = train_until_first,
) -> Measured:
    """Fewest steps in which real training reaches the task's targets, for each optimizer at each batch size.

    Protocol, for each cell (optimizer, batch size), after zhang2019 section 4 and appendix F:

    1. Round 1 trains quasi-random points of the optimizer's whole search space, until ``trials`` of them have not
       diverged, or three times as many have been trained. All have the same weights at the start and the same batches.
    2. Each later round does the same in a box a third as wide along each axis as that of the round before, around the
       best so far: the trial with the fewest steps to the target of the first metric. Once every target has been
       reached, trials are given up at the step at which they can no longer be the best in any metric.
    3. While the best lies within a tenth of the width of an edge of everything searched, at most two more rounds search
       a third of the space's width around it. Edges where the optimum may lie (momentum 0), and limits beyond which
       there is nothing, ask for no such round. What is left is reported in the table.
    4. Confirmation: the four best are trained with ``seeds`` fresh seeds, the same in all cells, for at most three
       times the best's steps. The one with the least median of steps wins; the other seeds free it of most of the luck
       of being chosen.

    Other metrics get the best of the same trials and of the same confirmation runs. A cell in which no trial reaches
    the first target ends after round 1, with inf steps and a status that says why.

    What is trained next in a cell depends on the cell's own earlier outcomes alone, and each batch of trials on
    one CPU thread, so that the table does not depend on the executor, on interruptions or on the order in which batches
    end.

    Args:
        task: network, data, loss and targets; the first target's metric decides.
        optimizers: names in ``nqm.validation.OPTIMIZERS``, or those objects with search spaces of your own.
        batch_sizes: examples per step, >= 1.
        trials: that do not diverge, in each round.
        rounds: of the search, >= 1.
        seeds: of the confirmation runs, >= 1.
        seed: of everything random, >= 0.
        max_steps: that a trial may take.
        max_examples: that a trial may take, if that is less than max_steps times the batch size.
        results: a file (JSON lines) in which trials are kept as soon as their batch ends. The same call again goes on
            where the file ends, also with more batch sizes and optimizers. None: kept in memory only.
        executor: any ``concurrent.futures.Executor`` (processes, ``client.get_executor()`` of dask.distributed);
            batches of trials are its units of work. None: train here.
        progress: show a bar with the time left on stderr.
        race: what trains a batch of trials, for tests; executors of processes have to be able to import it.

    Raises:
        TypeError, ValueError: for wrong arguments, or a results file that is damaged or of another configuration,
            before any training.
        RuntimeError: where another process writes the results file, or where training failed, saying in which cell.
        KeyboardInterrupt: says how to go on.
    """
    settings = Settings(trials, rounds, seeds, seed, max_steps, max_examples)
    chosen = _optimizers(optimizers)
    if race is train_until_first:
        _check_update_rules(chosen)
    sizes = _batch_sizes(batch_sizes)
    check_executor(executor)
    configuration = _configuration(task, chosen, settings)
    opened = Results(results, configuration, tuple(chosen))
    with opened as kept, way_back(kept.path, lambda: f"{len(kept.records)} trials"):
        cells = [make_cell(kept.configuration, name, size) for name in chosen for size in sizes]
        with _Search(task, race, cells, kept, progress) as work:
            if executor is None:
                work.here()
            else:
                work.on(executor)
        return summarise(kept.configuration, kept.records, [cell.key for cell in cells])


def check_results(
    task: Task, optimizers: Sequence[str | TorchOptimizer], results: str | PathLike[str], **settings: Any
) -> None:
    """Raise as :func:`measure_steps` would where it cannot go on from this file; train nothing, and write nothing where
    there is no file. settings: its trials, rounds, seeds, seed, max_steps and max_examples."""
    chosen = _optimizers(optimizers)
    _check_update_rules(chosen)
    configuration = _configuration(task, chosen, Settings(**settings))
    if os.path.exists(results):
        Results(results, configuration, tuple(chosen)).close()


class _Search:
    """Trains the batches of trials of all cells and keeps their records."""

    def __init__(self, task: Task, train: Train, cells: Sequence[Cell], kept: Results, progress: bool) -> None:
        self.task, self.train, self.cells, self.kept = task, train, cells, kept
        self.records: dict[tuple[str, int], list[Record]] = {cell.key: [] for cell in cells}
        for record in kept.records:
            if record.cell in self.records:
                self.records[record.cell].append(record)
        self.planned = {cell.key: self._plan(cell) for cell in cells}
        done = sum(map(len, self.records.values()))
        total = sum(self.planned.values())
        self.bar = progress_bar(total, done, "trial", progress)

    def __enter__(self) -> _Search:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def here(self) -> None:
        """One batch after the other, cell by cell."""
        for cell in self.cells:
            while batches := self._next(cell):
                for batch in batches:
                    try:
                        outcomes = train_batch(*self._job(batch))
                    except Exception as error:
                        raise self._failure(batch, error) from error
                    self._keep(batch, outcomes)

    def on(self, executor: Executor) -> None:
        """As many batches at once as the cells allow; what is written is written here."""
        pending: dict[Future[list[Outcome]], TrialBatch] = {}
        with cancelled_at_the_end(pending):
            for cell in self.cells:
                self._submit(executor, cell, pending)
            while pending:
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                ended = [(pending.pop(future), future, error_of(future)) for future in done]
                for batch, future, error in ended:
                    if error is None:
                        self._keep(batch, future.result())
                for batch, _, error in ended:
                    if isinstance(error, Exception):
                        raise self._failure(batch, error) from error
                    if error is not None:
                        raise error
                for batch, _, _ in ended:
                    self._submit(executor, batch.cell, pending)

    def _submit(self, executor: Executor, cell: Cell, pending: dict[Future[list[Outcome]], TrialBatch]) -> None:
        running = {batch.key for batch in pending.values()}
        for batch in self._next(cell):
            if batch.key not in running:
                pending[submit(executor, train_batch, *self._job(batch))] = batch

    def _job(self, batch: TrialBatch) -> tuple[Train, Task, Sequence[Trial], int, bool]:
        """The arguments of :func:`train_batch`."""
        return self.train, self.task, batch.trials, batch.max_steps, batch.round == CONFIRMATION

    def _next(self, cell: Cell) -> list[TrialBatch]:
        return next_batches(cell, self.records[cell.key])

    def _keep(self, batch: TrialBatch, outcomes: Any) -> None:
        records = batch.records(_checked(batch, outcomes))
        self.kept.append(records)
        self.records[batch.cell.key] += records
        planned = self._plan(batch.cell)
        self.bar.total += planned - self.planned[batch.cell.key]
        self.planned[batch.cell.key] = planned
        self.bar.set_postfix_str(str(batch.cell), refresh=False)
        self.bar.update(len(records))

    def _plan(self, cell: Cell) -> int:
        """How many trials the cell will have taken in the end, as far as can be told."""
        done, batches = len(self.records[cell.key]), self._next(cell)
        usual = cell.settings.rounds * cell.settings.trials + CANDIDATES * cell.settings.seeds
        return max(usual, done + sum(len(batch.trials) for batch in batches)) if batches else done

    def _failure(self, batch: TrialBatch, error: Exception) -> RuntimeError:
        return failure(f"training failed: {batch}", error, sent="task", finished="heats", path=self.kept.path)


def train_batch(train: Train, task: Task, trials: Sequence[Trial], max_steps: int, to_the_end: bool) -> list[Outcome]:
    """One batch of trials, on one CPU thread."""
    with one_thread():
        return train(task, trials, max_steps, to_the_end)


def _checked(batch: TrialBatch, outcomes: Any) -> list[Outcome]:
    """The outcomes in plain numbers; an error where they are not those of the batch's trials."""
    if not isinstance(outcomes, list) or [getattr(o, "trial", None) for o in outcomes] != list(batch.trials):
        raise TypeError(f"{batch}: expected a list with the outcome of each trial, got {outcomes!r:.200}")
    for outcome in outcomes:
        if outcome.status not in STATUSES or set(outcome.steps) != set(batch.cell.metrics):
            raise ValueError(
                f"{batch}: expected a status among {', '.join(STATUSES)} and steps of {', '.join(batch.cell.metrics)}, "
                f"got {outcome!r}"
            )
    return [
        Outcome(trial, o.status, {metric: float(o.steps[metric]) for metric in batch.cell.metrics}, int(o.trained))
        for trial, o in zip(batch.trials, outcomes, strict=True)
    ]


def _configuration(task: Any, optimizers: Mapping[str, TorchOptimizer], settings: Settings) -> dict[str, Any]:
    """What the numbers depend on: task, targets in their order, settings, and the spaces of all known optimizers."""
    targets = getattr(task, "targets", None)
    if not callable(getattr(task, "fingerprint", None)) or not isinstance(targets, Mapping) or not targets:
        raise TypeError(f"task: expected a nqm.validation Task with targets, got {type(task).__name__}")
    known = {**OPTIMIZERS, **optimizers}
    return {
        "task": task.fingerprint(),
        "targets": [[metric, float(value)] for metric, value in targets.items()],
        **asdict(settings),
        "optimizers": {
            name: {key: asdict(axis) for key, axis in optimizer.space.items()} for name, optimizer in known.items()
        },
    }


def _optimizers(given: Any) -> dict[str, TorchOptimizer]:
    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        raise ValueError(f"optimizers: expected a list of at least one of {', '.join(OPTIMIZERS)}, got {given!r}")
    chosen: dict[str, TorchOptimizer] = {}
    for entry in given:
        if not isinstance(entry, TorchOptimizer) and entry not in OPTIMIZERS:
            raise ValueError(f"optimizers: expected some of {', '.join(OPTIMIZERS)}, got {entry!r}")
        optimizer = entry if isinstance(entry, TorchOptimizer) else OPTIMIZERS[entry]
        if optimizer.name in chosen:
            raise ValueError(f"optimizers: expected each one once, got {optimizer.name!r} twice")
        if not optimizer.space:
            raise ValueError(f"optimizers: expected hyperparameters to search, got none for {optimizer.name!r}")
        chosen[optimizer.name] = optimizer
    return chosen


def _check_update_rules(chosen: Mapping[str, TorchOptimizer]) -> None:
    """Training knows optimizers by name: an object of one's own may bring another space, nothing else."""
    for name, optimizer in chosen.items():
        if name not in OPTIMIZERS or optimizer.step is not OPTIMIZERS[name].step:
            raise ValueError(
                f"optimizers: expected one of {', '.join(OPTIMIZERS)}, at most with another search space, got {name!r} "
                "with a step of its own"
            )


def _batch_sizes(given: Any) -> list[int]:
    values = list(given) if hasattr(given, "__iter__") and not isinstance(given, str) else [given]
    whole = [v for v in values if hasattr(v, "__index__") and not isinstance(v, bool) and v >= 1]
    if not values or len(whole) < len(values):
        raise ValueError(f"batch_sizes: expected positive whole numbers, at least one, got {given!r}")
    return list(dict.fromkeys(int(v) for v in whole))
