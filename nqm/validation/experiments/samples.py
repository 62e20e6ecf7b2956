"""The form of a network figure's data: numbers of single seeds, and their means; and what verdicts take from it.

Columns panel, quantity, series, x, seed, value, error, seeds. A row with a seed holds that seed's number (error NaN,
seeds 1); one with seed :data:`MEAN` the mean over ``seeds`` seeds with its standard error.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..._table import Table

__all__ = ["COLUMNS", "MEAN", "Row", "by_seed", "log_ratio", "means", "minus", "paired", "read_samples", "table_of"]

TYPES: dict[str, type] = {
    "panel": str, "quantity": str, "series": str, "x": float, "seed": int, "value": float, "error": float, "seeds": int,
}  # fmt: skip
COLUMNS = tuple(TYPES)
MEAN = -1


class Row(NamedTuple):
    """A number of one seed."""

    panel: str
    quantity: str
    series: str
    x: float
    seed: int
    value: float


def table_of(samples: Iterable[Row], averaged: Iterable[Row] = ()) -> Table:
    """Samples with their means, in the order in which they first come; of ``averaged`` the means alone."""
    rows: list[dict[str, Any]] = []
    for given, kept in ((list(samples), True), (list(averaged), False)):
        groups: dict[tuple[str, str, str, float], list[Row]] = {}
        for one in given:
            groups.setdefault(one[:4], []).append(one)
        for own in groups.values():
            if kept:
                rows += [{**one._asdict(), "error": math.nan, "seeds": 1} for one in own]
            rows.append(_mean(own))
    return Table.from_rows(rows, COLUMNS)


def _mean(rows: list[Row]) -> dict[str, Any]:
    """The mean over seeds, of a run that has diverged too: then it is NaN."""
    values = np.array([row.value for row in rows], dtype=float)
    error = values.std(ddof=1) / math.sqrt(values.size) if values.size > 1 else math.nan
    return {**rows[0]._asdict(), "seed": MEAN, "value": values.mean(), "error": error, "seeds": values.size}


def read_samples(path: str | os.PathLike[str]) -> Table:
    """The table of a CSV file, to the bit."""
    with open(path, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return Table({name: np.array([kind(row[name]) for row in rows]) for name, kind in TYPES.items()})


def means(table: Table, **conditions: Any) -> Table:
    """The means alone, of the rows that meet the conditions."""
    return table.select(seed=MEAN, **conditions)


def by_seed(table: Table, **conditions: Any) -> dict[int, float]:
    """One number for each seed.

    Raises ValueError where the conditions leave none, or several numbers of one seed.
    """
    found = table.where(table["seed"] != MEAN).select(**conditions)
    numbers = dict(zip(found["seed"].tolist(), found["value"].tolist(), strict=True))
    if not numbers or len(numbers) != found.rows:
        raise ValueError(f"expected one number of each seed for {conditions}, got {found.rows}")
    return numbers


def minus(a: float, b: float) -> float:
    return a - b


def log_ratio(a: float, b: float) -> float:
    """log(a / b); NaN where one is not above 0."""
    return math.log(a / b) if a > 0.0 and b > 0.0 else math.nan


def paired(
    first: dict[int, float], second: dict[int, float], function: Callable[[float, float], float] = minus
) -> NDArray[np.float64]:
    """A function of two numbers of the same seed, for all seeds that have both."""
    return np.array([function(first[seed], second[seed]) for seed in first if seed in second], dtype=float)
