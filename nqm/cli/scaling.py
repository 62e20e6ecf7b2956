"""``nqm scaling``: training logs in, predictions and decisions out."""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .._io import picture_format
from . import scaling_curves, scaling_runs
from .arguments import add_command, option, size
from .output import print_json, require_writable
from .scaling_runs import EXAMPLE, LIMITS

__all__ = ["add", "run"]

OF_RUNS = (
    "predict", "best", "frontier", *LIMITS, "lr_schedule", "warmup", "min_steps", "split",
    "sequence_length",
)  # fmt: skip
OF_CURVES = ("steps", "peak_lr", "warmup_steps")


def add(commands: Any) -> None:
    parser = add_command(
        commands, "scaling", run, "from training logs to predictions and decisions",
        "nqm scaling example --predict 300M,512,30k --best --compute 1e18 --steps-max 20k --plot fit.png",
    )  # fmt: skip
    _add_common(parser)
    _add_runs(parser.add_argument_group("with RUNS.CSV"))
    curves = parser.add_argument_group("with --curves")
    curves.add_argument("--steps", type=float, metavar="T", help="find the best schedule of so many steps")
    curves.add_argument("--peak-lr", type=float, metavar="L", help="its largest learning rate; default: the curves'")
    curves.add_argument("--warmup-steps", type=int, metavar="W",
                        help="linear warmup before the first row; default: all of it")  # fmt: skip


def _add_common(parser: argparse.ArgumentParser) -> None:
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


def _add_runs(runs: Any) -> None:
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
        runs.add_argument(option(name), type=kind, metavar=metavar, help=text)


def run(arguments: argparse.Namespace) -> int:
    """Answers to what was asked; skipped rows and warnings go to stderr."""
    _check(arguments)
    with _warnings_on_stderr():
        text, answer = (scaling_runs if arguments.curves is None else scaling_curves).answer(arguments)
    if arguments.json:
        print_json(answer)
    else:
        print("\n".join(text))
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """What can be refused before the work."""
    if (arguments.log is None) == (arguments.curves is None):
        raise ValueError("expected a file of runs or --curves, got " + ("neither" if arguments.log is None else "both"))
    kind, others = ("runs", OF_CURVES) if arguments.curves is None else ("curves", OF_RUNS)
    for name in others:
        value = getattr(arguments, name)
        if not (value is None or value is False or value == []):
            wanted = "--curves" if kind == "runs" else "a file of runs"
            raise ValueError(f"{option(name)}: expected {wanted} with it, got {kind}")
    if not 0.0 < arguments.level < 1.0:
        raise ValueError(f"--level: expected a number between 0 and 1, got {arguments.level:g}")
    length = arguments.sequence_length
    if length is not None and not 0.0 < length < math.inf:
        raise ValueError(f"--sequence-length: expected a finite number above 0, got {length:g}")
    if arguments.log == EXAMPLE and arguments.column:
        raise ValueError(f"--column: expected a file of your own with it, got {EXAMPLE!r}")
    for name in ("plot", "save"):
        if getattr(arguments, name) is not None:
            require_writable(name, getattr(arguments, name), arguments.log or arguments.curves)
    if arguments.plot is not None:
        picture_format(arguments.plot)


@contextmanager
def _warnings_on_stderr() -> Iterator[None]:
    """Each warning once, also where an error follows."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            for message in dict.fromkeys(str(warning.message) for warning in caught):
                print(f"nqm scaling: warning: {message}", file=sys.stderr)


def _file(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError(f"expected the name of a file, got {text!r}")
    return text


def _pair(text: str) -> tuple[str, str]:
    name, equals, header = text.partition("=")
    if not (name and equals and header):
        raise argparse.ArgumentTypeError(f"expected NAME=HEADER, such as loss=val_loss, got {text!r}")
    return name.strip(), header.strip()


def _run(text: str) -> tuple[float, float, float]:
    """N,B,K as numbers > 0."""
    try:
        n, b, k = map(size, text.split(","))
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(f"expected N,B,K, three numbers above 0, got {text!r}") from None
    return n, b, k
