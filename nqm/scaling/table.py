"""CSV files as they come: columns known by their names, numbers, and the line that each row begins at.

Columns are known in any order and spelling: "Batch Size", "batch_size" and "BATCH-SIZE (sequences)" are one. The cells
may be separated by commas, semicolons or tabs (the one that the header has most of); a byte order mark, quotes, blank
lines, and lines that start with # are let be. Numbers are as Python writes them (1e9, 1_000).
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from .. import _checks

NAMES: Final = {
    "N": ("n", "params", "parameters", "num_params", "n_params", "num_parameters", "n_parameters", "param_count",
          "parameter_count", "model_size", "model_params", "total_params", "non_embedding_params",
          "non_embedding_parameters", "nonemb_params"),
    "B": ("b", "batch", "batch_size", "global_batch_size", "global_batch", "train_batch_size", "bs"),
    "K": ("k", "step", "steps", "train_steps", "training_steps", "num_steps", "n_steps", "total_steps", "max_steps",
          "iterations", "iters", "num_iterations", "updates", "train_iters"),
    "loss": ("loss", "final_loss", "val_loss", "valid_loss", "validation_loss", "test_loss", "eval_loss",
             "final_val_loss", "final_validation_loss", "final_test_loss", "final_eval_loss", "nll"),
    "examples": ("examples", "num_examples", "train_examples", "total_examples", "sequences", "num_sequences",
                 "samples", "num_samples", "train_samples"),
    "tokens": ("tokens", "num_tokens", "n_tokens", "train_tokens", "training_tokens", "total_tokens"),
    "type": ("type", "kind"),
    "split": ("split",),
    "exclude": ("exclude", "excluded", "filtered"),
    "compute": ("c", "compute", "flop", "flops", "gflops"),
    "step": ("step", "steps", "k", "iteration", "iterations", "iter", "global_step", "train_step", "training_step"),
    "lr": ("lr", "learning_rate", "learningrate", "eta"),
    "batch_size": ("b", "batch", "batch_size", "global_batch_size", "global_batch", "train_batch_size", "bs"),
}  # fmt: skip
"""Names of columns that are known for each quantity; capitals and punctuation do not count."""

MEANINGS: Final = {
    "N": "parameters", "B": "batch size in examples", "K": "steps", "loss": "loss in nats", "step": "step",
    "lr": "learning rate",
}  # fmt: skip
POWERS: Final = {"k": "e3", "m": "e6", "b": "e9", "t": "e12"}


@dataclass(frozen=True)
class Table:
    """A CSV file: its header, and its rows with the line each begins at."""

    path: str
    header: list[str]
    rows: list[tuple[int, list[str]]] = field(repr=False)
    given: Mapping[str, str]

    def columns(self, wanted: tuple[str, ...], required: bool = False) -> dict[str, str]:
        """The header's word for each quantity that it has; a ValueError where two fit, or none is there if required."""
        found: dict[str, str] = {}
        for name in wanted:
            if name in self.given:
                found[name] = self.given[name]
                continue
            known = {_plain(word) for word in NAMES[name]}
            fits = [word for word in self.header if _plain(word) in known]
            if len(fits) > 1:
                raise ValueError(
                    f"{self.path}: expected one column for {name}, got {' and '.join(map(repr, fits))}; rename one, or "
                    f"say which with columns={{{name!r}: {fits[0]!r}}} (in the shell: --column {name}='{fits[0]}')"
                )
            if fits:
                found[name] = fits[0]
        missing = [name for name in wanted if name not in found]
        if required and missing:
            raise ValueError(self._missing(missing))
        return found

    def _missing(self, names: list[str]) -> str:
        if all(map(_is_number, self.header)):
            return f"{self.path}: expected a first line that names the columns, got numbers: {', '.join(self.header)}"
        names = ["K" if name in ("examples", "tokens") else name for name in names]
        told = "; ".join(f"{name} ({MEANINGS[name]}): one of {', '.join(NAMES[name])}" for name in names)
        plain = {_plain(word) for word in self.header}
        other = ""
        if "lr" not in names and plain & {_plain(word) for word in NAMES["lr"]}:
            other = "; is this a loss curve? nqm.scaling.read_curves reads them (nqm scaling --curves)"
        return (
            f"{self.path}: expected columns that are missing, {told}; got {', '.join(map(repr, self.header))} (rename, "
            f"or say which with columns={{{names[0]!r}: ...}}, in the shell --column {names[0]}=...){other}"
        )

    def named(self, cells: list[str]) -> dict[str, str]:
        """A row's cells by the header's words; a ValueError where the number of cells is wrong."""
        surplus = cells[len(self.header) :]
        if len(cells) < len(self.header) or any(cell.strip() for cell in surplus):
            raise ValueError(f"expected {len(self.header)} cells, got {len(cells)}")
        return dict(zip(self.header, cells, strict=False))


