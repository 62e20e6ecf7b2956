"""One plain run of one network, along which it is measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from torch import nn

from .ensemble import EnsembleRun
from .task import EXPLODED, Task
from .torch_optimizers import OPTIMIZERS
from .trials import Trial

__all__ = ["checkpoints", "reference_point"]

LR, BATCH_SIZE = 0.1, 256  # of the run
READ_EVERY = 10  # steps


def reference_point(
    task: Task, loss: float, *, seed: int = 0, lr: float = LR, batch_size: int = BATCH_SIZE, max_steps: int = 20_000
) -> nn.Module:
    """The network after plain SGD has brought its training loss, as :meth:`Task.read` takes it, down to ``loss``.

    Where to measure it: the quadratic that matters is the one around the loss's own minimum, not the start's, whose
    curvature is that of a network that knows nothing. One run at any learning rate well inside the stable range will
    do.

    Args:
        task: network and data; seed: of the start and the batches. lr, batch_size: of the run.
        loss: training loss at which to stop; half the target is a good choice.
        max_steps: to give up after.

    Raises ValueError where the loss is not reached in ``max_steps``, or diverges.
    """
    first = math.nan
    for step, run in _descent(task, seed, lr, batch_size, max_steps):
        if step % READ_EVERY == 0:
            now = float(run.read()["training loss"])
            first = now if step == 0 else first
            if not now <= EXPLODED * first:
                raise ValueError(f"reference_point: the run diverged at step {step}: expected a lower lr, got {lr:g}")
            if now <= loss:
                return run.net.module(run.theta[0])
    raise ValueError(
        f"reference_point: a training loss of {loss:g} is below what is reachable in {max_steps} steps of lr {lr:g}, "
        f"batch size {batch_size} (got {now:.4g}): expected a higher loss, more steps or another lr"
    )


def checkpoints(task: Task, steps: Sequence[int], *, seed: int = 0) -> dict[int, nn.Module]:
    """Copies of the network after these steps of :func:`reference_point`'s run, by step."""
    wanted = set(steps)
    if not wanted or not all(isinstance(step, int) and step >= 0 for step in wanted):
        raise ValueError(f"steps: expected whole numbers of at least 0, one or more, got {steps!r}")
    descent = _descent(task, seed, LR, BATCH_SIZE, max(wanted))
    return {step: run.net.module(run.theta[0]) for step, run in descent if step in wanted}


def _descent(task: Task, seed: int, lr: float, batch_size: int, steps: int) -> Iterator[tuple[int, EnsembleRun]]:
    """Plain SGD: the number of steps taken and the run, which goes on."""
    run = EnsembleRun(task, [Trial("SGD", batch_size, seed, {"lr": lr})], OPTIMIZERS["SGD"])
    yield 0, run
    for step in run.train(steps, at=range(steps)):
        yield step, run
