"""What a rung gives: predicted and measured curves, ratios of steps, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..._table import Table
from .moments import Floats

__all__ = ["MODELS", "Rung", "verdict"]

MODELS = ("additive", "gaussian", "matched")
DIVERGED = 100.0
"""A prediction more than this many times the measured loss counts as diverged: how far off it is says nothing more."""


@dataclass(frozen=True, eq=False)
class Rung:
    """Predicted against measured training.

    curves: columns of equal length: cell, optimizer, batch_size, lr, step, predicted (by the model ``headline``),
        predicted_additive, predicted_gaussian, predicted_matched, predicted_exact (NaN where there is none), mean,
        standard_error (of the mean over the runs), low and high (5% and 95% quantiles of single runs). Excess loss.
    ratios: cell, optimizer, batch_size, learning_rate ("same": both at the lr that the model finds best; "tuned": each
        at its own best), lr, measured_lr, predicted and measured (steps until the expected excess reaches the target),
        error (standard error of measured), ratio (predicted / measured).
    critical: cell, optimizer, predicted, measured, error, ratio: critical batch sizes E_min / S_min, in examples, over
        the batch sizes of ``ratios`` whose learning rate is tuned.
    z: half width of the band in standard errors, such that a true prediction leaves it anywhere with a chance of 5%:
        Student's t, Bonferroni over all rows of ``curves``.
    """

    name: str
    title: str
    headline: str
    runs: int
    z: float
    curves: Table
    ratios: Table
    critical: Table
    verdict: str

    def __post_init__(self) -> None:
        for name in ("curves", "ratios", "critical"):
            object.__setattr__(self, name, Table(getattr(self, name)))

    @property
    def cells(self) -> list[str]:
        """Names of the cells, in order."""
        return self.curves.distinct("cell")

    def distance(self, model: str = "") -> Floats:
        """(prediction - mean) / standard error at every row of ``curves``; of the headline model if none is named."""
        predicted = self.curves[f"predicted_{model}" if model else "predicted"]
        with np.errstate(divide="ignore", invalid="ignore"):
            return (predicted - self.curves["mean"]) / self.curves["standard_error"]

    def inside(self, model: str = "") -> dict[str, bool]:
        """For each cell, whether the prediction lies in the band mean +- z standard errors at every step."""
        near = np.abs(self.distance(model)) <= self.z
        return {cell: bool(np.all(near[self.curves["cell"] == cell])) for cell in self.cells}

    def __repr__(self) -> str:
        return f"Rung({self.name!r}, {len(self.cells)} cells, runs={self.runs})\n{self.verdict}"


def verdict(rung: Rung) -> str:
    """What the numbers say, in a few lines."""
    steps = rung.curves["step"].size
    band = f"{len(rung.cells)} cells, {steps} recorded steps, {rung.runs} runs: the band is the mean +- {rung.z:.2f} "
    return "\n".join([band + "standard errors.", *_about_models(rung), *_about_steps(rung)])


def _about_models(rung: Rung) -> Sequence[str]:
    lines = []
    for model in (*MODELS, "exact"):
        column = rung.curves[f"predicted_{model}"]
        if np.all(np.isnan(column)):
            continue
        inside = rung.inside(model).values()
        beyond = set(rung.curves["cell"][~(column <= DIVERGED * rung.curves["mean"])].tolist())
        rest = ~np.isin(rung.curves["cell"], list(beyond))
        line = f"{model}{' (headline)' if model == rung.headline else ''}: inside at every step in {sum(inside)} of "
        line += f"{len(inside)} cells"
        if beyond:
            line += f", diverges (beyond {DIVERGED:g} times the measured loss) in {len(beyond)}"
        if rest.any():
            off, far = 100.0 * np.abs(column / rung.curves["mean"] - 1.0)[rest], np.abs(rung.distance(model))[rest]
            line += f", farthest {np.nanmax(far):.1f} standard errors and {np.nanmax(off):.1f}% "
            line += f"(median {np.nanmedian(off):.1f}%){' in the others' if beyond else ''}"
        lines.append(line + ".")
    exact = rung.curves["predicted_exact"]
    if not np.all(np.isnan(exact)):
        errors = {m: 100.0 * np.nanmax(np.abs(rung.curves[f"predicted_{m}"] / exact - 1.0)) for m in MODELS}
        listed = ", ".join(f"{model} {error:.1f}%" for model, error in errors.items())
        lines.append(f"Without Monte Carlo error, against the exact moments of the data: at most {listed}.")
    return lines


def _about_steps(rung: Rung) -> Sequence[str]:
    lines = []
    for kind, text in (("same", "at the same learning rate"), ("tuned", "each at its own best learning rate")):
        ratio = rung.ratios["ratio"][rung.ratios["learning_rate"] == kind]
        lines.append(f"Predicted over measured steps to the target, {text}: {ratio.min():.3g} to {ratio.max():.3g}.")
    c = rung.critical
    for i, cell in enumerate(c["cell"]):
        where = f" ({cell})" if cell else ""
        lines.append(
            f"Critical batch size of {c['optimizer'][i]}{where}: predicted {c['predicted'][i]:.3g}, measured "
            f"{c['measured'][i]:.3g} +- {c['error'][i]:.2g}, ratio {c['ratio'][i]:.3g}."
        )
    return lines
