"""Statistics that every result takes the same way: critical batch sizes and the ends of intervals."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ._checks import FloatArray

__all__ = ["critical_batch_size", "interval"]


def critical_batch_size(batch_size: ArrayLike, steps: ArrayLike) -> float:
    """E_min / S_min in examples: fewest examples at any batch size over fewest steps at any batch size.

    McCandlish et al. (2018): where steps S and examples E trade off as (S / S_min - 1) (E / E_min - 1) = 1, training
    at this batch size takes twice both minima. batch_size, steps: (cells,). Cells that do not reach the target (inf or
    NaN) or start there (0 steps) say nothing; NaN where no other is left.

    >>> critical_batch_size([16, 256, 4096], [1600.0, 110.0, 40.0])
    640.0
    """
    batches, counts = np.asarray(batch_size, dtype=float), np.asarray(steps, dtype=float)
    told = np.isfinite(counts) & (counts > 0.0)
    if not told.any():
        return float("nan")
    return float((batches[told] * counts[told]).min() / counts[told].min())


def interval(draws: ArrayLike, level: float) -> FloatArray:
    """Ends, (2, ...), of the central interval of ``level`` along the first axis of bootstrap draws.

    Quantiles at (n + 1) p, as Weibull: of n draws, a new one lies between the i-th and the j-th with the chance
    (j - i) / (n + 1). Infinite draws (a target out of reach) give infinite ends, no draw at all NaN.

    >>> interval([1.0, 2.0, 3.0, 4.0], 0.6)
    array([1., 4.])
    """
    values = np.asarray(draws, dtype=float)
    if not len(values):
        return np.full((2, *values.shape[1:]), np.nan)
    with np.errstate(invalid="ignore"):  # between infinities
        found = np.quantile(values, [0.5 - 0.5 * level, 0.5 + 0.5 * level], axis=0, method="weibull")
    beyond = np.isnan(found) & ~np.isnan(values).any(axis=0)
    return np.where(beyond, np.inf, found)
