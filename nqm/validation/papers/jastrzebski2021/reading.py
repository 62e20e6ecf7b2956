"""What is read from this paper's recorded runs: paths, one number of each, and the premise of most claims."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...._table import Table
from ...experiments.paper import Result
from ...experiments.samples import Row, by_seed, paired
from ...experiments.verdict import seen
from .protocol import EARLY

__all__ = ["BEST", "LARGEST", "PEAK", "SMALL", "courses", "ends", "group", "summary", "worse_at_small_rate"]

BEST, SMALL = "best rate", "small rate"
LARGEST, PEAK = "largest held-out accuracy", "largest Tr F"


def group(results: Sequence[Result], **conditions: object) -> list[Result]:
    """The results of these settings."""
    return [one for one in results if all(one.settings.get(name) == value for name, value in conditions.items())]


def courses(
    results: Sequence[Result], panel: str, quantity: str, series: str, column: str, scale: float = 1.0
) -> list[Row]:
    """A column of each result against the step."""
    return [
        Row(panel, quantity, series, float(step), one.settings["seed"], scale * value)
        for one in results
        for step, value in zip(one.columns["step"].tolist(), one.columns[column].tolist(), strict=True)
    ]


def ends(results: Sequence[Result], panel: str, series: str, quantities: Sequence[str], x: float = 0.0) -> list[Row]:
    """Some of each result's :func:`summary`."""
    found = [(one.settings["seed"], summary(one.columns)) for one in results]
    return [
        Row(panel, quantity, series, x, seed, numbers[quantity]) for seed, numbers in found for quantity in quantities
    ]


def summary(columns: Table) -> dict[str, float]:
    """Single numbers of a recorded run (accuracies in per cent; NaN where it diverged): largest and final held-out
    accuracy; final training accuracy; accuracy on the first half of the held-out examples at the end ("validation"), on
    the second ("test"); largest Tr F; early Tr F at the first reading of each loss of :data:`~.protocol.EARLY` (NaN
    where it is not reached).
    """
    found = {
        LARGEST: 100.0 * columns["held-out accuracy"].max(),
        "final held-out accuracy": 100.0 * columns["held-out accuracy"][-1],
        "final training accuracy": 100.0 * columns["training accuracy"][-1],
        "validation accuracy": 100.0 * columns["validation accuracy"][-1],
        "test accuracy": 100.0 * columns["test accuracy"][-1],
        PEAK: columns["Tr F"].max(),
    }
    for loss in EARLY:
        below = np.flatnonzero(columns["training loss"] <= loss)
        found[f"Tr F at loss {loss:g}"] = columns["Tr F"][below[0]] if below.size else math.nan
    bad = bool(columns["diverged"].any())
    return {name: math.nan if bad else float(value) for name, value in found.items()}


def worse_at_small_rate(table: Table, panel: str) -> bool:
    """The premise of sections 3 and 4: held-out accuracy is lower at eta*/10 than at eta*, by the whole interval."""
    best, small = (by_seed(table, panel=panel, quantity=LARGEST, series=series) for series in (BEST, SMALL))
    return seen(paired(best, small))
