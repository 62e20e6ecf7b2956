"""What the results of all searches have in common."""

from __future__ import annotations

import math

from .._status import Status
from ..schedules import Schedule

__all__ = ["SearchResult", "examples_seen"]


class SearchResult:
    """A status with its sentence, and the examples that the steps take."""

    steps: float
    batch_size: float | Schedule
    status: Status

    @property
    def success(self) -> bool:
        """Whether what was asked for was found: the target is reached, and a schedule is a local minimum."""
        return self.status.success

    @property
    def message(self) -> str:
        """The status in a sentence."""
        return self.status.message

    @property
    def examples(self) -> float:
        """Training examples seen: steps * batch_size, summed along a schedule."""
        return examples_seen(self.batch_size, self.steps)


def examples_seen(batch_size: float | Schedule, steps: float) -> float:
    """steps * batch_size, summed along a schedule."""
    if not isinstance(batch_size, Schedule) or math.isinf(steps) or steps == 0:
        return steps * (1.0 if isinstance(batch_size, Schedule) else batch_size)
    followed = batch_size.cut(int(steps))
    return float(followed.values @ followed.lengths)
