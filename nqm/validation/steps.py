"""Measured steps to target, one row for each optimizer, batch size and metric."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .axes import Axis
from .cells import LONGER, Cell, Settings, best, edges, finals, next_heats, search_boxes
from .results import FINALS, Record, read_results

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "optimizer", "batch_size", "metric", "target", "steps", "examples", "lr", "effective_lr", "trials", "diverged",
    "at_edge", "natural_edge", "finals", "median", "low", "high", "error", "status",
)  # fmt: skip


class CriticalBatchSize(NamedTuple):
    """E_min / S_min in examples, from the medians of the finals; low and high from their fewest and most steps."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Measured:
    """Measured steps to target, as :func:`nqm.validation.search.measure_steps` finds them.

    table: columns of equal length by name, one row for each optimizer, batch size and metric, in that order:

    - optimizer, batch_size (examples), metric, target (in the metric's unit);
    - steps: of the search's best trial in this metric, inf where none reached the target; examples: steps * batch_size;
    - finals: the four best trials by the primary metric are trained again, with that many fresh seeds; here are those
      with the least median. median, low (fewest) and high (most): of their steps to this metric's target, free of the
      luck of being chosen. error: standard error of log(median), from the spread of log(steps) as if it were normal (a
      run that did not get there counts as three times the median); it knows nothing of what the search may have missed.
      NaN without finals;
    - one column for each hyperparameter of the finals, NaN where the optimizer has none of that name; lr and
      effective_lr = lr / (1 - momentum) for heavy-ball momentum, equal for the other optimizers;
    - trials: trained in the search, of which ``diverged`` did not count towards its budget;
    - at_edge: the hyperparameters whose best value lies within a tenth of an edge of everything searched, as
      "lr high"; "" where there is none. natural_edge: those that lie at an edge where they may (momentum 0);
    - status: "reached", "not reached", "all diverged", or "unfinished" where the file ends early.

    configuration: what was run: task, targets, settings, search spaces.
    """

    table: dict[str, NDArray[Any]]
    configuration: dict[str, Any]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Measured:
        """What a results file holds, finished or not; trains nothing and changes nothing.

        Raises ValueError for a damaged file, OSError where there is none.
        """
        return summarise(*read_results(path))

    @property
    def names(self) -> list[str]:
        """The optimizers' names."""
        return list(dict.fromkeys(self.table["optimizer"].tolist()))

    @property
    def metrics(self) -> list[str]:
        """The metrics; by the first one hyperparameters were chosen."""
        return [metric for metric, _ in self.configuration["targets"]]

    def rows(self, optimizer: str, metric: str | None = None) -> dict[str, NDArray[Any]]:
        """The rows of one optimizer and metric (None: the primary one), by rising batch size."""
        metric = self.metrics[0] if metric is None else metric
        for name, value, known in (("optimizer", optimizer, self.names), ("metric", metric, self.metrics)):
            if value not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
        here = (self.table["optimizer"] == optimizer) & (self.table["metric"] == metric)
        return {key: column[here] for key, column in self.table.items()}

    def critical_batch_size(self, metric: str | None = None) -> dict[str, CriticalBatchSize]:
        """E_min / S_min of each optimizer: fewest examples at any batch size over fewest steps at any batch size.

        As ``nqm.Sweep.critical_batch_size``, from the medians of the finals. The interval is a range rather than a
        confidence interval: ``low`` takes the fewest examples of the luckiest finals over the fewest steps of the
        unluckiest, ``high`` the reverse. NaN where no cell has a finite median.
        """
        found = {}
        for name in self.names:
            rows = self.rows(name, metric)
            reached = np.isfinite(rows["median"]) & (rows["low"] > 0.0)
            if not reached.any():
                found[name] = CriticalBatchSize(math.nan, math.nan, math.nan)
                continue
            batch = rows["batch_size"][reached]
            low, middle, high = (rows[column][reached] for column in ("low", "median", "high"))
            found[name] = CriticalBatchSize(
                *(float((batch * e).min() / s.min()) for e, s in ((middle, middle), (low, high), (high, low)))
            )
        return found

    def to_pandas(self) -> pd.DataFrame:
        """The table as a pandas DataFrame; imports pandas."""
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("Measured.to_pandas needs pandas: pip install pandas") from error
        return pd.DataFrame(self.table)

    def save_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write the table, numbers with all their digits; the file appears whole or not at all."""
        from .._table import write_csv

        return write_csv(self.table, path)

    def __repr__(self) -> str:
        return f"Measured({len(self.table['steps'])} rows: {', '.join(self.names)})\n{self}"

    def __str__(self) -> str:
        shown = ("optimizer", "batch_size", "metric", "steps", "median", "low", "high", "lr", "at_edge", "status")
        lines = [shown, *zip(*([_text(v) for v in self.table[column].tolist()] for column in shown), strict=True)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(shown))]
        return "\n".join("  ".join(part.rjust(w) for part, w in zip(line, widths, strict=True)) for line in lines)


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
    table = {column: np.array([row.get(column, math.nan) for row in rows]) for column in columns}
    for values in table.values():
        values.flags.writeable = False
    return Measured(table, dict(configuration))


def _rows(cell: Cell, records: Sequence[Record], targets: Mapping[str, float]) -> list[dict[str, Any]]:
    search = [record.outcome for record in records if record.round != FINALS]
    boxes, _ = search_boxes(cell, records)
    unfinished = bool(next_heats(cell, records))
    diverged = sum(outcome.status == "diverged" for outcome in search)
    rows = []
    for metric in cell.metrics:
        leader, again = best(records, metric), finals(records, metric)
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


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