def read_table(path: str | os.PathLike[str], given: Mapping[str, str] | None) -> Table:
    name = os.fspath(path)
    if os.path.isdir(path):
        raise ValueError(f"{name}: expected a file, got a folder (of loss curves? nqm.scaling.read_curves)")
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            text = ["" if line.lstrip().startswith("#") else line for line in stream]
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: expected text in UTF-8, got byte {error.object[error.start]:#x}") from None
    first = next((line for line in text if line.strip()), None)
    if first is None:
        raise ValueError(f"{name}: expected a line that names the columns, got an empty file")
    separator = max(",;\t", key=first.count)  # the first of equals
    rows = list(_records(text, separator, name))
    header = [word.strip() for word in rows[0][1]]
    repeated = [word for word in header if word and header.count(word) > 1]
    if repeated:
        raise ValueError(f"{name}: expected columns of different names, got {repeated[0]!r} twice")
    if given is not None:
        _checks.instance(given, Mapping, "columns", 'a dict such as {"loss": "val_loss"}, or None')
    chosen = dict(given or {})
    for quantity, word in chosen.items():
        if quantity not in NAMES:
            raise ValueError(f"columns: expected quantities out of {', '.join(NAMES)}, got {quantity!r}")
        if word not in header:
            raise ValueError(f"{name}: expected the column {word!r}, got {', '.join(map(repr, header))}")
    return Table(name, header, rows[1:], chosen)


def _records(text: list[str], separator: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, with the line each begins at."""
    reader = csv.reader(text, delimiter=separator)
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{name}, line {line}: expected comma-separated values, got {error}") from None


def _plain(word: str) -> str:
    """A column's name without capitals, punctuation and what stands in brackets."""
    return re.sub(r"[\W_]", "", re.sub(r"\(.*?\)|\[.*?\]", "", word)).lower()


def number(text: str, *, sized: bool = False, zero: bool = False) -> float:
    """Text as a finite number > 0 (``zero``: >= 0); ``sized``: with k, M, B or T for powers of ten.

    >>> number("1.1B", sized=True)
    1100000000.0
    """
    text = text.strip()
    ending = POWERS.get(text[-1:].lower(), "") if sized else ""
    found = maybe(text.removesuffix(text[-1:]).strip() + ending if ending else text)
    if not (math.isfinite(found) and (found > 0.0 or (zero and found == 0.0))):
        came = repr(text) if text else "an empty cell"
        raise ValueError(f"expected a finite number {'of at least' if zero else 'above'} 0, got {came}")
    return found


def number_in(row: Mapping[str, str], column: str, *, sized: bool = False, zero: bool = False) -> float:
    """A row's :func:`number` in a column."""
    try:
        return number(row[column], sized=sized, zero=zero)
    except ValueError as error:
        raise ValueError(f"{column}: {error}") from None


def maybe(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _is_number(text: str) -> bool:
    return math.isfinite(maybe(text))
