"""Figures of the papers: each has a ``compute`` that returns columns of numbers and a ``plot`` that draws them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

Data = Mapping[str, NDArray[Any]]
"""Columns of equal length by name; written as CSV beside the picture."""


@dataclass(frozen=True)
class Figure:
    """One figure of one paper.

    name: as typed in the shell, paper and number. title: what it shows. compute(bins): the data, on the exact spectrum
    (bins=None) or quantised. plot(data): a matplotlib figure. see: what to look for. differs: where and why it is not
    the paper's.
    """

    name: str
    title: str
    compute: Callable[[int | None], Data]
    plot: Callable[[Data], Picture]
    see: str
    differs: str

    @property
    def order(self) -> tuple[str, int, str]:
        """Paper, number, letter: 3a before 3b before 14."""
        paper, number = self.name.split("-")
        digits = "".join(c for c in number if c.isdigit())
        return paper, int(digits or 0), number


def all_figures() -> dict[str, Figure]:
    """Every figure by name, in the order of the papers; then our own."""
    from . import features, mori2021, noise, own, scaling, smith2018, wen2020, zhang2019

    papers, ours = (zhang2019, wen2020, smith2018, mori2021), (own, noise, features, scaling)
    return {figure.name: figure for module in (*papers, *ours) for figure in module.FIGURES}


def rows(records: list[dict[str, Any]]) -> Data:
    """Columns from records with the same keys."""
    return {key: np.array([record[key] for record in records]) for key in records[0]}
