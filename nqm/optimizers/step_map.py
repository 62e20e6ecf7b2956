"""The linear filter of an optimizer, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._checks import FloatArray


@dataclass(frozen=True)
class Filter:
    """The linear filter of an optimizer, for arrays of hyperparameters of common shape ``S``.

    transition: (*S, 2, k, k) and gain: (*S, 2, k), high and low part along the axis of length 2.
    query, readout: (k,); start: k floats. fresh: (*S, 2), 1 - decay where the last state is an average of what the
    others read out (``readout`` then says which readout), else 0. scaled: k of 0 or 1, the states that are in units of
    lr, as a velocity is: where lr changes on the way, what goes on is the state divided by lr.
    """

    transition: FloatArray
    gain: FloatArray
    fresh: FloatArray
    query: FloatArray
    readout: FloatArray
    start: tuple[float, ...]
    scaled: tuple[int, ...]


def packed(
    transition: Any,
    gain: Any,
    query: Any,
    readout: Any,
    start: tuple[float, ...],
    fresh: Any = 0.0,
    scaled: tuple[int, ...] | None = None,
) -> Filter:
    """Stack numbers, arrays and (high, low) pairs into the arrays of a :class:`Filter`."""
    k = len(start)
    entries = [transition[i][j] for i in range(k) for j in range(k)] + [*gain, fresh]
    parts = [part for entry in entries for part in (entry if isinstance(entry, tuple) else (entry,))]
    shapes = {part.shape for part in parts if isinstance(part, np.ndarray)}
    shape = shapes.pop() if len(shapes) == 1 else np.broadcast_shapes(*shapes)
    packed = np.zeros((*shape, 2, k * k + k + 1))
    for column, entry in enumerate(entries):
        if isinstance(entry, tuple):
            packed[..., 0, column], packed[..., 1, column] = entry
        else:
            packed[..., 0, column] = entry
    return Filter(
        packed[..., : k * k].reshape(*shape, 2, k, k),
        packed[..., k * k : -1],
        packed[..., -1],
        np.array(query, dtype=float),
        np.array(readout, dtype=float),
        start,
        scaled or (0,) * k,
    )
