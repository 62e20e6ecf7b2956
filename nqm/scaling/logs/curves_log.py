"""Loss curves with their learning rates, from CSV files as they come.

Other columns are ignored. Rows that cannot be used are left out, and reported with their line and why.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import numpy as np

from ... import _checks
from ..._checks import FloatArray, IntArray
from .columns import Column
from .csv_file import Skipped, first_reasons, read_csv
from .loss_curve import LossCurve

__all__ = ["CurvesLog", "read_curves"]

QUANTITIES: Final = ("step", "lr", "loss", "batch_size")
MAX_STEPS: Final = 10**8  # of a curve, whose learning rates take 8 bytes per step


class CurvesLog(dict[str, LossCurve]):
    """Loss curves by name, as :func:`read_curves` found them: a dict.

    skipped: (file name, line, reason) of each row that cannot be used.
    """

    skipped: tuple[tuple[str, int, str], ...] = ()


def read_curves(
    path: str | os.PathLike[str],
    *,
    warmup: Literal["linear", "constant"] | int = "linear",
    columns: Mapping[str, str] | None = None,
) -> CurvesLog:
    """Loss curves from a CSV file, or from all files of a folder that end in .csv or .tsv, by name without the ending.

    Needs columns for step, learning rate and loss (names: :data:`nqm.scaling.logs.columns.NAMES`), with steps
    increasing; a column of batch sizes, which must be the same number all through, is optional. A row without a loss
    still tells the learning rate, and the other way round; of a row at step 0 only the learning rate is used.

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
    table = read_csv(path, columns, QUANTITIES)
    needed = table.required("step", "lr", "loss")
    batch_column = table.column("batch_size")
    rates: dict[int, float] = {}
    losses: dict[int, float] = {}
    skipped = []
    last = batch = None
    for line, cells in table.rows:
        try:
            row = table.cells_by_header(cells)
            step = _step(needed["step"], row)
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
        reasons = first_reasons(skipped)
        raise ValueError(f"{path}: expected rows with a learning rate and with a loss, got none{reasons}")
    steps = np.array(list(losses))
    lr_array = _per_step(np.array(list(rates)), np.array(list(rates.values())), int(steps[-1]), warmup)
    try:
        curve = LossCurve(steps, np.array(list(losses.values())), lr_array, 1.0 if batch is None else batch)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return curve, tuple(skipped)


def _step(column: Column, row: Mapping[str, str]) -> float:
    step = column.number(row, zero=True)
    if step != math.floor(step) or step > MAX_STEPS:
        whole = f"a whole number up to {MAX_STEPS:.0e}"
        raise ValueError(f"{column.word}: expected {whole}, got {column.text(row)!r}")
    return step


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
