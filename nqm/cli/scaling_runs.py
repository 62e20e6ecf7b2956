"""``nqm scaling RUNS.CSV``: from final losses to the loss of other runs, the best allocation and the frontier."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .. import scaling
from .arguments import option
from .scaling_output import keep, parameter_lines, parameters_of, table_lines, tell_skipped

__all__ = ["EXAMPLE", "LIMITS", "answer"]

EXAMPLE = "example"  # in place of a file
LIMITS = {
    "compute": ("C", "most FLOP, 6 N B K tokens an example"),
    "steps_max": ("K", "most steps"),
    "batch_max": ("B", "most examples a step"),
    "params_max": ("N", "most parameters"),
    "time": ("S", "most seconds; needs --step-time"),
    "step_time": ("S", "seconds a step"),
}
PRINTED_LEVEL = 0.9  # of the intervals that a fit prints by itself


def answer(arguments: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
    """What was asked of final losses: lines of text, and what JSON holds."""
    limits = _limits(arguments)
    log = _log(arguments, limits)
    tell_skipped([(f"line {line}", reason) for line, reason in log.skipped])
    chosen = _chosen(log, arguments.split)
    fit = scaling.fit_runs(
        log.N[chosen], log.B[chosen], log.K[chosen], log.loss[chosen],
        lr_schedule=arguments.lr_schedule, warmup=arguments.warmup, exclude=log.exclude[chosen],
        min_steps=arguments.min_steps, seed=arguments.seed,
    )  # fmt: skip
    found = _about(arguments, log, chosen, fit)
    text = _about_lines(arguments, log, fit, found)
    if arguments.split is not None:
        found["held_out"] = held_out = _held_out(log, fit, ~chosen & ~log.exclude)
        text += [f"held out, {kind}: rms error of log loss {e['rms_log_error']:.4g}, {e['runs']} runs"
                 for kind, e in held_out.items()]  # fmt: skip
    length, level = arguments.sequence_length, arguments.level
    if arguments.predict:
        found["predict"] = [_predicted(fit, run, length, level) for run in arguments.predict]
        text += ["", f"predicted, with {level:.0%} intervals of a new run", *table_lines(found["predict"])]
    if arguments.best:
        best = fit.best(sequence_length=1.0 if length is None else length, level=level, **limits)
        found["best"] = {**asdict(best), "compute": None if length is None else best.compute}
        text += ["", f"best allocation, with {level:.0%} intervals", str(best)]
    parts = []
    if arguments.frontier is not None:
        step_time = limits["step_time"]
        frontier = fit.frontier(arguments.frontier, step_time=step_time, sequence_length=length, level=level)
        found["frontier"] = {name: column.tolist() for name, column in frontier.table.items()}
        text += ["", str(frontier)]
        parts.append(frontier)
    keep(arguments, fit, *parts)
    return text, found


def _limits(arguments: argparse.Namespace) -> dict[str, Any]:
    limits = {name: getattr(arguments, name) for name in LIMITS}
    for name, value in limits.items():
        if value is not None and not (arguments.best or (name == "step_time" and arguments.frontier is not None)):
            raise ValueError(f"{option(name)}: expected --best with it, got none")
    return limits


def _log(arguments: argparse.Namespace, limits: dict[str, Any]) -> Any:
    """The log; what was not given takes its default, that of the example if it is that."""
    if arguments.log == EXAMPLE:
        from ..scaling.example import LENGTH, WARMUP

        _default(arguments, lr_schedule="cosine", warmup=WARMUP, sequence_length=LENGTH)
    _default(arguments, lr_schedule="constant", warmup=0.0, min_steps=100.0)
    length = arguments.sequence_length
    if length is None and (limits["compute"] is not None or arguments.frontier is not None):
        raise ValueError("expected --sequence-length, tokens in an example, for FLOP (1: B counts tokens), got none")
    if arguments.log == EXAMPLE:
        return scaling.example_runs()
    return scaling.read_runs(arguments.log, sequence_length=length, columns=dict(arguments.column))


def _default(arguments: argparse.Namespace, **values: Any) -> None:
    for name, value in values.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)


def _chosen(log: Any, split: str | None) -> Any:
    """Which rows are to be fitted, (rows,) bool."""
    if split is None:
        return log.loss > 0.0
    if log.split is None:
        raise ValueError(f"--split: expected a column 'split' in {log.path}, got none")
    names = ", ".join(map(repr, sorted(set(log.split.tolist()))))
    chosen = log.split == split
    if not (chosen & ~log.exclude).any():
        raise ValueError(f"--split: expected one of {names}, with rows that are not excluded, got {split!r}")
    if not (~chosen & ~log.exclude).any():
        raise ValueError(f"--split: expected rows outside {split!r} to compare with, got none; the splits are {names}")
    return chosen


def _about(arguments: argparse.Namespace, log: Any, chosen: Any, fit: scaling.RunsFit) -> dict[str, Any]:
    """The log and the fit."""
    excluded = int(np.count_nonzero(log.exclude[chosen]))
    return {
        "file": log.path,
        "runs": int(fit.runs["N"].size),
        "excluded": excluded,
        "shorter_than_min_steps": int(np.count_nonzero(chosen)) - excluded - fit.runs["N"].size,
        "skipped": [{"line": line, "reason": reason} for line, reason in log.skipped],
        "lr_schedule": arguments.lr_schedule,
        "warmup": arguments.warmup,
        "level": arguments.level,
        "rms_log_error": fit.rms,
        **parameters_of(fit, arguments.level),
    }


def _about_lines(arguments: argparse.Namespace, log: Any, fit: scaling.RunsFit, found: dict[str, Any]) -> list[str]:
    short, length = found["shorter_than_min_steps"], arguments.sequence_length
    text = [
        f"{found['runs']} runs of {Path(log.path).name}, {found['excluded']} excluded, {len(log.skipped)} rows skipped"
        + (f", {short} runs of less than {arguments.min_steps:g} steps left out" if short else ""),
        "N: parameters, B: examples a step, K: steps, loss: nats, compute: FLOP = 6 N B K x tokens an example"
        + ("; taken as 1 without --sequence-length" if length is None else f", here {length:g}"),
        f"learning rate of all runs: {arguments.lr_schedule} with a warmup of {arguments.warmup:g} of the steps",
        "",
        str(fit),
    ]
    if arguments.level != PRINTED_LEVEL:
        text += ["", *parameter_lines(found)]
    if arguments.split is None and log.split is not None and len(set(log.split.tolist())) > 1:
        text.append("rows of every split were fitted; --split NAME fits one, and compares with the others")
    return text


def _held_out(log: Any, fit: scaling.RunsFit, rows: Any) -> dict[str, dict[str, Any]]:
    """Root-mean-square error of log loss over rows that were not fitted, by type."""
    kinds = log.type if log.type is not None else np.full(len(log), "all")
    found = {}
    for kind in sorted(set(kinds[rows].tolist())):
        at = rows & (kinds == kind)
        error = np.log(fit.losses(log.N[at], log.B[at], log.K[at], draws=0)[0] / log.loss[at])
        found[kind] = {"runs": int(at.sum()), "rms_log_error": float(np.sqrt(np.mean(error**2)))}
    return found


def _predicted(
    fit: scaling.RunsFit, run: tuple[float, float, float], length: float | None, level: float
) -> dict[str, Any]:
    n, b, k = run
    low, high = fit.interval(n, b, k, level)
    row = {"N": n, "B": b, "K": k, "loss": float(fit.predict(n, b, k)), "low": float(low), "high": float(high)}
    return row if length is None else {**row, "compute": 6.0 * n * b * k * length}
