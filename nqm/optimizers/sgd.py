"""Stochastic gradient descent: plain, with heavy-ball and with Nesterov's momentum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, overload

import numpy as np

from .. import _checks
from .._checks import FloatArray
from .._double_double import Pair, two_sum
from ..schedules import Schedule
from .base import FREE, Free, Number, Numbers, Optimizer, Value, is_zero
from .hyperparameter import LR, MOMENTUM
from .step_map import StepMap

__all__ = ["SGD"]

PLAIN = StepMap([[1.0]], [1.0], [1.0], [1.0], (1.0,), iterate_rests_at_zero_lr=True)
"""theta' = theta - lr g."""


@dataclass(frozen=True, eq=False, repr=False)
class SGD(Optimizer[Value]):
    """Stochastic gradient descent in the conventions of ``torch.optim.SGD`` with dampening 0.

        m' = momentum m + g,   theta' = theta - lr m'                       (heavy ball; zhang2019 eq. 5)
        m' = momentum m + g,   theta' = theta - lr (g + momentum m')        (nesterov=True)

    with g = h theta + noise and m = 0 at step 0. momentum = 0 is plain SGD (zhang2019 eq. 2).

    Args:
        lr: learning rate > 0, in units of 1 / curvature; a number, an array, a :class:`nqm.Schedule` or ``nqm.FREE``.
            An array or list stands for as many different runs, one per learning rate; learning rates that follow each
            other in one run are a schedule: ``nqm.Schedule(lrs, 1)``, one per step, or ``nqm.Schedule.from_function``.
            As in torch, a new learning rate also multiplies what is left in the momentum buffer m.
        momentum: in [0, 1).
        nesterov: take the torch form of Nesterov's momentum; as in torch, with a momentum above 0 (or FREE).

    Raises:
        TypeError, ValueError: for what is not a finite number in range, or nesterov=True with momentum 0.

    >>> SGD(0.1, momentum=0.9)
    SGD(lr=0.1, momentum=0.9)
    """

    lr: Value
    momentum: Value = 0.0  # type: ignore[assignment]
    nesterov: bool = False
    declared: ClassVar = (LR, MOMENTUM)

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: SGD[float], lr: Number | Schedule, momentum: Number = 0.0, nesterov: bool = False
        ) -> None: ...
        @overload
        def __init__(
            self: SGD[FloatArray], lr: Numbers | Schedule, momentum: Numbers = 0.0, nesterov: bool = False
        ) -> None: ...
        def __init__(self, lr: Any, momentum: Any = 0.0, nesterov: bool = False) -> None: ...

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.instance(self.nesterov, (bool, np.bool_), "nesterov", "True or False")
        object.__setattr__(self, "nesterov", bool(self.nesterov))
        if self.nesterov and is_zero(self.momentum):
            raise ValueError("nesterov: expected a momentum above 0 with it, got 0; leave it out for plain SGD")

    def with_values(self, **values: Any) -> Any:
        """As for any optimizer; at momentum 0, where Nesterov's form is plain SGD, nesterov becomes False."""
        if self.nesterov and is_zero(values.get("momentum", FREE)):
            return replace(self, nesterov=False).with_values(**values)
        return super().with_values(**values)

    @property
    def oscillates(self) -> bool:
        return not isinstance(self.momentum, Free) and bool(np.any(self.momentum))

    def step_map(self, values: Mapping[str, Any]) -> StepMap:
        """Plain: z = theta. Heavy ball: z = (theta, v) with v = -lr m. Nesterov: z = (theta, momentum v)."""
        momentum = values["momentum"]
        if is_zero(momentum):
            return PLAIN
        # M = [[1 - x, m], [-x, m]], for Nesterov [[1 - (1 + m) x, m], [-m x, m]]
        gain = [Pair(*two_sum(1.0, momentum)), momentum] if self.nesterov else [1.0, 1.0]
        transition = [[1.0, momentum], [0.0, momentum]]
        return StepMap(
            transition, gain, [1.0, 0.0], [1.0, 0.0], (1.0, 0.0), lr_scaled=(0, 1), iterate_rests_at_zero_lr=True
        )

    def stability_limit(self, values: Mapping[str, Any] | None = None) -> Any:
        """2 (1 + m); with Nesterov's momentum 2 (1 + m) / (1 + 2 m): where a root of M reaches -1."""
        momentum = (values or self.hyperparameters)["momentum"]
        limit = 2.0 * (1.0 + momentum)
        return limit / (1.0 + 2.0 * momentum) if self.nesterov else limit

    @property
    def noise_gain_grows(self) -> bool:
        return True

    def noise_gain(self, x: FloatArray, values: Mapping[str, Any] | None = None) -> FloatArray:
        """Of theta, an ARMA(2, 1) process: x (1 + m) / ((1 - m) (2 + 2 m - x)), or with Nesterov's momentum

        x ((1 + m)^2 + m^2 - m (1 - x) (1 + 2 m)) / ((1 - m + m x) (2 + 2 m - (1 + 2 m) x)).
        """
        m = np.asarray((values or self.hyperparameters)["momentum"])
        if self.nesterov:
            above = (1.0 + m) ** 2 + m * m - m * (1.0 - x) * (1.0 + 2.0 * m)
            below = (1.0 - m + m * x) * (2.0 + 2.0 * m - (1.0 + 2.0 * m) * x)
        else:
            above, below = 1.0 + m, (1.0 - m) * (2.0 + 2.0 * m - x)
        with np.errstate(divide="ignore"):
            return np.where(below > 0.0, x * above / below, np.inf)
