"""What is read from this paper's recorded runs: paths, one number of each, and the premise of most claims."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...._table import Table
from ...experiments.paper import Result
from ...experiments.samples import Row, by_seed, paired
from ...experiments.verdict import seen
from .protocol import EARLY

__all__ = ["BEST", "LARGEST", "PEAK", "SMALL", "at_loss", "courses", "ends", "group", "summary", "worse_at_small_rate"]

BEST, SMALL = "best rate", "small rate"
LARGEST, PEAK = "largest held-out accuracy", "largest Tr F"


def group(results: Sequence[Result], **conditions: object) -> list[Result]:
    """The results of these settings."""
    return [one for one in results if all(one.settings.get(name) == value for name, value in conditions.items())]


def courses(
    results: Sequence[Result], panel: str, quantity: str, series: str, column: str, scale: float = 1.0
) -> list[Row]:
    """A column of each result against the step: the steps of the longest, NaN once a run has diverged, so that a mean
    ends where the first of its runs does."""
    steps: list[int] = max((one.columns["step"].tolist() for one in results), key=len, default=[])
    rows = []
    for one in results:
        known = dict(zip(one.columns["step"].tolist(), one.columns[column].tolist(), strict=True))
        seed = one.settings["seed"]
        rows += [Row(panel, quantity, series, float(step), seed, scale * known.get(step, math.nan)) for step in steps]
    return rows


def ends(results: Sequence[Result], panel: str, series: str, quantities: Sequence[str], x: float = 0.0) -> list[Row]:
    """Some of each result's :func:`summary`."""
    found = [(one.settings["seed"], summary(one.columns)) for one in results]
    return [
        Row(panel, quantity, series, x, seed, numbers[quantity]) for seed, numbers in found for quantity in quantities
    ]


def summary(columns: Table) -> dict[str, float]:
    """Single numbers of a recorded run (accuracies in per cent; NaN where it diverged): largest and final held-out
    accuracy; final training accuracy; accuracy on the first half of the held-out examples at the end ("validation"), on
    the second ("test"); largest Tr F; early Tr F when the training loss first crosses each of :data:`~.protocol.EARLY`
    (:func:`at_loss`).
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
        found[f"Tr F at loss {loss:g}"] = math.exp(at_loss(columns["training loss"], loss, np.log(columns["Tr F"])))
    bad = bool(columns["diverged"].any())
    return {name: math.nan if bad else float(value) for name, value in found.items()}


def at_loss(loss: NDArray[np.float64], level: float, values: NDArray[np.float64]) -> float:
    """Values when the loss first falls to a level, straight in log loss between two readings; NaN where it does not, or
    has before the first reading."""
    below = np.flatnonzero(loss <= level)
    if not below.size or below[0] == 0:
        return math.nan
    k = int(below[0])
    part = math.log(loss[k - 1] / level) / math.log(loss[k - 1] / loss[k])
    return float(values[k - 1] + part * (values[k] - values[k - 1]))


def worse_at_small_rate(table: Table, panel: str) -> bool:
    """The premise of sections 3 and 4: held-out accuracy is lower at eta*/10 than at eta*, by the whole interval."""
    best, small = (by_seed(table, panel=panel, quantity=LARGEST, series=series) for series in (BEST, SMALL))
    return seen(paired(best, small))
