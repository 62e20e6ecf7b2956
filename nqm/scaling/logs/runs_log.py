"""Final losses of many runs, from a CSV file as it comes.

Other columns are ignored. Rows that cannot be used are left out, and reported with their line and why.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ... import _checks
from ..._checks import FloatArray, IntArray
from .columns import Column
from .csv_file import CsvFile, Skipped, first_reasons, read_csv

__all__ = ["RunsLog", "read_runs"]

QUANTITIES: Final = ("N", "B", "K", "examples", "tokens", "loss", "type", "split", "exclude")
YES: Final = ("true", "yes", "t", "y", "1", "1.0")
NO: Final = ("false", "no", "f", "n", "0", "0.0", "", "nan", "none", "null", "na", "n/a")


@dataclass(frozen=True, eq=False)
class RunsLog:
    """Final losses of runs, as :func:`read_runs` found them; arrays have one entry per usable row and are read-only.

    N: parameters. B: batch size, in examples. K: steps. loss: nats. (All float64, > 0.) exclude: bool, what a column
    such as "filtered" says, else False. type, split: strings, or None without such a column. line: where in the file.
    skipped: (line, reason) of each row that cannot be used.

    >>> import nqm
    >>> log = nqm.scaling.example_runs()
    >>> len(log), log.loss[log.type == "isotoken"].size
    (66, 36)
    """

    N: FloatArray
    B: FloatArray
    K: FloatArray
    loss: FloatArray
    exclude: NDArray[np.bool_]
    type: NDArray[np.str_] | None
    split: NDArray[np.str_] | None
    line: IntArray
    skipped: Skipped
    path: str

    def __len__(self) -> int:
        return self.loss.size

    def __repr__(self) -> str:
        ranges = ", ".join(f"{name} {_range(getattr(self, name))}" for name in ("N", "B", "K", "loss"))
        skipped = f"; {_count(len(self.skipped), 'row')} skipped" if self.skipped else ""
        return f"RunsLog({_count(len(self), 'run')} of {Path(self.path).name!r}: {ranges}{skipped})"


def read_runs(
    path: str | os.PathLike[str],
    *,
    sequence_length: float | None = None,
    columns: Mapping[str, str] | None = None,
) -> RunsLog:
    """Final losses of runs from a CSV file, one run per row.

    Needs columns for N (parameters), B (batch size in examples, i.e. sequences), K (whole steps) and loss (nats); the
    names known for each are in :data:`nqm.scaling.logs.columns.NAMES`. "125M", "1.3B" and "100k" are numbers for all
    but the loss, and a column "Params (M)" or "Params (millions)" counts millions. Without a column of steps, a column
    of examples, or of tokens together with ``sequence_length``, will do: K = examples / B = tokens / (B
    sequence_length), rounded to whole steps. A column that is just called D is not taken for either. Columns for type,
    split and exclude are optional; where two fit, the first is taken.

    Args:
        path: the file.
        sequence_length: tokens per example; used only to get steps from tokens.
        columns: the header's word for a quantity, such as {"loss": "val_loss"}, where names are unknown or two fit.

    Rows are skipped, with line and reason in ``.skipped``, that have too few or too many cells, a number that is
    missing, not finite or not above 0, or steps that are not whole.

    Raises:
        OSError: for a file that cannot be read.
        TypeError, ValueError: for wrong arguments; a column that is missing, there twice, or in tokens (B) or bits
            (loss); no usable row; a quote that is not closed; text that is not UTF-8.

    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "runs.csv"
    >>> _ = file.write_text("Params;Batch Size;Steps;Val loss\\n125M;64;1e4;3.51\\n350M;64;2e4;nan\\n")
    >>> log = read_runs(file)
    >>> log
    RunsLog(1 run of 'runs.csv': N 1.25e+08, B 64, K 10000, loss 3.51; 1 row skipped)
    >>> log.skipped
    ((3, "Val loss: expected a finite number above 0, got 'nan'"),)
    """
    length = None if sequence_length is None else _checks.real(sequence_length, "sequence_length", low=0.0)
    table = read_csv(path, columns, QUANTITIES)
    duration, needed = _needed_columns(table, length)
    type_, split, marked = (table.column(name, first=True) for name in ("type", "split", "exclude"))
    usable, skipped = [], []
    for line, cells in table.rows:
        try:
            row = table.cells_by_header(cells)
            n, b, k, loss = (column.number(row) for column in needed.values())
            k = _whole_steps(k, b, duration, length, needed[duration], row)
            exclude = marked is not None and _flag(row, marked)
        except ValueError as reason:
            skipped.append((line, str(reason)))
            continue
        words = (None if column is None else column.text(row) for column in (type_, split))
        usable.append((n, b, k, loss, exclude, *words, line))
    if not usable:
        raise ValueError(f"{table.path}: expected at least one usable row, got none{first_reasons(skipped)}")
    names = ("N", "B", "K", "loss", "exclude", "type", "split", "line")
    found: dict[str, Any] = {
        name: None if column[0] is None else _read_only(column)
        for name, column in zip(names, zip(*usable, strict=True), strict=True)
    }
    return RunsLog(**found, skipped=tuple(skipped), path=table.path)


def _needed_columns(table: CsvFile, length: float | None) -> tuple[str, dict[str, Column]]:
    """What tells the steps ("K", "examples" or "tokens"), and the columns of N, B, that and the loss."""
    durations = sorted(("K", "examples", "tokens"), key=lambda name: name not in table.given)
    duration = next((name for name in durations if table.column(name)), "K")
    needed = table.required("N", "B", duration, "loss")
    if duration == "tokens" and length is None:
        raise ValueError(
            f"{table.path}: expected a column of steps, or sequence_length to get them from the column "
            f"{needed['tokens'].word!r}, got neither"
        )
    return duration, needed


def _whole_steps(
    k: float, b: float, duration: str, length: float | None, column: Column, row: Mapping[str, str]
) -> float:
    """Steps, of k steps, examples or tokens; a ValueError for what is not a whole number of them."""
    if duration != "K":
        k = float(np.rint(k / b / (length if duration == "tokens" and length else 1.0)))
        if not 1.0 <= k < math.inf:
            raise ValueError(f"{column.word}: expected at least one batch, got {column.text(row)!r}")
    elif k != math.floor(k):
        raise ValueError(f"{column.word}: expected a whole number of steps, got {column.text(row)!r}")
    return k


def _flag(row: Mapping[str, str], column: Column) -> bool:
    text = column.text(row)
    if text.lower() not in YES + NO:
        raise ValueError(f"{column.word}: expected true or false, got {text!r}")
    return text.lower() in YES


def _read_only(values: tuple[Any, ...]) -> NDArray[Any]:
    array = np.array(values)
    array.flags.writeable = False
    return array


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _range(values: FloatArray) -> str:
    low, high = f"{values.min():.6g}", f"{values.max():.6g}"
    return low if low == high else f"{low} to {high}"
