"""A power of the curvature in front of the gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, overload

from .._checks import FloatArray
from .base import Number, Numbers, Optimizer, Value, Wrapper
from .hyperparameter import POWER

__all__ = ["Preconditioned"]


@dataclass(frozen=True, eq=False, repr=False)
class Preconditioned(Wrapper[Value]):
    """Gradients multiplied by P^-1 with P = H^power before ``optimizer`` sees them (zhang2019 eq. 8).

    power = 0 changes nothing, power = 1 is Newton's method; Adam and K-FAC lie between. The learning rate is then in
    units of curvature^(power - 1).

    >>> from nqm import SGD
    >>> Preconditioned(SGD(0.1), power=0.5)
    Preconditioned(SGD(lr=0.1), power=0.5)
    """

    optimizer: Optimizer[Value]
    power: Value
    declared: ClassVar = (POWER,)

    if TYPE_CHECKING:

        @overload
        def __init__(self: Preconditioned[float], optimizer: Optimizer[float], power: Number) -> None: ...
        @overload
        def __init__(self: Preconditioned[FloatArray], optimizer: Optimizer, power: Numbers) -> None: ...
        def __init__(self, optimizer: Any, power: Any) -> None: ...
