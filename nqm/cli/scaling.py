"""The shell command ``nqm scaling``: training logs in, predictions and decisions out."""

from __future__ import annotations

import argparse
import errno
import math
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

TOLD = 10  # skipped rows that are said one by one
POINTS = 13  # of a schedule, in text
EXAMPLE = "example"  # in place of a file
LIMITS = {
    "compute": ("C", "most FLOP, 6 N B K tokens an example"),
    "steps_max": ("K", "most steps"),
    "batch_max": ("B", "most examples a step"),
    "params_max": ("N", "most parameters"),
    "time": ("S", "most seconds; needs --step-time"),
    "step_time": ("S", "seconds a step"),
}
OF_RUNS = (
    "predict", "best", "frontier", *LIMITS, "lr_schedule", "warmup", "min_steps", "split",
    "sequence_length",
)  # fmt: skip
OF_CURVES = ("steps", "peak_lr", "warmup_steps")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``nqm scaling``."""
    parser.add_argument(
        "log", nargs="?", type=_file, metavar="RUNS.CSV",
        help=f"final losses, a run a row, with columns N (parameters), B (examples a step), K (steps), loss (nats), or "
        f"other common names of them, such as 'Params (M)'; {EXAMPLE!r}: the log that ships with the package",
    )  # fmt: skip
    parser.add_argument("--curves", type=_file, metavar="PATH",
                        help="instead: loss curves, a CSV file with columns step, lr, loss, or a folder")  # fmt: skip
    parser.add_argument("--column", action="append", default=[], type=_pair, metavar="NAME=HEADER",
                        help="the column to take for N, B, K, loss, examples, tokens, type, split, exclude; of curves "
                        "for step, lr, loss, batch_size; may be given again")  # fmt: skip
    parser.add_argument("--level", type=float, default=0.9, metavar="P",
                        help="chance that an interval is to hold, between 0 and 1; default: 0.9")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the bootstrap; default: 0")
    parser.add_argument("--plot", type=_file, metavar="FILE", help="also draw the fit into FILE (png, pdf, svg)")
    parser.add_argument("--save", type=_file, metavar="FILE",
                        help="also save the fit as JSON, for nqm.scaling.RunsFit.load or CurvesFit.load")  # fmt: skip

    runs = parser.add_argument_group("with RUNS.CSV")
    runs.add_argument("--lr-schedule", metavar="NAME",
                      help="learning rate of every run: constant (default), cosine, linear or wsd")  # fmt: skip
    runs.add_argument("--warmup", type=float, metavar="F", help="its linear warmup, a share of the steps; default: 0")
    runs.add_argument("--min-steps", type=float, metavar="K", help="leave out runs of fewer steps; default: 100")
    runs.add_argument("--sequence-length", type=float, metavar="T",
                      help="tokens in an example, for FLOP, and for steps from a column of tokens")  # fmt: skip
    runs.add_argument("--split", metavar="NAME",
                      help="fit only rows with this in the column 'split', and compare with the others")  # fmt: skip
    runs.add_argument("--predict", action="append", default=[], type=_run, metavar="N,B,K",
                      help="loss of such a run, as in 1.3B,512,100k; may be given again")  # fmt: skip
    runs.add_argument("--frontier", type=float, metavar="LOSS",
                      help="least compute to LOSS for each number of steps, or each time with --step-time; needs "
                      "--sequence-length")  # fmt: skip
    runs.add_argument("--best", action="store_true",
                      help="N, B and K of the least loss under limits: --compute (which needs --sequence-length), or "
                      "--params-max, --batch-max and --steps-max (or --time)")  # fmt: skip
    for name, (metavar, text) in LIMITS.items():
        kind = float if name in ("time", "step_time") else size
        runs.add_argument(_option(name), type=kind, metavar=metavar, help=text)

    curves = parser.add_argument_group("with --curves")
    curves.add_argument("--steps", type=float, metavar="T", help="find the best schedule of so many steps")
    curves.add_argument("--peak-lr", type=float, metavar="L", help="its largest learning rate; default: the curves'")
    curves.add_argument("--warmup-steps", type=int, metavar="W",
                        help="linear warmup before the first row; default: all of it")  # fmt: skip


def scaling(arguments: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Answers to what was asked, as text and as what JSON holds; skipped rows and warnings go to stderr."""
    if (arguments.log is None) == (arguments.curves is None):
        raise ValueError("expected a file of runs or --curves, got " + ("neither" if arguments.log is None else "both"))
    kind, others = ("runs", OF_CURVES) if arguments.curves is None else ("curves", OF_RUNS)
    for name in others:
        value = getattr(arguments, name)
        if not (value is None or value is False or value == []):
            wanted = "--curves" if kind == "runs" else "a file of runs"
            raise ValueError(f"{_option(name)}: expected {wanted} with it, got {kind}")
    if not 0.0 < arguments.level < 1.0:
        raise ValueError(f"--level: expected a number between 0 and 1, got {arguments.level:g}")
    length = arguments.sequence_length
    if length is not None and not 0.0 < length < math.inf:
        raise ValueError(f"--sequence-length: expected a finite number above 0, got {length:g}")
    if arguments.log == EXAMPLE and arguments.column:
        raise ValueError(f"--column: expected a file of your own with it, got {EXAMPLE!r}")
    for name in ("plot", "save"):  # say so now, not when the work is done
        if getattr(arguments, name) is not None:
            require_writable(name, getattr(arguments, name), arguments.log or arguments.curves)
    if arguments.plot is not None:
        from ..files import picture_format

        picture_format(arguments.plot)
    with _telling_warnings():
        text, answer = (_runs if kind == "runs" else _curves)(arguments)
    return "\n".join(text), answer


