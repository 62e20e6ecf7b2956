"""CSV files as they come: columns known by their names, numbers, and the line that each row begins at.

Columns are known in any order and spelling: "Batch Size", "batch_size" and "BATCH-SIZE (sequences)" are one. The cells
may be separated by commas, semicolons or tabs (the one that the header has most of); a byte order mark, quotes, blank
lines, and lines that start with # are let be. Numbers are as Python writes them (1e9, 1_000); sizes, which are all but
losses and learning rates, may end in k, M, B or T (10^3, 10^6, 10^9, 10^12), or their header may: "Params (M)" counts
millions, as does "Params (millions)".
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
    "step": ("step", "steps", "k", "iteration", "iterations", "iter", "global_step", "train_step", "training_step"),
    "lr": ("lr", "learning_rate", "learningrate", "eta"),
    "batch_size": ("b", "batch", "batch_size", "global_batch_size", "global_batch", "train_batch_size", "bs"),
}  # fmt: skip
"""Names of columns that are known for each quantity; capitals and punctuation do not count."""

MEANINGS: Final = {
    "N": "parameters", "B": "batch size in examples", "K": "steps", "loss": "loss in nats", "step": "step",
    "lr": "learning rate",
}  # fmt: skip
SIZES: Final = ("N", "B", "K", "examples", "tokens", "step", "batch_size")
POWERS: Final = {"k": "e3", "m": "e6", "b": "e9", "t": "e12"}
WORDS: Final = {
    "thousand": "e3", "million": "e6", "billion": "e9", "trillion": "e12",
    "thousands": "e3", "millions": "e6", "billions": "e9", "trillions": "e12",
}  # fmt: skip
IN_EXAMPLES: Final = ("token", "examples", "divide it by the sequence length")
WRONG_UNITS: Final = {
    "B": IN_EXAMPLES, "batch_size": IN_EXAMPLES, "examples": IN_EXAMPLES,
    "loss": ("bit", "nats", "multiply it by ln 2 = 0.693147"),
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A column: the header's word for it, and for a size the power of ten of its numbers that have none: e6 for M."""

    word: str
    sized: bool = False
    power: str = ""

    def text(self, row: Mapping[str, str]) -> str:
        return row[self.word].strip()

    def number(self, row: Mapping[str, str], *, zero: bool = False) -> float:
        """A row's :func:`number`."""
        try:
            return number(row[self.word], sized=self.sized, zero=zero, power=self.power)
        except ValueError as error:
            raise ValueError(f"{self.word}: {error}") from None


@dataclass(frozen=True)
class Table:
    """A CSV file: its header, and its rows with the line each begins at."""

    path: str
    header: list[str]
    rows: list[tuple[int, list[str]]] = field(repr=False)
    given: Mapping[str, str]

    def column(self, name: str, *, first: bool = False) -> Column | None:
        """The column of a quantity, if there is one; a ValueError where two fit, unless the ``first`` will do."""
        known = {_plain(word) for word in NAMES[name]}
        fits = [self.given[name]] if name in self.given else [word for word in self.header if _plain(word) in known]
        if len(fits) > 1 and not first:
            raise ValueError(
                f"{self.path}: expected one column for {name}, got {' and '.join(map(repr, fits))}; rename one, or "
                f"say which with columns={{{name!r}: {fits[0]!r}}} (in the shell: --column {name}='{fits[0]}')"
            )
        return self._in_units(name, fits[0]) if fits else None

    def required(self, *names: str) -> dict[str, Column]:
        """The column of each quantity; a ValueError where two fit, or none."""
        found = {name: column for name in names if (column := self.column(name)) is not None}
        missing = [name for name in names if name not in found]
        if missing:
            raise ValueError(self._missing(missing))
        return found

    def _in_units(self, name: str, word: str) -> Column:
        """The column of that word, with the unit that stands in its brackets; a ValueError for one that is wrong."""
        unit = " ".join(re.findall(r"[(\[](.*?)[)\]]", word))
        wrong, right, remedy = WRONG_UNITS.get(name, ("", "", ""))
        if wrong and wrong in unit.lower():
            raise ValueError(f"{self.path}: expected {name} in {right}, got {word!r}: {remedy}, and rename the column")
        if name not in SIZES:
            return Column(word)
        few = name in ("B", "K", "step", "batch_size")  # B and T after these are symbols, and no unit
        if unit == "K" and name in ("K", "step"):
            raise ValueError(
                f"{self.path}: expected steps, or thousands of them, got {word!r}, which may be either: rename it to "
                f"'steps' or to 'steps (thousands)'"
            )
        known = {unit: power for unit, power in (POWERS | WORDS).items() if not (few and unit in ("b", "t"))}
        powers = [known[part] for part in re.split(r"[\s,;/]+", unit.lower()) if part in known]
        return Column(word, True, powers[0] if powers else "")

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


