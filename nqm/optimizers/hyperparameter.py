"""Hyperparameters that describe themselves: domain, the line on which searches move, what an optimizer without one has.

Everybody else reads these descriptions: checks of arguments, :func:`nqm.tune`'s space and its first scan,
:func:`nqm.optimize_schedule`'s variables, the columns of :class:`nqm.Sweep`, the shell's options.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from .. import _checks
from .._checks import FloatArray
from ..schedules import Schedule

__all__ = ["DECAY", "LR", "MOMENTUM", "POWER", "SCALES", "STANDARD", "Hyperparameter", "Scale", "Scan", "free_names"]


class Scale(NamedTuple):
    """A line on which a hyperparameter is searched: ``to_line`` takes a number, ``from_line`` numbers or arrays."""

    to_line: Callable[[float], float]
    from_line: Callable[[Any], Any]
    slope: Callable[[Any], Any]  # d value / d coordinate, at a value
    low: float  # values lie between these ends
    high: float


def _log(value: float) -> float:
    return math.log(value) if value > 0.0 else -math.inf


def _exp(u: Any) -> Any:
    return math.exp(u) if type(u) is float else np.exp(u)


def _log1m(value: float) -> float:
    return -math.log1p(-value) if value < 1.0 else math.inf


def _expm1(u: Any) -> Any:
    return -math.expm1(-u) if type(u) is float else -np.expm1(-u)


SCALES: Final = {
    "log": Scale(_log, _exp, lambda value: value, 0.0, math.inf),
    "log1m": Scale(_log1m, _expm1, lambda value: 1.0 - value, -math.inf, 1.0),
    "linear": Scale(lambda value: value, lambda u: u, np.ones_like, -math.inf, math.inf),
}
"""By name; "log1m" is u = -log(1 - value), where 0.9 to 0.99 is as far as 0 to 0.9."""


class Scan(NamedTuple):
    """How densely a first look samples a hyperparameter: points where it is the only free one, and beside others; they
    crowd at the lower end of the line as the power ``crowding`` of even ones (beside others)."""

    alone: int
    together: int
    crowding: float = 1.0


USUAL: Final = Scan(40, 18)


@dataclass(frozen=True)
class Hyperparameter:
    """A number of an optimizer, as all that is done with such numbers needs to know it.

    Args:
        name: of the optimizer's field, and of the column in tables.
        low, high, closed: the domain; ``closed`` names the ends that belong to it: "", "low", "high" or "both".
        default: what an optimizer without it has, as plain SGD has momentum 0; None: no number stands for that.
        scale: name of the line on which searches move, of :data:`SCALES`.
        search: between which coordinates on that line they look where no bounds are given.
        scan: how densely a first look samples it.
        can_be_free, can_be_schedule: whether it may be ``nqm.FREE``, or a :class:`nqm.Schedule`.
        is_memory: whether the optimizer remembers 1 / (1 - value) steps, of which more than a run has are of no use.
        amplifies_lr: whether steps in one direction add up to 1 / (1 - value) times one.
        help: a few words for the shell, before the domain.
        option: of the shell, without dashes; default: the name. metavar: what stands for its value there.

    >>> MOMENTUM.to_line(0.9) - MOMENTUM.to_line(0.0), float(MOMENTUM.from_line(0.0))
    (2.302585092994046, 0.0)
    """

    name: str
    low: float = 0.0
    high: float = 1.0
    closed: str = "low"
    default: float | None = None
    scale: str = "log1m"
    search: tuple[float, float] = (0.0, -math.log(1e-8))
    scan: Scan = USUAL
    can_be_free: bool = True
    can_be_schedule: bool = False
    is_memory: bool = False
    amplifies_lr: bool = False
    help: str = ""
    option: str = ""
    metavar: str = "X"

    @property
    def domain(self) -> str:
        """As an interval, such as "[0, 1)"."""
        opens, closes = "[" if self.closed in ("low", "both") else "(", "]" if self.closed in ("high", "both") else ")"
        return f"{opens}{self.low:g}, {self.high:g}{closes}"

    @property
    def limits(self) -> dict[str, Any]:
        """The domain, as checks of numbers take it."""
        return {"low": self.low, "high": self.high, "closed": self.closed}

    @property
    def neutral(self) -> float:
        """The default; without one a number from the middle of what is searched."""
        middle = 0.5 * (self.search[0] + self.search[1])
        return float(self.from_line(middle)) if self.default is None else self.default

    @property
    def inside(self) -> float:
        """A number inside the domain that is not the default."""
        return float(self.from_line(self.start(1.0)))

    def checked(self, value: Any) -> float | FloatArray | Schedule:
        """Numbers in the domain, as a float or a read-only array, or a schedule; TypeError or ValueError for others."""
        if isinstance(value, Schedule):
            if not self.can_be_schedule:
                scheduled = "only lr and batch_size can follow a schedule"
                raise TypeError(f"{self.name}: expected numbers, got {value}; {scheduled}")
            return value
        array = _checks.reals(value, self.name, **self.limits)
        if array.ndim == 0:
            return float(array)
        array.flags.writeable = False
        return array

    def to_line(self, value: float) -> float:
        """The coordinate in which searches move."""
        return SCALES[self.scale].to_line(value)

    def from_line(self, coordinate: Any) -> Any:
        """The value at coordinates."""
        return SCALES[self.scale].from_line(coordinate)

    def slope(self, value: float) -> float:
        """d value / d coordinate."""
        return float(SCALES[self.scale].slope(value))

    def span(self, value: float) -> float:
        """A width around ``value`` that stays inside the domain, for central differences."""
        return 0.5 * min(value - self.low, self.high - value)

    def start(self, level: float) -> float:
        """The coordinate of a memory of exp(level) steps; of what is no memory, inside of what is searched."""
        inset = 1e-6 * (self.search[1] - self.search[0])
        return level if self.is_memory else min(max(level, self.search[0] + inset), self.search[1] - inset)


LR: Final = Hyperparameter(
    "lr", high=math.inf, closed="", scale="log", search=(-36.0, 18.0), scan=Scan(46, 14, 1.6), can_be_schedule=True,
    help="learning rate", metavar="L",
)  # fmt: skip
"""Searched relative to the stability limit, on the line log(lr / (limit - lr)), to which ``search`` belongs; on
``scale`` inside given bounds."""

MOMENTUM: Final = Hyperparameter("momentum", default=0.0, is_memory=True, amplifies_lr=True, metavar="M")
POWER: Final = Hyperparameter(
    "power", closed="both", default=0.0, scale="linear", search=(0.0, 1.0), can_be_free=False,
    help="precondition by H^-P, P", metavar="P",
)  # fmt: skip
DECAY: Final = Hyperparameter(
    "decay", default=0.0, is_memory=True, help="decay of an average of the iterates,", option="ema", metavar="D"
)

STANDARD: Final = (LR, MOMENTUM, POWER, DECAY)
"""Those that every table has a column for, in their order."""


def free_names(more: tuple[Hyperparameter, ...] = ()) -> tuple[str, ...]:
    """Names of the standard hyperparameters that can be FREE, then of ``more``."""
    return tuple(dict.fromkeys(one.name for one in (*STANDARD, *more) if one.can_be_free))
