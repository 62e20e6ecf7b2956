"""What all optimizers share, what a new one has to provide, and FREE, for a hyperparameter that is to be found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _checks
from .._checks import FloatArray
from ..schedules import Schedule
from . import stability
from .hyperparameter import Hyperparameter, free_names
from .step_map import StepMap

__all__ = ["FREE", "Free", "Number", "Numbers", "Optimizer", "Wrapper", "is_zero", "shown"]


class Free:
    """The type of :data:`FREE`."""

    def __repr__(self) -> str:
        return "nqm.FREE"

    def __reduce__(self) -> str:  # one object in every process
        return "FREE"


FREE: Final = Free()
"""Stands where a hyperparameter is to be found by :func:`nqm.tune`."""

Number = float | np.floating[Any] | np.integer[Any] | Free
"""What a single hyperparameter may be given as; lr may be a Schedule as well."""

Numbers = Number | Sequence[float] | Sequence[Sequence[float]] | NDArray[np.floating[Any] | np.integer[Any]]
"""What hyperparameters may be given as, where they may be arrays."""

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    Value = TypeVar("Value", bound=float | FloatArray, default=Any, covariant=True)
    """What an optimizer's hyperparameters are kept as: ``SGD[float]`` has numbers, ``SGD[FloatArray]`` arrays."""
else:
    from typing import TypeVar

    Value = TypeVar("Value")


class Optimizer(Generic[Value]):
    """Any optimizer that is linear in a state of at most 8 numbers and takes one gradient per step.

    Hyperparameters are numbers, arrays (NumPy broadcasting) or :data:`FREE`; lr may be a :class:`nqm.Schedule`.

    One of your own is a frozen dataclass that derives from this. It has to provide

    - ``declared``: a :class:`nqm.optimizers.Hyperparameter` for each number, with the names of its fields; the first is
      ``nqm.optimizers.LR``;
    - :meth:`step_map`: one step, given the numbers. Entries may depend on all of them but lr; on those that
      :func:`nqm.optimize_schedule` is to find, at most quadratically, for its derivatives to be exact.

    It may provide :meth:`stability_limit` and :meth:`noise_gain` (with :attr:`noise_gain_grows`), where formulas are
    known; else they are found from the step map.

    >>> from dataclasses import dataclass
    >>> import nqm
    >>> from nqm.optimizers import LR, MOMENTUM, StepMap
    >>> @dataclass(frozen=True, eq=False, repr=False)
    ... class Dampened(nqm.Optimizer):
    ...     '''m' = momentum m + (1 - momentum) g,  theta' = theta - lr m', torch.optim.SGD with a dampening.'''
    ...     lr: float
    ...     momentum: float = 0.0
    ...     declared = (LR, MOMENTUM)
    ...
    ...     def step_map(self, values):
    ...         m = values["momentum"]  # z = (theta, -lr m)
    ...         return StepMap([[1.0, m], [0.0, m]], [1.0 - m, 1.0 - m], query=[1, 0], readout=[1, 0], start=(1.0, 0.0))
    >>> problem = nqm.NoisyQuadratic.power_law(100)
    >>> round(nqm.risk(problem, Dampened(1.0, 0.9), 8, 50) / nqm.risk(problem, nqm.SGD(0.1, 0.9), 8, 50), 9)
    1.0
    """

    declared: ClassVar[tuple[Hyperparameter, ...]] = ()

    def __post_init__(self) -> None:
        for one in self.declared:
            value = getattr(self, one.name)
            if value is not FREE:
                object.__setattr__(self, one.name, one.checked(value))
            elif not one.can_be_free:
                *names, last = free_names()
                raise TypeError(
                    f"{one.name}: expected numbers in {one.domain}, got nqm.FREE; {', '.join(names)} and {last} can be "
                    "FREE"
                )
        self.shape  # noqa: B018 - arrays that do not broadcast are refused here

    # --- what a subclass provides ------------------------------------------------------------------------------

    def step_map(self, values: Mapping[str, Any]) -> StepMap:
        """One step, for these ``values`` of the hyperparameters: numbers or arrays that broadcast; lr is not used."""
        raise NotImplementedError

    def map_at(self, values: Mapping[str, Any] | None = None) -> StepMap:
        """:meth:`step_map`, which does not get to see lr; ``values`` may stand in for the hyperparameters."""
        values = self.hyperparameters if values is None else values
        return self.step_map(WithoutLr({name: value for name, value in values.items() if name != "lr"}))

    def stability_limit(self, values: Mapping[str, Any] | None = None) -> Any:
        """The least x = lr h^(1-p) > 0 at which a coordinate no longer converges."""
        return stability.stability_limit(self.map_at(values))[()]

    def noise_gain(self, x: FloatArray, values: Mapping[str, Any] | None = None) -> FloatArray:
        """x^2 sum_t (query^T M(x)^t gain)^2: variance in the long run, where the gradient is taken, for gradient noise
        of variance h^2 (so that a step adds x gain). ``values`` broadcast with x = lr h^(1-p); inf where unstable."""
        parts = self.map_at(values).packed
        limit = self.stability_limit(values)
        return stability.long_run_noise(parts.transition[..., 0, :, :], parts.gain[..., 0, :], parts.query, x, limit)

    @property
    def noise_gain_grows(self) -> bool:
        """Whether :meth:`noise_gain` is known to grow with x, so that what is unstable stays so at larger x."""
        return False

    @property
    def oscillates(self) -> bool:
        """Whether coordinates may oscillate, with what is FREE at its default; searches then look for ripples."""
        return self.states > 1

    # --- what all have -----------------------------------------------------------------------------------------

    @property
    def described(self) -> dict[str, Hyperparameter]:
        """The descriptions of all :attr:`hyperparameters` by name."""
        return {one.name: one for one in self.declared}

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """All numbers of the optimizer by name: lr, momentum, power, decay, as far as it has them (a new dict)."""
        return {one.name: getattr(self, one.name) for one in self.declared}

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
            **{name: value.shape for name, value in self.hyperparameters.items() if isinstance(value, np.ndarray)}
        )

    @property
    def states(self) -> int:
        """Numbers of the state, 1 to 8; those of FREE values counted."""
        of = self.described
        values = {name: of[name].inside if value is FREE else value for name, value in self.hyperparameters.items()}
        return self.map_at(values).states

    def with_values(self, **values: ArrayLike) -> Any:
        """The same optimizer with some hyperparameters replaced, also inside Preconditioned and EMA.

        >>> from nqm import EMA, FREE, SGD
        >>> EMA(SGD(FREE), decay=0.9).with_values(lr=0.5)
        EMA(SGD(lr=0.5), decay=0.9)
        """
        unknown = set(values) - set(self.hyperparameters)
        if unknown:
            raise ValueError(f"expected hyperparameters of {self}, got {', '.join(sorted(unknown))}")
        return type(self)(**{f.name: self._replaced(f.name, values) for f in _fields(self)})

    def _replaced(self, field: str, values: Mapping[str, Any]) -> Any:
        return values[field] if field in values else getattr(self, field)

    def require_fixed(self) -> None:
        if self.free:
            raise TypeError(
                f"expected numbers for all hyperparameters, got {self}: {', '.join(self.free)} is nqm.FREE. "
                "nqm.tune finds free values; with_values(...) sets them"
            )

    def __repr__(self) -> str:
        """The call that makes it, without what is left at its default."""
        own = {one.name for one in self.declared}
        parts = []
        for f in _fields(self):
            value = getattr(self, f.name)
            if f.default is not MISSING and value is not FREE and np.all(value == f.default):
                continue
            text = shown(value) if f.name in own else repr(value)
            parts.append(text if isinstance(value, Optimizer) else f"{f.name}={text}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(
            getattr(self, f.name) == getattr(other, f.name)
            if isinstance(getattr(self, f.name), (Schedule, Optimizer))
            else np.array_equal(getattr(self, f.name), getattr(other, f.name))
            for f in _fields(self)
        )

    def __hash__(self) -> int:
        return hash(repr(self))


