"""What fits of the noisy quadratic have in common: intervals of their parameters, and JSON files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from ... import _checks, _statistics
from ..._checks import FloatArray
from ..._io import write_whole

__all__ = ["FittedModel"]


class FittedModel:
    """A fit with a ``theta``, (count,), and the ``draws`` of its bootstrap, (draws, count).

    kind: what its files call themselves. count: of parameters.
    """

    kind: ClassVar[str]
    count: ClassVar[int]
    draws: Any  # a cached property

    @property
    def parameters(self) -> dict[str, float]:
        """By name, as subclasses say."""
        raise NotImplementedError

    def parameter_intervals(self, level: float = 0.9) -> dict[str, tuple[float, float]]:
        """(low, high) of each parameter: quantiles of the bootstrap's draws."""
        level = _checks.real(level, "level", low=0.0, high=1.0)
        low, high = _statistics.interval(self._natural(self.draws), level)
        return {name: (float(a), float(b)) for name, a, b in zip(self.parameters, low, high, strict=True)}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the fit, its data and its bootstrap to a JSON file, whole or not at all.

        Raises:
            ValueError: for a schedule that is a function, which no file can hold.
        """
        text = json.dumps({"kind": self.kind, **self._to_json()})
        return write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what :meth:`save` wrote: the same predictions and intervals, to the bit.

        Raises:
            ValueError: for any other file.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            if data["kind"] != cls.kind:
                raise KeyError(data["kind"])
            theta, draws = _theta_and_draws(data, cls.count)
            fit = cls._from_json(data, theta)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: expected a file that {cls.__name__}.save wrote ({error})") from error
        fit.__dict__["draws"] = draws  # in place of the cached property
        return fit

    def _natural(self, theta: FloatArray) -> FloatArray:
        """Values of :attr:`parameters` in the last axis, of theta in the last axis."""
        raise NotImplementedError

    def _to_json(self) -> dict[str, Any]:
        """All that the file holds but its kind."""
        raise NotImplementedError

    @classmethod
    def _from_json(cls, data: Mapping[str, Any], theta: FloatArray) -> Self:
        raise NotImplementedError


def _theta_and_draws(data: Mapping[str, Any], parameters: int) -> tuple[FloatArray, FloatArray]:
    """Those of a saved fit, read-only; a ValueError where they are not such."""
    theta, draws = (np.array(data[name], dtype=float) for name in ("theta", "draws"))
    if theta.shape != (parameters,) or draws.shape[1:] != theta.shape or not draws.size:
        raise ValueError(f"theta of shape {theta.shape}, draws of shape {draws.shape}")
    if not (np.isfinite(theta).all() and np.isfinite(draws).all()):
        raise ValueError("numbers that are not finite")
    theta.flags.writeable = draws.flags.writeable = False
    return theta, draws
