"""Reading training logs: final losses of many runs, or loss curves, from CSV files as they come.

What else a file holds is let be. Rows that cannot be used are left out, and said with their line and why.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._checks import FloatArray, IntArray
from .table import Column, read_table

if TYPE_CHECKING:
    from .curve import LossCurve

RUNS: Final = ("N", "B", "K", "examples", "tokens", "loss", "type", "split", "exclude")
CURVES: Final = ("step", "lr", "loss", "batch_size")
YES: Final = ("true", "yes", "t", "y", "1", "1.0")
NO: Final = ("false", "no", "f", "n", "0", "0.0", "", "nan", "none", "null", "na", "n/a")
SHOWN: Final = 3  # reasons in an error
MOST_STEPS: Final = 10**8  # of a curve, whose learning rates take 8 bytes a step

Skipped = tuple[tuple[int, str], ...]


@dataclass(frozen=True, eq=False)
class RunsLog:
    """Final losses of runs, as :func:`read_runs` found them; all arrays have one entry a usable row, and are read-only.

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


class CurvesLog(dict[str, "LossCurve"]):
    """Loss curves by name, as :func:`read_curves` found them: a dict.

    skipped: (file name, line, reason) of each row that cannot be used.
    """

    skipped: tuple[tuple[str, int, str], ...] = ()


def read_runs(
    path: str | os.PathLike[str],
    *,
    sequence_length: float | None = None,
    columns: Mapping[str, str] | None = None,
) -> RunsLog:
    """Final losses of runs from a CSV file, one run a row.

    Needs columns for N (parameters), B (batch size in examples, i.e. sequences), K (whole steps) and loss (nats); the
    names known for each are in :data:`nqm.scaling.table.NAMES`. "125M", "1.3B" and "100k" are numbers for all but the
    loss, and a column "Params (M)" or "Params (millions)" counts millions. Without a column of steps, a column of
    examples, or of tokens together with ``sequence_length``, will do: K = examples / B = tokens / (B sequence_length),
    rounded to whole steps. A column that is just called D is not taken for either. Columns for type, split and exclude
    are optional; where two fit, the first is taken.

    Args:
        path: the file.
        sequence_length: tokens in an example; used only to get steps from tokens.
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
    table = read_table(path, columns, RUNS)
    durations = sorted(("K", "examples", "tokens"), key=lambda name: name not in table.given)
    duration = next((name for name in durations if table.column(name)), "K")
    needed = table.required("N", "B", duration, "loss")
    if duration == "tokens" and length is None:
        raise ValueError(
            f"{table.path}: expected a column of steps, or sequence_length to get them from the column "
            f"{needed['tokens'].word!r}, got neither"
        )
    steps = needed[duration]
    labels = {name: column for name in ("type", "split") if (column := table.column(name, first=True)) is not None}
    marked = table.column("exclude", first=True)
    numbers: list[tuple[float, float, float, float]] = []
    words: dict[str, list[str]] = {name: [] for name in labels}
    exclude, lines, skipped = [], [], []
    for line, cells in table.rows:
        try:
            row = table.named(cells)
            n, b, k, loss = (column.number(row) for column in needed.values())
            if duration != "K":
                k = float(np.rint(k / b / (length if duration == "tokens" and length else 1.0)))
                if not 1.0 <= k < math.inf:
                    raise ValueError(f"{steps.word}: expected at least one batch, got {steps.text(row)!r}")
            elif k != math.floor(k):
                raise ValueError(f"{steps.word}: expected a whole number of steps, got {steps.text(row)!r}")
            left_out = marked is not None and _flag(row, marked)
        except ValueError as reason:
            skipped.append((line, str(reason)))
            continue
        numbers.append((n, b, k, loss))
        for name, column in labels.items():
            words[name].append(column.text(row))
        exclude.append(left_out)
        lines.append(line)
    if not numbers:
        raise ValueError(f"{table.path}: expected at least one usable row, got none{_first(skipped)}")
    n_, b_, k_, loss_ = (_frozen(column) for column in np.array(numbers).T)
    return RunsLog(
        N=n_,
        B=b_,
        K=k_,
        loss=loss_,
        exclude=_frozen(np.array(exclude, dtype=np.bool_)),
        type=_frozen(np.array(words["type"])) if "type" in words else None,
        split=_frozen(np.array(words["split"])) if "split" in words else None,
        line=_frozen(np.array(lines, dtype=np.int64)),
        skipped=tuple(skipped),
        path=table.path,
    )


def read_curves(
    path: str | os.PathLike[str],
    *,
    warmup: Literal["linear", "constant"] | int = "linear",
    columns: Mapping[str, str] | None = None,
) -> CurvesLog:
    """Loss curves from a CSV file, or from all files of a folder that end in .csv or .tsv, by name without the ending.

    Needs columns for step, learning rate and loss (names: :data:`nqm.scaling.table.NAMES`), with steps increasing; a
    column of batch sizes, which must be the same number all through, is optional. A row without a loss still tells the
    learning rate, and the other way round; of a row at step 0 only the learning rate is used.

    A row at step s is the loss after s steps, and the learning rate of the step that comes next, from s to s + 1.
    Between rows the learning rate is linear in the step; but a change between two rows before which and after which it
    is constant (the row before, the row after) is a jump, and happens at the later of the two. Before the first row,
    at step s_1 with learning rate g, step k has

    - warmup="linear": g min(1, (k + 1) / s_1), from 0 to g;
    - a whole number W of warmup steps, up to s_1: g min(1, (k + 1) / W);
    - warmup="constant": g.

    Rows that cannot be used are skipped: ``.skipped`` of the result has (file name, line, reason).

    Raises:
        OSError: for what cannot be read.
        TypeError, ValueError: for wrong arguments; a folder without such files; and with the name of the file, a column
            that is missing or there twice, steps that do not increase, batch sizes that change, no usable row.

    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "run.csv"
    >>> _ = file.write_text("step,lr,loss\\n2,0.5,4.0\\n4,0.5,3.5\\n6,0.1,3.3\\n8,0.1,3.0\\n")
    >>> curves = read_curves(file)
    >>> curves["run"].loss
    array([4. , 3.5, 3.3, 3. ])
    """
    if isinstance(warmup, str) and warmup not in ("linear", "constant"):
        raise ValueError(f'warmup: expected "linear", "constant" or a number of steps, got {_checks.describe(warmup)}')
    steps = warmup if isinstance(warmup, str) else _checks.whole(warmup, "warmup")
    place = Path(path)
    files = sorted(file for file in place.iterdir() if file.suffix.lower() in (".csv", ".tsv") and file.is_file()) \
        if place.is_dir() else [place]  # fmt: skip
    if not files:
        raise ValueError(f"{place}: expected a folder with files that end in .csv or .tsv, got none of them")
    result, skipped = CurvesLog(), []
    for file in files:
        if file.stem in result:
            raise ValueError(f"{place}: expected one file a name, got two for {file.stem!r}")
        result[file.stem], left_out = _curve(file, steps, columns)
        skipped += [(file.name, line, reason) for line, reason in left_out]
    result.skipped = tuple(skipped)
    return result


def _curve(path: Path, warmup: str | int, columns: Mapping[str, str] | None) -> tuple[LossCurve, Skipped]:
    """One file's curve, and what was left out."""
    from .curve import LossCurve

    table = read_table(path, columns, CURVES)
    needed = table.required("step", "lr", "loss")
    batch_column = table.column("batch_size")
    rates: dict[int, float] = {}
    losses: dict[int, float] = {}
    skipped = []
    last = batch = None
    for line, cells in table.rows:
        try:
            row = table.named(cells)
            step = needed["step"].number(row, zero=True)
            if step != math.floor(step) or step > MOST_STEPS:
                told = f"a whole number up to {MOST_STEPS:.0e}"
                raise ValueError(f"{needed['step'].word}: expected {told}, got {needed['step'].text(row)!r}")
            lr, loss = (needed[name].number(row, zero=name == "lr") if needed[name].text(row) else None
                        for name in ("lr", "loss"))  # fmt: skip
            size = batch_column.number(row) if batch_column and batch_column.text(row) else batch
        except ValueError as reason:
            skipped.append((line, str(reason)))
            continue
        if last is not None and step <= last:
            raise ValueError(f"{path}, line {line}: expected steps that increase, got {step:.0f} after {last:.0f}")
        if batch is not None and size != batch:
            raise ValueError(f"{path}, line {line}: expected one batch size all through, got {size:g} after {batch:g}")
        last, batch = step, size
        if lr is not None:
            rates[int(step)] = lr
        if loss is not None and step > 0:
            losses[int(step)] = loss
    if not rates or not losses:
        raise ValueError(f"{path}: expected rows with a learning rate and with a loss, got none{_first(skipped)}")
    steps = np.array(list(losses))
    lr_array = _per_step(np.array(list(rates)), np.array(list(rates.values())), int(steps[-1]), warmup)
    try:
        curve = LossCurve(steps, np.array(list(losses.values())), lr_array, 1.0 if batch is None else batch)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return curve, tuple(skipped)


