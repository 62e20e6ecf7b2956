"""A loss curve: the loss at some steps of one training run, and the learning rate at every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ... import _checks
from ..._checks import FloatArray, IntArray
from ...schedules import Schedule

__all__ = ["Curves", "LossCurve", "named_curves", "per_step"]

Curves = Sequence["LossCurve"] | Mapping[str, "LossCurve"]


@dataclass(frozen=True, init=False, eq=False, repr=False)
class LossCurve:
    """One training run: the loss at some of its steps, and the learning rate at every step.

    Units are free, but one for all curves fitted together, and fits speak in them: of the loss (for language models
    mostly nats per token), of the learning rate, of the batch size (sequences, tokens). A step is one update of the
    weights.

    Args:
        steps: steps taken when the loss was measured, whole, increasing, from 1, (n,).
        loss: > 0, (n,); best a validation loss.
        lr: learning rate from the first step on, warm-up included: a :class:`nqm.Schedule`, or one entry per step, (at
            least ``steps[-1]``,), entry k for the step from k to k + 1.
        batch_size: examples per step, > 0, the same at all steps. 1 by default: then gradient noise is that of a batch.

    Attributes ``steps`` (int64), ``loss`` and ``lr`` (float64, one entry per step up to ``steps[-1]``) are read-only.

    Raises:
        TypeError, ValueError: for what is not that, or a schedule shorter than the steps.

    >>> import nqm
    >>> LossCurve([100, 200, 400], [3.0, 2.5, 2.2], nqm.schedules.constant(0.001, 400))
    LossCurve(3 losses, 3 to 2.2, at steps 100 to 400, lr 0.001)
    """

    steps: IntArray
    loss: FloatArray
    lr: FloatArray
    batch_size: float

    def __init__(self, steps: ArrayLike, loss: ArrayLike, lr: Schedule | ArrayLike, batch_size: float = 1.0) -> None:
        at = np.atleast_1d(_checks.wholes(steps, "steps", low=1))
        if at.ndim != 1:
            raise ValueError(f"steps: expected one row of steps, got shape {at.shape}")
        back = np.flatnonzero(np.diff(at) <= 0)
        if back.size:
            i = int(back[0])
            raise ValueError(f"steps: expected steps that increase, got {at[i]} and then {at[i + 1]} (entry {i + 1})")
        losses = np.atleast_1d(_checks.reals(loss, "loss", low=0.0, ndim=1))
        if losses.shape != at.shape:
            raise ValueError(f"loss: expected one for each of the {at.size} steps, got {losses.size}")
        rates = per_step(lr, int(at[-1]))
        if not rates.any():
            raise ValueError("lr: expected some learning rate above 0 before the last step, got only 0")
        object.__setattr__(self, "batch_size", _checks.real(batch_size, "batch_size", low=0.0))
        for name, array in (("steps", at), ("loss", losses), ("lr", rates)):
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def __repr__(self) -> str:
        n, batch = self.steps.size, "" if self.batch_size == 1.0 else f", batch size {self.batch_size:g}"
        low, high = self.lr[self.lr > 0.0].min(), self.lr.max()
        return (
            f"LossCurve({n} loss{'es' if n > 1 else ''}, {self.loss[0]:.4g} to {self.loss[-1]:.4g}, at steps "
            f"{self.steps[0]} to {self.steps[-1]}, lr {f'{low:.3g} to ' if low < high else ''}{high:.3g}{batch})"
        )


def per_step(schedule: Schedule | ArrayLike, steps: int) -> FloatArray:
    """The learning rate of each of the first ``steps`` steps, (steps,), of a Schedule or one entry per step."""
    if isinstance(schedule, Schedule):
        if schedule.beyond == "error" and schedule.steps < steps:
            raise ValueError(f"lr: a schedule shorter than the steps: {schedule.steps} steps, where {steps} are needed")
        _checks.room_for((steps,))
        cut = schedule.cut(steps)
        return np.repeat(cut.values, cut.lengths)
    rates = np.atleast_1d(_checks.reals(schedule, "lr", low=0.0, closed="low", ndim=1))
    if rates.size < steps:
        raise ValueError(
            f"lr: a schedule shorter than the steps: {rates.size} entries, one a step, where {steps} are needed"
        )
    return rates[:steps].copy()


def named_curves(curves: Any) -> dict[str, LossCurve]:
    """The curves by name; a sequence's are called curve 1, curve 2, ..."""
    if isinstance(curves, LossCurve):
        curves = [curves]
    if not isinstance(curves, (Mapping, Sequence)) or isinstance(curves, str):
        raise TypeError(f"curves: expected LossCurves, or a dict of them by name, got {_checks.describe(curves)}")
    given = dict(curves) if isinstance(curves, Mapping) else {f"curve {i + 1}": c for i, c in enumerate(curves)}
    if not given:
        raise ValueError("curves: expected at least one LossCurve, got none")
    for name, curve in given.items():
        _checks.instance(name, str, "curves", "names that are strings")
        _checks.instance(curve, LossCurve, f"curves[{name!r}]", "a nqm.scaling.LossCurve")
    return given