def read_table(path: str | os.PathLike[str], given: Mapping[str, str] | None, quantities: tuple[str, ...]) -> Table:
    """The table in a file; ``given``: the header's words for some of the quantities that are read from it."""
    name = os.fspath(path)
    if os.path.isdir(path):
        raise ValueError(f"{name}: expected a file, got a folder (of loss curves? nqm.scaling.read_curves)")
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            text = list(stream)
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: expected text in UTF-8, got byte {error.object[error.start]:#x}") from None
    first = next((line for line in text if line.strip() and not _is_comment(line)), None)
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
        if quantity not in quantities:
            raise ValueError(f"columns: expected quantities out of {', '.join(quantities)}, got {quantity!r}")
        if word not in header:
            raise ValueError(f"{name}: expected the column {word!r}, got {', '.join(map(repr, header))}")
    return Table(name, header, rows[1:], chosen)


def _records(text: list[str], separator: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, with the line each begins at."""
    within = False  # a row, of which quotes hold more than one line

    def lines() -> Iterator[str]:
        nonlocal within
        for line in text:
            comment = not within and _is_comment(line)
            within = True
            yield "" if comment else line

    reader = csv.reader(lines(), delimiter=separator, skipinitialspace=True, strict=True)
    line = 1
    try:
        for cells in reader:
            within = False
            if any(cell.strip() for cell in cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        told = "is a quote not closed?"
        raise ValueError(f"{name}, line {line}: expected comma-separated values, got {error}; {told}") from None


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def _plain(word: str) -> str:
    """A column's name without capitals, punctuation and what stands in brackets."""
    return re.sub(r"[\W_]", "", re.sub(r"\(.*?\)|\[.*?\]", "", word)).lower()


def number(text: str, *, sized: bool = False, zero: bool = False, power: str = "") -> float:
    """Text as a finite number > 0 (``zero``: >= 0).

    sized: it may end in k, M, B or T for a power of ten. power: that of a number without such an ending, as in "e6".

    >>> number("1.1B", sized=True)
    1100000000.0
    """
    text = text.strip()
    ending = POWERS.get(text[-1:].lower(), "") if sized else ""
    found = _times(text[:-1].strip(), ending) if ending else _times(text, power)
    if not (math.isfinite(found) and (found > 0.0 or (zero and found == 0.0))):
        came = repr(text) if text else "an empty cell"
        raise ValueError(f"expected a finite number {'of at least' if zero else 'above'} 0, got {came}")
    return found


def _times(text: str, power: str) -> float:
    """The number times a power of ten; NaN for what is no number."""
    for exponent, factor in ((power, 1.0), ("", float(f"1{power}"))):  # 1.1e9 is nearer to 1.1B than 1.1 times 1e9
        try:
            return float(text + exponent) * factor
        except ValueError:
            pass
    return math.nan


def _is_number(text: str) -> bool:
    return math.isfinite(_times(text, ""))
