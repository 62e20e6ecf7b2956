"""``nqm scaling --curves``: from loss curves to the best schedule."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from .. import scaling
from .scaling_output import keep, parameter_lines, parameters_of, table_lines, tell_skipped

__all__ = ["answer"]

POINTS = 13  # of a schedule, in text


def answer(arguments: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
    """What was asked of loss curves: lines of text, and what JSON holds."""
    if arguments.peak_lr is not None and arguments.steps is None:
        raise ValueError("--peak-lr: expected --steps with it, got none")
    warmup: Any = "linear" if arguments.warmup_steps is None else arguments.warmup_steps
    curves = scaling.read_curves(arguments.curves, warmup=warmup, columns=dict(arguments.column))
    tell_skipped([(f"{file}, line {line}", reason) for file, line, reason in curves.skipped])
    fit = scaling.fit_curves(curves, seed=arguments.seed)
    rows = [_errors(fit, name, curve) for name, curve in curves.items()]
    found: dict[str, Any] = {
        "path": arguments.curves,
        "curves": rows,
        "skipped": [dict(zip(("file", "line", "reason"), row, strict=True)) for row in curves.skipped],
        "level": arguments.level,
        **parameters_of(fit, arguments.level),
    }
    text = [*table_lines(rows), "losses in nats; mean_error: of the fit, absolute, over all steps", "", str(fit)]
    text += parameter_lines(found)
    parts = []
    if arguments.steps is not None:
        peak = max(float(curve.lr.max()) for curve in curves.values())
        peak = peak if arguments.peak_lr is None else arguments.peak_lr
        best = fit.best_schedule(arguments.steps, peak, level=arguments.level)
        found["best_schedule"] = _schedule(best, peak)
        text += _schedule_lines(best, peak)
        parts.append(best)
    keep(arguments, fit, *parts)
    return text, found


def _errors(fit: scaling.CurvesFit, name: str, curve: scaling.LossCurve) -> dict[str, Any]:
    error = np.abs(fit.predict(curve.lr, curve.steps, batch_size=curve.batch_size) - curve.loss)
    return {"curve": name, "losses": curve.steps.size, "last_step": int(curve.steps[-1]),
            "last_loss": float(curve.loss[-1]), "mean_error": float(error.mean())}  # fmt: skip


def _schedule(best: Any, peak: float) -> dict[str, Any]:
    schedule = best.schedule
    return {
        "steps": schedule.steps, "peak_lr": peak,
        "compared": {name: column.tolist() for name, column in best.table.items()},
        "values": schedule.values.tolist(), "lengths": schedule.lengths.tolist(),
    }  # fmt: skip


def _schedule_lines(best: Any, peak: float) -> list[str]:
    schedule = best.schedule
    at = np.unique(np.linspace(0, schedule.steps - 1, POINTS).astype(int))
    lrs = [{"step": int(step), "lr": float(schedule(step))} for step in at]
    head = f"best schedule of {schedule.steps} steps, learning rates up to {peak:g}"
    return ["", head, str(best), "", *table_lines(lrs), "(all pieces: --json)"]
