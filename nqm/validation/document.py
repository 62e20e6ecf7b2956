"""A report in Markdown, with its figures and tables as files beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from .._io import save_picture, save_text
from .._table import write_csv

__all__ = ["Report", "shown"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Columns = Mapping[str, NDArray[Any]]


@dataclass
class Report:
    """Parts of a report, in order, and the files they name in ``folder``."""

    folder: Path
    parts: list[str] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)

    def text(self, *lines: str) -> None:
        self.parts.append("\n".join(lines))

    def data(self, name: str, columns: Columns) -> None:
        """Columns as a file; what says that it is there is another matter."""
        self.written.append(write_csv(columns, self.folder / f"{name}.csv"))

    def figure(self, name: str, title: str, picture: Figure, data: Columns, note: str = "") -> None:
        """A picture with its data beside it, and where it stands in the report."""
        self.data(name, data)
        self.written.append(save_picture(picture, self.folder / f"{name}.png"))
        self.text(f"![{title}]({name}.png)", "", f"{title} ([data]({name}.csv)).{' ' + note if note else ''}")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        lines = [columns, ["---"] * len(columns), *rows]
        self.text(*("| " + " | ".join(shown(cell) for cell in line) + " |" for line in lines))

    def save(self) -> Path:
        path = save_text("\n\n".join(self.parts) + "\n", self.folder / "README.md")
        self.written.append(path)
        return path


def shown(value: Any) -> str:
    """A cell of a table: numbers to three digits, NaN as a blank, bars that do not end the cell."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3g}"
    return str(value).replace("|", "\\|")
