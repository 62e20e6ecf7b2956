"""Something to train, the models that predict it from measured gradients, and its training, many runs at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import NoisyQuadratic, risk
from ..training.torch_optimizers import heavy_ball
from .moments import Floats, Plain, numbers_of

__all__ = ["LadderTask", "Model", "crossing", "models_of", "recorded", "train"]

RECORDED = 48
"""Steps recorded in a cell, at most about so many."""
NUMBERS_AT_ONCE = 2**22


@dataclass(frozen=True)
class Model:
    """A noisy quadratic at batch size B / spread: the noise of a batch is ``spread`` times the problem's."""

    problem: NoisyQuadratic
    spread: float = 1.0

    def risk(self, optimizer: Plain, batch_size: int, steps: NDArray[np.int64]) -> Floats:
        return np.asarray(risk(self.problem, optimizer, batch_size / self.spread, steps))


def models_of(
    curvature: Floats, at_optimum: Floats, at_start: Floats, start: Floats, excess: float | None = None
) -> dict[str, Model]:
    """Three models of the noise from single examples' gradients, in the eigenbasis of the Hessian.

    additive: C = that at the optimum, wherever theta is.
    gaussian: H (label noise + 2 L) + H d d^T H with label noise = tr C_* / tr H, so that the trace at the optimum
        is the measured one.
    matched: ``spread`` times that, with label noise and spread from the traces at the optimum and at the start,

        tr C_* = spread tr H label noise,   tr C_0 = spread (tr H (label noise + 2 L_0) + |H d_0|^2),

        which for elliptical features x = sqrt(u) g, E u = 1 has spread near E u^2; for k outputs with features of
        their own, near 1 / k. Left out where noise does not grow.

    curvature: (d,) > 0. at_optimum, at_start: gradients (N, d). start: distance from the optimum, (d,).
    excess: L_0 where the loss is no quadratic, so that noise grows with the loss as it was measured to.
    """
    noise, total = at_optimum.var(axis=0), float(curvature.sum())
    traces = float(noise.sum()), float(at_start.var(axis=0).sum())
    loss = 0.5 * float(curvature @ start**2) if excess is None else excess
    growth = 2.0 * total * loss + float(curvature**2 @ start**2)
    models = {"additive": Model(NoisyQuadratic(curvature, noise=noise, init=start**2))}
    spreads = {"gaussian": 1.0, "matched": (traces[1] - traces[0]) / growth}
    for name, spread in spreads.items():
        if spread > 0.0:
            label_noise = traces[0] / (spread * total)
            features = NoisyQuadratic(
                curvature, init=start**2, noise_model="gaussian-features", label_noise=label_noise
            )
            models[name] = Model(features, spread)
    return models


@dataclass(frozen=True)
class LadderTask:
    """Something to train from one start, and the models that predict it.

    models: by name. start: theta_0 (d,). gradient(theta (runs, d), chosen (runs, B)) -> mean gradients (runs, d);
    excess(theta (runs, d)) -> excess losses (runs,). examples: N. width: numbers that a run takes per example.
    exact(optimizer, batch_size, steps) -> expected excess, where it is known.
    target: excess loss whose steps are compared.
    """

    name: str
    models: Mapping[str, Model]
    headline: str
    start: Floats
    gradient: Callable[[Floats, NDArray[np.int64]], Floats]
    excess: Callable[[Floats], Floats]
    examples: int
    width: int
    target: float
    exact: Callable[[Plain, int, NDArray[np.int64]], Floats] | None = None

    @property
    def model(self) -> Model:
        return self.models[self.headline]


def train(
    task: LadderTask, optimizer: Plain, batch_size: int, steps: NDArray[np.int64], runs: int, seed: Sequence[int]
) -> Floats:
    """Excess losses (runs, times) of ``runs`` trainings, each of which draws its batches with replacement.

        v' = momentum v + g,   theta' = theta - lr v',   average' = decay average + (1 - decay) theta'

    The loss is that of the average, which is theta where decay = 0. A run that diverges has loss inf.
    """
    lr, momentum, decay = numbers_of(optimizer)
    generator = np.random.default_rng(list(seed))
    at_once = max(1, NUMBERS_AT_ONCE // (batch_size * task.width))
    times, last = {int(step): i for i, step in enumerate(steps)}, int(steps.max())
    losses = np.empty((runs, steps.size))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # divergence
        for first in range(0, runs, at_once):
            count = min(at_once, runs - first)
            theta = np.repeat(task.start[None], count, axis=0)
            velocity, average = np.zeros_like(theta), theta
            for step in range(last + 1):
                if step in times:
                    losses[first : first + count, times[step]] = task.excess(average)
                if step < last:
                    gradient = task.gradient(theta, generator.integers(0, task.examples, (count, batch_size)))
                    theta, velocity = heavy_ball(theta, gradient, velocity, lr, momentum)
                    average = theta if decay == 0.0 else decay * average + (1.0 - decay) * theta
    losses[~np.isfinite(losses)] = np.inf
    return losses


def recorded(last: int) -> NDArray[np.int64]:
    """All steps from 1 to ``last`` if they are few, else about as many in geometric progression."""
    if last <= RECORDED:
        return np.arange(1, last + 1)
    return np.unique(np.round(np.geomspace(1.0, last, RECORDED)).astype(np.int64))


def crossing(steps: NDArray[np.int64], losses: Floats, target: float) -> Any:
    """First step at which the loss is at most the target, by geometric interpolation between recorded steps.

    losses: (..., times), at ``steps`` (times,). Returns (...), inf where it is not reached.
    """
    reached = losses <= target
    found = np.argmax(reached, axis=-1)
    before = np.maximum(found - 1, 0)
    high = np.take_along_axis(losses, before[..., None], -1)[..., 0]
    low = np.take_along_axis(losses, found[..., None], -1)[..., 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(found > 0, np.log(high / target) / np.log(high / low), 1.0)
        share = np.where(np.isfinite(share), share, 1.0)  # from inf, it is reached in the last step
        between = steps[before] * (steps[found] / steps[before]) ** share
    return np.where(reached.any(axis=-1), np.ceil(np.round(between, 9)), np.inf)
