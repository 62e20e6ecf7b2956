"""Averages of the iterates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, overload

import numpy as np

from .._checks import FloatArray
from .._double_double import pair_mul, pair_of, two_sum
from .base import Hyperparameter, Number, Numbers, Optimizer, is_zero, require_wrapped, shown
from .step_map import Filter, packed


@dataclass(frozen=True, eq=False, repr=False)
class EMA(Optimizer[Hyperparameter]):
    """``optimizer`` with an exponential moving average of its iterates (zhang2019 eq. 11).

        average' = decay average + (1 - decay) theta',   average = theta_0 at step 0

    The risk is that of the average. decay = 0 changes nothing.

    >>> from nqm import SGD
    >>> EMA(SGD(0.1), decay=0.99)
    EMA(SGD(lr=0.1), decay=0.99)
    """

    optimizer: Optimizer[Hyperparameter]
    decay: Hyperparameter
    _limits: ClassVar[dict[str, dict[str, Any]]] = {"decay": {"low": 0.0, "high": 1.0, "closed": "low"}}

    if TYPE_CHECKING:

        @overload
        def __init__(self: EMA[float], optimizer: Optimizer[float], decay: Number) -> None: ...
        @overload
        def __init__(self: EMA[FloatArray], optimizer: Optimizer, decay: Numbers) -> None: ...
        def __init__(self, optimizer: Any, decay: Any) -> None: ...

    def __post_init__(self) -> None:
        require_wrapped(self, "decay")
        if self.optimizer.states > 2:
            raise ValueError(f"EMA: expected an optimizer of at most 2 state variables, got {self.optimizer} with 3")
        super().__post_init__()

    def __repr__(self) -> str:
        return f"EMA({self.optimizer}, decay={shown(self.decay)})"

    def filter(self, values: Mapping[str, Any] | None = None) -> Filter:
        """One state more, the average. Of a single state z: average' = (1 - decay) readout A z + decay average."""
        decay = (values or self.hyperparameters)["decay"]
        inner = self.optimizer.filter(values)
        k = len(inner.start)
        if is_zero(decay):
            return inner
        fresh = two_sum(1.0, -np.asarray(decay))
        start = (*inner.start, float(inner.readout @ np.array(inner.start)))
        query = [*inner.query, 0.0]
        if k == 1:
            a, g = pair_of(inner.transition[..., :, 0, 0]), pair_of(inner.gain[..., :, 0])
            weight = pair_mul(fresh, (inner.readout[0], 0.0))
            transition = [[a, 0.0], [pair_mul(weight, a), decay]]
            return packed(transition, [g, pair_mul(weight, g)], query=query, readout=[0.0, 1.0], start=start)
        rows = [[pair_of(inner.transition[..., :, i, j]) for j in range(2)] for i in range(2)]
        gain = [pair_of(inner.gain[..., :, i]) for i in range(2)]
        return packed(
            [[*rows[0], 0.0], [*rows[1], 0.0], [0.0, 0.0, decay]],
            [*gain, 0.0],
            query=query,
            readout=[*inner.readout, 0.0],
            start=start,
            fresh=fresh,
            scaled=(*inner.scaled, 0),
        )

    def stability_limit(self, values: Mapping[str, Any] | None = None) -> Any:
        return self.optimizer.stability_limit(values)
