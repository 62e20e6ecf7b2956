"""What results that are a table offer: pandas, CSV and HTML."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..._table import Table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Tabulated"]


class Tabulated:
    """A result with a ``table``."""

    table: Table

    def to_pandas(self) -> pd.DataFrame:
        """The table as a pandas DataFrame; imports pandas."""
        return self.table.to_pandas(type(self).__name__)

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write the table as CSV, numbers with all their digits; the file appears whole or not at all."""
        return self.table.to_csv(path)

    def _repr_html_(self) -> str:
        return self.table.to_html(self._names)

    @property
    def _names(self) -> list[str]:
        """Columns that are shown."""
        return list(self.table)
