"""What all fits to final losses have in common: predictions, intervals and decisions from a loss over N, B and K."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, Final, overload

import numpy as np
from numpy.typing import ArrayLike

from ... import _checks, _statistics
from ..._checks import FloatArray
from ..decisions.allocation import best
from ..decisions.critical_batch_size import critical_batch_size
from ..decisions.fit import Fit, far_beyond
from ..decisions.frontier import frontier
from .bootstrap import stretch

__all__ = ["DRAWS", "LossLaw", "checked_runs"]

DRAWS: Final = 100  # of the bootstrap
SPARE: Final = 5  # settings beyond the number of parameters: with less, residuals do not tell the scatter


class LossLaw(Fit):
    """A fitted loss that predicts, with intervals and decisions.

    Subclasses have :meth:`losses` and ``runs`` (N, B, K, loss: read-only arrays of equal length, the loss in the data's
    unit, nats). count: of parameters.
    """

    seed: int
    count: ClassVar[int]

    @overload
    def predict(self, N: float, B: float, K: float) -> float: ...
    @overload
    def predict(self, N: ArrayLike, B: ArrayLike, K: ArrayLike) -> FloatArray: ...
    def predict(self, N: ArrayLike, B: ArrayLike, K: ArrayLike) -> float | FloatArray:
        """Expected loss of N parameters after K steps of B examples: a float, or an array of the common shape.

        Warns (UserWarning) where N, B or K, or the number of examples B K, is more than 10 times beyond the data.

        Raises:
            TypeError, ValueError: for anything but numbers > 0 whose shapes broadcast together.
        """
        N, B, K = self._sizes(N, B, K)
        loss = self.losses(N, B, K, draws=0)[0]
        return loss if loss.ndim else float(loss)

    @overload
    def interval(self, N: float, B: float, K: float, level: float = 0.9) -> tuple[float, float]: ...
    @overload
    def interval(
        self, N: ArrayLike, B: ArrayLike, K: ArrayLike, level: float = 0.9
    ) -> tuple[FloatArray, FloatArray]: ...
    def interval(
        self, N: ArrayLike, B: ArrayLike, K: ArrayLike, level: float = 0.9
    ) -> tuple[float, float] | tuple[FloatArray, FloatArray]:
        """(low, high) that hold the loss of a new run with a chance of ``level``.

        Quantiles of each bootstrap draw's log loss plus each of the fit's residuals, which are stretched by
        sqrt(n / (n - p)) for the p parameters that the n runs have been bent to. Says nothing of what the law itself
        gets wrong far outside the data. Arguments and errors as in :meth:`predict`; ``level`` in (0, 1).
        """
        N, B, K = self._sizes(N, B, K)
        level = _checks.real(level, "level", low=0.0, high=1.0)
        residuals = self.residuals * stretch(self.residuals.size, self.count)
        logs = np.log(self.losses(N, B, K)[1:])
        ends = np.empty((2, *logs.shape[1:]))
        for at in np.ndindex(logs.shape[1:]):  # draws * residuals numbers per point
            spread = np.add.outer(logs[(slice(None), *at)], residuals)
            ends[(slice(None), *at)] = _statistics.interval(spread.ravel(), level)
        low, high = np.exp(ends)
        return (low, high) if low.ndim else (float(low), float(high))

    @property
    def residuals(self) -> FloatArray:
        """log(loss / predicted) of each run."""
        runs = self.runs
        return np.asarray(np.log(runs["loss"] / self.losses(runs["N"], runs["B"], runs["K"], draws=0)[0]))

    @property
    def rms(self) -> float:
        """Root mean square of the residuals."""
        return float(np.sqrt(np.mean(self.residuals**2)))

    best = best
    frontier = frontier
    critical_batch_size = critical_batch_size

    def _sizes(self, N: Any, B: Any, K: Any) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Checked; a warning where they are far outside the data."""
        N, B, K = (_checks.reals(value, name, low=0.0) for name, value in (("N", N), ("B", B), ("K", K)))
        _checks.broadcast(N=N.shape, B=B.shape, K=K.shape)
        seen = {**self.runs, "B K": self.runs["B"] * self.runs["K"]}
        far = [
            f"{name} is {times:.3g} times beyond the {seen[name].min():.4g} to {seen[name].max():.4g} of the runs"
            for name, times in far_beyond(seen, {"N": N, "B": B, "K": K, "B K": B * K}).items()
        ]
        if far:
            warnings.warn(f"far outside the data: {'; '.join(far)}", UserWarning, stacklevel=3)
        return N, B, K


def checked_runs(
    N: ArrayLike,
    B: ArrayLike,
    K: ArrayLike,
    loss: ArrayLike,
    exclude: ArrayLike | None,
    parameters: int,
    min_steps: float = 0.0,
) -> dict[str, FloatArray]:
    """N, B, K, loss in a row, read-only, without the excluded, which may be anything; enough for so many parameters."""
    given = {name: np.asarray(value) for name, value in (("N", N), ("B", B), ("K", K), ("loss", loss))}
    shape = _checks.broadcast(**{name: value.shape for name, value in given.items()})
    kept = np.ones(shape, dtype=bool)
    if exclude is not None:
        left_out = np.asarray(exclude)
        if left_out.dtype != bool or left_out.shape != shape:
            raise ValueError(
                f"exclude: expected True or False for each of the runs, shape {shape}, got {_checks.describe(left_out)}"
            )
        kept = ~left_out
    if not kept.any():
        raise ValueError("expected runs, got none that are not excluded")
    runs = {name: _checks.reals(np.broadcast_to(value, shape)[kept], name, low=0.0) for name, value in given.items()}
    long = runs["K"] >= min_steps
    short = int((~long).sum())
    runs = {name: values[long] for name, values in runs.items()}
    settings = np.unique(np.stack([runs["N"], runs["B"], runs["K"]]), axis=1).shape[1]
    needed = parameters + SPARE
    if settings < needed:
        raise ValueError(
            f"expected runs at {needed} or more settings of N, B and K, for {parameters} parameters and the scatter, "
            f"got {settings}: add {needed - settings} or more"
            + (f" ({short} runs of less than min_steps={min_steps:g} steps are left out)" if short else "")
        )
    for values in runs.values():
        values.flags.writeable = False
    return runs