def _runs(arguments: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
    import numpy as np

    from ..scaling import example, logs
    from ..scaling.fits.fit_runs import fit_runs

    limits = {name: getattr(arguments, name) for name in LIMITS}
    for name, value in limits.items():
        if value is not None and not (arguments.best or (name == "step_time" and arguments.frontier is not None)):
            raise ValueError(f"{_option(name)}: expected --best with it, got none")
    if arguments.log == EXAMPLE:
        log = example.example_runs()
        _default(arguments, lr_schedule="cosine", warmup=example.WARMUP, sequence_length=example.LENGTH)
    _default(arguments, lr_schedule="constant", warmup=0.0, min_steps=100.0)
    schedule, warmup, length = arguments.lr_schedule, arguments.warmup, arguments.sequence_length
    if length is None and (limits["compute"] is not None or arguments.frontier is not None):
        raise ValueError("expected --sequence-length, tokens in an example, for FLOP (1: B counts tokens), got none")
    if arguments.log != EXAMPLE:
        log = logs.read_runs(arguments.log, sequence_length=length, columns=dict(arguments.column))
    _tell_skipped([(f"line {line}", reason) for line, reason in log.skipped])
    chosen = _part(log, arguments.split)
    fit = fit_runs(
        log.N[chosen], log.B[chosen], log.K[chosen], log.loss[chosen],
        lr_schedule=schedule, warmup=warmup, exclude=log.exclude[chosen], min_steps=arguments.min_steps,
        seed=arguments.seed,
    )  # fmt: skip
    excluded = int(np.count_nonzero(log.exclude[chosen]))
    short = int(np.count_nonzero(chosen)) - excluded - fit.runs["N"].size
    answer: dict[str, Any] = {
        "file": log.path,
        "runs": int(fit.runs["N"].size),
        "excluded": excluded,
        "shorter_than_min_steps": short,
        "skipped": [{"line": line, "reason": reason} for line, reason in log.skipped],
        "lr_schedule": schedule,
        "warmup": warmup,
        "level": arguments.level,
        "rms_log_error": fit.rms,
        "parameters": fit.parameters,
        "parameter_intervals": fit.parameter_intervals(arguments.level),
        "undetermined": fit.undetermined,
    }
    text = [
        f"{answer['runs']} runs of {Path(log.path).name}, {excluded} excluded, {len(log.skipped)} rows skipped"
        + (f", {short} runs of less than {arguments.min_steps:g} steps left out" if short else ""),
        "N: parameters, B: examples a step, K: steps, loss: nats, compute: FLOP = 6 N B K x tokens an example"
        + ("; taken as 1 without --sequence-length" if length is None else f", here {length:g}"),
        f"learning rate of all runs: {schedule} with a warmup of {warmup:g} of the steps",
        "",
        str(fit),
    ]
    if arguments.level != 0.9:  # which the fit prints
        text += ["", *_parameters(answer)]
    if arguments.split is None and log.split is not None and len(set(log.split.tolist())) > 1:
        text.append("rows of every split were fitted; --split NAME fits one, and compares with the others")
    if arguments.split is not None:
        answer["held_out"] = held_out = _held_out(log, fit, ~chosen & ~log.exclude)
        text += [f"held out, {kind}: rms error of log loss {e['rms_log_error']:.4g}, {e['runs']} runs"
                 for kind, e in held_out.items()]  # fmt: skip
    if arguments.predict:
        answer["predict"] = [_predicted(fit, run, length, arguments.level) for run in arguments.predict]
        text += ["", f"predicted, with {arguments.level:.0%} intervals of a new run", *_table(answer["predict"])]
    if arguments.best:
        found = fit.best(sequence_length=1.0 if length is None else length, level=arguments.level, **limits)
        answer["best"] = {**asdict(found), "compute": None if length is None else found.compute}
        text += ["", f"best allocation, with {arguments.level:.0%} intervals", str(found)]
    frontier = None
    if arguments.frontier is not None:
        frontier = fit.frontier(
            arguments.frontier, step_time=limits["step_time"], sequence_length=length, level=arguments.level
        )
        answer["frontier"] = {name: column.tolist() for name, column in frontier.table.items()}
        text += ["", str(frontier)]
    _keep(arguments, fit, [fit] if frontier is None else [fit, frontier])
    return text, answer


def _curves(arguments: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
    import numpy as np

    from ..scaling import logs
    from ..scaling.fits.fit_curves import fit_curves

    if arguments.peak_lr is not None and arguments.steps is None:
        raise ValueError("--peak-lr: expected --steps with it, got none")
    warmup: Any = "linear" if arguments.warmup_steps is None else arguments.warmup_steps
    curves = logs.read_curves(arguments.curves, warmup=warmup, columns=dict(arguments.column))
    _tell_skipped([(f"{file}, line {line}", reason) for file, line, reason in curves.skipped])
    fit = fit_curves(curves, seed=arguments.seed)
    rows = []
    for name, curve in curves.items():
        error = np.abs(fit.predict(curve.lr, curve.steps, batch_size=curve.batch_size) - curve.loss)
        rows.append({"curve": name, "losses": curve.steps.size, "last_step": int(curve.steps[-1]),
                     "last_loss": float(curve.loss[-1]), "mean_error": float(error.mean())})  # fmt: skip
    answer: dict[str, Any] = {
        "path": arguments.curves,
        "curves": rows,
        "skipped": [dict(zip(("file", "line", "reason"), row, strict=True)) for row in curves.skipped],
        "level": arguments.level,
        "parameters": fit.parameters,
        "parameter_intervals": fit.parameter_intervals(arguments.level),
        "undetermined": fit.undetermined,
    }
    text = [*_table(rows), "losses in nats; mean_error: of the fit, absolute, over all steps", "", str(fit)]
    text += _parameters(answer)
    best = None
    if arguments.steps is not None:
        peak = max(float(curve.lr.max()) for curve in curves.values())
        peak = peak if arguments.peak_lr is None else arguments.peak_lr
        best = fit.best_schedule(arguments.steps, peak, level=arguments.level)
        told, schedule = {name: column.tolist() for name, column in best.table.items()}, best.schedule
        answer["best_schedule"] = {
            "steps": schedule.steps, "peak_lr": peak, "compared": told,
            "values": schedule.values.tolist(), "lengths": schedule.lengths.tolist(),
        }  # fmt: skip
        at = np.unique(np.linspace(0, schedule.steps - 1, POINTS).astype(int))
        lrs = [{"step": int(step), "lr": float(schedule(step))} for step in at]
        text += ["", f"best schedule of {schedule.steps} steps, learning rates up to {peak:g}", str(best)]
        text += ["", *_table(lrs), "(all pieces: --json)"]
    _keep(arguments, fit, [fit] if best is None else [fit, best])
    return text, answer


def _parameters(answer: dict[str, Any]) -> list[str]:
    """Lines of a table of parameters with their intervals."""
    rows = []
    for name, value in answer["parameters"].items():
        low, high = answer["parameter_intervals"][name]
        note = "not determined" if name in answer["undetermined"] else ""
        rows.append({"parameter": name, "value": value, "low": low, "high": high, "": note})
    return [*(line.rstrip() for line in _table(rows)), f"intervals: {answer['level']:.0%}, from the bootstrap"]


def _default(arguments: argparse.Namespace, **values: Any) -> None:
    """Fill in what was not given."""
    for name, value in values.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _part(log: Any, split: str | None) -> Any:
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


def _held_out(log: Any, fit: Any, rows: Any) -> dict[str, dict[str, Any]]:
    """Root-mean-square error of log loss over rows that were not fitted, by type."""
    import numpy as np

    kinds = log.type if log.type is not None else np.full(len(log), "all")
    found = {}
    for kind in sorted(set(kinds[rows].tolist())):
        at = rows & (kinds == kind)
        error = np.log(fit.losses(log.N[at], log.B[at], log.K[at], draws=0)[0] / log.loss[at])
        found[kind] = {"runs": int(at.sum()), "rms_log_error": float(np.sqrt(np.mean(error**2)))}
    return found


def _predicted(fit: Any, run: tuple[float, float, float], length: float | None, level: float) -> dict[str, Any]:
    n, b, k = run
    low, high = fit.interval(n, b, k, level)
    row = {"N": n, "B": b, "K": k, "loss": float(fit.predict(n, b, k)), "low": float(low), "high": float(high)}
    return row if length is None else {**row, "compute": 6.0 * n * b * k * length}


def _keep(arguments: argparse.Namespace, fit: Any, parts: Sequence[Any]) -> None:
    """Save the fit and draw the parts, one panel each, where that was asked."""
    if arguments.save is not None:
        with writing("save", arguments.save):
            fit.save(arguments.save)
    if arguments.plot is not None:
        from ..files import save_picture
        from ..plotting import new_figure

        picture, axes = new_figure(len(parts), width=6.4 * len(parts))
        for part, ax in zip(parts, [axes] if len(parts) == 1 else axes, strict=True):
            part.plot(ax)
        with writing("plot", arguments.plot):
            save_picture(picture, arguments.plot)


@contextmanager
def writing(name: str, path: str, kind: str = "file") -> Iterator[None]:
    """Errors name the file or folder that was asked for, not a temporary one."""
    try:
        yield
    except OSError as error:
        told = f"expected a {kind} that can be written, got {path!r} ({error.strerror or error})"
        raise ValueError(f"{_option(name)}: {told}") from None


def require_writable(name: str, path: str, log: str | None = None, kind: str = "file") -> None:
    """A ValueError where no file (or no file in that folder) can be written, or the log is; nothing is made."""
    goal = Path(path)
    with writing(name, path, kind):
        if kind == "file" and goal.is_dir():
            raise OSError(errno.EISDIR, "it is a folder")
        if log is not None and goal.exists() and Path(log).exists() and goal.samefile(log):
            raise ValueError(f"{_option(name)}: expected another file than the log, got {path!r}")
        above = goal.absolute().parents if kind == "file" else [goal.absolute(), *goal.absolute().parents]
        with tempfile.TemporaryFile(dir=next(folder for folder in above if folder.exists())):
            pass


@contextmanager
def _telling_warnings() -> Iterator[None]:
    """Each warning once on stderr, also where an error follows."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            for message in dict.fromkeys(str(warning.message) for warning in caught):
                print(f"nqm scaling: warning: {message}", file=sys.stderr)


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of a table, columns to the right."""
    cells = [list(rows[0])] + [[f"{v:.6g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]


def _tell_skipped(rows: Sequence[tuple[str, str]]) -> None:
    for place, reason in rows[:TOLD]:
        print(f"nqm scaling: skipped {place}: {reason}", file=sys.stderr)
    if len(rows) > TOLD:
        print(f"nqm scaling: skipped {len(rows) - TOLD} more rows", file=sys.stderr)


def _file(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError(f"expected the name of a file, got {text!r}")
    return text


def _pair(text: str) -> tuple[str, str]:
    name, equals, header = text.partition("=")
    if not (name and equals and header):
        raise argparse.ArgumentTypeError(f"expected NAME=HEADER, such as loss=val_loss, got {text!r}")
    return name.strip(), header.strip()


def size(text: str) -> float:
    """A number > 0, with k, M, B or T as in a log."""
    from ..scaling.logs.columns import number

    try:
        return number(text, sized=True)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _run(text: str) -> tuple[float, float, float]:
    """N,B,K as numbers > 0."""
    try:
        n, b, k = map(size, text.split(","))
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(f"expected N,B,K, three numbers above 0, got {text!r}") from None
    return n, b, k
