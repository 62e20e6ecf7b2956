"""Figures of the papers, and our own: each computes columns of numbers, and draws a picture from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

__all__ = ["Data", "Figure", "all_figures", "rows"]

Data = Mapping[str, NDArray[Any]]
"""Columns of equal length by name; written as CSV beside the picture."""


@dataclass(frozen=True)
class Figure:
    """One figure of one paper.

    name: as typed in the shell, paper and number. title: what it shows. calculate: a function of ``bins`` that returns
    the data; of nothing where the figure has no spectrum. plot(data): a matplotlib figure. see: what to look for.
    differs: where and why it is not the paper's.
    """

    name: str
    title: str
    calculate: Callable[..., Data]
    plot: Callable[[Data], Picture]
    see: str
    differs: str
    has_spectrum: bool = True

    def compute(self, bins: int | None = None) -> Data:
        """The data, on the exact spectrum or, where there is one, on that quantised into ``bins``."""
        return self.calculate(bins) if self.has_spectrum else self.calculate()

    @property
    def order(self) -> tuple[str, int, str]:
        """Paper, number, letter: 3a before 3b before 14."""
        paper, number = self.name.split("-")
        digits = "".join(c for c in number if c.isdigit())
        return paper, int(digits or 0), number


def all_figures() -> dict[str, Figure]:
    """Every figure by name, in the order of the papers; then our own."""
    from . import mori2021, ours, smith2018, wen2020, zhang2019

    modules = (zhang2019, wen2020, smith2018, mori2021, ours)
    return {figure.name: figure for module in modules for figure in module.FIGURES}


def rows(records: list[dict[str, Any]]) -> Data:
    """Columns from records with the same keys."""
    return {key: np.array([record[key] for record in records]) for key in records[0]}