def _per_step(rows: IntArray, lr: FloatArray, steps: int, warmup: str | int) -> FloatArray:
    """Learning rate of steps 0 ... steps - 1, (steps,), from that of some; see :func:`read_curves`."""
    at = np.arange(steps)
    found = np.interp(at, rows, lr)
    same = np.isclose(lr[1:], lr[:-1], rtol=1e-6, atol=0.0)
    for i in np.flatnonzero(same[:-2] & ~same[1:-1] & same[2:]) + 1:  # from row i to i + 1
        found[rows[i] : rows[i + 1]] = lr[i]
    begin = min(int(rows[0]), steps)
    if warmup != "constant":
        ramp = begin if warmup == "linear" else min(int(warmup), begin)
        found[:begin] = lr[0] * np.minimum(1.0, (at[:begin] + 1.0) / max(ramp, 1))
    return found


def _flag(row: Mapping[str, str], column: Column) -> bool:
    text = column.text(row)
    if text.lower() not in YES + NO:
        raise ValueError(f"{column.word}: expected true or false, got {text!r}")
    return text.lower() in YES


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array = array.copy()
    array.flags.writeable = False
    return array


def _first(skipped: list[tuple[int, str]]) -> str:
    """The first reasons why rows were skipped, for an error."""
    told = "; ".join(f"line {line}: {reason}" for line, reason in skipped[:SHOWN])
    rest = len(skipped) - SHOWN
    return f" ({told}{f'; and {rest} more' if rest > 0 else ''})" if skipped else " (no rows below the header)"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _range(values: FloatArray) -> str:
    low, high = f"{values.min():.6g}", f"{values.max():.6g}"
    return low if low == high else f"{low} to {high}"