class Wrapper(Optimizer[Value]):
    """An optimizer around another one, its field ``optimizer``: it has that one's hyperparameters too.

    Stability and noise are that of the other, where a subclass doesn't say otherwise.
    """

    optimizer: Optimizer[Value]

    def __post_init__(self) -> None:
        kind = type(self).__name__
        _checks.instance(self.optimizer, Optimizer, kind, "an optimizer such as nqm.SGD(0.1) as first argument")
        for one in self.declared:
            if one.name in self.optimizer.hyperparameters:
                raise ValueError(f"{kind}: expected an optimizer without {one.name}, got {self.optimizer}")
        super().__post_init__()

    @property
    def described(self) -> dict[str, Hyperparameter]:
        return {**self.optimizer.described, **super().described}

    @property
    def hyperparameters(self) -> dict[str, Any]:
        return {**self.optimizer.hyperparameters, **super().hyperparameters}

    def step_map(self, values: Mapping[str, Any]) -> StepMap:
        return self.optimizer.step_map(values)

    def stability_limit(self, values: Mapping[str, Any] | None = None) -> Any:
        return self.optimizer.stability_limit(values)

    def noise_gain(self, x: FloatArray, values: Mapping[str, Any] | None = None) -> FloatArray:
        return self.optimizer.noise_gain(x, values)

    @property
    def noise_gain_grows(self) -> bool:
        return self.optimizer.noise_gain_grows

    @property
    def oscillates(self) -> bool:
        return self.optimizer.oscillates

    def _replaced(self, field: str, values: Mapping[str, Any]) -> Any:
        if field != "optimizer":
            return super()._replaced(field, values)
        return self.optimizer.with_values(**{k: v for k, v in values.items() if k in self.optimizer.hyperparameters})


class WithoutLr(dict[str, Any]):
    """Hyperparameters by name, as step maps see them: lr multiplies the curvature, and may change on the way."""

    def __missing__(self, name: str) -> Any:
        if name == "lr":
            raise TypeError(
                "step_map: expected parts that do not depend on lr, which multiplies the curvature and may follow a "
                'schedule, got one that reads values["lr"]'
            )
        raise KeyError(name)


def is_zero(value: Any) -> bool:
    return value == 0.0 if type(value) is float else value is not FREE and not np.any(value)


def shown(value: Any) -> str:
    """A hyperparameter, as printed."""
    if value is FREE:
        return repr(value)
    if isinstance(value, Schedule):
        return str(value)
    if isinstance(value, np.ndarray):
        return f"<array {value.shape}>"
    short = f"{value:.6g}"
    return repr(value) if value < 1.0 <= float(short) else short  # a momentum below 1 must not read as 1


def _fields(optimizer: Optimizer) -> tuple[Field[Any], ...]:
    return fields(optimizer)  # type: ignore[arg-type]  # subclasses are dataclasses
