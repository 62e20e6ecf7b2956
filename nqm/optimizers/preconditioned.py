"""A power of the curvature in front of the gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, overload

from .._checks import FloatArray
from .base import Hyperparameter, Number, Numbers, Optimizer, _Free, require_wrapped, shown
from .step_map import Filter


@dataclass(frozen=True, eq=False, repr=False)
class Preconditioned(Optimizer[Hyperparameter]):
    """Gradients multiplied by P^-1 with P = H^power before ``optimizer`` sees them (zhang2019 eq. 8).

    power = 0 changes nothing, power = 1 is Newton's method; Adam and K-FAC lie between. The learning rate is then in
    units of curvature^(power - 1).

    >>> from nqm import SGD
    >>> Preconditioned(SGD(0.1), power=0.5)
    Preconditioned(SGD(lr=0.1), power=0.5)
    """

    optimizer: Optimizer[Hyperparameter]
    power: Hyperparameter
    _limits: ClassVar[dict[str, dict[str, Any]]] = {"power": {"low": 0.0, "high": 1.0, "closed": "both"}}

    if TYPE_CHECKING:

        @overload
        def __init__(self: Preconditioned[float], optimizer: Optimizer[float], power: Number) -> None: ...
        @overload
        def __init__(self: Preconditioned[FloatArray], optimizer: Optimizer, power: Numbers) -> None: ...
        def __init__(self, optimizer: Any, power: Any) -> None: ...

    def __post_init__(self) -> None:
        require_wrapped(self, "power")
        if isinstance(self.power, _Free):
            raise TypeError("power: expected numbers in [0, 1], got nqm.FREE; lr, momentum and decay can be FREE")
        super().__post_init__()

    def __repr__(self) -> str:
        return f"Preconditioned({self.optimizer}, power={shown(self.power)})"

    def filter(self, values: Mapping[str, Any] | None = None) -> Filter:
        return self.optimizer.filter(values)

    def stability_limit(self, values: Mapping[str, Any] | None = None) -> Any:
        return self.optimizer.stability_limit(values)
