"""One axis of a search space: from the unit interval to a hyperparameter's values and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...optimizers import SCALES

__all__ = ["Axis"]


@dataclass(frozen=True)
class Axis:
    """A hyperparameter between low and high; even on one of :data:`nqm.optimizers.SCALES`: in log value ("log") or in
    log(1 - value) ("log1m": momentum, decays, where 0.9 to 0.99 is as far as 0 to 0.9).

    ``limits``: what no wider box may pass. ``natural``: an end where the optimum may lie, since the hyperparameter
    does nothing there (momentum 0 is plain descent); None: neither.

    >>> axis = Axis(0.0, 0.99, "log1m")
    >>> middle = (axis.to_line(axis.low) + axis.to_line(axis.high)) / 2
    >>> round(axis.from_line(middle), 12)
    0.9
    """

    low: float
    high: float
    scale: str = "log"
    limits: tuple[float, float] = (0.0, math.inf)
    natural: float | None = None

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise ValueError(f"scale: expected one of {', '.join(SCALES)}, got {self.scale!r}")
        bottom, top = SCALES[self.scale].low, SCALES[self.scale].high
        if not bottom < self.low < self.high < top:
            raise ValueError(f"expected {bottom:g} < low < high < {top:g}, got {self.low} and {self.high}")

    def to_line(self, value: float) -> float:
        """The value's place on the line where the axis is even."""
        return SCALES[self.scale].to_line(float(value))

    def from_line(self, place: float) -> float:
        return float(SCALES[self.scale].from_line(float(place)))
