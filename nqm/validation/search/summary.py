"""Measured steps to target, one row for each optimizer, batch size and metric."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..._statistics import critical_batch_size
from ..._table import Table
from ..training.axes import Axis
from .protocol import LONGER, Cell, Settings, best, confirmation_runs, edges, next_batches, search_boxes
from .records import CONFIRMATION, Record, read_results

__all__ = ["CriticalBatchSize", "Measured", "make_cell", "summarise"]

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "optimizer", "batch_size", "metric", "target", "steps", "examples", "lr", "effective_lr", "trials", "diverged",
    "at_edge", "natural_edge", "finals", "median", "low", "high", "error", "status",
)  # fmt: skip
SHOWN = ("optimizer", "batch_size", "metric", "steps", "median", "low", "high", "lr", "at_edge", "status")


class CriticalBatchSize(NamedTuple):
    """E_min / S_min in examples, from medians of confirmation runs; low and high from their fewest and most steps."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Measured:
    """Measured steps to target, as :func:`nqm.validation.measure_steps` finds them.

    table: columns of equal length by name, one row for each optimizer, batch size and metric, in that order:

    - optimizer, batch_size (examples), metric, target (in the metric's unit);
    - steps: of the search's best trial in this metric, inf where none reached the target; examples: steps * batch_size;
    - finals: the four best trials by the primary metric are confirmed, with that many fresh seeds; here are those runs
      with the least median. median, low (fewest) and high (most): of their steps to this metric's target, free of the
      luck of being chosen. error: standard error of log(median), from the spread of log(steps) as if it were normal (a
      run that did not get there counts as three times the median); it knows nothing of what the search may have missed.
      NaN without such runs;
    - one column for each hyperparameter of these runs, NaN where the optimizer has none of that name; lr and
      effective_lr = lr / (1 - momentum) for heavy-ball momentum, equal for the other optimizers;
    - trials: trained in the search, of which ``diverged`` did not count towards its budget;
    - at_edge: the hyperparameters whose best value lies within a tenth of an edge of everything searched, as
      "lr high"; "" where there is none. natural_edge: those that lie at an edge where they may (momentum 0);
    - status: "reached", "not reached", "all diverged", or "unfinished" where the file ends early.

    configuration: what was run: task, targets, settings, search spaces.
    """

    table: Table
    configuration: dict[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", Table(self.table))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Measured:
        """What a results file holds, finished or not; trains nothing and changes nothing.

        Raises ValueError for a damaged file, OSError where there is none.
        """
        return summarise(*read_results(path))

    @property
    def names(self) -> list[str]:
        """The optimizers' names."""
        return self.table.distinct("optimizer")

    @property
    def metrics(self) -> list[str]:
        """The metrics; by the first one hyperparameters were chosen."""
        return [metric for metric, _ in self.configuration["targets"]]

    def rows(self, optimizer: str, metric: str | None = None) -> Table:
        """The rows of one optimizer and metric (None: the primary one), by rising batch size."""
        metric = self.metrics[0] if metric is None else metric
        for name, value, known in (("optimizer", optimizer, self.names), ("metric", metric, self.metrics)):
            if value not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
        return self.table.select(optimizer=optimizer, metric=metric)

    def critical_batch_size(self, metric: str | None = None) -> dict[str, CriticalBatchSize]:
        """E_min / S_min of each optimizer: fewest examples at any batch size over fewest steps at any batch size.

        As ``nqm.Sweep.critical_batch_size``, from the medians of the confirmation runs. The interval is a
        range rather than a confidence interval: ``low`` takes the fewest examples of the luckiest runs over the
        fewest steps of the unluckiest, ``high`` the reverse. NaN where no cell has a finite median above 0.
        """
        return {name: _critical(self.rows(name, metric)) for name in self.names}

    def to_pandas(self) -> pd.DataFrame:
        """The table as a pandas DataFrame; imports pandas."""
        return self.table.to_pandas("Measured")

    def save_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write the table, numbers with all their digits; the file appears whole or not at all."""
        return self.table.to_csv(path)

    def __repr__(self) -> str:
        return f"Measured({self.table.rows} rows: {', '.join(self.names)})\n{self}"

    def __str__(self) -> str:
        return self.table.to_string(SHOWN)


def _critical(rows: Table) -> CriticalBatchSize:
    told = rows.where(np.isfinite(rows["median"]) & (rows["median"] > 0.0))
    if not told.rows:
        return CriticalBatchSize(math.nan, math.nan, math.nan)
    value = critical_batch_size(told["batch_size"], told["median"])
    low, high = told["low"], told["high"]
    with np.errstate(divide="ignore"):  # a start that lies at the target takes 0 steps
        lower, upper = ((told["batch_size"] * e).min() / s.min() for e, s in ((low, high), (high, low)))
    return CriticalBatchSize(value, float(lower), float(upper))


def make_cell(configuration: Mapping[str, Any], optimizer: str, batch_size: int) -> Cell:
    """The cell as the configuration of a results file describes it."""
    space = {name: _axis(axis) for name, axis in configuration["optimizers"][optimizer].items()}
    metrics = tuple(metric for metric, _ in configuration["targets"])
    settings = Settings(**{field.name: configuration[field.name] for field in fields(Settings)})
    return Cell(optimizer, batch_size, space, metrics, settings)


def summarise(
    configuration: Mapping[str, Any], records: Sequence[Record], keys: Sequence[tuple[str, int]] | None = None
) -> Measured:
    """The table of the cells with these keys (optimizer, batch size), or of all that have records."""
    by_cell: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        by_cell.setdefault(record.cell, []).append(record)
    order = list(configuration["optimizers"])
    chosen = sorted(set(by_cell if keys is None else keys), key=lambda key: (order.index(key[0]), key[1]))
    cells = [make_cell(configuration, *key) for key in chosen]
    names = dict.fromkeys(name for cell in cells for name in cell.space if name not in ("lr", "effective_lr"))
    after = COLUMNS.index("effective_lr") + 1
    columns = [*COLUMNS[:after], *names, *COLUMNS[after:]]
    targets = dict(configuration["targets"])
    rows = [row for cell in cells for row in _rows(cell, by_cell.get(cell.key, []), targets)]
    return Measured(Table.from_rows(rows, columns), dict(configuration))


def _rows(cell: Cell, records: Sequence[Record], targets: Mapping[str, float]) -> list[dict[str, Any]]:
    search = [record.outcome for record in records if record.round != CONFIRMATION]
    boxes, _ = search_boxes(cell, records)
    unfinished = bool(next_batches(cell, records))
    diverged = sum(outcome.status == "diverged" for outcome in search)
    rows = []
    for metric in cell.metrics:
        leader, again = best(records, metric), confirmation_runs(records, metric)
        chosen = again[0] if again else leader
        values = {} if chosen is None else chosen.trial.hyperparameters
        at = {} if leader is None else edges(cell, boxes, values)
        steps = math.inf if leader is None else leader.steps[metric]
        status = "all diverged" if diverged == len(search) else "not reached" if leader is None else "reached"
        row = {
            "optimizer": cell.optimizer, "batch_size": cell.batch_size, "metric": metric,
            "target": float(targets[metric]), "steps": steps, "examples": steps * cell.batch_size,
            **values, **_rates(values), "trials": len(search), "diverged": diverged,
            "at_edge": "; ".join(f"{name} {edge.side}" for name, edge in at.items() if not edge.natural),
            "natural_edge": "; ".join(f"{name} {edge.side}" for name, edge in at.items() if edge.natural),
            **_spread([outcome.steps[metric] for outcome in again]),
            "status": "unfinished" if unfinished else status,
        }  # fmt: skip
        rows.append(row)
    return rows


def _rates(values: Mapping[str, float]) -> dict[str, float]:
    """lr and effective_lr, whichever of them was searched."""
    if "effective_lr" in values:
        return {"lr": values["effective_lr"] * (1.0 - values.get("momentum", 0.0))}
    return {"effective_lr": values["lr"]} if "lr" in values else {}


def _spread(steps: Sequence[float]) -> dict[str, float]:
    if not steps:
        return {"finals": 0, "median": math.nan, "low": math.nan, "high": math.nan, "error": math.nan}
    median, error = float(np.median(steps)), math.nan
    if len(steps) > 1 and min(steps) > 0.0 and median < math.inf:
        given_up = LONGER * median  # at least as long took those that were given up
        error = math.sqrt(0.5 * math.pi / len(steps)) * float(np.std(np.log(np.minimum(steps, given_up)), ddof=1))
    spread = {"median": median, "low": min(steps), "high": max(steps), "error": error}
    return {"finals": len(steps), **spread}


def _axis(parts: Mapping[str, Any]) -> Axis:
    """An axis from JSON, where infinity is a string."""
    low, high = parts["limits"]
    natural = None if parts["natural"] is None else float(parts["natural"])
    return Axis(float(parts["low"]), float(parts["high"]), parts["scale"], (float(low), float(high)), natural)
