"""Learning rates and batch sizes that change from step to step.

A :class:`Schedule` is piecewise constant in the step t = 0, 1, 2, ...; the functions here make the usual shapes,
with the names and conventions of torch and optax. In all of them

- ``value`` > 0 is the value at step 0 (in :func:`wsd` the peak): a learning rate in units of 1 / curvature, or a batch
  size in examples;
- ``steps`` >= 1 is the length, at most 10^8 where the value changes at every step;
- ``end`` is a share: the schedule heads for end * value, which it would take at t = steps, one step after its last.
  Above 1 it grows, as batch sizes may;
- what is not a finite (whole) number in range is a TypeError or ValueError, and so are values beyond float64.
"""

from .schedule import Schedule, equal_lengths
from .shapes import constant, cosine, decaying, exponential, inverse_sqrt, linear, multistep, step, warmup, wsd

__all__ = [
    "Schedule",
    "constant",
    "cosine",
    "decaying",
    "equal_lengths",
    "exponential",
    "inverse_sqrt",
    "linear",
    "multistep",
    "step",
    "warmup",
    "wsd",
]
