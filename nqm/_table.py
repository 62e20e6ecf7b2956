"""The one table of the package: columns of equal length by name."""

from __future__ import annotations

import csv
import html
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import _checks
from ._io import write_whole

__all__ = ["Table", "write_csv"]

if TYPE_CHECKING:
    import pandas as pd


class Table(dict[str, NDArray[Any]]):
    """Columns by name, read-only arrays of equal length; a dict, so ``table["steps"]`` is a column.

    >>> table = Table({"optimizer": ["SGD", "SGD", "EMA"], "steps": [12.0, 7.0, 9.5]})
    >>> print(table.select(optimizer="SGD"))
    optimizer  steps
          SGD     12
          SGD      7
    """

    def __init__(self, columns: Mapping[str, Any]) -> None:
        super().__init__({name: _read_only(column) for name, column in dict(columns).items()})
        lengths = {name: column.shape for name, column in self.items()}
        if len(set(lengths.values())) > 1 or any(len(shape) != 1 for shape in lengths.values()):
            raise ValueError(f"expected columns of equal length, got {lengths}")

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]], names: Iterable[str]) -> Table:
        """One row per mapping; NaN where a row lacks a column."""
        listed = list(rows)
        return cls({name: np.array([row.get(name, np.nan) for row in listed]) for name in names})

    def __reduce__(self) -> tuple[type[Table], tuple[dict[str, NDArray[Any]]]]:  # by way of __init__: read-only again
        return Table, (dict(self),)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return next(iter(self.values())).size if self else 0

    def distinct(self, name: str) -> list[Any]:
        """The values of a column, each once, in the order of their first rows."""
        return list(dict.fromkeys(self[name].tolist()))

    def where(self, mask: NDArray[Any]) -> Table:
        """The rows where ``mask`` is True, or those of which it holds the indices."""
        return Table({name: column[mask] for name, column in self.items()})

    def select(self, **values: Any) -> Table:
        """The rows with these values in these columns."""
        mask = np.ones(self.rows, dtype=bool)
        for name, value in values.items():
            mask &= self[name] == value
        return self.where(mask)

    def to_pandas(self, owner: str = "Table") -> pd.DataFrame:
        """A pandas DataFrame; imports pandas. ``owner``: whose method an ImportError names."""
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(f"{owner}.to_pandas needs pandas: pip install pandas") from error
        return pd.DataFrame(dict(self))

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write CSV, numbers with all their digits; the file appears whole or not at all."""
        return write_csv(self, path)

    def to_string(
        self,
        names: Iterable[str] | None = None,
        *,
        number: Callable[[float], str] = "{:.6g}".format,
        width: int = 0,
        max_rows: int | None = None,
    ) -> str:
        """Text, right-justified: some columns by ``names``, floats as ``number`` writes them, columns of at least
        ``width`` characters; of more than ``max_rows`` rows the first and last, and how many are left out between."""
        most = self.rows if max_rows is None else min(self.rows, _checks.whole(max_rows, "max_rows", low=2))
        head, tail = most - most // 2, most // 2
        shown = self.where(np.concatenate([np.arange(head), np.arange(self.rows - tail, self.rows)]))
        lines = [list(names or self), *shown._cells(list(names or self), number)]
        widths = [max(width, *(len(line[i]) for line in lines)) for i in range(len(lines[0]))]
        text = ["  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines]
        if most < self.rows:
            text.insert(1 + head, f"... {self.rows - most} of {self.rows} rows left out ...")
        return "\n".join(text)

    def to_html(self, names: Iterable[str] | None = None, *, number: Callable[[float], str] = "{:.6g}".format) -> str:
        """An HTML table."""

        def line(cells: Iterable[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        chosen = list(names or self)
        body = "\n".join(line(cells, "td") for cells in self._cells(chosen, number))
        return f"<table>\n<thead>{line(chosen, 'th')}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"

    def _cells(self, names: list[str], number: Callable[[float], str]) -> list[list[str]]:
        columns = [[number(v) if isinstance(v, float) else str(v) for v in self[name].tolist()] for name in names]
        return [list(row) for row in zip(*columns, strict=True)]

    def __str__(self) -> str:
        return self.to_string()

    def _repr_html_(self) -> str:
        return self.to_html()


def write_csv(columns: Mapping[str, NDArray[Any]], path: str | os.PathLike[str]) -> Path:
    """Columns as CSV, numbers with all their digits; the file appears whole or not at all."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))

    return write_whole(path, write)


def _read_only(column: Any) -> NDArray[Any]:
    array = np.array(column)
    array.flags.writeable = False
    return array
