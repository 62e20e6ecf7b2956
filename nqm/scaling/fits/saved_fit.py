"""Fits as JSON files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from ..._checks import FloatArray
from ..._io import write_whole

__all__ = ["SavedFit"]


class SavedFit:
    """A fit that can be saved: ``theta``, the ``draws`` of its bootstrap, and what subclasses add.

    kind: what such files call themselves. count: of parameters.
    """

    kind: ClassVar[str]
    count: ClassVar[int]

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
