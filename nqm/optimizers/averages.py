"""Averages of the iterates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, ClassVar, overload

import numpy as np

from .._checks import FloatArray
from .._double_double import Pair, two_sum
from .base import Number, Numbers, Optimizer, Value, Wrapper, is_zero
from .hyperparameter import DECAY
from .step_map import MOST_STATES, StepMap, as_pair

__all__ = ["EMA"]


@dataclass(frozen=True, eq=False, repr=False)
class EMA(Wrapper[Value]):
    """``optimizer`` with an exponential moving average of its iterates (zhang2019 eq. 11).

        average' = decay average + (1 - decay) theta',   average = theta_0 at step 0

    The risk is that of the average. decay = 0 changes nothing.

    >>> from nqm import SGD
    >>> EMA(SGD(0.1), decay=0.99)
    EMA(SGD(lr=0.1), decay=0.99)
    """

    optimizer: Optimizer[Value]
    decay: Value
    declared: ClassVar = (DECAY,)

    if TYPE_CHECKING:

        @overload
        def __init__(self: EMA[float], optimizer: Optimizer[float], decay: Number) -> None: ...
        @overload
        def __init__(self: EMA[FloatArray], optimizer: Optimizer, decay: Numbers) -> None: ...
        def __init__(self, optimizer: Any, decay: Any) -> None: ...

    def __post_init__(self) -> None:
        super().__post_init__()
        inner, most = self.optimizer.states, MOST_STATES - 1
        if inner > most:
            raise ValueError(
                f"EMA: expected an optimizer of at most {most} state variables, got {self.optimizer} with {inner}"
            )

    def step_map(self, values: Mapping[str, Any]) -> StepMap:
        """One state more, the average: of two states what they read out after their step, as the backends know it.

        Else in the optimizer's own coordinates: average' = (1 - decay) readout (A z - lr gain g) + decay average.
        """
        decay = values["decay"]
        inner = self.optimizer.step_map(values)
        if is_zero(decay):
            return inner
        weight = Pair(*two_sum(1.0, -np.asarray(decay)))
        rows, gain, of_average = list(inner.transition), list(inner.gain), [0.0] * inner.states
        average: dict[str, Any] = {}
        if inner.states == 2:
            average = {"averaging_weight": weight, "averaged": [*inner.readout, 0.0]}
            gain.append(0.0)
        else:
            weights = [(i, weight * r) for i, r in enumerate(inner.readout) if r != 0.0]
            of_average = [_sum(w * as_pair(rows[i][j]) for i, w in weights) for j in range(inner.states)]
            gain.append(_sum(w * as_pair(gain[i]) for i, w in weights))
        return StepMap(
            [*([*row, 0.0] for row in rows), [*of_average, decay]],
            gain,
            [*inner.query, 0.0],
            [0.0] * inner.states + [1.0],
            (*inner.start, float(np.dot(inner.readout, inner.start))),
            lr_scaled=(*inner.scaled, 0),
            iterate_rests_at_zero_lr=inner.iterate_rests_at_zero_lr,
            average_decay=decay,
            **average,
        )


def _sum(terms: Iterable[Pair]) -> Any:
    each = list(terms)
    return reduce(Pair.__add__, each) if each else 0.0
