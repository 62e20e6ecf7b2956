"""How the steps of a schedule are shared out among its pieces, and examples among its steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from .._checks import FloatArray, IntArray
from ..schedules import Schedule, equal_lengths

__all__ = ["Layout", "Pieces", "Profile", "best_batch_sizes"]

MOST_ASKED = 10**6
"""Steps that a shape is asked for; of more it is stretched."""


class Layout(NamedTuple):
    """Pieces of T steps, cut where a given schedule changes within one."""

    lengths: IntArray  # (pieces,), of the variables; 0 for some where there are fewer steps than pieces
    parts: IntArray  # (parts,), what they are cut into
    piece_of_part: IntArray  # (parts,)
    begins: IntArray  # (parts,), first step


class Pieces:
    """Relative lengths of pieces, and the layouts that they give.

    weights: the number of pieces of equal length, or (pieces,) their relative lengths. given: schedules that are kept.
    """

    def __init__(self, weights: FloatArray | int, given: Sequence[Schedule]) -> None:
        self.weights, self.given = weights, given
        self.count = weights if isinstance(weights, int) else weights.size
        self._laid_out: tuple[float, Layout] | None = None

    def coarser(self) -> Iterator[Pieces]:
        """Fewer pieces, of every number that divides this one."""
        for count in range(1, self.count):
            if self.count % count == 0:
                weights = self.weights
                grouped = count if isinstance(weights, int) else weights.reshape(count, -1).sum(axis=1)
                yield Pieces(grouped, self.given)

    def lengths(self, steps: float) -> IntArray:
        """Steps of each piece, (pieces,); 0 for some where there are fewer steps than pieces."""
        total = int(steps)
        if isinstance(self.weights, int):
            if self.count <= total:
                return equal_lengths(total, self.count)
            return np.diff(np.arange(self.count + 1) * total // self.count)
        ends = np.floor(np.cumsum(self.weights) / np.sum(self.weights) * total + 1e-9)
        ends[-1] = total
        return np.diff(ends, prepend=0.0).astype(np.int64)

    def layout(self, steps: float) -> Layout:
        """The pieces of so many steps; the last ones asked for are kept."""
        if self._laid_out is None or self._laid_out[0] != steps:
            lengths = self.lengths(steps)
            changes = [schedule.ends[schedule.ends < steps] for schedule in self.given]
            ends = np.unique(np.concatenate([np.cumsum(lengths), *changes]))
            ends = ends[ends > 0]
            begins = np.concatenate([[0], ends[:-1]])
            piece_of_part = np.searchsorted(np.cumsum(lengths), begins, side="right")
            self._laid_out = steps, Layout(lengths, ends - begins, piece_of_part, begins)
        return self._laid_out[1]

    def check(self, steps: int) -> None:
        """Refuse steps that leave a piece without one, or outlast a schedule that ends."""
        if self.count > steps:
            raise ValueError(f"pieces: expected at most as many as steps, got {self.count} pieces for {steps} steps")
        if np.any(self.lengths(steps) == 0):
            raise ValueError(
                f"pieces: expected relative lengths that leave every piece a step, got one below 1 of {steps}"
            )
        for schedule in self.given:
            schedule.cut(steps)  # refuses where it ends before


class Profile:
    """The mean over each piece of a shape whose peak is 1."""

    def __init__(self, shape: Callable[[float, int], Schedule]) -> None:
        self.shape = shape
        self._kept: tuple[int, FloatArray] | None = None

    def __call__(self, lengths: IntArray) -> FloatArray:
        steps = int(lengths.sum())
        if self._kept is None or self._kept[0] != steps:
            asked = min(steps, MOST_ASKED)
            shaped = self.shape(1.0, asked)
            if not isinstance(shaped, Schedule) or shaped.steps != asked or not shaped.values.any():
                raise TypeError(
                    f"shape: expected a function (value, steps) -> Schedule of {asked} steps, got {shaped!r}"
                )
            stretch = steps / asked
            edges = stretch * np.concatenate([[0], shaped.ends])
            area = stretch * np.concatenate([[0.0], np.cumsum(shaped.values * shaped.lengths)])
            means = np.diff(np.interp(np.cumsum(lengths), edges, area), prepend=0.0) / np.maximum(lengths, 1)
            self._kept = (steps, means / shaped.values.max())
        return self._kept[1]


def best_batch_sizes(examples: float, noise_shares: FloatArray, lengths: IntArray) -> FloatArray:
    """The batch sizes B_j >= 1 with sum n_j B_j = examples of least sum shares_j / B_j: in proportion to
    sqrt(shares_j / n_j), where that is above 1. lengths: n_j, (pieces,)."""
    count = np.maximum(lengths, 1)
    root = np.sqrt(noise_shares / count)
    if not np.all(np.isfinite(root)):  # diverged: no batch size helps
        root = np.ones(root.size)
    above = lengths > 0
    sizes = np.ones(lengths.size)
    while True:
        left = examples - float(np.sum(lengths[~above]))
        total = float(np.sum(count[above] * root[above]))
        sizes[above] = left * root[above] / total if total > 0.0 else left / float(np.sum(count[above]))
        small = above & (sizes < 1.0)
        if not small.any():
            return sizes
        sizes[small] = 1.0
        above &= ~small
