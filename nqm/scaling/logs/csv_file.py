"""CSV files as they come: separators, quotes, comments, and the line that each row begins at.

Cells may be separated by commas, semicolons or tabs (the one that the header has most of); a byte order mark, quotes,
blank lines, and lines that start with # are ignored.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from ... import _checks
from .columns import MEANINGS, NAMES, Column, column_in_units, is_number, normalized

__all__ = ["CsvFile", "Skipped", "first_reasons", "read_csv"]

SHOWN: Final = 3  # reasons in an error

Skipped = tuple[tuple[int, str], ...]
"""Line and reason of each row that cannot be used."""


@dataclass(frozen=True)
class CsvFile:
    """A CSV file: its header, and its rows with the line each begins at."""

    path: str
    header: list[str]
    rows: list[tuple[int, list[str]]] = field(repr=False)
    given: Mapping[str, str]

    def column(self, name: str, *, first: bool = False) -> Column | None:
        """The column of a quantity, if there is one; a ValueError where two fit, unless the ``first`` will do."""
        known = {normalized(word) for word in NAMES[name]}
        fits = [self.given[name]] if name in self.given else [word for word in self.header if normalized(word) in known]
        if len(fits) > 1 and not first:
            raise ValueError(
                f"{self.path}: expected one column for {name}, got {' and '.join(map(repr, fits))}; rename one, or "
                f"say which with columns={{{name!r}: {fits[0]!r}}} (in the shell: --column {name}='{fits[0]}')"
            )
        return column_in_units(self.path, name, fits[0]) if fits else None

    def required(self, *names: str) -> dict[str, Column]:
        """The column of each quantity; a ValueError where two fit, or none."""
        found = {name: column for name in names if (column := self.column(name)) is not None}
        missing = [name for name in names if name not in found]
        if missing:
            raise ValueError(self._missing(missing))
        return found

    def _missing(self, names: list[str]) -> str:
        if all(map(is_number, self.header)):
            return f"{self.path}: expected a first line that names the columns, got numbers: {', '.join(self.header)}"
        names = ["K" if name in ("examples", "tokens") else name for name in names]
        wanted = "; ".join(f"{name} ({MEANINGS[name]}): one of {', '.join(NAMES[name])}" for name in names)
        header = {normalized(word) for word in self.header}
        other = ""
        if "lr" not in names and header & {normalized(word) for word in NAMES["lr"]}:
            other = "; is this a loss curve? nqm.scaling.read_curves reads them (nqm scaling --curves)"
        return (
            f"{self.path}: expected columns that are missing, {wanted}; got {', '.join(map(repr, self.header))} "
            f"(rename, or say which with columns={{{names[0]!r}: ...}}, in the shell --column {names[0]}=...){other}"
        )

    def cells_by_header(self, cells: list[str]) -> dict[str, str]:
        """A row's cells by the header's words; a ValueError where the number of cells is wrong."""
        surplus = cells[len(self.header) :]
        if len(cells) < len(self.header) or any(cell.strip() for cell in surplus):
            raise ValueError(f"expected {len(self.header)} cells, got {len(cells)}")
        return dict(zip(self.header, cells, strict=False))


def read_csv(path: str | os.PathLike[str], given: Mapping[str, str] | None, quantities: tuple[str, ...]) -> CsvFile:
    """Read a CSV file; ``given``: the header's words for some of the quantities that are read from it."""
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
    return CsvFile(name, header, rows[1:], chosen)


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
        hint = "is a quote not closed?"
        raise ValueError(f"{name}, line {line}: expected comma-separated values, got {error}; {hint}") from None


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def first_reasons(skipped: list[tuple[int, str]]) -> str:
    """The first reasons why rows were skipped, for an error."""
    reasons = "; ".join(f"line {line}: {reason}" for line, reason in skipped[:SHOWN])
    rest = len(skipped) - SHOWN
    return f" ({reasons}{f'; and {rest} more' if rest > 0 else ''})" if skipped else " (no rows below the header)"
