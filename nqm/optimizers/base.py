"""What all optimizers share, and what stands for a hyperparameter that is to be found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _checks
from .._checks import FloatArray
from ..schedules import Schedule
from .step_map import Filter


class _Free:
    """The type of :data:`FREE`."""

    def __repr__(self) -> str:
        return "nqm.FREE"

    def __reduce__(self) -> str:  # one object in every process
        return "FREE"


FREE: Final = _Free()
"""Stands where a hyperparameter is to be found by :func:`nqm.tune`."""

Number = float | np.floating[Any] | np.integer[Any] | _Free
"""What a single hyperparameter may be given as; lr may be a Schedule as well."""

Numbers = Number | Sequence[float] | Sequence[Sequence[float]] | NDArray[np.floating[Any] | np.integer[Any]]
"""What hyperparameters may be given as, where they may be arrays."""

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    Hyperparameter = TypeVar("Hyperparameter", bound=float | FloatArray, default=Any, covariant=True)
    """What an optimizer's hyperparameters are kept as: ``SGD[float]`` has numbers, ``SGD[FloatArray]`` arrays."""
else:
    from typing import TypeVar

    Hyperparameter = TypeVar("Hyperparameter")


class Optimizer(Generic[Hyperparameter]):
    """What all optimizers share.

    Hyperparameters are numbers, arrays (NumPy broadcasting) or :data:`FREE`; lr may be a :class:`nqm.Schedule`.
    """

    _limits: ClassVar[dict[str, dict[str, Any]]] = {}

    def __post_init__(self) -> None:
        for name, limits in self._limits.items():
            value = getattr(self, name)
            if value is not FREE:
                object.__setattr__(self, name, _hyperparameter(value, name, limits))
        self.shape  # noqa: B018 - arrays that do not broadcast are refused here

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """All numbers of the optimizer by name: lr, momentum, power, decay, as far as it has them (a new dict)."""
        inner = getattr(self, "optimizer", None)
        return {**(inner.hyperparameters if inner else {}), **{name: getattr(self, name) for name in self._limits}}

    @property
    def free(self) -> tuple[str, ...]:
        """Names of the hyperparameters that are :data:`FREE`."""
        return tuple(name for name, value in self.hyperparameters.items() if value is FREE)

    @property
    def schedule(self) -> Schedule | None:
        """The learning rate, where it is a :class:`nqm.Schedule`."""
        lr = self.hyperparameters.get("lr")
        return lr if isinstance(lr, Schedule) else None

    @property
    def shape(self) -> tuple[int, ...]:
        """Common shape of the hyperparameters, () for plain numbers and schedules."""
        return _checks.broadcast(
            **{k: np.shape(v) for k, v in self.hyperparameters.items() if not isinstance(v, (_Free, Schedule))}
        )

    def with_values(self, **values: ArrayLike) -> Any:
        """The same optimizer with some hyperparameters replaced, also inside Preconditioned and EMA.

        >>> from nqm import EMA, FREE, SGD
        >>> EMA(SGD(FREE), decay=0.9).with_values(lr=0.5)
        EMA(SGD(lr=0.5), decay=0.9)
        """
        unknown = set(values) - set(self.hyperparameters)
        if unknown:
            raise ValueError(f"expected hyperparameters of {self}, got {', '.join(sorted(unknown))}")
        changed: dict[str, Any] = {
            f.name: values[f.name] if f.name in values else getattr(self, f.name)
            for f in fields(self)  # type: ignore[arg-type]
        }
        if isinstance(changed.get("optimizer"), Optimizer):
            inner = changed["optimizer"]
            changed["optimizer"] = inner.with_values(**{k: v for k, v in values.items() if k in inner.hyperparameters})
        return type(self)(**changed)

    def filter(self, values: Mapping[str, Any] | None = None) -> Filter:
        """The filter (A, gain, query, readout, start); ``values`` may stand in for the hyperparameters."""
        raise NotImplementedError

    def stability_limit(self, values: Mapping[str, Any] | None = None) -> Any:
        """The least x = lr h^(1-p) > 0 at which a coordinate no longer converges."""
        raise NotImplementedError

    def noise_gain(self, x: FloatArray, values: Mapping[str, Any] | None = None) -> FloatArray:
        """x^2 sum_t (query^T M(x)^t gain)^2: variance in the long run, where the gradient is taken, for gradient noise
        of variance h^2 (so that a step adds x gain). ``values`` broadcast with x = lr h^(1-p); inf where unstable."""
        inner: Optimizer = getattr(self, "optimizer")  # noqa: B009 - what wraps another asks it
        return inner.noise_gain(x, values)

    @property
    def noise_gain_grows(self) -> bool:
        """Whether :meth:`noise_gain` is known to grow with x, so that what is unstable stays so at larger x."""
        inner = getattr(self, "optimizer", None)
        return inner is None or inner.noise_gain_grows

    @property
    def states(self) -> int:
        """Number of state variables of the filter, 1 to 3; those of FREE values counted."""
        inner = getattr(self, "optimizer", None)
        return inner.states if inner else 1

    def require_fixed(self) -> None:
        if self.free:
            raise TypeError(
                f"expected numbers for all hyperparameters, got {self}: {', '.join(self.free)} is nqm.FREE. "
                "nqm.tune finds free values; with_values(...) sets them"
            )

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(
            getattr(self, f.name) == getattr(other, f.name)
            if isinstance(getattr(self, f.name), (Schedule, Optimizer))
            else np.array_equal(getattr(self, f.name), getattr(other, f.name))
            for f in fields(self)  # type: ignore[arg-type]
        )

    def __hash__(self) -> int:
        return hash(repr(self))


def _hyperparameter(value: Any, name: str, limits: dict[str, Any]) -> float | FloatArray | Schedule:
    if isinstance(value, Schedule):
        if name != "lr":
            raise TypeError(f"{name}: expected numbers, got {value}; only lr and batch_size can follow a schedule")
        return value
    array = _checks.reals(value, name, **limits)
    if array.ndim == 0:
        return float(array)
    array.flags.writeable = False
    return array


def require_wrapped(outer: Any, name: str) -> None:
    kind = type(outer).__name__
    _checks.instance(outer.optimizer, Optimizer, f"{kind}", "an optimizer such as nqm.SGD(0.1) as first argument")
    if name in outer.optimizer.hyperparameters:
        raise ValueError(f"{kind}: expected an optimizer without {name}, got {outer.optimizer}")


def is_zero(value: Any) -> bool:
    return value is not FREE and not np.any(value)


def shown(value: Any) -> str:
    if value is FREE:
        return repr(value)
    if isinstance(value, Schedule):
        return str(value)
    if isinstance(value, np.ndarray):
        return f"<array {value.shape}>"
    short = f"{value:.6g}"
    return repr(value) if value < 1.0 <= float(short) else short  # a momentum below 1 must not read as 1
