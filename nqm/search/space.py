"""Where tuning looks: coordinates for the free hyperparameters, in which log risk is about as wide everywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import _checks
from .._checks import FloatArray, IntArray
from .._risk import take_out_schedule
from ..dynamics.base import Dynamics
from ..dynamics.words import word_until
from ..optimizers import FREE, Hyperparameter, Optimizer
from ..schedules import Schedule

__all__ = ["HyperparameterSpace"]


class HyperparameterSpace:
    """Coordinates of the free hyperparameters of one optimizer on one problem, each on the line that it describes.

    lr: u = log(lr / (limit - lr)) with the stability limit of the others at hand, or log lr inside given bounds.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        bounds: Mapping[str, tuple[float, float]] | None,
        batch_size: float | Schedule,
    ) -> None:
        optimizer = dynamics.optimizer
        self.dynamics, self.optimizer, self.batch_size = dynamics, optimizer, batch_size
        self.names = optimizer.free
        self.described = [optimizer.described[name] for name in self.names]
        self.schedule, values = take_out_schedule(optimizer)
        self.fixed = {k: v for k, v in values.items() if v is not FREE}
        self.bounds = _checked_bounds({} if bounds is None else bounds, optimizer)
        ranges = [self._range(one) for one in self.described]
        self.low = np.array([low for low, _ in ranges])
        self.high = np.array([high for _, high in ranges])

    def _range(self, one: Hyperparameter) -> tuple[float, float]:
        if one.name in self.bounds:
            low, high = (one.to_line(end) for end in self.bounds[one.name])
            return low, high if math.isfinite(high) else one.search[1]
        if one.name == "lr":
            neutral = {other.name: other.neutral for other in self.described}
            limit = np.min(self.optimizer.stability_limit({**neutral, **self.fixed}))
            if not 0.0 < limit < math.inf:
                raise ValueError(
                    f'bounds: expected {{"lr": (low, high)}} for {self.optimizer}, which is '
                    f"{'never' if limit == 0.0 else 'always'} stable"
                )
        return one.search

    def values(self, points: FloatArray) -> dict[str, Any]:
        """Hyperparameters at points of shape (rows, free)."""
        values: dict[str, Any] = dict(self.fixed)
        for column, one in enumerate(self.described):
            if one.name == "lr" and one.name not in self.bounds:
                values[one.name] = points[:, column]  # needs the others first
                continue
            values[one.name] = one.from_line(points[:, column])
            if one.name in self.bounds:
                values[one.name] = np.clip(values[one.name], *self.bounds[one.name])
        if "lr" in self.names and "lr" not in self.bounds:
            values["lr"] = self._limit(values) / (1.0 + np.exp(-values["lr"]))
        return values

    def _limit(self, values: Mapping[str, Any]) -> Any:
        """The stability limit; with noise that grows with the loss that of the largest batch."""
        given = self.batch_size
        largest = float(given.values.max()) if isinstance(given, Schedule) else given
        return self.dynamics.stability_limit({k: v for k, v in values.items() if k != "lr"}, largest)

    def optimizer_at(self, point: FloatArray) -> Any:
        """The optimizer, of its own type, with the numbers of a point."""
        values = self.values(point[None, :])
        return self.optimizer.with_values(**{name: float(values[name][0]) for name in self.names})

    def risks(self, nodes: Dynamics, values: Mapping[str, Any], steps: int, count: int) -> FloatArray:
        """Risk after ``steps`` steps, one per row of values: (count,)."""
        if self.schedule is None and not isinstance(self.batch_size, Schedule):
            return nodes.risk(values, self.batch_size, np.full(count, steps))
        return self._along(nodes, values, np.array([steps]), count)[:, 0]

    def dyadic_risks(self, values: Mapping[str, Any], levels: int, count: int) -> FloatArray:
        """Risk after 2^j steps, on the coarsest rule: (count, levels)."""
        if self.schedule is None and not isinstance(self.batch_size, Schedule):
            return self.dynamics.dyadic_risk(values, self.batch_size, count, levels)
        return self._along(self.dynamics, values, 2 ** np.arange(levels), count)

    def _along(self, nodes: Dynamics, values: Mapping[str, Any], times: IntArray, count: int) -> FloatArray:
        given = self.batch_size
        size, batch_schedule = (1.0, given) if isinstance(given, Schedule) else (given, None)
        return nodes.risk_along(values, size, count, word_until(self.schedule, batch_schedule, times), times.size)

    def without(self, name: str) -> HyperparameterSpace:
        """The space with ``name`` fixed where it does nothing, or as near to that as its bounds allow."""
        value = self.optimizer.described[name].neutral
        if name in self.bounds:
            value = min(max(value, self.bounds[name][0]), self.bounds[name][1])
        bounds = {k: v for k, v in self.bounds.items() if k != name}
        return HyperparameterSpace(
            self.dynamics.under(self.optimizer.with_values(**{name: value})), bounds, self.batch_size
        )

    def within(self, name: str, point: FloatArray) -> FloatArray:
        """A point of :meth:`without` ``name`` as one of this space."""
        column = self.names.index(name)
        one = self.described[column]
        coordinate = np.clip(one.to_line(one.neutral), self.low[column], self.high[column])
        return np.insert(point, column, coordinate)


def _checked_bounds(bounds: Mapping[str, tuple[float, float]], optimizer: Optimizer) -> dict[str, tuple[float, float]]:
    _checks.instance(bounds, Mapping, "bounds", 'a dict such as {"lr": (1e-3, 1.0)}')
    checked = {}
    for name, pair in bounds.items():
        if name not in optimizer.free:
            names = ", ".join(optimizer.free)
            raise ValueError(f"bounds: expected names of free hyperparameters ({names}), got {name!r}")
        array = _checks.reals(pair, f"bounds[{name!r}]", ndim=1, **optimizer.described[name].limits)
        if array.shape != (2,) or not array[0] < array[1]:
            raise ValueError(f"bounds[{name!r}]: expected (low, high) with low < high, got {_checks.describe(pair)}")
        checked[name] = (float(array[0]), float(array[1]))
    return checked
