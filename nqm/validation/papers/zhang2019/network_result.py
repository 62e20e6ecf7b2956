"""What is found about one network: its measured quadratic, predicted and measured steps to target, loss curves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from os import PathLike

from torch import nn

from ...._table import Table
from ...measurement.measure import measure
from ...measurement.prediction import Predicted
from ...measurement.quadratic import MeasuredQuadratic
from ...search.summary import Measured
from ...training.reference import checkpoints
from ...training.task import Task
from .spectra import Columns, compute_power_law, compute_spectra, compute_variance

__all__ = ["NetworkResult", "ratio"]

SPECTRA_AT = (0, 50, 200, 1000)  # steps of the reference run whose spectra are drawn


@dataclass(frozen=True, eq=False)
class NetworkResult:
    """One network: its measured quadratic, predicted and measured steps to target, and loss curves.

    predicted: with the measured noise everywhere; growing: with noise that grows with the loss, no rows where it was
    not seen to grow. curves: columns optimizer, batch_size, lr, step, predicted, predicted_growing (NaN there), mean,
    low, high (training loss; of the seeds' runs at the hyperparameters that the model finds best), target. point: the
    network where it was measured. kept: its results file.
    elsewhere: columns share (of the target, at which the reference run was measured), optimizer, batch_size, predicted
    (steps; NaN where the quadratic's floor lies above the target), measured, ratio; None where that was not asked for.
    """

    task: Task
    quadratic: MeasuredQuadratic
    predicted: Predicted
    growing: Predicted
    measured: Measured
    curves: Table
    point: nn.Module
    kept: str | PathLike[str] | None = None
    elsewhere: Table | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "curves", Table(self.curves))

    @property
    def name(self) -> str:
        return self.task.name

    @cached_property
    def spectra(self) -> tuple[Columns, Columns, Columns]:
        """Columns of zhang2019's figures 9, along the reference run, 10 and 12, where the network was measured."""
        task, seed = self.task, int(self.measured.configuration["seed"])
        start, passed = task.build(seed), checkpoints(task, SPECTRA_AT, seed=seed)
        there = measure(start, task.loss, task.data, at=self.point, curvature="ekfac", device=task.device)
        return (
            compute_spectra(start, task.loss, task.data, passed, device=task.device),
            compute_variance(there),
            compute_power_law(self.quadratic),
        )

    def ratios(self) -> Table:
        """Predicted over measured (median of the confirmation runs) steps to the training loss: columns net, optimizer,
        batch_size, noise ("measured" or "growing"), predicted, measured, low, high, ratio (NaN where half of the runs
        or more did not reach the target)."""
        records = []
        for noise, predicted in (("measured", self.predicted), ("growing", self.growing)):
            for name in predicted.names:
                ours, theirs = predicted.rows(name), self.measured.rows(name)
                for size, steps in zip(ours["batch_size"], ours["steps"], strict=True):
                    cell = theirs.select(batch_size=size)
                    median = cell["median"][0]
                    records.append({
                        "net": self.name, "optimizer": name, "batch_size": size, "noise": noise, "predicted": steps,
                        "measured": median, "low": cell["low"][0], "high": cell["high"][0],
                        "ratio": ratio(steps, median),
                    })  # fmt: skip
        return Table.from_rows(records, records[0])

    def trained(self) -> Table:
        """Steps to the training loss at the hyperparameters that the model finds best: columns net, optimizer,
        batch_size, predicted, measured (the first step read at which the mean loss of the seeds' runs is at the target;
        inf where it is not within the steps trained)."""
        records, curves = [], self.curves
        for name, size in dict.fromkeys(zip(curves["optimizer"].tolist(), curves["batch_size"].tolist(), strict=True)):
            curve = curves.select(optimizer=name, batch_size=size)
            steps = self.predicted.rows(name).select(batch_size=size)["steps"][0]
            reached = curve["step"][curve["mean"] <= curve["target"]]
            records.append({
                "net": self.name, "optimizer": name, "batch_size": size,
                "predicted": float(steps), "measured": float(min(reached, default=math.inf)),
            })  # fmt: skip
        return Table.from_rows(records, records[0])

    def critical(self) -> Table:
        """Critical batch sizes: columns net, optimizer, predicted, measured, low, high, ratio."""
        predicted, records = self.predicted.critical_batch_size(), []
        for name, found in self.measured.critical_batch_size().items():
            records.append({
                "net": self.name, "optimizer": name, "predicted": predicted[name], "measured": found.value,
                "low": found.low, "high": found.high, "ratio": predicted[name] / found.value,
            })  # fmt: skip
        return Table.from_rows(records, records[0])


def ratio(predicted: float, measured: float) -> float:
    """Predicted over measured steps; NaN where the measurement did not arrive."""
    return predicted / measured if 0.0 < measured < math.inf else math.nan
