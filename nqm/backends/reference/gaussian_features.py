"""Noise that grows with the loss: coordinates whose second moments feel each other."""

from __future__ import annotations

import numpy as np

from ..._checks import FloatArray
from ..types import MomentRecursion


@np.errstate(all="ignore")
def gaussian_features_steps(
    recursion: MomentRecursion, state: FloatArray, steps: int, target_risk: float, last: bool
) -> tuple[int, int]:
    """Take ``steps`` steps of a recursion of second moments, in place: (steps taken, answer).

    last = False: stops before the first step with risk <= target_risk, with the answer 1, else 0. last = True: goes on,
    and the answer is the number of steps taken when last above the target, plus one. target_risk < 0 looks for nothing.
    """
    answer = 0
    for taken in range(steps):
        if target_risk >= 0.0:
            above = not np.sum(recursion.readout @ state) <= target_risk  # NaN, from an overflow, lies above
            if last and above:
                answer = taken + 1
            if not last and not above:
                return taken, 1
        noise = recursion.label_noise + np.sum(recursion.level @ state)
        state += recursion.kick * noise - np.sum(recursion.decay * state, axis=1)
    return steps, answer
